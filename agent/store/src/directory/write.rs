//! Writes, replaces and removes the files of a directory store, durably. Each call is blocking.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{TEMPORARY, absent_is_none};
use crate::backoff::random;
use crate::{Payload, Replaced, Stored, Version};

/// The file that is locked while an object is replaced, in the root. Locks die with their process.
const LOCK: &str = ".outrider-lock";

/// Writes a temporary file beside the object, makes it durable and gives it the object's name.
pub(super) fn put_if_absent(root: &Path, path: &Path, body: &Payload) -> io::Result<Stored> {
    let directory = parent(root, path)?;
    if path.try_exists()? {
        return settle(path, directory);
    }
    let temporary = temporary(directory);
    let written = write_durably(&temporary, body).and_then(|()| name_it(&temporary, path, directory));
    remove_quietly(&temporary, written)
}

/// Writes the object over what is there.
pub(super) fn put(root: &Path, path: &Path, body: &Payload) -> io::Result<()> {
    exchange(root, path, body, |_| true).map(drop)
}

/// Writes the object over the one that was `seen`.
pub(super) fn replace(root: &Path, path: &Path, body: &Payload, seen: &Version) -> io::Result<Replaced> {
    exchange(root, path, body, |found| found.is_some_and(|found| version(found) == *seen))
}

/// Removes the object, which may be gone already.
pub(super) fn delete(root: &Path, path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(root);
    if !directory.is_dir() {
        return Ok(());
    }
    {
        let _lock = lock(root)?;
        absent_is_none(fs::remove_file(path))?;
    }
    File::open(directory)?.sync_all()
}

/// One state of a file.
pub(super) fn version(found: &fs::Metadata) -> Version {
    let (seconds, nanoseconds) = (found.mtime(), found.mtime_nsec());
    Version(format!("{}-{seconds}.{nanoseconds:09}-{}", found.len(), found.ino()))
}

/// The time that the file system uses when it writes a file.
pub(super) fn time(root: &Path) -> io::Result<SystemTime> {
    make_directories(root)?;
    let temporary = temporary(root);
    let written = File::create_new(&temporary).and_then(|file| file.metadata()?.modified());
    remove_quietly(&temporary, written)
}

/// The directory of an object, created if missing.
pub(super) fn parent<'a>(root: &'a Path, path: &'a Path) -> io::Result<&'a Path> {
    let directory = path.parent().unwrap_or(root);
    make_directories(directory)?;
    Ok(directory)
}

/// A name for a file that is not an object yet.
pub(super) fn temporary(directory: &Path) -> PathBuf {
    directory.join(format!("{TEMPORARY}{:016x}.tmp", random()))
}

/// Links a durable file under the object's name: link(2) fails when the name is taken, so of two writers one wins, and
/// no reader sees half an object. The temporary name stays.
pub(super) fn name_it(temporary: &Path, path: &Path, directory: &Path) -> io::Result<Stored> {
    match fs::hard_link(temporary, path) {
        Ok(()) => {
            File::open(directory)?.sync_all()?;
            Ok(Stored::Created)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => settle(path, directory),
        Err(error) => Err(error),
    }
}

pub(super) fn write_durably(path: &Path, body: &Payload) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    for piece in body.pieces() {
        file.write_all(piece)?;
    }
    file.sync_all()
}

/// Renames a new file over the object if `wanted` accepts the old one.
fn exchange(
    root: &Path,
    path: &Path,
    body: &Payload,
    wanted: impl FnOnce(Option<&fs::Metadata>) -> bool,
) -> io::Result<Replaced> {
    let directory = parent(root, path)?;
    let temporary = temporary(directory);
    let exchanged = write_durably(&temporary, body).and_then(|()| {
        let _lock = lock(root)?;
        let found = absent_is_none(fs::metadata(path))?;
        if !wanted(found.as_ref()) {
            return Ok(Replaced::Changed);
        }
        if let Some(found) = &found {
            grow_younger(&temporary, found)?;
        }
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()?;
        Ok(Replaced::Done)
    });
    if matches!(exchanged, Ok(Replaced::Done)) {
        return exchanged;
    }
    remove_quietly(&temporary, exchanged)
}

/// Gives the new file a later time than the old one: the system's ticks are coarse, and versions must differ.
fn grow_younger(new: &Path, old: &fs::Metadata) -> io::Result<()> {
    let after = old.modified()? + Duration::from_nanos(1);
    if fs::metadata(new)?.modified()? >= after {
        return Ok(());
    }
    let file = File::open(new)?;
    file.set_modified(after)?;
    file.sync_all()
}

/// Waits until no other process is replacing an object.
fn lock(root: &Path) -> io::Result<File> {
    let path = root.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o640).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Removes a temporary name that is no longer needed, whatever the outcome.
fn remove_quietly<T>(temporary: &Path, result: io::Result<T>) -> io::Result<T> {
    let removed = absent_is_none(fs::remove_file(temporary));
    let result = result?;
    removed?;
    Ok(result)
}

/// Whoever wrote the object may have died before it made it durable, so this caller does.
fn settle(path: &Path, directory: &Path) -> io::Result<Stored> {
    File::open(path)?.sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok(Stored::AlreadyThere)
}

/// Makes the missing directories from the top and writes each into its parent for good.
fn make_directories(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().ok_or(ErrorKind::NotFound)?;
    make_directories(parent)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    File::open(parent)?.sync_all()
}
