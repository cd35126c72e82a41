//! The times of the first and the last commit in a segment, to lie beside it in the archive: so a restore knows by
//! them, without the bytes, which segment a time is in.

use std::fs;
use std::path::Path;

use outrider_wal::{Ending, Notable, Record, scan_records};

use crate::store::Metadata;

/// Microseconds since the Unix epoch.
const FIRST: &str = "outrider-first-commit";
const LAST: &str = "outrider-last-commit";
/// Larger segments go without: they are not held in memory as a whole.
const SEGMENT_MAX: u64 = 64 << 20;

/// Adds what is known to `metadata`: nothing when no commit begins and ends in the segment. Blocks.
pub(super) fn add_commits(segment: &Path, metadata: &mut Metadata) {
    // Read anew, from the cache of the system, where it has just been compressed. What cannot be read or is no WAL was
    // refused before; then there is nothing to say of it here.
    let small = fs::metadata(segment).is_ok_and(|found| found.len() <= SEGMENT_MAX);
    let Some(bytes) = small.then(|| fs::read(segment).ok()).flatten() else { return };
    if let Some((first, last)) = commits(&bytes) {
        metadata.insert(FIRST.to_owned(), first.to_string());
        metadata.insert(LAST.to_owned(), last.to_string());
    }
}

/// The smallest and the largest time. Commits lie in the order in which they were written, their times nearly so.
fn commits(segment: &[u8]) -> Option<(i64, i64)> {
    let mut times: Option<(i64, i64)> = None;
    let mut each = |record: Record| {
        if let Notable::Transaction { ending: Ending::Commit | Ending::CommitPrepared, time, .. } =
            record.what
        {
            let (first, last) = times.unwrap_or((time, time));
            times = Some((first.min(time), last.max(time)));
        }
    };
    // Without checksums: PostgreSQL wrote it whole, and the archive has a checksum of all of it.
    scan_records(segment, None, None, &mut each).ok()?;
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_wal_has_no_commits() {
        let mut metadata = Metadata::new();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("000000010000000000000001");
        add_commits(&file, &mut metadata);
        fs::write(&file, [7; 8192]).unwrap();
        add_commits(&file, &mut metadata);
        assert_eq!(metadata, Metadata::new());
    }
}
