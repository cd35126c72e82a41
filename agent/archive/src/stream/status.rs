//! What people and metrics see of the streaming of WAL. Decides nothing.

use std::time::{Duration, SystemTime};

use outrider_wal::{Lsn, SegmentName};
use tokio::time::Instant;

/// The state of streaming, as of the last look for flushed WAL.
#[derive(Clone, Debug, Default)]
pub struct StreamStatus {
    /// The term for which this member streams; `None` when it does not.
    pub term: Option<u64>,
    /// The segment that is being written.
    pub segment: Option<SegmentName>,
    /// The end of the WAL that is safe in the archive, in chunks or in finished segments, without a hole since
    /// streaming began. What was finished before that and still waits is counted in [`crate::Status`].
    pub streamed_to: Option<Lsn>,
    /// The end of the WAL that PostgreSQL had flushed at the last look.
    pub flushed: Option<Lsn>,
    /// When the store confirmed the last chunk.
    pub last_streamed: Option<SystemTime>,
    /// The store did not take the last chunk: nothing is lost on this machine.
    pub store_failing: bool,
    /// The archive has other bytes for the segment that is being written: two servers wrote the same piece of one
    /// timeline. The segment is not streamed on, and someone must look.
    pub conflict: Option<String>,
    /// The last failure and when it was, also when all is well again.
    pub last_failure: Option<(String, SystemTime)>,
    /// What was done since the start of the program.
    pub counters: StreamCounters,
    /// Since when, at the earliest, the oldest flushed byte that the store does not have is flushed.
    pub(super) missing_since: Option<Instant>,
}

impl StreamStatus {
    /// The age of the oldest flushed byte that the store does not have: what losing every member now would lose. An
    /// upper bound, by up to one interval too high; 0 when the store has all that was flushed at the last look.
    #[must_use]
    pub fn behind(&self) -> Duration {
        self.missing_since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Bytes that were flushed at the last look and that the store does not have.
    #[must_use]
    pub fn behind_bytes(&self) -> u64 {
        match (self.streamed_to, self.flushed) {
            (Some(streamed_to), Some(flushed)) => streamed_to.behind(flushed),
            (None, _) | (_, None) => 0,
        }
    }
}

/// Counted since the start of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Chunks that the store confirmed.
    pub chunks: u64,
    /// Their bytes before compression.
    pub bytes_in: u64,
    /// Their bytes after it.
    pub bytes_out: u64,
    /// Requests to the store, of every kind.
    pub requests: u64,
    /// Attempts that failed.
    pub failures: u64,
}
