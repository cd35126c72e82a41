//! Small files, replaced as a whole and durably, so that a crash leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Replaces the file, unless it already has exactly this content.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let same = fs::read(path).is_ok_and(|old| old == text.as_bytes())
        && fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o777 == mode);
    if same {
        return Ok(());
    }
    write(path, text, mode).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let fresh = beside(path);
    // It needs its mode from the start; an existing one would keep its own.
    drop(fs::remove_file(&fresh));
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_directory(path)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".outrider-new");
    path.with_file_name(name)
}

/// Makes changes to names in the file's directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes the file; a missing one is not an error.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path).map_err(failed),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed(source)),
    }
}

/// Its content; `None` when it does not exist.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}
