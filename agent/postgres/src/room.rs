//! Makes room for new data: the old data is moved aside with its tablespaces, or emptied in place if it cannot be moved or
//! there is no room for both. The owner of a tablespace is verified before anything is touched. Copies nothing.
//!
//! The data directory is renamed first: from then on its links to tablespaces, in the copy aside, say what is still to be
//! moved, and a link that leads to `.replaced` says that it was. Where the content is removed instead, the mark of the clone is
//! written first, so that what is left of the old data is never started.

mod disk;
mod tablespace;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::directory::{self, Directory, RESTORING, Work, inspect};
use crate::error::Error;
use crate::file;
use crate::settings::Settings;

use self::disk::Room;

/// Suffix of old data that was moved aside.
const REPLACED: &str = ".replaced";
/// Share added to an estimated size: for WAL written meanwhile, and the file system's own needs.
const RESERVE_PART: u64 = 10;

/// The new data.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coming {
    /// Where its tablespaces will be.
    pub(crate) tablespaces: Vec<PathBuf>,
    /// Its size without them; `None` when unknown.
    pub(crate) bytes: Option<u64>,
}

/// Makes room in the data directory and in the tablespaces of the new data, and marks `work` as begun. Remains of unfinished
/// work are removed. Data that may still have value is moved aside, to `<data directory>.replaced`, and one such copy is kept;
/// where that is not possible, it is removed.
///
/// # Errors
/// Before anything is touched: when a tablespace holds what is not ours, or the new data would not fit even then. Later, when
/// the disk fails; then it has to be tried again.
pub(crate) fn make_room(settings: &Settings, work: Work, coming: &Coming) -> Result<(), Error> {
    let data = &settings.data_directory;
    let aside = with_suffix(data, REPLACED);
    let found = inspect(settings)?;
    if let Directory::Refused(problem) = found {
        return Err(Error::Room { problem });
    }
    let ours = tablespaces(settings, &aside)?;
    for place in &coming.tablespaces {
        tablespace::refuse_foreign(place, ours.contains(place))?;
    }
    let all: BTreeSet<PathBuf> = ours.iter().chain(&coming.tablespaces).cloned().collect();
    let all: Vec<PathBuf> = all.into_iter().collect();
    match found {
        Directory::Empty => {}
        Directory::HalfInitialized | Directory::HalfCloned => empty_data(data)?,
        Directory::Complete | Directory::HalfRewound => clear(settings, &aside, &all, coming)?,
        Directory::Refused(problem) => return Err(Error::Room { problem }),
    }
    tablespace::move_rest_aside(&aside)?;
    all.iter().try_for_each(|place| tablespace::empty(place))?;
    make_more_room(data, &aside, coming)?;
    Work::forget_all(settings)?;
    work.begin(settings, &all)
}

/// Removes this path and everything below it, if it exists.
pub(crate) fn remove_all(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Write { path: path.to_owned(), source }),
    }
}

/// Removes old data: moved aside, or deleted.
fn clear(settings: &Settings, aside: &Path, all: &[PathBuf], coming: &Coming) -> Result<(), Error> {
    let data = &settings.data_directory;
    let room = Room::look(data, aside, &tablespace::linked(data)?, coming.bytes)?;
    if let Some(problem) = room.hopeless() {
        return Err(Error::Room { problem });
    }
    let obstacle = match room.obstacle() {
        Some(obstacle) => obstacle,
        None => match move_aside(data, aside) {
            Ok(()) => return Ok(()),
            Err(Error::MoveAside { source, .. }) => source.to_string(),
            Err(fault) => return Err(fault),
        },
    };
    warn!(
        data = %data.display(),
        obstacle,
        "the old data cannot be kept beside the new data: removing it"
    );
    // From here on the remains must not be started.
    Work::Clone.begin(settings, all)?;
    remove_aside(data, aside)?;
    empty_data(data)
}

fn move_aside(data: &Path, aside: &Path) -> Result<(), Error> {
    remove_aside(data, aside)?;
    let failed = |source| Error::MoveAside { path: data.to_owned(), aside: aside.to_owned(), source };
    fs::rename(data, aside).and_then(|()| file::sync_directory(data)).map_err(failed)?;
    warn!(from = %data.display(), to = %aside.display(), "moved the old data aside; remove it when it is not needed");
    Ok(())
}

/// Removes an earlier copy moved aside, with its tablespaces and its WAL, wherever they are.
fn remove_aside(data: &Path, aside: &Path) -> Result<(), Error> {
    for place in tablespace::linked(aside)?.into_iter().filter(|place| has_suffix(place, REPLACED)) {
        remove_all(&place)?;
    }
    let wal = |directory: &Path| fs::read_link(directory.join("pg_wal")).ok();
    if let Some(linked) = wal(aside).filter(|linked| wal(data).as_ref() != Some(linked)) {
        remove_wal(&linked)?;
    }
    remove_all(aside)
}

/// Removes the copy left by an earlier clone if there is no room for this one.
fn make_more_room(data: &Path, aside: &Path, coming: &Coming) -> Result<(), Error> {
    let exists = aside.try_exists().map_err(|source| Error::Read { path: aside.to_owned(), source })?;
    if !exists {
        return Ok(());
    }
    let needed = match coming.bytes {
        Some(bytes) => bytes,
        None => disk::size(aside)?,
    };
    if disk::free(data)? >= with_reserve(needed) {
        return Ok(());
    }
    warn!(path = %aside.display(), needed, "no room for the new data beside the old: removing the old");
    remove_aside(data, aside)
}

fn with_reserve(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / RESERVE_PART)
}

/// The tablespaces this member may empty: those that the data, or the copy aside, links to; those that unfinished work named
/// before it wrote there; those that an unfinished restore named and marked.
fn tablespaces(settings: &Settings, aside: &Path) -> Result<BTreeSet<PathBuf>, Error> {
    let data = &settings.data_directory;
    let mut ours: BTreeSet<PathBuf> = tablespace::linked(data)?.into_iter().collect();
    ours.extend(tablespace::linked(aside)?.into_iter().filter(|place| !has_suffix(place, REPLACED)));
    ours.extend(directory::places_of_unfinished_work(settings)?);
    let text = file::read_if_there(&data.join(RESTORING))?.unwrap_or_default();
    let named = text.lines().filter(|line| line.starts_with('/')).map(PathBuf::from);
    ours.extend(named.filter(|place| place.join(RESTORING).exists()));
    Ok(ours)
}

/// Empties the data directory but keeps it: it may be a mount point, or a link. WAL that it links to is removed too.
fn empty_data(data: &Path) -> Result<(), Error> {
    if let Ok(wal) = fs::read_link(data.join("pg_wal")) {
        remove_wal(&wal)?;
    }
    remove_content(data, |_| true)
}

/// Removes what PostgreSQL wrote into a WAL directory elsewhere.
fn remove_wal(directory: &Path) -> Result<(), Error> {
    remove_content(directory, |name| {
        let numbered = name.len() >= 8 && name.bytes().take(8).all(|byte| byte.is_ascii_hexdigit());
        numbered || name.starts_with("xlogtemp.") || matches!(name, "archive_status" | "summaries")
    })
}

/// Removes the entries of a directory for which `goes` holds, and keeps the directory itself.
fn remove_content(path: &Path, goes: impl Fn(&str) -> bool) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if !goes(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if entry.file_type().map_err(failed)?.is_dir() {
            remove_all(&entry.path())?;
        } else {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.as_os_str().to_string_lossy().ends_with(suffix)
}

#[cfg(test)]
mod tests;
