//! How far a recovery from a base backup gets with the WAL that is there, and what is missing. Opens no segment.

use outrider_wal::{Lsn, SegmentName};

use outrider_archive::catalog::{ArchivedWal, Gap, TimelinePath};

/// Gaps that are named; more are as bad.
const GAPS_MAX: usize = 16;

/// The WAL from the beginning of a base backup to the first gap, or to the end of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// The number of the segment in which replay begins.
    pub(super) first: u64,
    /// The number of the first segment that is not there whole.
    pub(super) end: u64,
    /// The file that has the beginning of that segment, and how many bytes of it count.
    pub(super) beginning: Option<(SegmentName, u64)>,
    /// What is missing before something that is there.
    pub(super) gaps: Vec<Gap>,
}

impl Reach {
    /// From the segment `first` along the path.
    pub(super) fn new(wal: &ArchivedWal, path: &TimelinePath, first: u64) -> Self {
        let size = wal.segment_size();
        let mut reach = Reach { first, end: first, beginning: None, gaps: Vec::new() };
        let mut number = first;
        loop {
            let timeline = path.segment(number, size).timeline;
            if let Some(last) = wal.last_without_gap(timeline, number) {
                let last = last.min(path.last_alike(number, size));
                if reach.gaps.is_empty() {
                    reach.end = last + 1;
                }
                number = last + 1;
                continue;
            }
            if reach.gaps.is_empty() {
                reach.beginning = beginning(wal, path, number);
            }
            let Some(next) = next_on(wal, path, number) else { return reach };
            reach.gaps.extend(gaps_between(wal, path, number, next));
            if reach.gaps.len() >= GAPS_MAX {
                reach.gaps.truncate(GAPS_MAX);
                return reach;
            }
            number = next;
        }
    }

    /// The first byte that is surely not there.
    pub(super) fn end_lsn(&self, wal: &ArchivedWal) -> Lsn {
        let bytes = self.beginning.map_or(0, |(_, bytes)| bytes);
        Lsn::new(self.end * wal.segment_size().bytes() + bytes)
    }

    /// The last file with something in it, and its number.
    pub(super) fn last(&self, wal: &ArchivedWal, path: &TimelinePath) -> Option<(u64, SegmentName)> {
        match self.beginning {
            Some((segment, _)) => Some((self.end, segment)),
            None if self.end > self.first => {
                Some((self.end - 1, path.segment(self.end - 1, wal.segment_size())))
            }
            None => None,
        }
    }
}

/// The file that has the beginning of a segment that is not there whole.
fn beginning(wal: &ArchivedWal, path: &TimelinePath, number: u64) -> Option<(SegmentName, u64)> {
    let size = wal.segment_size();
    path.candidates(number, size).into_iter().find_map(|(segment, left_at)| {
        let whole = wal.last_without_gap(segment.timeline, number).map(|_| size.bytes());
        let bytes = whole.or_else(|| wal.beginning_of(segment))?;
        // What lies behind the place at which the timeline was left is another history.
        let counts = left_at.get().saturating_sub(segment.start(size).get());
        Some((segment, bytes.min(counts))).filter(|(_, bytes)| *bytes > 0)
    })
}

/// The number of the next segment on the path that is there.
fn next_on(wal: &ArchivedWal, path: &TimelinePath, number: u64) -> Option<u64> {
    let size = wal.segment_size();
    let mut from = number;
    loop {
        let timeline = path.segment(from, size).timeline;
        let last_alike = path.last_alike(from, size);
        let next = wal.first_from(timeline, from);
        if let Some(next) = next.filter(|next| *next <= last_alike) {
            return Some(next);
        }
        from = last_alike.checked_add(1)?;
    }
}

/// The missing segments `from..to`, each timeline's by themselves.
fn gaps_between(wal: &ArchivedWal, path: &TimelinePath, from: u64, to: u64) -> Vec<Gap> {
    let size = wal.segment_size();
    let (mut number, mut gaps) = (from, Vec::new());
    while number < to && gaps.len() < GAPS_MAX {
        let last = path.last_alike(number, size).min(to - 1);
        gaps.push(Gap { first: path.segment(number, size), last: path.segment(last, size) });
        number = last + 1;
    }
    gaps
}

#[cfg(test)]
mod tests {
    use outrider_wal::{SegmentSize, TimelineId};

    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn archive(segments: &[(u32, u64)]) -> ArchivedWal {
        let mut wal = ArchivedWal::new(SIZE);
        for (timeline, number) in segments {
            let name = SegmentName::numbered(TimelineId::new(*timeline), *number, SIZE);
            wal.add(&format!("s/wals/x/{name}.gz"), 100);
        }
        wal
    }

    /// Timeline 2 begins in the middle of segment 4.
    fn path() -> TimelinePath {
        TimelinePath::new(TimelineId::new(2), &"1\t0/4800000\tx\n".parse().unwrap())
    }

    fn gaps(reach: &Reach) -> Vec<String> {
        reach.gaps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_recovery_goes_over_a_switch_to_the_end() {
        let wal = archive(&[(1, 2), (1, 3), (1, 4), (1, 5), (2, 4), (2, 5)]);
        let reach = Reach::new(&wal, &path(), 2);
        assert_eq!((reach.end, reach.beginning), (6, None));
        assert_eq!(gaps(&reach), Vec::<String>::new());
        assert_eq!(reach.last(&wal, &path()).unwrap().1.to_string(), "000000020000000000000005");
    }

    #[test]
    fn a_missing_segment_in_the_middle_ends_it_and_is_named() {
        let wal = archive(&[(1, 2), (2, 5), (2, 6), (2, 9)]);
        let reach = Reach::new(&wal, &path(), 2);
        assert_eq!(reach.end, 3);
        assert_eq!(
            gaps(&reach),
            [
                "000000010000000000000003",
                "000000020000000000000004",
                "000000020000000000000007 to 000000020000000000000008"
            ]
        );
        assert_eq!(reach.end_lsn(&wal), Lsn::new(0x0300_0000));
    }

    #[test]
    fn what_another_timeline_has_past_the_switch_does_not_count() {
        let wal = archive(&[(1, 2), (1, 3), (1, 4), (1, 5), (1, 6)]);
        let reach = Reach::new(&wal, &path(), 2);
        assert_eq!(reach.end, 4);
        // The old timeline's copy serves up to the switch.
        assert_eq!(reach.beginning.map(|(_, bytes)| bytes), Some(0x0080_0000));
        assert_eq!(reach.end_lsn(&wal), Lsn::new(0x0480_0000));
        assert!(reach.gaps.is_empty());
    }

    #[test]
    fn without_its_first_segment_a_backup_leads_nowhere() {
        let wal = archive(&[(1, 3)]);
        let reach = Reach::new(&wal, &path(), 2);
        assert_eq!((reach.end, reach.last(&wal, &path())), (2, None));
        assert_eq!(gaps(&reach), ["000000010000000000000002"]);
        let nothing = Reach::new(&archive(&[]), &path(), 0);
        assert_eq!((nothing.end, nothing.gaps.len()), (0, 0));
    }
}
