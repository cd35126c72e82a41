//! Fetches the next segments before PostgreSQL asks for them, into files that only have to be renamed then. Says of
//! none that it is absent: what is not here is fetched as if there were no read-ahead.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrider_wal::{SegmentName, SegmentSize, WalFileName};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::error::FetchError;
use super::find::{Archive, lock};
use super::growing::Growing;
use super::receive::{Received, Temporary, Urgency, receive};
use crate::clock;

/// What all files together may take, at most; but always one segment.
const BYTES_MAX: u64 = 1 << 30;
/// So many are read ahead behind the first segment of a recovery, which replays them one after the other up to their end.
const EAGER_WINDOW: usize = 2;
/// When nobody has asked for so long, the recovery is over and the files go.
const IDLE: Duration = Duration::from_secs(60);

/// Where and how far to read ahead.
#[derive(Clone, Debug)]
pub struct AheadOptions {
    /// A directory of its own, best on the file system of pg_wal. It is made, and emptied of an earlier process's files.
    pub directory: PathBuf,
    /// Segments at most.
    pub segments: usize,
}

/// The segments that come next. Each has a task of its own, which only fills a file that nobody knows but `Coming`: whoever takes
/// that, or drops it with the sequence, has the file or removes it, and no lock is held while anything is awaited.
#[derive(Debug)]
pub(super) struct Ahead {
    options: AheadOptions,
    archive: Arc<Archive>,
    sequence: Mutex<Sequence>,
}

/// Segments that were asked for one after the other.
#[derive(Debug, Default)]
struct Sequence {
    last: Option<SegmentName>,
    /// How far ahead now: one more whenever replay had to wait for what was coming. A store that keeps up has replay, and
    /// whatever else runs here, to share the machine with no more than that takes.
    window: usize,
    coming: BTreeMap<SegmentName, Coming>,
    /// What was streamed of a segment that is not finished, for when it is asked for again.
    growing: Option<(SegmentName, Growing)>,
    asked: Option<Instant>,
    /// Ends the sequence when nobody asks any more.
    idle_watch: Option<Aborted<()>>,
}

impl Sequence {
    fn is_empty(&self) -> bool {
        self.coming.is_empty() && self.growing.is_none()
    }

    /// Takes what is coming of a segment that is asked for now.
    fn take(&mut self, segment: SegmentName) -> Option<Coming> {
        let coming = self.coming.remove(&segment)?;
        self.window += usize::from(!coming.0.is_finished());
        Some(coming)
    }

    /// PostgreSQL has got this segment. Which are to come now, of `most` at most: some when the one before was asked for
    /// before it, and else only when `eager`.
    fn reach(
        &mut self,
        segment: SegmentName,
        size: SegmentSize,
        most: usize,
        eager: bool,
    ) -> Vec<SegmentName> {
        let follows = self.last.is_some_and(|last| last.next(size) == segment);
        self.window = match (follows, eager) {
            (true, _) => self.window.clamp(1, most),
            (false, true) => EAGER_WINDOW.min(most),
            (false, false) => 0,
        };
        self.last = Some(segment);
        std::iter::successors(Some(segment.next(size)), |next| Some(next.next(size)))
            .take(self.window)
            .collect()
    }
}

type Coming = Aborted<Result<Option<Received>, FetchError>>;

/// A task that ends when nobody waits for it any more.
#[derive(Debug)]
struct Aborted<T>(JoinHandle<T>);

impl<T> Drop for Aborted<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Ahead {
    /// Makes the directory.
    pub(super) fn open(options: AheadOptions, archive: Arc<Archive>) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.directory)?;
        for entry in fs::read_dir(&options.directory)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(Temporary::is_one) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Ahead { options, archive, sequence: Mutex::default() })
    }

    /// The segment, if it was read ahead or is being read.
    pub(super) async fn take(&self, segment: SegmentName) -> Option<Received> {
        let mut coming = lock(&self.sequence).take(segment)?;
        let why = match (&mut coming.0).await {
            // Checked against another server than the one that is known now: to be fetched and checked anew.
            Ok(Ok(Some(received))) if received.system_identifier == self.archive.system_identifier() => {
                return Some(received);
            }
            Ok(Ok(Some(_))) => "it was checked for another server".to_owned(),
            Ok(Ok(None)) => "it was not there".to_owned(),
            Ok(Err(failure)) => failure.to_string(),
            Err(cancelled) => cancelled.to_string(),
        };
        debug!(%segment, why, "not read ahead");
        self.clear();
        None
    }

    /// A recovery is about to get this segment: where it is the first of a sequence, the next comes beside it.
    pub(super) fn begin(self: &Arc<Self>, segment: SegmentName) {
        // Segments of another size are numbered otherwise now and then; then there is nothing by this name, or nobody asks
        // for it.
        let size = SegmentSize::DEFAULT;
        let mut sequence = lock(&self.sequence);
        if sequence.last.is_none_or(|last| last.next(size) != segment) {
            sequence.coming.clear();
            sequence.coming.insert(segment.next(size), self.fetch(segment.next(size)));
            self.watch(&mut sequence);
        }
    }

    /// PostgreSQL has got this segment. Reads on behind it when the one before was asked for before it, and else only when
    /// `eager`: a standby streams as a rule.
    pub(super) fn advance(self: &Arc<Self>, segment: SegmentName, bytes: u64, eager: bool) {
        let Some(size) = SegmentSize::new(bytes) else { return };
        let most = self.options.segments.min(usize::try_from(BYTES_MAX / bytes).unwrap_or(1).max(1));
        let mut sequence = lock(&self.sequence);
        sequence.growing = None;
        let wanted = sequence.reach(segment, size, most, eager);
        sequence.coming.retain(|segment, _| wanted.contains(segment));
        for segment in wanted {
            sequence.coming.entry(segment).or_insert_with(|| self.fetch(segment));
        }
        self.watch(&mut sequence);
    }

    /// Somebody has asked. When nobody does any more what is here goes.
    fn watch(self: &Arc<Self>, sequence: &mut Sequence) {
        sequence.asked = Some(clock::monotonic());
        if sequence.idle_watch.is_none() && !sequence.is_empty() {
            sequence.idle_watch = Some(self.clear_when_idle());
        }
    }

    /// Where a file of this segment may lie.
    pub(super) fn place(&self, segment: SegmentName) -> PathBuf {
        self.options.directory.join(segment.to_string())
    }

    /// Keeps what there is of a segment that is not finished: one file at a time, as long as it is asked for.
    pub(super) fn keep(self: &Arc<Self>, segment: SegmentName, growing: Growing) {
        let mut sequence = lock(&self.sequence);
        sequence.growing = Some((segment, growing));
        self.watch(&mut sequence);
    }

    /// What was kept of this segment. Of another one it is of no use any more.
    pub(super) fn kept(&self, segment: SegmentName) -> Option<Growing> {
        let kept = lock(&self.sequence).growing.take();
        kept.filter(|(kept, _)| *kept == segment).map(|(_, growing)| growing)
    }

    /// Throws away what is here and stops what is coming.
    pub(super) fn clear(&self) {
        *lock(&self.sequence) = Sequence::default();
    }

    /// Whether something is here or coming.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.sequence).is_empty()
    }

    fn fetch(self: &Arc<Self>, segment: SegmentName) -> Coming {
        let (archive, name) = (self.archive.clone(), WalFileName::Segment(segment));
        let beside = self.place(segment);
        Aborted(tokio::spawn(async move {
            // Only a whole segment is the same today and tomorrow.
            let found = archive.direct(name).await.map_err(|source| FetchError::Store { name, source })?;
            let Some((key, format, download)) = found else { return Ok(None) };
            let wanted = archive.wanted(name, key, format, &beside);
            receive(download, &archive.budget, wanted, Urgency::Ahead).await.map(Some).inspect_err(
                |failure| {
                    if failure.is_disk_full() {
                        warn!(%segment, "no room to read WAL ahead: {failure}");
                    }
                },
            )
        }))
    }

    fn clear_when_idle(self: &Arc<Self>) -> Aborted<()> {
        let ahead = Arc::downgrade(self);
        Aborted(tokio::spawn(async move {
            loop {
                sleep(IDLE).await;
                let Some(ahead) = ahead.upgrade() else { return };
                let idle = lock(&ahead.sequence).asked.is_none_or(|asked| asked.elapsed() >= IDLE);
                if idle {
                    // Its own end too: it aborts itself, after this.
                    ahead.clear();
                    return;
                }
            }
        }))
    }
}

/// Makes the directory when it can, and says so when it cannot: WAL comes without it too.
pub(super) fn open(options: AheadOptions, archive: &Arc<Archive>) -> Option<Arc<Ahead>> {
    if options.segments == 0 {
        return None;
    }
    let directory: &Path = &options.directory.clone();
    match Ahead::open(options, archive.clone()) {
        Ok(ahead) => Some(Arc::new(ahead)),
        Err(error) => {
            warn!(directory = %directory.display(), %error, "WAL is not read ahead");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u64) -> SegmentName {
        SegmentName::numbered(outrider_wal::TimelineId::new(1), number, SegmentSize::DEFAULT)
    }

    fn still_coming() -> Coming {
        Aborted(tokio::spawn(std::future::pending()))
    }

    fn reach(sequence: &mut Sequence, number: u64, eager: bool) -> Vec<SegmentName> {
        sequence.reach(segment(number), SegmentSize::DEFAULT, 4, eager)
    }

    #[test]
    fn a_recovery_has_the_next_two_ahead_and_a_standby_those_that_follow_in_a_row() {
        let mut sequence = Sequence::default();
        assert_eq!(reach(&mut sequence, 7, true), [8, 9].map(segment));
        assert_eq!(reach(&mut sequence, 8, true), [9, 10].map(segment));
        assert_eq!(reach(&mut sequence, 11, false), []);
        assert_eq!(reach(&mut sequence, 12, false), [13].map(segment));
        assert_eq!(reach(&mut sequence, 13, false), [14].map(segment));
        assert_eq!(reach(&mut sequence, 13, true), [14, 15].map(segment));
    }

    #[tokio::test]
    async fn one_more_is_ahead_whenever_replay_had_to_wait() {
        let mut sequence = Sequence::default();
        reach(&mut sequence, 7, true);
        sequence.coming.insert(segment(8), still_coming());
        assert!(sequence.take(segment(8)).is_some());
        assert_eq!(reach(&mut sequence, 8, true).len(), 3);
        let here = tokio::spawn(async { Ok(None) });
        while !here.is_finished() {
            tokio::task::yield_now().await;
        }
        sequence.coming.insert(segment(9), Aborted(here));
        assert!(sequence.take(segment(9)).is_some());
        assert_eq!(reach(&mut sequence, 9, true).len(), 3);
        for number in 10..=12 {
            sequence.coming.insert(segment(number), still_coming());
            assert!(sequence.take(segment(number)).is_some());
            assert_eq!(reach(&mut sequence, number, true).len(), 4, "it is the most");
        }
        assert_eq!(reach(&mut sequence, 20, true).len(), 2);
    }
}
