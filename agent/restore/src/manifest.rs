//! The `backup_manifest` of a base backup: which files it has, how long they are, and their checksums. Reads no file.
//!
//! Its form is PostgreSQL's (docs, "Backup Manifest Format"), version 1 of PostgreSQL 13 to 16 and 2 of later ones.

use std::collections::HashMap;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// What is known of each file of a base backup, by its path in the data directory, where a tablespace's files are below
/// `pg_tblspc/<oid>/`.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    files: HashMap<Vec<u8>, Stated>,
}

/// What a manifest states of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stated {
    pub(crate) size: u64,
    /// `None` when it has another kind of checksum.
    pub(crate) crc32c: Option<u32>,
}

#[derive(Deserialize)]
struct Text {
    #[serde(rename = "Files")]
    files: Vec<File>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    checksum_algorithm: Option<String>,
    checksum: Option<String>,
}

impl Manifest {
    /// Reads it, and checks its own checksum.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        check_own(bytes)?;
        let text: Text = serde_json::from_slice(bytes).map_err(|fault| fault.to_string())?;
        let mut files = HashMap::with_capacity(text.files.len());
        for file in text.files {
            let path = match (file.path, file.encoded_path) {
                (Some(path), _) => path.into_bytes(),
                (None, Some(digits)) => hexadecimal(&digits).ok_or("an Encoded-Path is not hexadecimal")?,
                (None, None) => return Err("a file has no path".to_owned()),
            };
            let crc32c = match (file.checksum_algorithm.as_deref(), &file.checksum) {
                (Some("CRC32C"), Some(digits)) => Some(crc32c(digits).ok_or("a CRC32C has not 8 digits")?),
                (Some(_), _) | (None, _) => None,
            };
            files.insert(path, Stated { size: file.size, crc32c });
        }
        Ok(Manifest { files })
    }

    pub(crate) fn get(&self, path: &[u8]) -> Option<Stated> {
        self.files.get(path).copied()
    }

    /// The paths of its files, in no order.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.files.keys().map(Vec::as_slice)
    }
}

/// The last line holds the SHA-256 of all lines before it.
fn check_own(bytes: &[u8]) -> Result<(), String> {
    let mark = b"\"Manifest-Checksum\"";
    let at =
        bytes.windows(mark.len()).rposition(|window| window == mark).ok_or("it has no Manifest-Checksum")?;
    let stated = bytes[at..].split(|byte| *byte == b'"').nth(3).ok_or("its Manifest-Checksum is cut off")?;
    let found = format!("{:x}", Sha256::digest(&bytes[..at]));
    if found.as_bytes().eq_ignore_ascii_case(stated) {
        Ok(())
    } else {
        Err("it does not match its own Manifest-Checksum".to_owned())
    }
}

/// The bytes in memory order, as PostgreSQL prints them: on our machines the lowest first.
fn crc32c(digits: &str) -> Option<u32> {
    let bytes: [u8; 4] = hexadecimal(digits)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(files: &str) -> Vec<u8> {
        let body = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{files}\n],\n\"WAL-Ranges\": [\n],\n"
        );
        let sum = format!("{:x}", Sha256::digest(body.as_bytes()));
        format!("{body}\"Manifest-Checksum\": \"{sum}\"}}\n").into_bytes()
    }

    const FILES: &str = concat!(
        "{ \"Path\": \"PG_VERSION\", \"Size\": 3, \"Last-Modified\": \"2026-11-24 15:00:00 GMT\", ",
        "\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"8a744722\" },\n",
        "{ \"Encoded-Path\": \"626173e9\", \"Size\": 9, \"Last-Modified\": \"x\" },\n",
        "{ \"Path\": \"base/1/2\", \"Size\": 8192, \"Checksum-Algorithm\": \"SHA224\", \"Checksum\": \"00\" }"
    );

    #[test]
    fn files_are_read_with_their_checksums() {
        let manifest = Manifest::read(&signed(FILES)).unwrap();
        let version = Stated { size: 3, crc32c: Some(u32::from_ne_bytes([0x8a, 0x74, 0x47, 0x22])) };
        assert_eq!(manifest.get(b"PG_VERSION"), Some(version));
        assert_eq!(manifest.get(b"bas\xe9"), Some(Stated { size: 9, crc32c: None }));
        assert_eq!(manifest.get(b"base/1/2"), Some(Stated { size: 8192, crc32c: None }));
        assert_eq!(manifest.paths().count(), 3);
    }

    #[test]
    fn the_checksum_of_version_15_is_that_of_its_file() {
        // From a manifest that PostgreSQL 15 wrote.
        assert_eq!(crc32c::crc32c(b"15\n"), crc32c("8a744722").unwrap());
    }

    #[test]
    fn a_changed_or_truncated_manifest_is_an_error() {
        let good = signed(FILES);
        let mut changed = good.clone();
        changed[90] ^= 1;
        assert!(Manifest::read(&changed).is_err());
        for length in [0, 1, good.len() / 2, good.len() - 40] {
            assert!(Manifest::read(&good[..length]).is_err(), "{length}");
        }
        assert!(Manifest::read(&signed("{ \"Path\": \"x\" }")).is_err());
        assert!(Manifest::read(&signed("{ \"Encoded-Path\": \"6\", \"Size\": 1 }")).is_err());
    }
}
