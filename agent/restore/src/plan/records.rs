//! Reads the WAL of an archive as a recovery would, for what a target needs to know: when transactions ended, where a
//! restore point is, where valid WAL ends. Replays nothing.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use outrider_wal::{Carried, Lsn, Notable, Record, Scanned, SegmentName, WalFileName, scan_records};

use super::reach::Reach;
use crate::error::{Point, RestoreError};
use crate::fetch::{Fetched, Fetcher, Patience};
use outrider_archive::Layout;
use outrider_archive::catalog::{ArchivedWal, TimelinePath};
use outrider_store::{self as store, Store};

/// Segments that are looked through for the last transaction of a server that rests.
const RESTING: usize = 8;
/// Segments fetched ahead of the one that is read.
const AHEAD: usize = 3;
/// Where the shipper writes when the first and the last transaction of a segment ended, in microseconds since 1970.
const FIRST_COMMIT: &str = "outrider-first-commit";
const LAST_COMMIT: &str = "outrider-last-commit";

/// Bytes of an XLOG_SWITCH record (xlogrecord.h, SizeOfXLogRecord).
const SWITCH_BYTES: u64 = 24;

/// A reader of one archive's WAL.
pub(super) struct Reader {
    store: Arc<dyn Store>,
    layout: Layout,
    fetcher: Fetcher,
    /// Where segments lie while they are read.
    scratch: tempfile::TempDir,
    /// What is known of whole segments already.
    times: HashMap<SegmentName, Option<Times>>,
}

/// When the transactions of a segment ended, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) first: i64,
    pub(super) last: i64,
}

/// The last of the WAL that can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The end of the last valid record.
    pub(super) end: Lsn,
    /// Where replay stands after it: there, or at the next segment when the record ended this one early (`EndRecPtr`).
    pub(super) replayed: Lsn,
    /// The latest time at which a transaction ended in it; `None` when none did.
    pub(super) last: Option<i64>,
}

impl Tail {
    pub(super) fn point(&self) -> Point {
        Point { lsn: self.end, time: self.last.and_then(instant) }
    }
}

/// Microseconds since 1970 as a time.
pub(super) fn instant(microseconds: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(microseconds).ok()
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    Xid(u32),
    Name(&'a str),
}

impl Wanted<'_> {
    fn is(self, record: &Record) -> bool {
        match (self, &record.what) {
            (Wanted::Xid(wanted), Notable::Transaction { xid, .. }) => *xid == wanted,
            (Wanted::Name(wanted), Notable::RestorePoint { name, .. }) => name == wanted,
            (Wanted::Xid(_) | Wanted::Name(_), _) => false,
        }
    }
}

/// When the last transaction of the newest timeline ended; `None` when the last segments of it have none, or cannot be read:
/// those tell no time, and verification names them.
///
/// # Errors
/// When the store does not answer.
pub async fn newest_commit(
    store: &Arc<dyn Store>,
    layout: &Layout,
    wal: &ArchivedWal,
) -> Result<Option<Timestamp>, store::Error> {
    match last_transaction(store, layout, wal).await {
        Ok(commit) => Ok(commit),
        Err(RestoreError::Store(fault)) => Err(fault),
        Err(_) => Ok(None),
    }
}

async fn last_transaction(
    store: &Arc<dyn Store>,
    layout: &Layout,
    wal: &ArchivedWal,
) -> Result<Option<Timestamp>, RestoreError> {
    let mut reader = Reader::new(store.clone(), layout.clone())?;
    let newest = wal.timelines().into_iter().rev();
    let Some((timeline, last)) = newest.into_iter().find_map(|found| Some((found, wal.last_of(found)?)))
    else {
        return Ok(None);
    };
    for number in (0..=last).rev().take(RESTING) {
        if wal.last_without_gap(timeline, number).is_none() {
            break;
        }
        let segment = SegmentName::numbered(timeline, number, wal.segment_size());
        if let Some(times) = reader.times(segment, wal).await? {
            return Ok(instant(times.last));
        }
    }
    Ok(None)
}

/// When it happened.
pub(super) fn time_of(record: &Record) -> Option<i64> {
    match &record.what {
        Notable::Transaction { time, .. } | Notable::RestorePoint { time, .. } => Some(*time),
        Notable::Parameters(_) | Notable::Switch => None,
    }
}

impl Reader {
    pub(super) fn new(store: Arc<dyn Store>, layout: Layout) -> Result<Self, RestoreError> {
        let scratch = tempfile::tempdir().map_err(|source| RestoreError::File {
            act: "make a temporary directory in",
            path: std::env::temp_dir(),
            source,
        })?;
        let fetcher = Fetcher::new(store.clone(), layout.clone());
        Ok(Reader { store, layout, fetcher, scratch, times: HashMap::new() })
    }

    /// Looks at the last files that can be reached, and back until a transaction ended.
    pub(super) async fn tail(
        &mut self,
        wal: &ArchivedWal,
        path: &TimelinePath,
        reach: &Reach,
    ) -> Result<Option<Tail>, RestoreError> {
        let Some((number, last)) = reach.last(wal, path) else { return Ok(None) };
        let size = wal.segment_size();
        // With the one before, since a commit may lie on the border.
        let mut carried = None;
        let mut found = None;
        if let Some(before) = number.checked_sub(1).filter(|before| *before >= reach.first) {
            let (records, scanned) = self.scan(path.segment(before, size), None, u64::MAX).await?;
            carried = scanned.carried;
            found = latest(&records);
        }
        let counted = reach.beginning.map_or(u64::MAX, |(_, bytes)| bytes);
        let (records, scanned) = self.scan(last, carried, counted).await?;
        // What follows a switch is void: no record begins there. The record of the switch is a header without a body.
        let switch = records.iter().find(|record| record.what == Notable::Switch);
        let end = switch.map_or(scanned.end, |switch| switch.start.advanced(SWITCH_BYTES));
        let mut tail = Tail { end, replayed: scanned.end, last: latest(&records).max(found) };
        let mut number = number.saturating_sub(1);
        while tail.last.is_none() && number > reach.first {
            number -= 1;
            tail.last = self.times(path.segment(number, size), wal).await?.map(|times| times.last);
        }
        Ok(Some(tail))
    }

    /// When transactions ended in a whole segment: as the shipper noted it, or else by reading the segment.
    pub(super) async fn times(
        &mut self,
        segment: SegmentName,
        wal: &ArchivedWal,
    ) -> Result<Option<Times>, RestoreError> {
        if let Some(known) = self.times.get(&segment) {
            return Ok(*known);
        }
        let key = wal.key_of(&self.layout, segment);
        let noted = self.store.head(&key).await.map_err(RestoreError::Store)?.and_then(|info| {
            let number = |name: &str| info.metadata.get(name)?.parse::<i64>().ok();
            Some(Times { first: number(FIRST_COMMIT)?, last: number(LAST_COMMIT)? })
        });
        let times = match noted {
            Some(times) => Some(times),
            None => {
                let (records, _) = self.scan(segment, None, u64::MAX).await?;
                let first = records.iter().filter(is_transaction).filter_map(time_of).min();
                first.zip(latest(&records)).map(|(first, last)| Times { first, last })
            }
        };
        self.times.insert(segment, times);
        Ok(times)
    }

    /// When the transactions of a segment ended before and behind a place in it.
    pub(super) async fn times_around(
        &self,
        segment: SegmentName,
        place: Lsn,
    ) -> Result<Around, RestoreError> {
        let (records, _) = self.scan(segment, None, u64::MAX).await?;
        let ends =
            records.iter().filter(is_transaction).filter_map(|record| Some((record.start, time_of(record)?)));
        Ok(around(ends, place))
    }

    /// The first record of this kind from `from` on and before `until`.
    pub(super) async fn find(
        &self,
        wanted: Wanted<'_>,
        wal: &ArchivedWal,
        path: &TimelinePath,
        reach: &Reach,
        (from, until): (Lsn, Lsn),
    ) -> Result<Option<Record>, RestoreError> {
        let mut found = None;
        let fits = |record: &Record| record.start >= from && record.start < until && wanted.is(record);
        let each = |record: Record| {
            found = Some(record).filter(fits);
            found.is_none()
        };
        self.go_through(wal, path, reach, (from, until), each).await?;
        Ok(found)
    }

    /// The most of each setting that a standby must not have less of, from `from` on and before `until`.
    pub(super) async fn parameters(
        &self,
        wal: &ArchivedWal,
        path: &TimelinePath,
        reach: &Reach,
        (from, until): (Lsn, Lsn),
    ) -> Result<[u32; 5], RestoreError> {
        let mut most = [0; 5];
        let each = |record: Record| {
            if let Notable::Parameters(settings) = record.what
                && record.start < until
            {
                most.iter_mut().zip(settings).for_each(|(most, setting)| *most = (*most).max(setting));
            }
            true
        };
        self.go_through(wal, path, reach, (from, until), each).await?;
        Ok(most)
    }

    /// Shows the notable records of the segments that hold these places, in order, until `each` has seen enough.
    async fn go_through(
        &self,
        wal: &ArchivedWal,
        path: &TimelinePath,
        reach: &Reach,
        (from, until): (Lsn, Lsn),
        mut each: impl FnMut(Record) -> bool,
    ) -> Result<(), RestoreError> {
        let size = wal.segment_size();
        let first = (from.get() / size.bytes()).max(reach.first);
        let last = until.get().saturating_sub(1) / size.bytes();
        let end = if reach.beginning.is_some() { reach.end + 1 } else { reach.end };
        let files = (first..end.min(last.saturating_add(1))).map(|number| match reach.beginning {
            Some((segment, bytes)) if number == reach.end => (segment, bytes),
            Some(_) | None => (path.segment(number, size), u64::MAX),
        });
        let mut fetched = stream::iter(files)
            .map(|(segment, counted)| async move {
                self.bytes(segment).await.map(|bytes| (segment, counted, bytes))
            })
            .buffered(AHEAD);
        let mut carried = None;
        while let Some(next) = fetched.next().await {
            let (segment, counted, bytes) = next?;
            let (records, scanned) = read(segment, bytes, carried, counted).await?;
            carried = scanned.carried;
            if !records.into_iter().all(&mut each) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn scan(
        &self,
        segment: SegmentName,
        carried: Option<Carried>,
        counted: u64,
    ) -> Result<(Vec<Record>, Scanned), RestoreError> {
        read(segment, self.bytes(segment).await?, carried, counted).await
    }

    /// The file as a recovery would get it.
    async fn bytes(&self, segment: SegmentName) -> Result<Vec<u8>, RestoreError> {
        let path = self.scratch.path().join(segment.to_string());
        let name = WalFileName::Segment(segment);
        match self.fetcher.fetch(name, &path, None, Patience::Recovery).await.map_err(RestoreError::Wal)? {
            Fetched::Written { .. } => {}
            Fetched::Absent => {
                return Err(RestoreError::Segment {
                    segment,
                    fault: "it is gone from the archive".to_owned(),
                });
            }
        }
        let read = tokio::fs::read(&path).await;
        let removed = tokio::fs::remove_file(&path).await;
        let failed = |source| RestoreError::File { act: "read", path: path.clone(), source };
        removed.map_err(failed)?;
        read.map_err(failed)
    }
}

/// The notable records of the first `counted` bytes.
async fn read(
    segment: SegmentName,
    mut bytes: Vec<u8>,
    carried: Option<Carried>,
    counted: u64,
) -> Result<(Vec<Record>, Scanned), RestoreError> {
    let scan = move || {
        bytes.truncate(usize::try_from(counted).unwrap_or(usize::MAX));
        let mut records = Vec::new();
        scan_records(&bytes, carried, Some(crc32c::crc32c_append), &mut |record| records.push(record))
            .map(|scanned| (records, scanned))
            .map_err(|fault| fault.to_string())
    };
    let scanned = tokio::task::spawn_blocking(scan).await.unwrap_or_else(|gone| Err(gone.to_string()));
    scanned.map_err(|fault| RestoreError::Segment { segment, fault })
}

fn is_transaction(record: &&Record) -> bool {
    matches!(record.what, Notable::Transaction { .. })
}

/// The latest time at which a transaction ended.
fn latest(records: &[Record]) -> Option<i64> {
    records.iter().filter(is_transaction).filter_map(time_of).max()
}

/// The times before and behind a place in a segment.
type Around = (Option<Times>, Option<Times>);

/// Of transactions that ended at these places and times.
fn around(ends: impl Iterator<Item = (Lsn, i64)>, place: Lsn) -> Around {
    let mut around: Around = (None, None);
    for (start, time) in ends {
        let side = if start < place { &mut around.0 } else { &mut around.1 };
        *side = Some(match side {
            None => Times { first: time, last: time },
            Some(times) => Times { first: times.first.min(time), last: times.last.max(time) },
        });
    }
    around
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_told_apart_by_the_place() {
        let ends = [(10, 5), (20, 3), (30, 9), (40, 7)].map(|(start, time)| (Lsn::new(start), time));
        let times = |first, last| Some(Times { first, last });
        assert_eq!(around(ends.into_iter(), Lsn::new(30)), (times(3, 5), times(7, 9)));
        assert_eq!(around(ends.into_iter(), Lsn::new(5)), (None, times(3, 9)));
        assert_eq!(around([].into_iter(), Lsn::new(5)), (None, None));
    }
}
