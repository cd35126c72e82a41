//! What of the flushed WAL the archive has, and which piece leaves next. Pure: touches no file and no store.

use std::collections::VecDeque;

use outrider_wal::{Lsn, SegmentName, SegmentSize, TimelineId};
use tokio::time::Instant;

use super::chunk::Range;

/// Bytes of the largest chunk: what a segment may be ahead after the store was down leaves in several.
pub(super) const CHUNK_MAX: u64 = 4 << 20;
/// So many chunks in a row are replaced by one that holds them all, so that a segment that fills slowly, over hours, is
/// restored with few requests.
const MERGED: usize = 64;
/// Entries for finished segments; when there are more, the newest ones share a time.
const FINISHED_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct SegmentProgress {
    size: SegmentSize,
    current: Option<Current>,
    /// Segments that were finished under our eyes and that the archive is not known to have, oldest first.
    finished: VecDeque<Finished>,
    missing_since: Option<Instant>,
    looked: Option<Instant>,
}

/// The segment that is being written.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) segment: SegmentName,
    /// Offset up to which the archive has it.
    pub(super) stored: u64,
    /// Offset up to which PostgreSQL has flushed it.
    pub(super) flushed: u64,
    /// Whether it is known what the archive has of it from before.
    pub(super) is_known: bool,
    pub(super) conflict: Option<String>,
    /// The end of a chunk whose fate is unknown: the very same range is tried again.
    tried: Option<u64>,
    small: Vec<Range>,
}

/// Segments that were finished between two looks.
#[derive(Clone, Copy, Debug)]
struct Finished {
    first: SegmentName,
    count: u64,
    /// Offset up to which the first was streamed.
    stored: u64,
    since: Instant,
}

impl SegmentProgress {
    pub(super) fn new(size: SegmentSize) -> Self {
        SegmentProgress { size, current: None, finished: VecDeque::new(), missing_since: None, looked: None }
    }

    /// Takes in what PostgreSQL had flushed at the time `at`. Returns a segment that was left with chunks of it in the
    /// archive.
    pub(super) fn look(&mut self, timeline: TimelineId, lsn: Lsn, at: Instant) -> Option<SegmentName> {
        // What is new was flushed since the look before.
        let since = self.looked.replace(at).unwrap_or(at);
        let segment = SegmentName::holding(timeline, lsn, self.size);
        let flushed = lsn.get() - segment.start(self.size).get();
        let mut left = None;
        if self.current.as_ref().is_none_or(|current| current.segment != segment) {
            let is_known = self.current.is_some();
            if let Some(old) = self.current.take() {
                left = (old.stored > 0 || old.tried.is_some()).then_some(old.segment);
                self.leave(&old, segment, since);
            }
            self.missing_since = None;
            self.current = Some(Current::new(segment, is_known));
        }
        if let Some(current) = &mut self.current {
            current.flushed = flushed;
            if flushed < current.stored && current.conflict.is_none() {
                current.conflict = Some(format!(
                    "PostgreSQL has flushed {segment} up to {lsn} only and had flushed more of it before: WAL was lost here"
                ));
            }
            if current.stored < flushed && self.missing_since.is_none() {
                self.missing_since = Some(since);
            }
        }
        left
    }

    /// Keeps account of the segments from `old` to before `new`, whose rest is now a matter of whole files.
    fn leave(&mut self, old: &Current, new: SegmentName, since: Instant) {
        let count = new.number(self.size).checked_sub(old.segment.number(self.size));
        let Some(count) = count.filter(|_| old.segment.timeline == new.timeline) else {
            // Another timeline: what the old one still lacks was never this server's to promise.
            self.finished.clear();
            return;
        };
        if self.finished.len() >= FINISHED_MAX
            && let Some(newest) = self.finished.back_mut()
        {
            newest.count += count;
            return;
        }
        let since = self.missing_since.unwrap_or(since);
        self.finished.push_back(Finished { first: old.segment, count, stored: old.stored, since });
    }

    pub(super) fn current(&self) -> Option<&Current> {
        self.current.as_ref()
    }

    /// The next chunk to send, from now on on its way; `None` when there is nothing to send.
    pub(super) fn take(&mut self) -> Option<Range> {
        let current = self.current.as_mut()?;
        if !current.is_known || current.conflict.is_some() || current.stored >= current.flushed {
            return None;
        }
        let from = current.stored;
        let to = *current.tried.get_or_insert(current.flushed.min(from + CHUNK_MAX));
        Some(Range { from, to })
    }

    /// The archive has this chunk.
    pub(super) fn sent(&mut self, range: Range) {
        let Some(current) = &mut self.current else { return };
        current.small.push(range);
        current.tried = None;
        self.resumed(range.to);
    }

    /// The archive has all of the segment before this offset.
    pub(super) fn resumed(&mut self, stored: u64) {
        let Some(current) = &mut self.current else { return };
        current.is_known = true;
        current.stored = stored;
        if stored >= current.flushed {
            self.missing_since = None;
        }
    }

    /// The archive has something else for this segment: it is not streamed on.
    pub(super) fn conflict(&mut self, text: String) {
        if let Some(current) = &mut self.current {
            current.conflict = Some(text);
        }
    }

    /// Many small chunks that one can replace, and that one.
    pub(super) fn take_merge(&mut self) -> Option<(Range, Vec<Range>)> {
        let current = self.current.as_mut()?;
        if current.small.len() < MERGED {
            return None;
        }
        let small = std::mem::take(&mut current.small);
        let whole = Range { from: small.first()?.from, to: small.last()?.to };
        (whole.to - whole.from <= CHUNK_MAX).then_some((whole, small))
    }

    /// The oldest finished segment that the archive is not known to have.
    pub(super) fn oldest_finished(&self) -> Option<SegmentName> {
        self.finished.front().map(|finished| finished.first)
    }

    /// The archive has that one.
    pub(super) fn confirm_oldest_finished(&mut self) {
        let Some(oldest) = self.finished.front_mut() else { return };
        oldest.first = oldest.first.next(self.size);
        oldest.count = oldest.count.saturating_sub(1);
        oldest.stored = 0;
        if oldest.count == 0 {
            self.finished.pop_front();
        }
    }

    /// All before this is in the archive.
    pub(super) fn streamed_to(&self) -> Option<Lsn> {
        let of = |segment: SegmentName, stored: u64| segment.start(self.size).advanced(stored);
        let oldest = self.finished.front().map(|finished| of(finished.first, finished.stored));
        let current = self.current.as_ref().filter(|current| current.is_known);
        oldest.or_else(|| current.map(|current| of(current.segment, current.stored)))
    }

    /// The end of what was flushed at the last look.
    pub(super) fn flushed(&self) -> Option<Lsn> {
        self.current.as_ref().map(|current| current.segment.start(self.size).advanced(current.flushed))
    }

    /// Since when, at the earliest, the oldest byte is flushed that the archive does not have.
    pub(super) fn missing_since(&self) -> Option<Instant> {
        self.finished.front().map(|finished| finished.since).or(self.missing_since)
    }
}

impl Current {
    fn new(segment: SegmentName, is_known: bool) -> Self {
        Current { segment, stored: 0, flushed: 0, is_known, conflict: None, tried: None, small: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;
    const MIB: u64 = 1 << 20;

    struct Watched {
        progress: SegmentProgress,
        begun: Instant,
    }

    impl Watched {
        fn new() -> Self {
            Watched { progress: SegmentProgress::new(SIZE), begun: Instant::now() }
        }

        fn at(&self, second: u64) -> Instant {
            self.begun + Duration::from_secs(second)
        }

        /// One look each second.
        fn look(&mut self, second: u64, lsn: u64) -> Option<String> {
            let at = self.at(second);
            let left = self.progress.look(TimelineId::FIRST, Lsn::new(lsn), at);
            if second == 0 {
                self.progress.resumed(0);
            }
            left.map(|segment| segment.to_string())
        }

        fn send(&mut self) -> Vec<Range> {
            let mut sent = Vec::new();
            while let Some(range) = self.progress.take() {
                self.progress.sent(range);
                sent.push(range);
            }
            sent
        }
    }

    #[test]
    fn only_what_is_new_leaves() {
        let mut watched = Watched::new();
        watched.look(0, 16 * MIB + 100);
        assert_eq!(watched.send(), [Range { from: 0, to: 100 }]);
        watched.look(1, 16 * MIB + 100);
        assert_eq!((watched.send(), watched.progress.missing_since()), (vec![], None));
        watched.look(2, 16 * MIB + 300);
        assert_eq!(watched.progress.missing_since(), Some(watched.at(1)));
        assert_eq!(watched.send(), [Range { from: 100, to: 300 }]);
        assert_eq!(watched.progress.missing_since(), None);
        assert_eq!(watched.progress.streamed_to(), Some(Lsn::new(16 * MIB + 300)));
    }

    #[test]
    fn nothing_leaves_before_it_is_known_what_is_there() {
        let mut progress = SegmentProgress::new(SIZE);
        progress.look(TimelineId::FIRST, Lsn::new(16 * MIB + 100), Instant::now());
        assert_eq!((progress.take(), progress.streamed_to()), (None, None));
        progress.resumed(60);
        assert_eq!(progress.take(), Some(Range { from: 60, to: 100 }));
    }

    #[test]
    fn a_chunk_whose_fate_is_unknown_is_tried_again_with_the_same_ends() {
        let mut watched = Watched::new();
        watched.look(0, 16 * MIB + 100);
        assert_eq!(watched.progress.take(), Some(Range { from: 0, to: 100 }));
        watched.look(1, 16 * MIB + 900);
        assert_eq!(watched.send(), [Range { from: 0, to: 100 }, Range { from: 100, to: 900 }]);
    }

    #[test]
    fn much_leaves_in_bounded_chunks() {
        let mut watched = Watched::new();
        watched.look(0, 27 * MIB);
        let lengths: Vec<u64> = watched.send().iter().map(|range| (range.to - range.from) / MIB).collect();
        assert_eq!(lengths, [4, 4, 3]);
    }

    #[test]
    fn the_rest_of_finished_segments_is_behind_until_they_are_confirmed() {
        let mut watched = Watched::new();
        watched.look(0, 16 * MIB + 100);
        watched.send();
        assert_eq!(watched.look(1, 49 * MIB).as_deref(), Some("000000010000000000000001"));
        assert_eq!(watched.send(), [Range { from: 0, to: MIB }]);
        watched.look(2, 49 * MIB);
        assert_eq!(watched.progress.streamed_to(), Some(Lsn::new(16 * MIB + 100)));
        assert_eq!(watched.progress.missing_since(), Some(watched.at(0)));
        for segment in ["000000010000000000000001", "000000010000000000000002"] {
            assert_eq!(watched.progress.oldest_finished().unwrap().to_string(), segment);
            watched.progress.confirm_oldest_finished();
        }
        assert_eq!(watched.progress.streamed_to(), Some(Lsn::new(49 * MIB)));
        assert_eq!((watched.progress.oldest_finished(), watched.progress.missing_since()), (None, None));
    }

    #[test]
    fn with_a_new_timeline_the_old_one_is_left() {
        let mut watched = Watched::new();
        watched.look(0, 16 * MIB + 100);
        watched.send();
        let at = watched.at(1);
        let left = watched.progress.look(TimelineId::new(2), Lsn::new(16 * MIB + 200), at);
        assert_eq!(left.unwrap().to_string(), "000000010000000000000001");
        assert_eq!(watched.send(), [Range { from: 0, to: 200 }]);
    }

    #[test]
    fn nothing_leaves_of_a_segment_in_conflict_and_the_next_does() {
        let mut watched = Watched::new();
        watched.look(0, 16 * MIB + 100);
        watched.send();
        watched.look(1, 16 * MIB + 50);
        assert!(watched.progress.current().unwrap().conflict.is_some());
        watched.look(2, 16 * MIB + 200);
        assert_eq!(watched.send(), []);
        watched.look(3, 32 * MIB + 10);
        assert_eq!(watched.send(), [Range { from: 0, to: 10 }]);
    }

    #[test]
    fn many_small_chunks_become_one() {
        let mut watched = Watched::new();
        for second in 0..64 {
            assert_eq!(watched.progress.take_merge(), None);
            watched.look(second, 16 * MIB + 10 * (second + 1));
            watched.send();
        }
        let (whole, small) = watched.progress.take_merge().unwrap();
        assert_eq!((whole, small.len()), (Range { from: 0, to: 640 }, 64));
        assert_eq!(watched.progress.take_merge(), None);
    }

    #[test]
    fn the_account_of_finished_segments_is_bounded_and_forgets_none() {
        let mut watched = Watched::new();
        for second in 0..5000 {
            watched.look(second, 16 * MIB * (second + 1));
        }
        assert_eq!(watched.progress.finished.len(), FINISHED_MAX);
        for _ in 0..4999 {
            assert!(watched.progress.oldest_finished().is_some());
            watched.progress.confirm_oldest_finished();
        }
        assert_eq!(watched.progress.oldest_finished(), None);
    }
}
