//! The task that streams: looks for flushed WAL, sends it chunk by chunk, one at a time, and shows how far it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outrider_wal::{Lsn, TimelineId, WalFileName};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::chunk::{ChunkError, Range, Source};
use super::progress::SegmentProgress;
use super::resume::resume;
use super::sweep::{Left, Sweeper};
use super::{FlushPosition, StreamOptions, StreamStatus};
use crate::content::Expected;
use crate::{ContentError, Leadership, Shipper, clock};
use outrider_store::Backoff;
use outrider_store::{Store, causes};

/// For PostgreSQL to say where it is.
const POSITION_LIMIT: Duration = Duration::from_secs(2);
/// Chunks that a larger one replaced and that are removed after one look, so that no look waits long for it.
const REMOVED_AT_ONCE: usize = 4;

/// Runs until the last handle is gone.
pub(super) async fn run(
    options: StreamOptions,
    store: Arc<dyn Store>,
    position: Arc<dyn FlushPosition>,
    shipper: Shipper,
    mut leadership: watch::Receiver<Option<Leadership>>,
    shown: watch::Sender<StreamStatus>,
) {
    let requests = AtomicU64::new(0);
    loop {
        let now = *leadership.borrow_and_update();
        let streaming = async {
            let Some(now) = now else {
                shown.send_modify(|status| *status = idle(status));
                return std::future::pending().await;
            };
            info!(term = now.term, archive = store.url(), "streaming WAL");
            let left = Left::default();
            let sweeper = Sweeper {
                store: &*store,
                layout: &options.layout,
                shipper: &shipper,
                left: &left,
                requests: &requests,
            };
            let work = Streaming {
                options: &options,
                store: store.clone(),
                position: &*position,
                shipper: &shipper,
                leadership: now,
                left: &left,
                requests: &requests,
                progress: SegmentProgress::new(now.segment_size),
                replaced: VecDeque::new(),
                backoff: Backoff::default(),
                status: StreamStatus { term: Some(now.term), ..idle(&shown.borrow()) },
                shown: &shown,
            };
            // Beside each other, since the sweep of a long outage takes many requests. What one puts the other does not remove:
            // it removes chunks only of segments that the shipper has confirmed, and those are not written any more.
            tokio::join!(work.stream(), sweeper.run());
        };
        // What is under way then is dropped, and may or may not have happened.
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = streaming => {}
        }
    }
}

/// What is known when nothing is streamed.
fn idle(status: &StreamStatus) -> StreamStatus {
    let StreamStatus { last_streamed, last_failure, counters, .. } = status.clone();
    StreamStatus { last_streamed, last_failure, counters, ..StreamStatus::default() }
}

/// One term.
struct Streaming<'run> {
    options: &'run StreamOptions,
    store: Arc<dyn Store>,
    position: &'run dyn FlushPosition,
    shipper: &'run Shipper,
    leadership: Leadership,
    left: &'run Left,
    requests: &'run AtomicU64,
    progress: SegmentProgress,
    /// Keys of chunks that a larger one holds too.
    replaced: VecDeque<String>,
    backoff: Backoff,
    status: StreamStatus,
    shown: &'run watch::Sender<StreamStatus>,
}

impl Streaming<'_> {
    async fn stream(mut self) {
        let mut found = None;
        loop {
            let (begun, was_found) = (clock::monotonic(), found.is_some());
            let worked = self.look(begun, found.take()).await;
            let failed = worked.err();
            if let Some(failure) = &failed {
                self.failed(failure);
            }
            self.show();
            if failed.is_some() {
                sleep_until(begun + self.options.interval.max(self.backoff.next_wait())).await;
            } else {
                found = self.pause(begun, was_found).await;
            }
        }
    }

    /// Until it is time to look again; what somebody has found meanwhile who looks about as often. `patiently`: that was so the
    /// last time.
    async fn pause(&self, begun: Instant, patiently: bool) -> Option<(TimelineId, Lsn)> {
        let interval = self.options.interval;
        let patience = if patiently { interval / 4 } else { Duration::ZERO };
        let found_late_enough = async {
            loop {
                let found = self.position.found_anyway().await;
                if begun.elapsed() >= interval / 2 {
                    return found;
                }
            }
        };
        tokio::select! {
            found = found_late_enough => Some(found),
            () = sleep_until(begun + interval + patience) => None,
        }
    }

    /// Looks once, unless it is `found` already how far WAL is flushed, and sends all that was.
    async fn look(&mut self, at: Instant, found: Option<(TimelineId, Lsn)>) -> Result<(), ChunkError> {
        let flushed = match found {
            Some(found) => Some(found),
            None => timeout(POSITION_LIMIT, self.position.flushed()).await.ok().flatten(),
        };
        // Without an answer nothing is known to be flushed beyond what was; what is known may still wait.
        if let Some((timeline, lsn)) = flushed
            && let Some(left) = self.progress.look(timeline, lsn, at)
        {
            self.left.add(left);
        }
        self.confirm_finished().await;
        self.show();
        if !self.may_write() {
            return Ok(());
        }
        self.begin_segment().await?;
        // One after the other, so that what is there never has a gap: a recovery uses the chunks up to the first one.
        while let Some(range) = self.progress.take() {
            self.send(range).await?;
        }
        self.merge().await?;
        self.remove_replaced().await;
        Ok(())
    }

    /// Only when the archive is claimed for this very term: neither a former primary nor another cluster may add to it.
    fn may_write(&self) -> bool {
        let status = self.shipper.status();
        let status = status.borrow();
        status.claimed && status.term == Some(self.leadership.term)
    }

    /// Asks the shipper for the segments that were finished meanwhile.
    async fn confirm_finished(&mut self) {
        while let Some(segment) = self.progress.oldest_finished() {
            let confirmed = self.shipper.durable_already(WalFileName::Segment(segment)).await.is_ok();
            if !confirmed {
                return;
            }
            self.progress.confirm_oldest_finished();
        }
    }

    /// Of the first segment a program before this one may have streamed a part.
    async fn begin_segment(&mut self) -> Result<(), ChunkError> {
        let Some(current) = self.progress.current() else { return Ok(()) };
        if current.is_known || current.conflict.is_some() {
            return Ok(());
        }
        let flushed = current.flushed;
        let Some(source) = self.source() else { return Ok(()) };
        match resume(&source, flushed).await {
            Ok(resumed) => {
                self.requests.fetch_add(resumed.requests, Ordering::Relaxed);
                if resumed.stored > 0 {
                    info!(segment = %source.segment, bytes = resumed.stored, "streaming resumes where it ended");
                }
                self.progress.resumed(resumed.stored);
                self.works();
                Ok(())
            }
            Err(failure) => self.failed_request(failure),
        }
    }

    async fn send(&mut self, range: Range) -> Result<(), ChunkError> {
        let Some(source) = self.source() else { return Ok(()) };
        match source.send(range).await {
            Ok(sent) => {
                self.requests.fetch_add(sent.requests, Ordering::Relaxed);
                self.progress.sent(range);
                let counters = &mut self.status.counters;
                counters.chunks += 1;
                counters.bytes_in += range.to - range.from;
                counters.bytes_out += sent.bytes_out;
                self.status.last_streamed = Some(clock::wall());
                self.works();
                self.show();
                Ok(())
            }
            Err(failure) => self.failed_request(failure),
        }
    }

    /// Lets one chunk take the place of many small ones; only when it is there do they go.
    async fn merge(&mut self) -> Result<(), ChunkError> {
        let Some((whole, small)) = self.progress.take_merge() else { return Ok(()) };
        let Some(source) = self.source() else { return Ok(()) };
        match source.send(whole).await {
            Ok(sent) => {
                self.requests.fetch_add(sent.requests, Ordering::Relaxed);
                self.replaced.extend(small.iter().map(|range| source.key(*range)));
                Ok(())
            }
            // The small ones hold the same and stay.
            Err(failure) => self.failed_request(failure),
        }
    }

    /// Where it fails they stay: they do no harm, and go with the others once the segment is archived.
    async fn remove_replaced(&mut self) {
        for _ in 0..REMOVED_AT_ONCE {
            let Some(key) = self.replaced.pop_front() else { return };
            self.requests.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = self.store.delete(&key).await {
                debug!(error = causes(&error), "keeping small chunks for now");
                self.replaced.clear();
            }
        }
    }

    fn source(&self) -> Option<Source> {
        let segment = self.progress.current()?.segment;
        let Leadership { system_identifier, segment_size, .. } = self.leadership;
        Some(Source {
            store: self.store.clone(),
            layout: self.options.layout.clone(),
            pg_wal: self.options.pg_wal.clone(),
            segment,
            expected: Expected { system_identifier: Some(system_identifier), segment_size },
        })
    }

    /// A conflict ends the streaming of this segment and no more.
    fn failed_request(&mut self, failure: ChunkError) -> Result<(), ChunkError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let ChunkError::Conflict(text) = failure {
            error!(fault = text, "WAL is not streamed: conflict");
            self.status.counters.failures += 1;
            self.status.last_failure = Some((text.clone(), clock::wall()));
            self.progress.conflict(text);
            return Ok(());
        }
        Err(failure)
    }

    fn failed(&mut self, failure: &ChunkError) {
        let text = failure.text();
        self.status.counters.failures += 1;
        match failure {
            // PostgreSQL went on while this program did not: the next look shows another segment.
            ChunkError::Content(ContentError::Missing { .. } | ContentError::Changed { .. }) => {
                debug!(error = text, "nothing streamed")
            }
            ChunkError::Content(_) | ChunkError::Conflict(_) | ChunkError::Task(_) | ChunkError::Store(_) => {
                if !self.status.store_failing {
                    self.status.store_failing = true;
                    warn!(error = text, "WAL is not streamed for now");
                }
            }
        }
        self.status.last_failure = Some((text, clock::wall()));
    }

    fn works(&mut self) {
        self.backoff.reset();
        if self.status.store_failing {
            self.status.store_failing = false;
            info!("WAL is streamed again");
        }
    }

    /// Shows the state to the readers.
    fn show(&mut self) {
        let current = self.progress.current();
        self.status.segment = current.map(|current| current.segment);
        self.status.conflict = current.and_then(|current| current.conflict.clone());
        self.status.streamed_to = self.progress.streamed_to();
        self.status.flushed = self.progress.flushed();
        self.status.missing_since = self.progress.missing_since();
        self.status.counters.requests = self.requests.load(Ordering::Relaxed);
        self.shown.send_replace(self.status.clone());
    }
}
