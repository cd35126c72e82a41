//! What people and metrics see of the shipping of WAL. Decides nothing.

use std::time::{Duration, SystemTime};

use outrider_wal::{Lsn, SegmentName, TimelineId, WalFileName};

use outrider_store::Conditions;

/// The state of shipping, as of the last change. Waiting is counted at least every few seconds.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The term for which this member ships; `None` when it does not.
    pub term: Option<u64>,
    /// Whether the archive is claimed for this term, before which nothing of ours is put into it.
    pub claimed: bool,
    /// What the store does with a second put; `None` before it was asked.
    pub conditions: Option<Conditions>,
    /// Files that PostgreSQL has finished and the archive has not.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// How long the oldest of them has waited, when they were last counted.
    pub oldest_waiting: Option<Duration>,
    /// Bytes that the file system of pg_wal had left then; `None` when it does not say.
    pub free_bytes: Option<u64>,
    /// In how long it will be full when the waiting WAL goes on to grow as it did in the last minutes; `None` when it
    /// does not grow.
    pub full_in: Option<Duration>,
    /// Files on their way at this moment.
    pub in_flight: usize,
    /// The last file that the store confirmed.
    pub last_archived: Option<Archived>,
    /// All WAL of this timeline and its ancestors before this place is in the archive, or in one of `gaps`; `None` before
    /// the archive was compared with pg_wal in this term.
    pub archived_to: Option<(TimelineId, Lsn)>,
    /// The last failure, also when all is well again: compare the times.
    pub last_failure: Option<Failure>,
    /// The store did not take the last file that was sent: nothing is lost, WAL waits in pg_wal.
    pub store_failing: bool,
    /// An object with other content has the name of one of our files. Someone must look; see [`Conflict`].
    pub conflict: Option<Conflict>,
    /// Files that are not what their names say and are not shipped, each with what is wrong. At most sixteen.
    pub refused: Vec<(WalFileName, String)>,
    /// Why this member ships nothing although it leads: another writes to this archive, or it is another cluster's.
    pub writer_conflict: Option<String>,
    /// Segments of this server's history that neither the archive nor pg_wal has, each gap by its first and its last,
    /// oldest first, at most sixteen. Nobody can recover across them.
    pub gaps: Vec<(SegmentName, SegmentName)>,
    /// When the archive was last compared with pg_wal; `None` when it was not yet.
    pub compared_at: Option<SystemTime>,
    /// What was done since the start of the program.
    pub counters: Counters,
}

/// A file that is in the archive for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Its name.
    pub name: WalFileName,
    /// When the store confirmed it.
    pub at: SystemTime,
}

/// A file that could not be shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its name; `None` when the store was asked for something else.
    pub name: Option<WalFileName>,
    /// What was tried, on what, and why it failed.
    pub text: String,
    /// When.
    pub at: SystemTime,
}

/// Two different contents for one name: two servers wrote the same piece of the same timeline, or someone else
/// writes to this archive. Neither is overwritten. Later WAL of that timeline waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Our file.
    pub name: WalFileName,
    /// SHA-256 of its bytes.
    pub ours: String,
    /// The object that is there, as a URL.
    pub object: String,
    /// SHA-256 of its bytes after decompression.
    pub theirs: String,
}

/// Counted since the start of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Segments that the store confirmed.
    pub segments: u64,
    /// All files that the store confirmed, segments among them.
    pub files: u64,
    /// Their bytes before compression.
    pub bytes_in: u64,
    /// Their bytes after it.
    pub bytes_out: u64,
    /// Time spent reading, checking and compressing.
    pub compressing: Duration,
    /// Files among them that a comparison with the archive found missing there.
    pub refilled: u64,
    /// Attempts that failed.
    pub failures: u64,
}
