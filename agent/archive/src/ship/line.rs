//! Which file leaves next and which must wait for another. Pure: touches no file and no store.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use outrider_wal::TimelineId;

use crate::queue::{Ready, Turn};

/// Confirmed files that are remembered, so that `wal-push` is answered at once. More than [`AHEAD_MAX`], so that
/// nothing which PostgreSQL is still to ask for is forgotten.
const REMEMBERED: usize = 8192;
/// Files shipped before PostgreSQL asked for them. When it never asks (its `archive_command` is broken), shipping
/// on would only forget the first ones again.
const AHEAD_MAX: usize = 4096;

/// The files between "PostgreSQL has finished it" and "the archive has it".
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: BTreeSet<Turn>,
    beyond: u64,
    /// What was asked for by name leaves even when enough has left ahead.
    asked: BTreeSet<Turn>,
    /// What pg_wal has and the archive lacks although it is not marked as ready.
    holes: BTreeSet<Turn>,
    in_flight: BTreeSet<Turn>,
    refused: BTreeMap<Turn, Refusal>,
    confirmed: HashSet<Turn>,
    confirmed_in_order: VecDeque<Turn>,
    ahead: usize,
    /// Timelines whose history the archive has.
    settled: HashSet<TimelineId>,
}

/// Why a file stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The file is not what its name says. The others go on: a hole that is named is better than none after it.
    Fault,
    /// The archive has another content for it. What comes later on its timeline would continue the other's WAL
    /// with ours, so it stays too.
    Conflict,
}

impl Line {
    /// Takes in what a scan found.
    pub(super) fn scanned(&mut self, ready: &Ready) {
        // The scan began a while ago: what was confirmed or taken since is no longer waiting.
        let new = |turn: &&Turn| {
            !self.confirmed.contains(turn)
                && !self.in_flight.contains(turn)
                && !self.refused.contains_key(turn)
        };
        let waiting: BTreeSet<Turn> = ready.waiting.iter().filter(new).copied().collect();
        let found: BTreeSet<Turn> = ready.waiting.iter().copied().collect();
        if ready.beyond == 0 {
            // A refused file that PostgreSQL no longer has is no longer of interest; a conflict is.
            self.refused.retain(|turn, why| *why == Refusal::Conflict || found.contains(turn));
        }
        self.waiting = waiting;
        self.waiting.extend(self.asked.difference(&self.in_flight).copied());
        self.waiting.extend(self.holes.difference(&self.in_flight).copied());
        self.beyond = ready.beyond;
        self.ahead = ready.ahead;
    }

    /// Someone asks for this very file: it is tried again when it was refused.
    pub(super) fn ask(&mut self, turn: Turn) {
        if self.confirmed.contains(&turn) || self.in_flight.contains(&turn) {
            return;
        }
        self.refused.remove(&turn);
        self.asked.insert(turn);
        self.waiting.insert(turn);
    }

    /// The archive lacks these: they leave in their turn, whatever was confirmed once.
    pub(super) fn fill(&mut self, holes: &[Turn]) {
        for turn in holes {
            if !self.in_flight.contains(turn) && !self.refused.contains_key(turn) {
                self.holes.insert(*turn);
                self.waiting.insert(*turn);
            }
        }
    }

    /// The next file to leave, now taken as in flight; `None` when none may.
    pub(super) fn take(&mut self) -> Option<Turn> {
        let next = self.waiting.iter().find_map(|turn| self.may_leave(*turn))?;
        self.waiting.remove(&next);
        self.in_flight.insert(next);
        Some(next)
    }

    /// `turn` itself, or the history that must go before it, or nothing.
    fn may_leave(&self, turn: Turn) -> Option<Turn> {
        if self.ahead >= AHEAD_MAX && !self.asked.contains(&turn) && !self.holes.contains(&turn) {
            return None;
        }
        let Turn::Other(segment, _) = turn else { return Some(turn) };
        let timeline = segment.timeline;
        if timeline > TimelineId::FIRST && !self.settled.contains(&timeline) {
            // Two servers that were promoted onto one timeline differ in its history. The first to have it in the
            // archive owns the timeline there; no segment of the other one may follow.
            let history = Turn::History(timeline);
            let stuck = self.in_flight.contains(&history) || self.refused.contains_key(&history);
            return if stuck { None } else { Some(history) };
        }
        let after_conflict = self.refused.iter().any(|(earlier, why)| {
            *why == Refusal::Conflict
                && earlier.timeline() == timeline
                && earlier.is_large()
                && *earlier < turn
        });
        if after_conflict { None } else { Some(turn) }
    }

    /// The archive has it. Returns whether it was a hole.
    pub(super) fn confirm(&mut self, turn: Turn) -> bool {
        self.in_flight.remove(&turn);
        self.waiting.remove(&turn);
        self.asked.remove(&turn);
        let was_hole = self.holes.remove(&turn);
        if let Turn::History(timeline) = turn {
            self.settled.insert(timeline);
        }
        if self.confirmed.insert(turn) {
            self.ahead += usize::from(!was_hole);
            self.confirmed_in_order.push_back(turn);
            if self.confirmed_in_order.len() > REMEMBERED
                && let Some(oldest) = self.confirmed_in_order.pop_front()
            {
                self.confirmed.remove(&oldest);
            }
        }
        was_hole
    }

    /// It stays for a reason that is in the file or in the archive.
    pub(super) fn refuse(&mut self, turn: Turn, why: Refusal) {
        self.in_flight.remove(&turn);
        self.asked.remove(&turn);
        self.holes.remove(&turn);
        self.refused.insert(turn, why);
    }

    /// PostgreSQL has removed a file that was to fill a hole. Returns whether it was one, and nobody asks for it.
    pub(super) fn go_without(&mut self, turn: Turn) -> bool {
        let was_hole = !self.asked.contains(&turn) && self.holes.remove(&turn);
        if was_hole {
            self.in_flight.remove(&turn);
        }
        was_hole
    }

    /// A history that is needed first is not in pg_wal (it was restored or removed): nothing is there to compare.
    pub(super) fn go_without_history(&mut self, timeline: TimelineId) {
        let turn = Turn::History(timeline);
        self.in_flight.remove(&turn);
        self.asked.remove(&turn);
        self.settled.insert(timeline);
    }

    /// The store did not take it: it waits again.
    pub(super) fn put_back(&mut self, turn: Turn) {
        self.in_flight.remove(&turn);
        self.waiting.insert(turn);
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

    pub(super) fn is_confirmed(&self, turn: Turn) -> bool {
        self.confirmed.contains(&turn)
    }

    pub(super) fn confirmed(&self) -> &HashSet<Turn> {
        &self.confirmed
    }

    pub(super) fn refused(&self) -> impl Iterator<Item = Turn> + '_ {
        self.refused.keys().copied()
    }

    pub(super) fn is_refused(&self, turn: Turn) -> bool {
        self.refused.contains_key(&turn)
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
        let count = |large: bool| all().filter(|turn| !large || turn.is_large()).count() as u64 + self.beyond;
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

    fn turn(name: &str) -> Turn {
        Turn::from(name.parse::<WalFileName>().unwrap())
    }

    fn line(names: &[&str]) -> Line {
        let mut line = Line::default();
        let waiting = names.iter().map(|name| turn(name)).collect();
        line.scanned(&Ready { waiting, ..Ready::default() });
        line
    }

    fn take_all(line: &mut Line) -> Vec<String> {
        std::iter::from_fn(|| line.take()).map(|turn| turn.name().to_string()).collect()
    }

    const FIRST: &str = "000000020000000000000003";
    const SECOND: &str = "000000020000000000000004";
    const HISTORY: &str = "00000002.history";

    #[test]
    fn no_segment_leaves_before_the_history_of_its_timeline_is_confirmed() {
        let mut line = line(&["000000010000000000000002", FIRST, SECOND, HISTORY]);
        assert_eq!(take_all(&mut line), [HISTORY, "000000010000000000000002"]);
        line.confirm(turn(HISTORY));
        assert_eq!(take_all(&mut line), [FIRST, SECOND]);
    }

    #[test]
    fn a_history_that_is_not_ready_any_more_is_still_asked_for_first() {
        let mut line = line(&[FIRST]);
        assert_eq!(take_all(&mut line), [HISTORY]);
        line.go_without_history(TimelineId::new(2));
        assert_eq!(take_all(&mut line), [FIRST]);
    }

    #[test]
    fn a_conflict_of_the_history_holds_its_whole_timeline() {
        let mut line = line(&["000000010000000000000002", FIRST, HISTORY]);
        assert_eq!(line.take(), Some(turn(HISTORY)));
        line.refuse(turn(HISTORY), Refusal::Conflict);
        assert_eq!(take_all(&mut line), ["000000010000000000000002"]);
    }

    #[test]
    fn a_conflict_of_a_segment_holds_the_later_ones_and_a_fault_does_not() {
        let (first, second) = ("000000010000000000000002", "000000010000000000000003");
        let mut conflicting = line(&[first, second]);
        assert_eq!(conflicting.take(), Some(turn(first)));
        conflicting.refuse(turn(first), Refusal::Conflict);
        assert_eq!(conflicting.take(), None);
        assert_eq!(conflicting.missing(), (2, 2));

        let mut faulty = line(&[first, second]);
        assert_eq!(faulty.take(), Some(turn(first)));
        faulty.refuse(turn(first), Refusal::Fault);
        assert_eq!(faulty.take(), Some(turn(second)));
    }

    #[test]
    fn a_refused_file_is_tried_again_when_postgres_asks() {
        let name = "000000010000000000000002";
        let mut line = line(&[name]);
        line.take();
        line.refuse(turn(name), Refusal::Fault);
        line.scanned(&Ready { waiting: vec![turn(name)], ..Ready::default() });
        assert_eq!(line.take(), None);
        line.ask(turn(name));
        assert_eq!(line.take(), Some(turn(name)));
    }

    #[test]
    fn a_scan_that_is_older_than_a_confirmation_does_not_bring_the_file_back() {
        let name = "000000010000000000000002";
        let mut line = line(&[name]);
        line.take();
        line.confirm(turn(name));
        line.scanned(&Ready { waiting: vec![turn(name)], ..Ready::default() });
        assert_eq!(line.take(), None);
    }

    #[test]
    fn what_the_store_did_not_take_waits_again() {
        let name = "000000010000000000000002";
        let mut line = line(&[name]);
        line.take();
        line.put_back(turn(name));
        assert_eq!((line.missing(), line.in_flight()), ((1, 1), 0));
        assert_eq!(line.take(), Some(turn(name)));
    }

    #[test]
    fn a_hole_leaves_in_its_turn_though_no_scan_finds_it_and_once() {
        let (hole, ready) = ("000000010000000000000002", "000000010000000000000003");
        let mut line = line(&[ready]);
        line.confirm(turn(hole));
        line.ahead = AHEAD_MAX;
        line.fill(&[turn(hole)]);
        line.scanned(&Ready { waiting: vec![turn(ready)], ..Ready::default() });
        assert_eq!(line.take(), Some(turn(hole)));
        line.scanned(&Ready::default());
        assert_eq!(line.take(), None, "it is in flight");
        assert!(line.confirm(turn(hole)) && !line.has_holes());
    }

    #[test]
    fn a_hole_whose_file_is_gone_is_given_up_unless_postgres_asks_for_it() {
        let hole = turn("000000010000000000000002");
        let mut line = line(&[]);
        line.fill(&[hole]);
        line.take();
        assert!(line.go_without(hole));
        assert_eq!(line.missing(), (0, 0));
        line.fill(&[hole]);
        line.ask(hole);
        assert!(!line.go_without(hole));
    }

    #[test]
    fn what_was_asked_for_and_is_on_its_way_is_not_taken_twice() {
        let mut line = line(&[]);
        line.ask(turn("000000010000000000000002"));
        assert!(line.take().is_some());
        line.scanned(&Ready::default());
        assert_eq!(line.take(), None);
    }

    #[test]
    fn shipping_ahead_ends_where_postgres_never_asks() {
        let mut line = line(&["000000010000000000000002", "000000010000000000000003"]);
        line.ahead = AHEAD_MAX;
        assert_eq!(line.take(), None);
        line.ask(turn("000000010000000000000003"));
        assert_eq!(line.take(), Some(turn("000000010000000000000003")));
    }

    #[test]
    fn memory_of_what_is_confirmed_is_bounded() {
        let mut line = Line::default();
        for number in 0..=REMEMBERED as u64 {
            let size = outrider_wal::SegmentSize::DEFAULT;
            let segment = outrider_wal::SegmentName::numbered(TimelineId::FIRST, number, size);
            line.confirm(Turn::from(WalFileName::Segment(segment)));
        }
        assert_eq!((line.confirmed.len(), line.confirmed_in_order.len()), (REMEMBERED, REMEMBERED));
        assert!(!line.is_confirmed(turn("000000010000000000000000")));
    }
}
