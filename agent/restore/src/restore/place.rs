//! The directories that a server is restored into: fresh ones only, marked until they are complete. Reads no archive.
//!
//! While the mark `outrider.restoring` is there the agent refuses the directory, and Postgres finds no control file.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::thread;

use crate::error::RestoreError;

/// The mark of a restore that did not finish. Its text names the tablespaces, one a line.
pub(super) const MARK: &str = "outrider.restoring";
/// The control file until all else is there.
pub(super) const CONTROL_MEANWHILE: &str = "global/pg_control.outrider-restoring";
/// PostgreSQL's control file, without which it does not start.
pub(super) const CONTROL: &str = "global/pg_control";
/// Threads that make files durable: each waits for the disk, none computes.
const SYNCING: usize = 8;

/// The data directory and the tablespaces of a restore that runs. The mark is locked as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) root: PathBuf,
    pub(super) tablespaces: Vec<PathBuf>,
    /// Who gets the files, when that is not this process's user.
    pub(super) owner: Option<(u32, u32)>,
    /// Directories that were not there before.
    made: Vec<PathBuf>,
    _lock: File,
}

impl Place {
    /// Takes `root` and the `tablespaces`, which must be absent or empty. With `again` the remains of a restore that did
    /// not finish are removed first.
    pub(super) fn claim(
        root: &Path,
        tablespaces: Vec<PathBuf>,
        owner: Option<(u32, u32)>,
        again: bool,
    ) -> Result<Self, RestoreError> {
        check_apart(root, &tablespaces)?;
        let owner = owner_of(root, owner)?;
        clear_or_refuse(root, again)?;
        for tablespace in &tablespaces {
            refuse_content(tablespace, "is not empty: name another place with --tablespace OLD=NEW")?;
        }
        let mut made = Vec::new();
        make_directory(root, owner, &mut made)?;
        let mark = root.join(MARK);
        let lock = write_mark(&mark, &tablespaces)?;
        let mut place = Place { root: root.to_owned(), tablespaces, owner, made, _lock: lock };
        if let Err(fault) = place.prepare() {
            place.remove_everything();
            return Err(fault);
        }
        Ok(place)
    }

    fn prepare(&mut self) -> Result<(), RestoreError> {
        // An agent, or another person, may have begun there at the same time.
        if names(&self.root)?.iter().any(|name| name != MARK) {
            return Err(RestoreError::InTheWay {
                path: self.root.clone(),
                fault: "is being filled by somebody else".to_owned(),
            });
        }
        for tablespace in self.tablespaces.clone() {
            make_directory(&tablespace, self.owner, &mut self.made)?;
            write_mark(&tablespace.join(MARK), &[])?;
        }
        Ok(())
    }

    /// Makes everything durable when it is to be, and then a data directory that can be started.
    pub(super) fn finish(self, durable: bool) -> Result<(), RestoreError> {
        if durable {
            self.tablespaces.iter().chain([&self.root]).try_for_each(|directory| sync_tree(directory))?;
        }
        let sync = |directory: &Path| if durable { sync_directory(directory) } else { Ok(()) };
        let failed = |act, path: &Path| {
            let path = path.to_owned();
            move |source| RestoreError::File { act, path, source }
        };
        let control = self.root.join(CONTROL);
        fs::rename(self.root.join(CONTROL_MEANWHILE), &control).map_err(failed("rename", &control))?;
        sync(&self.root.join("global"))?;
        // Those of the tablespaces last: as long as the one that names them is there, they show what may be removed.
        for directory in [&self.root].into_iter().chain(&self.tablespaces) {
            let mark = directory.join(MARK);
            fs::remove_file(&mark).map_err(failed("remove", &mark))?;
            sync(directory)?;
        }
        // The entry of a directory that was made is in the one above.
        self.made.iter().filter_map(|made| made.parent()).try_for_each(sync)
    }

    /// Removes what was written; whether nothing of it is left.
    pub(super) fn remove_everything(&self) -> bool {
        let emptied =
            self.tablespaces.iter().chain([&self.root]).all(|directory| remove_content(directory).is_ok());
        // Deepest first.
        emptied && self.made.iter().rev().all(|made| fs::remove_dir(made).is_ok())
    }
}

/// Refuses what is there, but for the remains of an unfinished restore when they shall go.
fn clear_or_refuse(root: &Path, again: bool) -> Result<(), RestoreError> {
    let refuse = |fault: &str| Err(RestoreError::InTheWay { path: root.to_owned(), fault: fault.to_owned() });
    let found = names(root)?;
    if found.iter().any(|name| name == "postmaster.pid") {
        return refuse("holds a running or crashed Postgres: restore into a fresh directory");
    }
    if !found.iter().any(|name| name == MARK) {
        return refuse_content(root, "is not empty: restore into a fresh directory");
    }
    let mark = root.join(MARK);
    let failed = |source| RestoreError::File { act: "read", path: mark.clone(), source };
    let lock = File::open(&mark).map_err(failed)?;
    if lock.try_lock().is_err() {
        return refuse("is being restored by another process");
    }
    if !again {
        return refuse(
            "holds a restore that did not finish: remove it, or let it be removed with --overwrite-half",
        );
    }
    let text = fs::read_to_string(&mark).map_err(failed)?;
    for tablespace in text.lines().filter(|line| line.starts_with('/')).map(Path::new) {
        // Only what carries the mark itself was written by that restore.
        if tablespace.join(MARK).exists() {
            remove_content(tablespace).map_err(|source| RestoreError::File {
                act: "empty",
                path: tablespace.to_owned(),
                source,
            })?;
        }
    }
    remove_content(root).map_err(|source| RestoreError::File { act: "empty", path: root.to_owned(), source })
}

fn refuse_content(directory: &Path, fault: &str) -> Result<(), RestoreError> {
    if names(directory)?.is_empty() {
        return Ok(());
    }
    Err(RestoreError::InTheWay { path: directory.to_owned(), fault: fault.to_owned() })
}

/// The names in a directory; none when it is not there.
fn names(directory: &Path) -> Result<Vec<std::ffi::OsString>, RestoreError> {
    let failed = |source| RestoreError::File { act: "read", path: directory.to_owned(), source };
    match fs::read_dir(directory) {
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.file_name()).map_err(failed))
            .collect(),
    }
}

/// A tablespace in the data directory, or in another one, would be written twice.
fn check_apart(root: &Path, tablespaces: &[PathBuf]) -> Result<(), RestoreError> {
    for (place, tablespace) in tablespaces.iter().enumerate() {
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        let alone = |other: &&Path| tablespace.starts_with(other) || other.starts_with(tablespace);
        let others = tablespaces[..place].iter().map(PathBuf::as_path).chain([root]);
        let fault = if !tablespace.is_absolute() || !tablespace.components().all(plain) {
            "is not an absolute path: name a place for this tablespace with --tablespace OLD=NEW".to_owned()
        } else if let Some(other) = others.clone().find(alone) {
            format!("overlaps with {}: name another place with --tablespace OLD=NEW", other.display())
        } else {
            continue;
        };
        return Err(RestoreError::InTheWay { path: tablespace.clone(), fault });
    }
    Ok(())
}

/// Who gets the files: the one who is named, else, for root, the owner of the directory or of the one above.
fn owner_of(root: &Path, named: Option<(u32, u32)>) -> Result<Option<(u32, u32)>, RestoreError> {
    let failed = |source| RestoreError::File { act: "look at", path: root.to_owned(), source };
    let us = fs::metadata("/proc/self").map_err(failed)?.uid();
    if us != 0 {
        return Ok(None);
    }
    let found = root.ancestors().find_map(|directory| fs::metadata(directory).ok());
    match named.or(found.map(|found| (found.uid(), found.gid()))) {
        Some((user, group)) if user != 0 => Ok(Some((user, group))),
        Some(_) | None => Err(RestoreError::InTheWay {
            path: root.to_owned(),
            fault: "would belong to root, for whom Postgres does not run: name its user with --owner"
                .to_owned(),
        }),
    }
}

fn make_directory(
    path: &Path,
    owner: Option<(u32, u32)>,
    made: &mut Vec<PathBuf>,
) -> Result<(), RestoreError> {
    let failed = |source| RestoreError::File { act: "make", path: path.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => made.push(path.to_owned()),
        Err(fault) if fault.kind() == ErrorKind::AlreadyExists && path.is_dir() => {
            // What pg_ctl and the agent demand of it.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(path, mode).map_err(failed)?;
        }
        Err(source) => return Err(failed(source)),
    }
    if let Some((user, group)) = owner {
        std::os::unix::fs::chown(path, Some(user), Some(group)).map_err(failed)?;
    }
    Ok(())
}

fn write_mark(path: &Path, tablespaces: &[PathBuf]) -> Result<File, RestoreError> {
    let failed = |source| RestoreError::File { act: "write", path: path.to_owned(), source };
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.try_lock().map_err(|fault| failed(fault.into()))?;
    let lines: String = tablespaces.iter().map(|tablespace| format!("{}\n", tablespace.display())).collect();
    let text = format!("This directory must not be started: a restore into it has not finished.\n{lines}");
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    sync_directory(path.parent().unwrap_or(Path::new("/")))?;
    Ok(file)
}

/// Empties a directory and keeps it: it may be where a volume is mounted. The mark goes last.
fn remove_content(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != MARK {
            fs::remove_file(entry.path())?;
        }
    }
    match fs::remove_file(directory.join(MARK)) {
        Err(fault) if fault.kind() != ErrorKind::NotFound => Err(fault),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes all files and directories below durable.
fn sync_tree(top: &Path) -> Result<(), RestoreError> {
    let (mut files, mut directories, mut next) = (Vec::new(), vec![top.to_owned()], 0);
    while let Some(directory) = directories.get(next).cloned() {
        next += 1;
        let failed = |source| RestoreError::File { act: "read", path: directory.clone(), source };
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    sync_all(&files)?;
    sync_all(&directories)
}

fn sync_all(paths: &[PathBuf]) -> Result<(), RestoreError> {
    let share = paths.len().div_ceil(SYNCING).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = paths
            .chunks(share)
            .map(|paths| scope.spawn(|| paths.iter().try_for_each(|path| sync_directory(path))))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| {
                let path = paths.first().cloned().unwrap_or_default();
                Err(RestoreError::File { act: "sync", path, source: io::Error::other("a thread panicked") })
            })
        })
    })
}

/// Of a file, too.
fn sync_directory(path: &Path) -> Result<(), RestoreError> {
    let synced = File::open(path).and_then(|opened| opened.sync_all());
    synced.map_err(|source| RestoreError::File { act: "sync", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
