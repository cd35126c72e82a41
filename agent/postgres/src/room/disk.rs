//! How much space old data takes, how much its volume has left, and whether both the old and the new data fit. Changes
//! nothing.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::with_reserve;
use crate::error::Error;

/// Findings about the place of the data.
pub(super) struct Room {
    /// Free bytes in the volume of the data directory.
    free: u64,
    /// Size of the new data.
    needed: u64,
    /// Whether that comes from its source rather than from the size of the old data.
    is_told: bool,
    /// Free bytes once all old data is gone.
    at_most: u64,
    /// Why it cannot be renamed.
    fixed: Option<String>,
    data: PathBuf,
}

impl Room {
    /// Examines the data, the copy in `aside`, and the tablespaces on the same volume.
    pub(super) fn look(
        data: &Path,
        aside: &Path,
        tablespaces: &[PathBuf],
        coming: Option<u64>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: data.to_owned(), source };
        let own = size(data)?;
        let before = size(aside)?;
        let free = free(data)?;
        let device = fs::metadata(data).map_err(failed)?.dev();
        let shares = |path: &Path| fs::metadata(path).is_ok_and(|found| found.dev() == device);
        let mut needed = coming.unwrap_or(own);
        let mut old = own;
        for tablespace in tablespaces.iter().filter(|tablespace| shares(tablespace)) {
            let bytes = size(tablespace)?;
            needed = needed.saturating_add(bytes);
            old = old.saturating_add(bytes);
        }
        let parent = data.parent().unwrap_or(Path::new("/"));
        let fixed = if fs::symlink_metadata(data).map_err(failed)?.is_symlink() {
            Some("it is a symbolic link".to_owned())
        } else if !shares(parent) {
            Some("it is a volume of its own".to_owned())
        } else {
            None
        };
        // An earlier copy is removed before this one takes its name.
        let free = if fixed.is_none() { free.saturating_add(before) } else { free };
        let at_most = free.saturating_add(old);
        Ok(Room { free, needed, is_told: coming.is_some(), at_most, fixed, data: data.to_owned() })
    }

    /// Why the old data cannot be kept beside the new data.
    pub(super) fn obstacle(&self) -> Option<String> {
        let needed = with_reserve(self.needed);
        let full = || format!("no room: {} MiB free, about {} MiB needed", self.free >> 20, needed >> 20);
        self.fixed.clone().or_else(|| (self.free < needed).then(full))
    }

    /// Why the new data would not even fit in place of the old data, which must then stay.
    pub(super) fn hopeless(&self) -> Option<String> {
        (self.is_told && self.at_most < self.needed).then(|| {
            format!(
                "{} has no room for the cluster: {} MiB free without the old data, {} MiB needed; nothing was touched",
                self.data.display(),
                self.at_most >> 20,
                self.needed >> 20
            )
        })
    }
}

/// Free space in the volume of `path`, or of the nearest existing directory above it.
pub(super) fn free(path: &Path) -> Result<u64, Error> {
    let there = path.ancestors().find(|directory| directory.exists()).unwrap_or(Path::new("/"));
    let disk = rustix::fs::statvfs(there)
        .map_err(|fault| Error::Read { path: there.to_owned(), source: io::Error::from(fault) })?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Size of the files below `path`, without following links; 0 when it does not exist.
pub(super) fn size(path: &Path) -> Result<u64, Error> {
    let mut bytes = 0u64;
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        let failed = |source| Error::Read { path: directory.clone(), source };
        let entries = match fs::read_dir(&directory) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Ok(found) = entry.metadata() else { continue };
            bytes = bytes.saturating_add(found.blocks().saturating_mul(512));
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_data_stays_beside_the_new_only_where_both_have_room() {
        let room = |free, is_told| Room {
            free,
            needed: 100,
            is_told,
            at_most: free + 80,
            fixed: None,
            data: "/data".into(),
        };
        assert_eq!(room(110, true).obstacle(), None);
        assert!(room(109, true).obstacle().unwrap().contains("no room"));
        assert_eq!(room(20, true).hopeless(), None);
        assert!(room(19, true).hopeless().unwrap().contains("nothing was touched"));
        assert_eq!(room(19, false).hopeless(), None, "what nobody said is tried");
    }
}
