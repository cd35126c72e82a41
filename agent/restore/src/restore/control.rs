//! What a restored control file says of the server that wrote the WAL. Only the few fields that a restore needs.

use std::path::Path;

use super::place::CONTROL_MEANWHILE;
use crate::error::RestoreError;

/// Where the five settings of `ControlFileData` lie that a hot standby must have at least as much of (pg_control.h), alike in
/// PostgreSQL 15 to 18: `MaxConnections` and what follows, whose order [`super::settings::HOT_STANDBY`] has.
const SETTINGS: usize = 180;
/// `pg_control_version` lies behind the system identifier.
const VERSION: usize = 8;
/// Of 15 and 16, 17, and 18.
const VERSIONS: [u32; 3] = [1300, 1700, 1800];
/// None of them can be set higher (guc_tables.c, MAX_BACKENDS).
const MOST: u32 = 0x3F_FFFF;

/// The least that a hot standby needs, while the control file has not got its name yet.
pub(super) fn least(data_directory: &Path) -> Result<[u32; 5], RestoreError> {
    let path = data_directory.join(CONTROL_MEANWHILE);
    let bytes = std::fs::read(&path).map_err(|source| RestoreError::File { act: "read", path, source })?;
    read(&bytes).map_err(|fault| RestoreError::Damaged { object: "global/pg_control".to_owned(), fault })
}

fn read(bytes: &[u8]) -> Result<[u32; 5], String> {
    let number = |at: usize| -> Result<u32, String> {
        let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
        four.map(u32::from_ne_bytes).ok_or_else(|| "it is too short".to_owned())
    };
    let version = number(VERSION)?;
    if !VERSIONS.contains(&version) {
        return Err(format!("it is of the version {version}, which is not known"));
    }
    let mut least = [0; 5];
    for (place, value) in least.iter_mut().enumerate() {
        *value = number(SETTINGS + 4 * place)?;
        if *value > MOST {
            return Err(format!("its setting {place} is {value}"));
        }
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_read_and_nonsense_is_refused() {
        let mut bytes = vec![0; 296];
        bytes[8..12].copy_from_slice(&1300_u32.to_ne_bytes());
        for (place, value) in [100_u32, 8, 10, 0, 64].iter().enumerate() {
            bytes[SETTINGS + 4 * place..][..4].copy_from_slice(&value.to_ne_bytes());
        }
        assert_eq!(read(&bytes), Ok([100, 8, 10, 0, 64]));
        assert!(read(&bytes[..190]).is_err());
        bytes[8] = 1;
        assert!(read(&bytes).is_err());
    }
}
