//! Writes the files of a base backup where they belong, and checks each against the manifest. Unpacks nothing.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::place::{CONTROL, CONTROL_MEANWHILE, MARK};
use super::untar::{Entries, Part};
use crate::error::RestoreError;
use crate::manifest::{Manifest, Stated};

/// Files of the server that was backed up and that mean something else to the new one. Links to tablespaces are made
/// from what `backup.info` says: by `tablespace_map` Postgres would make them anew, to the old places.
const LEFT_OUT: [&str; 7] = [
    "postmaster.pid",
    "postmaster.opts",
    "standby.signal",
    "recovery.signal",
    "recovery.conf",
    "tablespace_map",
    MARK,
];
/// What PostgreSQL wants to find, also when a backup has left out the empty ones (initdb.c, `subdirs`).
const DIRECTORIES: [&str; 14] = [
    "global",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
    "pg_twophase",
    "pg_tblspc",
    "pg_stat",
    "pg_stat_tmp",
    "pg_replslot",
];

/// Less than that at once is left to the end: most files are small, and many of them lie side by side then.
const STORED_EARLY_MIN: usize = 1 << 20;

/// What the threads of one restore share. Each file is written by who has its bytes; what all of them write to is here.
#[derive(Debug, Default)]
pub(super) struct Shared {
    manifest: Option<Manifest>,
    owner: Option<(u32, u32)>,
    /// Nothing is to be made durable.
    no_sync: bool,
    /// Paths of the manifest that were written and are right.
    seen: Mutex<HashSet<Vec<u8>>>,
    /// Entries that were not taken over, for people.
    left_out: Mutex<Vec<String>>,
    pub(super) bytes: AtomicU64,
    pub(super) files: AtomicU64,
    /// The others need not go on.
    pub(super) stop: AtomicBool,
}

impl Shared {
    pub(super) fn new(manifest: Option<Manifest>, owner: Option<(u32, u32)>, no_sync: bool) -> Self {
        Shared { manifest, owner, no_sync, ..Shared::default() }
    }

    /// What of the manifest never came.
    pub(super) fn check_complete(&self) -> Result<(), RestoreError> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |path: &&[u8]| !seen.contains(*path) && !is_left_out(path);
        match manifest.paths().find(wanted) {
            None => Ok(()),
            Some(path) => Err(RestoreError::Damaged {
                object: "set of tars".to_owned(),
                fault: format!("{} is in backup_manifest and in no tar", String::from_utf8_lossy(path)),
            }),
        }
    }

    pub(super) fn left_out(&self) -> Vec<String> {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn leave_out(&self, path: &Path) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        // A backup has a handful at most; a million would be of no use to anybody.
        if left_out.len() < 100 {
            left_out.push(path.display().to_string());
        }
    }
}

fn is_left_out(path: &[u8]) -> bool {
    LEFT_OUT.iter().any(|name| name.as_bytes() == path)
}

/// Where the entries of one tar go.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    /// The tar's object, for messages.
    pub(super) object: String,
    /// The directory.
    pub(super) root: PathBuf,
    /// What stands before the paths in the manifest: `pg_tblspc/<oid>/` for a tablespace, else nothing.
    pub(super) prefix: String,
    pub(super) shared: Arc<Shared>,
}

impl Destination {
    fn is_data_directory(&self) -> bool {
        self.prefix.is_empty()
    }

    /// Makes what Postgres wants to find and no tar had.
    pub(super) fn complete_directories(&self) -> Result<(), RestoreError> {
        DIRECTORIES.into_iter().try_for_each(|directory| self.make(&self.root.join(directory)))
    }

    /// A file of our own in it, such as `recovery.signal`.
    pub(super) fn write_own(&self, name: &str, text: &[u8]) -> Result<(), RestoreError> {
        let path = self.root.join(name);
        let written = create(&path, true, self.shared.owner).and_then(|file| file.write_all_at(text, 0));
        written.map_err(|source| cannot("write", &path, source))
    }

    pub(super) fn make(&self, path: &Path) -> Result<(), RestoreError> {
        let failed = |source| cannot("make", path, source);
        if path.is_dir() || path == self.root {
            return Ok(());
        }
        self.make(path.parent().unwrap_or(&self.root))?;
        DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
        match self.shared.owner {
            None => Ok(()),
            Some((user, group)) => std::os::unix::fs::chown(path, Some(user), Some(group)).map_err(failed),
        }
    }
}

/// A file that is being written, perhaps by several threads.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    path: PathBuf,
    /// Its path in the manifest.
    name: Vec<u8>,
    object: String,
    size: u64,
    stated: Option<Stated>,
    parts: Mutex<Parts>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Parts {
    bytes: u64,
    /// Where each begins, its length and its CRC-32C.
    sums: Vec<(u64, usize, u32)>,
}

impl Entries for Destination {
    type File = Arc<Output>;
    type Error = RestoreError;

    fn directory(&mut self, path: &Path) -> Result<(), RestoreError> {
        self.make(&self.root.join(path))
    }

    fn file(&mut self, path: &Path, size: u64) -> Result<Option<Arc<Output>>, RestoreError> {
        let name = [self.prefix.as_bytes(), path.as_os_str().as_bytes()].concat();
        if self.is_data_directory() && is_left_out(&name) {
            self.shared.leave_out(path);
            return Ok(None);
        }
        let control = self.is_data_directory() && path == Path::new(CONTROL);
        let path = self.root.join(if control { Path::new(CONTROL_MEANWHILE) } else { path });
        let stated = self.shared.manifest.as_ref().and_then(|manifest| manifest.get(&name));
        if let Some(stated) = stated
            && stated.size != size
        {
            let fault = format!(
                "{} has {size} bytes, by backup_manifest it has {}",
                String::from_utf8_lossy(&name),
                stated.size
            );
            return Err(RestoreError::Damaged { object: self.object.clone(), fault });
        }
        if let Some(parent) = path.parent() {
            self.make(parent)?;
        }
        let file = create(&path, false, self.shared.owner).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => RestoreError::Damaged {
                object: self.object.clone(),
                fault: format!("it holds {} twice", String::from_utf8_lossy(&name)),
            },
            _ => cannot("make", &path, source),
        })?;
        let (object, shared) = (self.object.clone(), self.shared.clone());
        let output = Output { file, path, name, object, size, stated, parts: Mutex::default(), shared };
        if size == 0 {
            output.finish(Vec::new())?;
            return Ok(None);
        }
        Ok(Some(Arc::new(output)))
    }

    fn other(&mut self, path: &Path) -> Result<(), RestoreError> {
        // The links to tablespaces and to a pg_wal elsewhere are replaced by our own; others lead out of the directory.
        if self.is_data_directory() && !path.starts_with("pg_tblspc") && path != Path::new("pg_wal") {
            self.shared.leave_out(path);
        }
        Ok(())
    }
}

/// Writes the parts of a piece to their files.
pub(super) fn write(
    piece: &[u8],
    parts: Vec<Part<Arc<Output>>>,
    shared: &Shared,
) -> Result<(), RestoreError> {
    for part in parts {
        part.file.write(part.at, &piece[part.range])?;
    }
    shared.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
    Ok(())
}

impl Output {
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), RestoreError> {
        self.file.write_all_at(bytes, at).map_err(|source| cannot("write", &self.path, source))?;
        self.begin_to_store(at, bytes.len());
        let wanted = self.stated.is_some_and(|stated| stated.crc32c.is_some());
        let sum = if wanted { crc32c::crc32c(bytes) } else { 0 };
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.bytes += bytes.len() as u64;
        parts.sums.push((at, bytes.len(), sum));
        if parts.bytes == self.size {
            let sums = std::mem::take(&mut parts.sums);
            drop(parts);
            return self.finish(sums);
        }
        Ok(())
    }

    /// Lets the disk begin with these bytes. Else the system keeps gigabytes of them to itself until all are there and
    /// are to be made durable, and the disk does nothing meanwhile.
    fn begin_to_store(&self, at: u64, length: usize) {
        let worth_it = length >= STORED_EARLY_MIN && !self.shared.no_sync;
        if let (true, length) = (worth_it, NonZeroU64::new(length as u64)) {
            // Of all that Linux has for it this is the one with a safe call: it first writes what was changed, and drops
            // from memory only what is on the disk already. Where it does nothing, all is written at the end.
            let _ = rustix::fs::fadvise(&self.file, at, length, rustix::fs::Advice::DontNeed);
        }
    }

    /// Every byte was written: are they the right ones?
    fn finish(&self, mut sums: Vec<(u64, usize, u32)>) -> Result<(), RestoreError> {
        sums.sort_unstable();
        let joined = |sum, (_, length, next): (u64, usize, u32)| crc32c::crc32c_combine(sum, next, length);
        if let Some(stated) = self.stated.and_then(|stated| stated.crc32c)
            && sums.into_iter().fold(0, joined) != stated
        {
            return Err(RestoreError::Damaged {
                object: self.object.clone(),
                fault: format!(
                    "{} does not match its checksum in backup_manifest",
                    String::from_utf8_lossy(&self.name)
                ),
            });
        }
        self.shared.files.fetch_add(1, Ordering::Relaxed);
        if self.stated.is_some() {
            let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.insert(self.name.clone());
        }
        Ok(())
    }
}

/// A new file that only its owner can read. `replace` says whether one may be there.
fn create(path: &Path, replace: bool, owner: Option<(u32, u32)>) -> io::Result<File> {
    if replace && let Err(fault) = fs::remove_file(path) {
        match fault.kind() {
            ErrorKind::NotFound => {}
            _ => return Err(fault),
        }
    }
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some((user, group)) = owner {
        fchown(&file, Some(user), Some(group))?;
    }
    Ok(file)
}

pub(super) fn cannot(act: &'static str, path: &Path, source: io::Error) -> RestoreError {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => RestoreError::DiskFull { path, removed: false },
        _ => RestoreError::File { act, path, source },
    }
}

#[cfg(test)]
mod tests;
