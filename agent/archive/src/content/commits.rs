//! The times of the first and the last commit in a segment, found while its bytes pass by. Reads no file.

use outrider_wal::{Ending, Notable, PiecewiseScan, Record};

/// In microseconds since the Unix epoch. Commits lie in the order in which they were written, their times nearly so:
/// these are the smallest and the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitTimes {
    /// The smallest.
    pub first: i64,
    /// The largest.
    pub last: i64,
}

/// Looks for commits in bytes that come in order.
#[derive(Debug, Default)]
pub(super) struct Commits {
    scan: Scan,
    times: Option<CommitTimes>,
}

#[derive(Debug, Default)]
enum Scan {
    #[default]
    NotBegun,
    /// Without checksums: PostgreSQL wrote the segment whole, and the archive has a checksum of all of it.
    Begun(PiecewiseScan),
    /// It is no WAL, of which there is nothing to say here.
    NoWal,
}

impl Commits {
    /// Takes the next bytes of the segment, which begin with those that it left the last time. Returns how many it is
    /// done with.
    pub(super) fn step(&mut self, bytes: &[u8]) -> usize {
        if matches!(self.scan, Scan::NotBegun) {
            self.scan = PiecewiseScan::begin(bytes).map_or(Scan::NoWal, Scan::Begun);
        }
        let Scan::Begun(scan) = &mut self.scan else { return bytes.len() };
        let times = &mut self.times;
        scan.step(bytes, &mut |record: Record| {
            if let Notable::Transaction { ending: Ending::Commit | Ending::CommitPrepared, time, .. } =
                record.what
            {
                let before = times.unwrap_or(CommitTimes { first: time, last: time });
                *times = Some(CommitTimes { first: before.first.min(time), last: before.last.max(time) });
            }
        })
    }

    /// `None` when no commit begins and ends in the segment.
    pub(super) fn times(&self) -> Option<CommitTimes> {
        self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_wal_has_no_commits() {
        for bytes in [&[][..], &[7; 8192]] {
            let mut commits = Commits::default();
            assert_eq!(commits.step(bytes), bytes.len());
            assert_eq!(commits.times(), None);
        }
    }
}
