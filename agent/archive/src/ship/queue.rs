//! Which file leaves next and which must wait for another. Pure: touches no file and no store.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use outrider_wal::TimelineId;

use crate::ready::{Ready, WalFile};

/// Confirmed files that are remembered, so that `wal-push` is answered at once. More than [`AHEAD_MAX`], so that
/// nothing which PostgreSQL is still to ask for is forgotten.
const REMEMBERED: usize = 8192;
/// Files shipped before PostgreSQL asked for them. When it never asks (its `archive_command` is broken), shipping
/// on would only forget the first ones again.
const AHEAD_MAX: usize = 4096;

/// The files between "PostgreSQL has finished it" and "the archive has it".
#[derive(Debug, Default)]
pub(super) struct ShipQueue {
    waiting: BTreeSet<WalFile>,
    beyond: u64,
    /// What was asked for by name leaves even when enough has left ahead.
    asked: BTreeSet<WalFile>,
    /// What pg_wal has and the archive lacks although it is not marked as ready.
    holes: BTreeSet<WalFile>,
    in_flight: BTreeSet<WalFile>,
    refused: BTreeMap<WalFile, Refusal>,
    confirmed: HashSet<WalFile>,
    confirmed_in_order: VecDeque<WalFile>,
    ahead: usize,
    /// Timelines whose history the archive has.
    settled: HashSet<TimelineId>,
}

/// Why a file stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The file is not what its name says. The others go on: a hole that is named is better than none after it.
    Damaged,
    /// The archive has another content for it. What comes later on its timeline would continue the other's WAL
    /// with ours, so it stays too.
    Conflict,
}

impl ShipQueue {
    /// Takes in what a scan found.
    pub(super) fn scanned(&mut self, ready: &Ready) {
        // The scan began a while ago: what was confirmed or taken since is no longer waiting.
        let new = |file: &&WalFile| {
            !self.confirmed.contains(file)
                && !self.in_flight.contains(file)
                && !self.refused.contains_key(file)
        };
        let waiting: BTreeSet<WalFile> = ready.waiting.iter().filter(new).copied().collect();
        let found: BTreeSet<WalFile> = ready.waiting.iter().copied().collect();
        if ready.beyond == 0 {
            // A refused file that PostgreSQL no longer has is no longer of interest; a conflict is.
            self.refused.retain(|file, why| *why == Refusal::Conflict || found.contains(file));
        }
        self.waiting = waiting;
        self.waiting.extend(self.asked.difference(&self.in_flight).copied());
        self.waiting.extend(self.holes.difference(&self.in_flight).copied());
        self.beyond = ready.beyond;
        self.ahead = ready.ahead;
    }

    /// Someone asks for this very file: it is tried again when it was refused.
    pub(super) fn ask(&mut self, file: WalFile) {
        if self.confirmed.contains(&file) || self.in_flight.contains(&file) {
            return;
        }
        self.refused.remove(&file);
        self.asked.insert(file);
        self.waiting.insert(file);
    }

    /// The archive lacks these: they leave in their turn, whatever was confirmed once.
    pub(super) fn fill(&mut self, holes: &[WalFile]) {
        for file in holes {
            if !self.in_flight.contains(file) && !self.refused.contains_key(file) {
                self.holes.insert(*file);
                self.waiting.insert(*file);
            }
        }
    }

    /// The next file to leave, now taken as in flight; `None` when none may.
    pub(super) fn take(&mut self) -> Option<WalFile> {
        let next = self.waiting.iter().find_map(|file| self.may_leave(*file))?;
        self.waiting.remove(&next);
        self.in_flight.insert(next);
        Some(next)
    }

    /// `file` itself, or the history that must go before it, or nothing.
    fn may_leave(&self, file: WalFile) -> Option<WalFile> {
        if self.ahead >= AHEAD_MAX && !self.asked.contains(&file) && !self.holes.contains(&file) {
            return None;
        }
        let WalFile::Other(segment, _) = file else { return Some(file) };
        let timeline = segment.timeline;
        if timeline > TimelineId::FIRST && !self.settled.contains(&timeline) {
            // Two servers that were promoted onto one timeline differ in its history. The first to have it in the
            // archive owns the timeline there; no segment of the other one may follow.
            let history = WalFile::History(timeline);
            let stuck = self.in_flight.contains(&history) || self.refused.contains_key(&history);
            return if stuck { None } else { Some(history) };
        }
        let after_conflict = self.refused.iter().any(|(earlier, why)| {
            *why == Refusal::Conflict
                && earlier.timeline() == timeline
                && earlier.is_large()
                && *earlier < file
        });
        if after_conflict { None } else { Some(file) }
    }

    /// The archive has it. Returns whether it was a hole.
    pub(super) fn confirm(&mut self, file: WalFile) -> bool {
        self.in_flight.remove(&file);
        self.waiting.remove(&file);
        self.asked.remove(&file);
        let was_hole = self.holes.remove(&file);
        if let WalFile::History(timeline) = file {
            self.settled.insert(timeline);
        }
        if self.confirmed.insert(file) {
            self.ahead += usize::from(!was_hole);
            self.confirmed_in_order.push_back(file);
            if self.confirmed_in_order.len() > REMEMBERED
                && let Some(oldest) = self.confirmed_in_order.pop_front()
            {
                self.confirmed.remove(&oldest);
            }
        }
        was_hole
    }

    /// It stays for a reason that is in the file or in the archive.
    pub(super) fn refuse(&mut self, file: WalFile, why: Refusal) {
        self.in_flight.remove(&file);
        self.asked.remove(&file);
        self.holes.remove(&file);
        self.refused.insert(file, why);
    }

    /// PostgreSQL has removed a file that was to fill a hole. Returns whether it was one, and nobody asks for it.
    pub(super) fn go_without(&mut self, file: WalFile) -> bool {
        let was_hole = !self.asked.contains(&file) && self.holes.remove(&file);
        if was_hole {
            self.in_flight.remove(&file);
        }
        was_hole
    }

    /// A history that is needed first is not in pg_wal (it was restored or removed): nothing is there to compare.
    pub(super) fn go_without_history(&mut self, timeline: TimelineId) {
        let file = WalFile::History(timeline);
        self.in_flight.remove(&file);
        self.asked.remove(&file);
        self.settled.insert(timeline);
    }

    /// The store did not take it: it waits again.
    pub(super) fn put_back(&mut self, file: WalFile) {
        self.in_flight.remove(&file);
        self.waiting.insert(file);
    }

    /// This member ships no more. What is in the archive stays known; it is there for good.
    pub(super) fn stop(&mut self) {
        self.waiting.clear();
        self.holes.clear();
        self.in_flight.clear();
        self.refused.clear();
        self.settled.clear();
        self.beyond = 0;
    }

    pub(super) fn is_confirmed(&self, file: WalFile) -> bool {
        self.confirmed.contains(&file)
    }

    pub(super) fn confirmed(&self) -> &HashSet<WalFile> {
        &self.confirmed
    }

    pub(super) fn refused(&self) -> impl Iterator<Item = WalFile> + '_ {
        self.refused.keys().copied()
    }

    pub(super) fn is_refused(&self, file: WalFile) -> bool {
        self.refused.contains_key(&file)
    }

    pub(super) fn has_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How many files the archive does not have, and how many of them have the size of a segment.
    pub(super) fn missing(&self) -> (u64, u64) {
        let all = || self.waiting.iter().chain(&self.in_flight).chain(self.refused.keys());
        let count = |large: bool| all().filter(|file| !large || file.is_large()).count() as u64 + self.beyond;
        (count(false), count(true))
    }

    /// Whether a scan would find more to do than is seen now.
    pub(super) fn wants_scan(&self) -> bool {
        self.waiting.is_empty() && (self.beyond > 0 || self.ahead >= AHEAD_MAX)
    }
}

#[cfg(test)]
mod tests {
    use outrider_wal::WalFileName;

    use super::*;

    fn file(name: &str) -> WalFile {
        WalFile::from(name.parse::<WalFileName>().unwrap())
    }

    fn queue(names: &[&str]) -> ShipQueue {
        let mut queue = ShipQueue::default();
        let waiting = names.iter().map(|name| file(name)).collect();
        queue.scanned(&Ready { waiting, ..Ready::default() });
        queue
    }

    fn take_all(queue: &mut ShipQueue) -> Vec<String> {
        std::iter::from_fn(|| queue.take()).map(|file| file.name().to_string()).collect()
    }

    const FIRST: &str = "000000020000000000000003";
    const SECOND: &str = "000000020000000000000004";
    const HISTORY: &str = "00000002.history";

    #[test]
    fn no_segment_leaves_before_the_history_of_its_timeline_is_confirmed() {
        let mut queue = queue(&["000000010000000000000002", FIRST, SECOND, HISTORY]);
        assert_eq!(take_all(&mut queue), [HISTORY, "000000010000000000000002"]);
        queue.confirm(file(HISTORY));
        assert_eq!(take_all(&mut queue), [FIRST, SECOND]);
    }

    #[test]
    fn a_history_that_is_not_ready_any_more_is_still_asked_for_first() {
        let mut queue = queue(&[FIRST]);
        assert_eq!(take_all(&mut queue), [HISTORY]);
        queue.go_without_history(TimelineId::new(2));
        assert_eq!(take_all(&mut queue), [FIRST]);
    }

    #[test]
    fn a_conflict_of_the_history_holds_its_whole_timeline() {
        let mut queue = queue(&["000000010000000000000002", FIRST, HISTORY]);
        assert_eq!(queue.take(), Some(file(HISTORY)));
        queue.refuse(file(HISTORY), Refusal::Conflict);
        assert_eq!(take_all(&mut queue), ["000000010000000000000002"]);
    }

    #[test]
    fn a_conflict_of_a_segment_holds_the_later_ones_and_a_fault_does_not() {
        let (first, second) = ("000000010000000000000002", "000000010000000000000003");
        let mut conflicting = queue(&[first, second]);
        assert_eq!(conflicting.take(), Some(file(first)));
        conflicting.refuse(file(first), Refusal::Conflict);
        assert_eq!(conflicting.take(), None);
        assert_eq!(conflicting.missing(), (2, 2));

        let mut faulty = queue(&[first, second]);
        assert_eq!(faulty.take(), Some(file(first)));
        faulty.refuse(file(first), Refusal::Damaged);
        assert_eq!(faulty.take(), Some(file(second)));
    }

    #[test]
    fn a_refused_file_is_tried_again_when_postgres_asks() {
        let name = "000000010000000000000002";
        let mut queue = queue(&[name]);
        queue.take();
        queue.refuse(file(name), Refusal::Damaged);
        queue.scanned(&Ready { waiting: vec![file(name)], ..Ready::default() });
        assert_eq!(queue.take(), None);
        queue.ask(file(name));
        assert_eq!(queue.take(), Some(file(name)));
    }

    #[test]
    fn a_scan_that_is_older_than_a_confirmation_does_not_bring_the_file_back() {
        let name = "000000010000000000000002";
        let mut queue = queue(&[name]);
        queue.take();
        queue.confirm(file(name));
        queue.scanned(&Ready { waiting: vec![file(name)], ..Ready::default() });
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn what_the_store_did_not_take_waits_again() {
        let name = "000000010000000000000002";
        let mut queue = queue(&[name]);
        queue.take();
        queue.put_back(file(name));
        assert_eq!((queue.missing(), queue.in_flight()), ((1, 1), 0));
        assert_eq!(queue.take(), Some(file(name)));
    }

    #[test]
    fn a_hole_leaves_in_its_turn_though_no_scan_finds_it_and_once() {
        let (hole, ready) = ("000000010000000000000002", "000000010000000000000003");
        let mut queue = queue(&[ready]);
        queue.confirm(file(hole));
        queue.ahead = AHEAD_MAX;
        queue.fill(&[file(hole)]);
        queue.scanned(&Ready { waiting: vec![file(ready)], ..Ready::default() });
        assert_eq!(queue.take(), Some(file(hole)));
        queue.scanned(&Ready::default());
        assert_eq!(queue.take(), None, "it is in flight");
        assert!(queue.confirm(file(hole)) && !queue.has_holes());
    }

    #[test]
    fn a_hole_whose_file_is_gone_is_given_up_unless_postgres_asks_for_it() {
        let hole = file("000000010000000000000002");
        let mut queue = queue(&[]);
        queue.fill(&[hole]);
        queue.take();
        assert!(queue.go_without(hole));
        assert_eq!(queue.missing(), (0, 0));
        queue.fill(&[hole]);
        queue.ask(hole);
        assert!(!queue.go_without(hole));
    }

    #[test]
    fn what_was_asked_for_and_is_on_its_way_is_not_taken_twice() {
        let mut queue = queue(&[]);
        queue.ask(file("000000010000000000000002"));
        assert!(queue.take().is_some());
        queue.scanned(&Ready::default());
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn shipping_ahead_ends_where_postgres_never_asks() {
        let mut queue = queue(&["000000010000000000000002", "000000010000000000000003"]);
        queue.ahead = AHEAD_MAX;
        assert_eq!(queue.take(), None);
        queue.ask(file("000000010000000000000003"));
        assert_eq!(queue.take(), Some(file("000000010000000000000003")));
    }

    #[test]
    fn memory_of_what_is_confirmed_is_bounded() {
        let mut queue = ShipQueue::default();
        for number in 0..=REMEMBERED as u64 {
            let size = outrider_wal::SegmentSize::DEFAULT;
            let segment = outrider_wal::SegmentName::numbered(TimelineId::FIRST, number, size);
            queue.confirm(WalFile::from(WalFileName::Segment(segment)));
        }
        assert_eq!((queue.confirmed.len(), queue.confirmed_in_order.len()), (REMEMBERED, REMEMBERED));
        assert!(!queue.is_confirmed(file("000000010000000000000000")));
    }
}
