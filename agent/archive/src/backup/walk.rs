//! Walks through a data directory or a tablespace and names what belongs into a base backup. Reads no file.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::BackupError;
use super::exclude::{self, Relation, Verdict};

/// A file or directory that belongs into the backup.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Relative to where the walk began; empty for that itself.
    pub(crate) path: PathBuf,
    /// Where it is.
    pub(crate) source: PathBuf,
    /// When it was found. A file may have grown or shrunk since.
    pub(crate) metadata: Metadata,
    /// For a file of a relation.
    pub(crate) relation: Option<Relation>,
}

/// Is called for each entry, a directory before what is in it.
pub(crate) trait Visitor {
    fn visit(&mut self, entry: Entry) -> Result<(), BackupError>;
}

/// Walks through the data directory. `global/pg_control`, files that exist only while the server runs, and the links of
/// tablespaces are left out.
pub(crate) fn data_directory(root: &Path, visitor: &mut impl Visitor) -> Result<(), BackupError> {
    let metadata = fs::metadata(root).map_err(|source| unreadable(root, source))?;
    visitor.visit(Entry { path: PathBuf::new(), source: root.to_owned(), metadata, relation: None })?;
    Walk { root, visitor }.directory(Path::new(""))
}

/// Walks through a tablespace; only through the directory of this version of PostgreSQL, such as `PG_15_202209061`.
pub(crate) fn tablespace(
    location: &Path,
    version: &str,
    visitor: &mut impl Visitor,
) -> Result<(), BackupError> {
    let mut walk = Walk { root: location, visitor };
    walk.entry(Path::new(""), OsStr::new(version), Verdict::Keep, &HashSet::new())
}

struct Walk<'a, V> {
    root: &'a Path,
    visitor: &'a mut V,
}

impl<V: Visitor> Walk<'_, V> {
    fn directory(&mut self, path: &Path) -> Result<(), BackupError> {
        let parent = path.as_os_str().as_bytes();
        let unlogged = if exclude::holds_relations(parent) { self.unlogged(path)? } else { HashSet::new() };
        let mut entries = match self.read(path)? {
            Some(entries) => entries,
            None => return Ok(()),
        };
        while let Some(entry) =
            entries.next().transpose().map_err(|e| unreadable(&self.root.join(path), e))?
        {
            let name = entry.file_name();
            let verdict = exclude::verdict(parent, name.as_bytes());
            self.entry(path, &name, verdict, &unlogged)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        parent: &Path,
        name: &OsStr,
        verdict: Verdict,
        unlogged: &HashSet<u32>,
    ) -> Result<(), BackupError> {
        if verdict == Verdict::Skip {
            return Ok(());
        }
        let path = parent.join(name);
        let source = self.root.join(&path);
        let found = if parent.as_os_str().is_empty() && verdict != Verdict::Keep {
            // Where pg_wal is a link, the copy has a directory (basebackup.c).
            fs::metadata(&source)
        } else {
            fs::symlink_metadata(&source)
        };
        let metadata = match found {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(&source, error)),
        };
        if metadata.is_dir() {
            self.visitor.visit(Entry { path: path.clone(), source, metadata, relation: None })?;
            return match verdict {
                Verdict::Keep => self.directory(&path),
                Verdict::Wal => self.wal_directories(&path),
                Verdict::Empty | Verdict::Skip => Ok(()),
            };
        }
        // Links (of tablespaces), sockets and pipes are no part of the copy.
        if !metadata.is_file() {
            return Ok(());
        }
        let relation = if exclude::holds_relations(parent.as_os_str().as_bytes()) {
            let name = name.as_bytes();
            let relation = exclude::relation(name);
            let is_unlogged =
                relation.is_some_and(|found| !found.is_init && unlogged.contains(&found.number));
            if is_unlogged || exclude::is_temporary_relation(name) {
                return Ok(());
            }
            relation
        } else {
            None
        };
        self.visitor.visit(Entry { path, source, metadata, relation })
    }

    /// The relations whose init fork is here: they are emptied after recovery, so only that fork is copied.
    fn unlogged(&self, path: &Path) -> Result<HashSet<u32>, BackupError> {
        let mut found = HashSet::new();
        for entry in self.read(path)?.into_iter().flatten() {
            let entry = entry.map_err(|error| unreadable(&self.root.join(path), error))?;
            let relation = exclude::relation(entry.file_name().as_bytes());
            found.extend(relation.filter(|relation| relation.is_init).map(|relation| relation.number));
        }
        Ok(found)
    }

    fn wal_directories(&mut self, path: &Path) -> Result<(), BackupError> {
        for entry in self.read(path)?.into_iter().flatten() {
            let entry = entry.map_err(|error| unreadable(&self.root.join(path), error))?;
            if exclude::is_wal_directory(entry.file_name().as_bytes()) {
                self.entry(path, &entry.file_name(), Verdict::Empty, &HashSet::new())?;
            }
        }
        Ok(())
    }

    /// `None` when the directory is gone: its database was dropped, and replay will know.
    fn read(&self, path: &Path) -> Result<Option<fs::ReadDir>, BackupError> {
        match fs::read_dir(self.root.join(path)) {
            Ok(entries) => Ok(Some(entries)),
            Err(error) if error.kind() == ErrorKind::NotFound && !path.as_os_str().is_empty() => Ok(None),
            Err(error) => Err(unreadable(&self.root.join(path), error)),
        }
    }
}

fn unreadable(path: &Path, source: io::Error) -> BackupError {
    BackupError::Read { path: path.to_owned(), source }
}
