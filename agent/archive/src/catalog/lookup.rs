//! Where a recovery along a given path finds each segment of the WAL, in the archive's listing. Opens no segment.

use outrider_wal::{Lsn, SegmentName, SegmentSize, TimelineId};

use super::path::TimelinePath;
use super::wal::{ArchivedWal, History};

impl ArchivedWal {
    /// The number of the last segment that follows `number` on its timeline without a gap; `None` when `number` itself
    /// is not there.
    #[must_use]
    pub fn last_without_gap(&self, timeline: TimelineId, number: u64) -> Option<u64> {
        let runs = self.runs.get(&timeline)?;
        runs.iter().find(|run| run.first <= number && number <= run.last).map(|run| run.last)
    }

    /// The number of the first segment from `number` on that is there.
    #[must_use]
    pub fn first_from(&self, timeline: TimelineId, number: u64) -> Option<u64> {
        let runs = self.runs.get(&timeline)?;
        runs.iter().find(|run| run.last >= number).map(|run| run.first.max(number))
    }

    /// How much of a segment that is not there whole a recovery can still get, in bytes from its start: what was
    /// streamed. Of a partial segment all, whatever of it is void.
    #[must_use]
    pub fn beginning_of(&self, segment: SegmentName) -> Option<u64> {
        let streamed = self.streamed.get(&segment).copied().filter(|end| *end > 0);
        streamed.or_else(|| self.partial.contains(&segment).then(|| self.segment_size().bytes()))
    }

    /// Whether a recovery can be led along this timeline.
    #[must_use]
    pub fn has_history(&self, timeline: TimelineId) -> bool {
        let told = matches!(self.histories.get(&timeline), Some(History::Told(_)));
        timeline == TimelineId::FIRST || told
    }

    /// The newest timeline that has a history; the first when none has.
    #[must_use]
    pub fn newest_timeline(&self) -> TimelineId {
        self.histories.keys().next_back().copied().unwrap_or(TimelineId::FIRST)
    }
}

impl TimelinePath {
    /// The segment with this number that recovery needs: that of the newest timeline which begins in it or before.
    /// The one in which a timeline begins has a copy of the older WAL in front (PostgreSQL, XLogInitNewTimeline).
    #[must_use]
    pub fn segment(&self, number: u64, size: SegmentSize) -> SegmentName {
        let begun = |(_, begin): &&(TimelineId, Lsn)| begin.get() / size.bytes() <= number;
        let timeline = self.stretches.iter().rev().find(begun).map_or(TimelineId::FIRST, |(here, _)| *here);
        SegmentName::numbered(timeline, number, size)
    }

    /// The files in which recovery looks for the segment with this number, in its order, each with the place from which
    /// on a later timeline has the WAL (PostgreSQL, XLogFileReadAnyTLI).
    #[must_use]
    pub fn candidates(&self, number: u64, size: SegmentSize) -> Vec<(SegmentName, Lsn)> {
        let left_at =
            |place: usize| self.stretches.get(place + 1).map_or(Lsn::new(u64::MAX), |(_, begin)| *begin);
        let begun = |(_, (_, begin)): &(usize, &(TimelineId, Lsn))| begin.get() / size.bytes() <= number;
        let begun = self.stretches.iter().enumerate().filter(begun).rev();
        begun.map(|(place, (here, _))| (SegmentName::numbered(*here, number, size), left_at(place))).collect()
    }

    /// The number of the last segment that is taken from the same timeline as this one.
    #[must_use]
    pub fn last_alike(&self, number: u64, size: SegmentSize) -> u64 {
        let begins = self.stretches.iter().map(|(_, begin)| begin.get() / size.bytes());
        let later = begins.filter(|begin| *begin > number).min();
        later.map_or(u64::MAX, |begin| begin - 1)
    }

    /// The timelines, oldest first.
    pub fn timelines(&self) -> impl Iterator<Item = TimelineId> {
        self.stretches.iter().map(|(timeline, _)| *timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    /// Timeline 2 begins in the middle of segment 3, timeline 5 at the start of segment 6.
    fn path() -> TimelinePath {
        TimelinePath::new(TimelineId::new(5), &"1\t0/3800000\tx\n2\t0/6000000\ty\n".parse().unwrap())
    }

    #[test]
    fn each_segment_is_taken_from_the_newest_timeline_that_begins_in_it_or_before() {
        let timelines: Vec<u32> = (2..8).map(|number| path().segment(number, SIZE).timeline.get()).collect();
        assert_eq!(timelines, [1, 2, 2, 2, 5, 5]);
        let last_alike: Vec<u64> = (2..7).map(|number| path().last_alike(number, SIZE)).collect();
        assert_eq!(last_alike, [2, 5, 5, 5, u64::MAX]);
    }

    #[test]
    fn a_segment_is_looked_for_on_the_newest_timeline_first() {
        let candidates = path().candidates(4, SIZE);
        let candidates: Vec<(u32, u64)> =
            candidates.iter().map(|(segment, left_at)| (segment.timeline.get(), left_at.get())).collect();
        assert_eq!(candidates, [(2, 0x0600_0000), (1, 0x0380_0000)]);
    }

    #[test]
    fn a_timeline_that_was_left_in_its_first_segment_gives_none() {
        let history = "1\t0/3100000\tx\n2\t0/3200000\ty\n".parse().unwrap();
        let path = TimelinePath::new(TimelineId::new(3), &history);
        assert_eq!(path.segment(3, SIZE).timeline, TimelineId::new(3));
        assert_eq!((path.last_alike(0, SIZE), path.last_alike(3, SIZE)), (2, u64::MAX));
    }

    #[test]
    fn the_listing_is_asked_by_number() {
        let mut wal = ArchivedWal::new(SIZE);
        for name in ["000000010000000000000002", "000000010000000000000003", "0000000100000000000000FF"] {
            wal.add(&format!("s/wals/0000000100000000/{name}.gz"), 10);
        }
        wal.add("s/wals/0000000100000000/000000010000000000000005.partial.gz", 10);
        let first = TimelineId::FIRST;
        assert_eq!((wal.last_without_gap(first, 2), wal.last_without_gap(first, 4)), (Some(3), None));
        assert_eq!((wal.first_from(first, 2), wal.first_from(first, 4)), (Some(2), Some(255)));
        assert_eq!(wal.first_from(first, 256), None);
        let partial = SegmentName::numbered(first, 5, SIZE);
        assert_eq!(wal.beginning_of(partial), Some(16 << 20));
        assert_eq!(wal.beginning_of(partial.next(SIZE)), None);
        assert!(wal.has_history(first) && !wal.has_history(TimelineId::new(2)));
    }
}
