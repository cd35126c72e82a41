//! Up to where the archive has all of this server's history, as far as it is known. Pure: touches no file and no store.

use std::collections::BTreeMap;

use outrider_wal::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};

use super::Leadership;
use super::gaps::GapCheck;
use crate::ready::WalFile;

/// What the last comparison with pg_wal left open, and what was confirmed since.
#[derive(Debug)]
pub(super) struct Unbroken {
    timeline: TimelineId,
    size: SegmentSize,
    /// Segments that the comparison found missing and that the archive does not have yet, by number.
    missing: BTreeMap<u64, SegmentName>,
    /// The number of the first segment that is neither compared nor confirmed.
    next: u64,
}

impl Unbroken {
    /// What a comparison says; `None` when there was nothing to compare. `is_confirmed` knows what left meanwhile.
    pub(super) fn compared(
        leadership: Leadership,
        found: &GapCheck,
        is_confirmed: impl Fn(WalFile) -> bool,
    ) -> Option<Self> {
        let (timeline, size) = (leadership.timeline, leadership.segment_size);
        let holes = found.holes.iter().filter_map(|file| match file.name() {
            WalFileName::Segment(segment) => Some(segment),
            WalFileName::Partial(_) | WalFileName::BackupHistory { .. } | WalFileName::History(_) => None,
        });
        let is_open = |segment: &SegmentName| !is_confirmed(WalFile::from(WalFileName::Segment(*segment)));
        let missing = holes.chain(found.ready.iter().copied().filter(is_open));
        let missing = missing.map(|segment| (segment.number(size), segment)).collect();
        let mut unbroken = Unbroken { timeline, size, missing, next: found.compared_to? };
        unbroken.advance(is_confirmed);
        Some(unbroken)
    }

    /// The archive has this one.
    pub(super) fn confirm(&mut self, file: WalFile, is_confirmed: impl Fn(WalFile) -> bool) {
        if let WalFileName::Segment(segment) = file.name() {
            let number = segment.number(self.size);
            if self.missing.get(&number) == Some(&segment) {
                self.missing.remove(&number);
            }
        }
        self.advance(is_confirmed);
    }

    /// All before this is in the archive, or in a gap that this server cannot fill.
    pub(super) fn end(&self) -> (TimelineId, Lsn) {
        let number = self.missing.keys().next().copied().unwrap_or(self.next).min(self.next);
        (self.timeline, SegmentName::numbered(self.timeline, number, self.size).start(self.size))
    }

    /// Several are on their way at one time, and a later one may be there first.
    fn advance(&mut self, is_confirmed: impl Fn(WalFile) -> bool) {
        let name = |number| WalFileName::Segment(SegmentName::numbered(self.timeline, number, self.size));
        while is_confirmed(WalFile::from(name(self.next))) {
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    /// The number of the segment at which it ends, after the comparison and after each that is confirmed.
    fn ends(found: &GapCheck, before: &[&str], confirmed: &[&str]) -> Vec<u64> {
        let file = |name: &&str| WalFile::from(name.parse::<WalFileName>().unwrap());
        let mut known: BTreeSet<WalFile> = before.iter().map(file).collect();
        let leadership =
            Leadership { term: 1, system_identifier: 1, segment_size: SIZE, timeline: TimelineId::new(2) };
        let mut unbroken = Unbroken::compared(leadership, found, |file| known.contains(&file)).unwrap();
        let number = |(timeline, lsn): (TimelineId, Lsn)| {
            assert_eq!(timeline, TimelineId::new(2));
            lsn.get() / SIZE.bytes()
        };
        let mut ends = vec![number(unbroken.end())];
        for name in confirmed {
            known.insert(file(name));
            unbroken.confirm(file(name), |file| known.contains(&file));
            ends.push(number(unbroken.end()));
        }
        ends
    }

    fn found(holes: &[&str], ready: &[&str], compared_to: u64) -> GapCheck {
        let name = |name: &&str| name.parse::<WalFileName>().unwrap();
        let segment = |name: &&str| match name.parse().unwrap() {
            WalFileName::Segment(segment) => segment,
            other => panic!("{other}"),
        };
        GapCheck {
            holes: holes.iter().map(name).map(WalFile::from).collect(),
            ready: ready.iter().map(segment).collect(),
            compared_to: Some(compared_to),
            ..GapCheck::default()
        }
    }

    #[test]
    fn it_ends_at_the_oldest_that_is_missing_whatever_is_confirmed_behind_it() {
        let found = found(
            &["000000010000000000000004", "000000020000000000000007"],
            &["000000020000000000000008"],
            9,
        );
        let confirmed = [
            "000000020000000000000008",
            "000000020000000000000009",
            "000000020000000000000004",
            "000000010000000000000004",
            "000000020000000000000007",
        ];
        assert_eq!(ends(&found, &[], &confirmed), [4, 4, 4, 4, 7, 10]);
    }

    #[test]
    fn what_left_during_the_comparison_is_not_missing_but_a_hole_is() {
        let left = ["000000020000000000000008", "000000020000000000000009", "000000020000000000000007"];
        assert_eq!(ends(&found(&[], &left[..1], 9), &left, &[]), [10]);
        assert_eq!(ends(&found(&left[2..], &left[..1], 9), &left, &left[2..]), [7, 10]);
    }

    #[test]
    fn a_later_one_that_is_there_first_waits_for_the_one_before() {
        let confirmed = ["000000020000000000000006", "00000003.history", "000000020000000000000005"];
        assert_eq!(ends(&found(&[], &[], 5), &[], &confirmed), [5, 5, 5, 7]);
    }

    #[test]
    fn nothing_compared_is_nothing_known() {
        let leadership =
            Leadership { term: 1, system_identifier: 1, segment_size: SIZE, timeline: TimelineId::FIRST };
        assert!(Unbroken::compared(leadership, &GapCheck::default(), |_| true).is_none());
    }
}
