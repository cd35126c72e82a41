//! What PostgreSQL has marked as finished (`archive_status/*.ready`), and the order in which it leaves.

use std::collections::{BinaryHeap, HashSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use outrider_wal::{SegmentName, TimelineId, WalFileName};

use crate::clock;

/// Files looked at ahead. What is beyond them is counted and seen by a later scan.
pub(crate) const SEEN_MAX: usize = 4096;
const SUFFIX: &str = ".ready";

/// A file in the order of leaving: histories first, then the oldest timeline and segment, as PostgreSQL's own
/// archiver goes (pgarch.c, ready_file_comparator).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WalFile {
    History(TimelineId),
    Other(SegmentName, Kind),
}

/// The kinds of files of one segment, in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Whole,
    Backup(u32),
    Partial,
}

impl WalFile {
    pub(crate) fn name(self) -> WalFileName {
        match self {
            WalFile::History(timeline) => WalFileName::History(timeline),
            WalFile::Other(segment, Kind::Whole) => WalFileName::Segment(segment),
            WalFile::Other(segment, Kind::Backup(offset)) => WalFileName::BackupHistory { segment, offset },
            WalFile::Other(segment, Kind::Partial) => WalFileName::Partial(segment),
        }
    }

    pub(crate) fn timeline(self) -> TimelineId {
        self.name().timeline()
    }

    /// Whether it has the size of a segment.
    pub(crate) fn is_large(self) -> bool {
        matches!(self, WalFile::Other(_, Kind::Whole | Kind::Partial))
    }
}

impl From<WalFileName> for WalFile {
    fn from(name: WalFileName) -> Self {
        match name {
            WalFileName::History(timeline) => WalFile::History(timeline),
            WalFileName::Segment(segment) => WalFile::Other(segment, Kind::Whole),
            WalFileName::BackupHistory { segment, offset } => WalFile::Other(segment, Kind::Backup(offset)),
            WalFileName::Partial(segment) => WalFile::Other(segment, Kind::Partial),
        }
    }
}

/// What a look into `archive_status` found.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Files that the archive has not confirmed, oldest first, at most [`SEEN_MAX`].
    pub(crate) waiting: Vec<WalFile>,
    /// How many more there are.
    pub(crate) beyond: u64,
    /// Files that it has confirmed and PostgreSQL has not asked for yet.
    pub(crate) ahead: usize,
    /// Since when the first of the waiting ones has waited.
    pub(crate) oldest: Option<Duration>,
    /// Bytes that the file system of pg_wal has left; `None` when it does not say.
    pub(crate) free: Option<u64>,
}

/// Looks once. Blocks.
pub(crate) fn scan(pg_wal: &Path, confirmed: &HashSet<WalFile>) -> io::Result<Ready> {
    let directory = pg_wal.join("archive_status");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        // Before initdb there is none.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ready::default()),
        Err(error) => return Err(error),
    };
    let mut first: BinaryHeap<WalFile> = BinaryHeap::new();
    let mut ready = Ready::default();
    for entry in entries {
        let entry = entry?.file_name();
        let stem = entry.to_str().and_then(|entry| entry.strip_suffix(SUFFIX));
        let Some(Ok(name)) = stem.map(str::parse::<WalFileName>) else { continue };
        let file = WalFile::from(name);
        if confirmed.contains(&file) {
            ready.ahead += 1;
            continue;
        }
        first.push(file);
        if first.len() > SEEN_MAX {
            first.pop();
            ready.beyond += 1;
        }
    }
    ready.free = rustix::fs::statvfs(&directory).ok().map(|system| system.f_bavail * system.f_frsize);
    ready.waiting = first.into_sorted_vec();
    ready.oldest = ready.waiting.first().and_then(|file| {
        let marked =
            fs::metadata(directory.join(format!("{}{SUFFIX}", file.name()))).ok()?.modified().ok()?;
        Some(clock::wall().duration_since(marked).unwrap_or_default())
    });
    Ok(ready)
}

impl std::hash::Hash for WalFile {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> WalFile {
        WalFile::from(name.parse::<WalFileName>().unwrap())
    }

    #[test]
    fn histories_leave_first_then_the_oldest() {
        let in_order = [
            "00000002.history",
            "00000003.history",
            "000000010000000000000009",
            "000000010000000000000009.00000028.backup",
            "000000010000000000000009.partial",
            "000000020000000000000003",
            "0000000200000000000000FF",
            "000000020000000100000000",
        ];
        let mut files: Vec<WalFile> = in_order.iter().rev().map(|name| file(name)).collect();
        files.sort();
        let names: Vec<String> = files.iter().map(|file| file.name().to_string()).collect();
        assert_eq!(names, in_order);
    }

    #[test]
    fn a_scan_sees_what_is_ready_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let status = directory.path().join("archive_status");
        assert!(scan(directory.path(), &HashSet::new()).unwrap().waiting.is_empty(), "no archive_status");
        fs::create_dir(&status).unwrap();
        for file in [
            "000000010000000000000003.ready",
            "000000010000000000000002.ready",
            "000000010000000000000001.done",
            "000000010000000000000004.ready.tmp",
            "notes.ready",
            "00000002.history.ready",
        ] {
            fs::write(status.join(file), "").unwrap();
        }
        let confirmed = HashSet::from([file("000000010000000000000002")]);
        let ready = scan(directory.path(), &confirmed).unwrap();
        assert_eq!(ready.waiting, [file("00000002.history"), file("000000010000000000000003")]);
        assert_eq!((ready.ahead, ready.beyond), (1, 0));
        assert!(ready.oldest.is_some());
        assert!(ready.free.is_some_and(|bytes| bytes > 0));
    }
}
