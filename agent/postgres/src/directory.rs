//! The data directory on disk: its content, whether it may be touched, and the marks of unfinished work. Decides nothing;
//! starts no program.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use outrider_wal::{TimelineHistory, TimelineId};

use crate::error::Error;
use crate::file;
use crate::journal;
use crate::settings::Settings;

/// What is at the path of the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directory {
    /// Nothing.
    Empty,
    /// A data directory, complete as far as can be seen.
    Complete,
    /// `initdb` did not finish.
    HalfInitialized,
    /// A clone did not finish.
    HalfCloned,
    /// `pg_rewind` did not finish.
    HalfRewound,
    /// Must not be touched, with the reason.
    Refused(String),
}

/// Name of the mark in the data directory and its tablespaces while `outrider restore` fills them.
pub(crate) const RESTORING: &str = "outrider.restoring";
/// Name of a mark in the state directory.
const UNRECORDED: &str = "unrecorded";

/// Work that leaves the data directory unusable until it is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnfinishedWork {
    Initialize,
    Clone,
    Rewind,
}

impl UnfinishedWork {
    const ALL: [UnfinishedWork; 3] =
        [UnfinishedWork::Initialize, UnfinishedWork::Clone, UnfinishedWork::Rewind];

    fn mark(self, settings: &Settings) -> PathBuf {
        settings.state_directory.join(match self {
            UnfinishedWork::Initialize => "initializing",
            UnfinishedWork::Clone => "cloning",
            UnfinishedWork::Rewind => "rewinding",
        })
    }

    /// Marks the work as begun, durably. `places`: directories that it will write besides the data directory.
    pub(crate) fn begin(self, settings: &Settings, places: &[PathBuf]) -> Result<(), Error> {
        let mut text = String::from("The data directory must not be started before this is finished.\n");
        for place in places {
            text.push_str(&place.to_string_lossy());
            text.push('\n');
        }
        file::replace(&self.mark(settings), &text, 0o600)
    }

    /// Removes the mark. What the work wrote is durable by now: initdb, pg_basebackup and pg_rewind sync.
    pub(crate) fn finish(self, settings: &Settings) -> Result<(), Error> {
        file::remove(&self.mark(settings))
    }

    /// Removes all marks: the data they were about is gone.
    pub(crate) fn forget_all(settings: &Settings) -> Result<(), Error> {
        UnfinishedWork::ALL.into_iter().try_for_each(|work| work.finish(settings))?;
        set_unrecorded(settings, false)
    }
}

/// The places that unfinished work named when it began.
pub(crate) fn places_of_unfinished_work(settings: &Settings) -> Result<Vec<PathBuf>, Error> {
    let mut places = Vec::new();
    for work in UnfinishedWork::ALL {
        let text = file::read_if_there(&work.mark(settings))?.unwrap_or_default();
        places.extend(text.lines().filter(|line| line.starts_with('/')).map(PathBuf::from));
    }
    Ok(places)
}

/// Inspects the data directory.
///
/// # Errors
/// When it cannot be read for a reason other than absence or permissions.
pub fn inspect(settings: &Settings) -> Result<Directory, Error> {
    let path = &settings.data_directory;
    let failed = |source| Error::Read { path: path.clone(), source };
    let metadata = match fs::metadata(path) {
        // If it were taken for an empty member, a clone would overwrite an interrupted swap.
        Err(fault) if fault.kind() == io::ErrorKind::NotFound && journal::is_swapping(settings)? => {
            let why = "is missing in the middle of a rollback: restart the agent, which puts the data back";
            return Ok(Directory::Refused(format!("{}: {why}", path.display())));
        }
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Directory::Empty),
        Err(source) => return Err(failed(source)),
        Ok(metadata) => metadata,
    };
    let refuse = |why: &str| Ok(Directory::Refused(format!("{}: {why}", path.display())));
    if !metadata.is_dir() {
        return refuse("is not a directory");
    }
    let us = fs::metadata("/proc/self").map_err(failed)?.uid();
    if us != 0 && metadata.uid() != us {
        let owner = metadata.uid();
        return refuse(&format!("belongs to user {owner}, but the agent runs as user {us}: change either"));
    }
    for (work, unfinished) in [
        (UnfinishedWork::Initialize, Directory::HalfInitialized),
        (UnfinishedWork::Clone, Directory::HalfCloned),
        (UnfinishedWork::Rewind, Directory::HalfRewound),
    ] {
        if work.mark(settings).exists() {
            return Ok(unfinished);
        }
    }
    let mut entries = match fs::read_dir(path) {
        Err(fault) if fault.kind() == io::ErrorKind::PermissionDenied => {
            return refuse("cannot be read: its mode is wrong");
        }
        entries => entries.map_err(failed)?,
    };
    if path.join("lost+found").exists() {
        return refuse(
            "is the root of a volume (lost+found), which initdb refuses: set data_dir to a directory below it",
        );
    }
    if entries.next().is_none() {
        return Ok(Directory::Empty);
    }
    if path.join(RESTORING).exists() {
        return refuse(
            "holds a restore that did not finish: remove it, or restore again with `outrider restore --overwrite-half`",
        );
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o027 != 0 {
        return refuse(&format!("has mode {mode:04o}; Postgres wants 0700 or 0750: chmod it"));
    }
    let Some(version) = file::read_if_there(&path.join("PG_VERSION"))? else {
        return refuse(
            "is not empty and not a data directory (no PG_VERSION): point data_dir elsewhere or empty it",
        );
    };
    if version.trim().parse::<u32>().unwrap_or_default() < 15 {
        return refuse(&format!("holds PostgreSQL {}; 15 and newer are supported", version.trim()));
    }
    Ok(Directory::Complete)
}

/// The ancestors of `timeline`, from the history file in `pg_wal`; none for the first timeline, or without a file.
pub(crate) fn history(settings: &Settings, timeline: TimelineId) -> Result<TimelineHistory, Error> {
    let path = settings.data_directory.join("pg_wal").join(timeline.history_file_name());
    let Some(text) = file::read_if_there(&path)? else { return Ok(TimelineHistory::default()) };
    text.parse().map_err(|fault: outrider_wal::BadHistory| Error::Read {
        path,
        source: io::Error::new(io::ErrorKind::InvalidData, fault.to_string()),
    })
}

/// Whether the data directory is a base backup that was never started.
pub(crate) fn has_backup_label(settings: &Settings) -> bool {
    settings.data_directory.join("backup_label").exists()
}

/// Marks data made to begin a cluster, until the DCS records that cluster; or removes the mark.
pub(crate) fn set_unrecorded(settings: &Settings, unrecorded: bool) -> Result<(), Error> {
    let path = settings.state_directory.join(UNRECORDED);
    if unrecorded {
        file::replace(&path, "This data has not become a cluster yet.\n", 0o600)
    } else {
        file::remove(&path)
    }
}

/// Whether the data was made to begin a cluster that the DCS has not recorded.
pub(crate) fn is_unrecorded(settings: &Settings) -> bool {
    settings.state_directory.join(UNRECORDED).exists()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::settings::tests::settings;

    /// A directory that looks like PostgreSQL's.
    fn data(settings: &Settings, version: &str) {
        fs::create_dir_all(&settings.data_directory).unwrap();
        fs::create_dir_all(&settings.state_directory).unwrap();
        fs::set_permissions(&settings.data_directory, Permissions::from_mode(0o700)).unwrap();
        fs::write(settings.data_directory.join("PG_VERSION"), version).unwrap();
    }

    #[track_caller]
    fn refused(settings: &Settings, because: &str) {
        match inspect(settings).unwrap() {
            Directory::Refused(why) => assert!(why.contains(because), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_empty_and_the_root_of_a_volume_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        assert_eq!(inspect(&settings).unwrap(), Directory::Empty);
        fs::create_dir_all(settings.data_directory.join("lost+found")).unwrap();
        refused(&settings, "a directory below it");
    }

    #[test]
    fn a_data_directory_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        data(&settings, "15\n");
        assert_eq!(inspect(&settings).unwrap(), Directory::Complete);
    }

    #[test]
    fn what_is_not_ours_is_refused_and_the_reason_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        data(&settings, "14");
        refused(&settings, "15 and newer");
        data(&settings, "15");
        fs::set_permissions(&settings.data_directory, Permissions::from_mode(0o755)).unwrap();
        refused(&settings, "chmod");
        fs::set_permissions(&settings.data_directory, Permissions::from_mode(0o700)).unwrap();
        fs::rename(settings.data_directory.join("PG_VERSION"), settings.data_directory.join("letters"))
            .unwrap();
        refused(&settings, "not a data directory");
        fs::remove_dir_all(&settings.data_directory).unwrap();
        fs::write(&settings.data_directory, "a file").unwrap();
        refused(&settings, "not a directory");
    }

    #[test]
    fn unfinished_work_is_seen_whatever_else_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        data(&settings, "15");
        for (mark, seen) in [
            ("initializing", Directory::HalfInitialized),
            ("cloning", Directory::HalfCloned),
            ("rewinding", Directory::HalfRewound),
        ] {
            fs::write(settings.state_directory.join(mark), "").unwrap();
            assert_eq!(inspect(&settings).unwrap(), seen);
            fs::remove_file(settings.state_directory.join(mark)).unwrap();
        }
    }
}
