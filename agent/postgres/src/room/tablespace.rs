//! The tablespaces of old data: where they are, whether their content is PostgreSQL's, and how they are moved aside or
//! emptied. Their directories stay where they are, as each may be a volume of its own.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::{REPLACED, disk, has_suffix, remove_all, remove_content, with_reserve, with_suffix};
use crate::directory::RESTORING;
use crate::error::Error;

/// The targets of the links of `data`. Tablespaces inside the data directory are not links and belong to the data.
pub(super) fn linked(data: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(links(data)?.into_iter().map(|(_, place)| place).collect())
}

/// Each link with its target.
fn links(data: &Path) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
    let directory = data.join("pg_tblspc");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let entries = match fs::read_dir(&directory) {
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed(&directory))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed(&directory))?;
        let path = entry.path();
        if entry.file_type().map_err(failed(&path))?.is_symlink() {
            let place = fs::read_link(&path).map_err(failed(&path))?;
            found.push((path, place));
        }
    }
    Ok(found)
}

/// Refuses a place for a tablespace if anything in it is not PostgreSQL's, or not this member's.
pub(super) fn refuse_foreign(place: &Path, is_ours: bool) -> Result<(), Error> {
    let names = names(place)?;
    let foreign = names.iter().find(|name| !is_of_postgres(name));
    let why = match (foreign, names.is_empty() || is_ours) {
        (Some(name), _) => format!("holds {name}, which is not PostgreSQL's"),
        (None, false) => "is not empty, and nothing says that its content belongs to this member".to_owned(),
        (None, true) => return Ok(()),
    };
    let problem = format!(
        "the cluster has a tablespace in {}, which {why}: empty it, and the copy is retried",
        place.display()
    );
    Err(Error::Room { problem })
}

/// Moves the tablespaces that the data in `aside` still links at their old place: each moves to a sibling named
/// `.replaced`, and its link with it. One that cannot be moved, or for which there is no room, is removed with its link.
pub(super) fn move_rest_aside(aside: &Path) -> Result<(), Error> {
    for (link, place) in links(aside)?.into_iter().filter(|(_, place)| !has_suffix(place, REPLACED)) {
        let to = with_suffix(&place, REPLACED);
        let failed = |source| Error::MoveAside { path: place.clone(), aside: to.clone(), source };
        let obstacle = match obstacle(&place)? {
            Some(obstacle) => obstacle,
            None => match move_content(&place, &to) {
                Ok(()) => {
                    relink(&link, &to).map_err(failed)?;
                    warn!(from = %place.display(), to = %to.display(), "moved an old tablespace aside");
                    continue;
                }
                Err(fault) => fault.to_string(),
            },
        };
        warn!(tablespace = %place.display(), obstacle, "the old tablespace cannot be kept beside the new: removing it");
        empty(&place)?;
        remove_all(&to)?;
        fs::remove_file(&link).map_err(failed)?;
    }
    Ok(())
}

/// Removes what PostgreSQL or a restore wrote there.
pub(super) fn empty(place: &Path) -> Result<(), Error> {
    remove_content(place, is_of_postgres)
}

/// Why the old tablespace cannot be kept beside the new one.
fn obstacle(place: &Path) -> Result<Option<String>, Error> {
    if names(place)?.is_empty() {
        return Ok(None);
    }
    let (size, free) = (disk::size(place)?, disk::free(place)?);
    let lacks = free < with_reserve(size);
    Ok(lacks.then(|| format!("no room: {} MiB free, {} MiB needed", free >> 20, size >> 20)))
}

/// Continues an interrupted move.
fn move_content(place: &Path, to: &Path) -> io::Result<()> {
    match fs::create_dir(to) {
        Err(fault) if fault.kind() != ErrorKind::AlreadyExists => return Err(fault),
        Ok(()) | Err(_) => {}
    }
    let entries = match fs::read_dir(place) {
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if is_of_postgres(&entry.file_name().to_string_lossy()) {
            let moved = to.join(entry.file_name());
            // From an older copy; this one is newer.
            match fs::remove_dir_all(&moved) {
                Err(fault) if fault.kind() != ErrorKind::NotFound => return Err(fault),
                Ok(()) | Err(_) => fs::rename(entry.path(), moved)?,
            }
        }
    }
    Ok(())
}

fn relink(link: &Path, to: &Path) -> io::Result<()> {
    let fresh = with_suffix(link, ".new");
    match fs::remove_file(&fresh) {
        Err(fault) if fault.kind() != ErrorKind::NotFound => return Err(fault),
        Ok(()) | Err(_) => {}
    }
    symlink(to, &fresh)?;
    fs::rename(&fresh, link)
}

/// `PG_15_202209061`, one directory per version; or the mark of a restore.
fn is_of_postgres(name: &str) -> bool {
    let version = name.strip_prefix("PG_").and_then(|rest| rest.split_once('_'));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    version.is_some_and(|(version, catalog)| digits(version) && digits(catalog)) || name == RESTORING
}

fn names(place: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Read { path: place.to_owned(), source };
    let entries = match fs::read_dir(place) {
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(failed))
        .collect()
}
