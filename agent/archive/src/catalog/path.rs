//! The way of a recovery through the timelines: which of them gives which segments. Looks into no archive.

use outrider_wal::{Lsn, SegmentSize, TimelineHistory, TimelineId};

/// A timeline and its ancestors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelinePath {
    /// Oldest first. Each begins where the one before was left; the first at 0.
    pub(super) stretches: Vec<(TimelineId, Lsn)>,
}

/// The part of a path that one timeline gives: the segments with these numbers; without an end for the last timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) timeline: TimelineId,
    pub(crate) first: u64,
    /// `None` for the last timeline.
    pub(crate) last: Option<u64>,
    /// Where the next timeline begins.
    pub(crate) left_at: Option<Lsn>,
}

impl TimelinePath {
    /// The way to `timeline`, whose history this is.
    #[must_use]
    pub fn new(timeline: TimelineId, history: &TimelineHistory) -> Self {
        let mut begin = Lsn::INVALID;
        let mut stretches = Vec::new();
        for switch in history.switches() {
            stretches.push((switch.timeline, begin));
            begin = switch.end;
        }
        stretches.push((timeline, begin));
        TimelinePath { stretches }
    }

    /// Whether a base backup of `timeline` that is consistent at `end` lies on it.
    #[must_use]
    pub fn holds(&self, timeline: TimelineId, end: Lsn) -> bool {
        let Some(place) = self.stretches.iter().position(|(here, _)| *here == timeline) else { return false };
        self.stretches.get(place + 1).is_none_or(|(_, begin)| end <= *begin)
    }

    /// What each timeline gives to a recovery that begins in the segment `from` of `timeline`. The segment in which a
    /// timeline begins is taken from it: it has a copy of the older WAL in front (PostgreSQL, XLogInitNewTimeline).
    /// Timelines that give nothing are left out, but for the last.
    pub(crate) fn stretches(&self, timeline: TimelineId, from: u64, size: SegmentSize) -> Vec<Stretch> {
        let start = self.stretches.iter().position(|(here, _)| *here == timeline).unwrap_or(0);
        let number = |lsn: Lsn| lsn.get() / size.bytes();
        let mut found = Vec::new();
        for (place, (timeline, begin)) in self.stretches.iter().enumerate().skip(start) {
            let next = self.stretches.get(place + 1).map(|(_, begin)| *begin);
            let first = if place == start { from } else { number(*begin).max(from) };
            let last = match next.map(number) {
                // It was left in the segment in which it is asked for: the next has that one.
                Some(left_in) if left_in <= first => continue,
                Some(left_in) => Some(left_in - 1),
                None => None,
            };
            found.push(Stretch { timeline: *timeline, first, last, left_at: next });
        }
        found
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

    fn given(timeline: u32, from: u64) -> Vec<(u32, u64, Option<u64>)> {
        let stretches = path().stretches(TimelineId::new(timeline), from, SIZE);
        stretches.into_iter().map(|stretch| (stretch.timeline.get(), stretch.first, stretch.last)).collect()
    }

    #[test]
    fn each_segment_is_given_by_the_newest_timeline_that_begins_in_it_or_before() {
        assert_eq!(given(1, 1), [(1, 1, Some(2)), (2, 3, Some(5)), (5, 6, None)]);
        assert_eq!(given(1, 3), [(2, 3, Some(5)), (5, 6, None)]);
        assert_eq!(given(2, 4), [(2, 4, Some(5)), (5, 6, None)]);
        assert_eq!(given(5, 9), [(5, 9, None)]);
    }

    #[test]
    fn a_backup_lies_on_it_when_it_ended_before_its_timeline_was_left() {
        let holds = |timeline, end| path().holds(TimelineId::new(timeline), Lsn::new(end));
        assert!(holds(1, 0x0380_0000) && holds(2, 0x0600_0000) && holds(5, u64::MAX));
        assert!(!holds(1, 0x0380_0001) && !holds(2, 0x0600_0001) && !holds(3, 0));
    }
}
