//! Reads `global/pg_control` whole while the server rewrites it. Interprets nothing in it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::BackupError;

/// Bytes that are in use at most (PostgreSQL, pg_control.h, PG_CONTROL_MAX_SAFE_SIZE).
const SAFE_SIZE: usize = 512;
/// How often it is read until it is whole: a write of 8 kB takes microseconds.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// The file's bytes, with a checksum that is right. Blocks.
pub(crate) fn read(data_directory: &Path) -> Result<Vec<u8>, BackupError> {
    let path = data_directory.join("global/pg_control");
    for _ in 0..TRIES {
        let bytes = fs::read(&path).map_err(|source| BackupError::Read { path: path.clone(), source })?;
        if is_whole(&bytes) {
            return Ok(bytes);
        }
        std::thread::sleep(PAUSE);
    }
    let source = io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong");
    Err(BackupError::Read { path, source })
}

/// Whether somewhere in the used part stands the CRC-32C of all before: the structure ends with it, and its size differs
/// from version to version.
fn is_whole(bytes: &[u8]) -> bool {
    let used = &bytes[..bytes.len().min(SAFE_SIZE)];
    (64..used.len().saturating_sub(3)).step_by(4).any(|end| {
        let stored = u32::from_ne_bytes([used[end], used[end + 1], used[end + 2], used[end + 3]]);
        stored != 0 && crc32c::crc32c(&used[..end]) == stored
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_file_is_noticed() {
        let mut bytes = vec![7u8; 8192];
        let sum = crc32c::crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&sum.to_ne_bytes());
        assert!(is_whole(&bytes));
        bytes[100] ^= 1;
        assert!(!is_whole(&bytes) && !is_whole(&[]) && !is_whole(&[0; 8192]));
    }
}
