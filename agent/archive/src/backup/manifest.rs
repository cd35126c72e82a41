//! Writes `backup_manifest` as PostgreSQL does (backup_manifest.c), so that `pg_verifybackup` reads it. Hashes no file.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use jiff::Timestamp;
use outrider_wal::{Lsn, TimelineId};
use sha2::{Digest as _, Sha256};

/// The manifest on its way: each call gives the next piece of text.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    sum: Sha256,
    files: u64,
    bytes: u64,
}

/// What the manifest says of itself.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) text: String,
    pub(crate) checksum: String,
    /// Of the whole manifest.
    pub(crate) bytes: u64,
}

impl Manifest {
    pub(crate) fn begin(&mut self) -> String {
        self.hashed("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [".to_owned())
    }

    /// A file whose content has this CRC-32C. The path is relative to the data directory.
    pub(crate) fn file(&mut self, path: &Path, size: u64, modified: i64, crc32c: u32) -> String {
        let comma = if self.files == 0 { "\n" } else { ",\n" };
        self.files += 1;
        let bytes = path.as_os_str().as_bytes();
        let name = std::str::from_utf8(bytes).map_or_else(
            |_| {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("\"Encoded-Path\": \"{digits}\"")
            },
            |text| format!("\"Path\": {}", serde_json::Value::from(text)),
        );
        let modified = Timestamp::from_second(modified).unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S GMT");
        // PostgreSQL prints the checksum's bytes as they lie in memory: little endian wherever it runs today.
        let checksum = format!("{:08x}", crc32c.swap_bytes());
        self.hashed(format!(
            "{comma}{{ {name}, \"Size\": {size}, \"Last-Modified\": \"{modified}\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{checksum}\" }}"
        ))
    }

    /// The WAL that a restore replays at least, and the end.
    pub(crate) fn end(mut self, timeline: TimelineId, start: Lsn, stop: Lsn) -> Ending {
        let mut text = self.hashed(format!(
            "\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": {}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{stop}\" }}\n],\n",
            timeline.get()
        ));
        let checksum = format!("{:x}", self.sum.finalize());
        // Writing to a string cannot fail.
        let last = format!("\"Manifest-Checksum\": \"{checksum}\"}}\n");
        let _ = write!(text, "{last}");
        Ending { text, checksum, bytes: self.bytes + last.len() as u64 }
    }

    fn hashed(&mut self, text: String) -> String {
        self.sum.update(&text);
        self.bytes += text.len() as u64;
        text
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn the_text_is_postgresqls() {
        let mut manifest = Manifest::default();
        let mut text = manifest.begin();
        text += &manifest.file(Path::new("base/1/\"odd\""), 5, 1_600_000_000, 0x0102_0304);
        text += &manifest.file(Path::new(OsStr::from_bytes(b"\xff/x")), 0, 0, 0);
        let ending = manifest.end(TimelineId::new(3), Lsn::new(0x1_0000_0028), Lsn::new(0x1_0000_0100));
        text += &ending.text;
        assert_eq!(text.len() as u64, ending.bytes);
        let expected = r#"{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "base/1/\"odd\"", "Size": 5, "Last-Modified": "2020-09-13 12:26:40 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "04030201" },
{ "Encoded-Path": "ff2f78", "Size": 0, "Last-Modified": "1970-01-01 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }
],
"WAL-Ranges": [
{ "Timeline": 3, "Start-LSN": "1/28", "End-LSN": "1/100" }
],
"#;
        let (before, last) = text.split_once("\"Manifest-Checksum").unwrap();
        assert_eq!(before, expected);
        assert_eq!(last, format!("\": \"{:x}\"}}\n", Sha256::digest(expected)));
    }
}
