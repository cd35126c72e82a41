//! A DCS that goes back to an earlier copy of itself, and what each member remembers of it. Revisions are not counted: the store
//! may have come as far again as it was, which is the hardest case.

use outrider_ha::{Lost, Term, Watermark};

use crate::perform::sync_was_written;
use crate::state::{NodeId, Nodes, State, Store};

/// How far the DCS is: only what is more and what is less counts, so that the numbers stay small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Its term.
    pub term: u8,
    /// The last change of `/sync`.
    pub sync: u8,
}

/// What a member remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// How far it has seen the DCS.
    pub mark: Mark,
    /// It found that the DCS went back.
    pub lost: bool,
}

/// The DCS as it may be again, and who has seen what of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Past {
    /// How far the DCS is.
    pub now: Mark,
    /// The copy, when one was taken and not put back yet, and how far the DCS was then.
    pub copy: Option<(Store, Mark)>,
    /// A copy was taken.
    pub copied: bool,
    /// It was put back.
    pub restored: bool,
    /// By number of the node.
    pub seen: Vec<Seen>,
}

/// Above the term that a node is said to have held where it held none of these.
const FIRST: u8 = 2;

impl Mark {
    /// As `decide` gets it.
    #[must_use]
    pub fn watermark(self) -> Watermark {
        let (term, sync_revision) = (Term(u64::from(self.term + FIRST)), i64::from(self.sync + FIRST));
        Watermark { term, sync_revision, ..Watermark::default() }
    }
}

impl Seen {
    /// As `decide` gets it.
    #[must_use]
    pub fn watermark(self) -> Watermark {
        let lost = self.lost.then_some(Lost::Sync { seen: 0, now: 0 });
        Watermark { lost, ..self.mark.watermark() }
    }

    /// After a look at a DCS that is at `now`; the shipped rule says what is remembered.
    #[must_use]
    pub fn after(self, now: Mark) -> Self {
        let after = self.watermark().after(&now.watermark());
        let small = |number: u64| u8::try_from(number).expect("few changes") - FIRST;
        let sync = small(after.sync_revision.unsigned_abs());
        Seen { mark: Mark { term: small(after.term.0), sync }, lost: after.lost.is_some() }
    }
}

impl Past {
    /// Of so many nodes that have seen the DCS as it is.
    #[must_use]
    pub fn of(nodes: u8) -> Self {
        let seen = vec![Seen::default(); usize::from(nodes)];
        Past { now: Mark::default(), copy: None, copied: false, restored: false, seen }
    }

    /// What a node remembers.
    #[must_use]
    pub fn seen(&self, node: NodeId) -> Seen {
        self.seen[usize::from(node)]
    }

    fn look(&mut self, node: NodeId) {
        let now = self.now;
        let seen = &mut self.seen[usize::from(node)];
        *seen = seen.after(now);
    }

    /// Whether a look would teach it anything.
    pub(crate) fn teaches(&self, node: NodeId) -> bool {
        self.seen(node) != self.seen(node).after(self.now)
    }

    /// The numbers in their order, without gaps.
    fn settle(&mut self) {
        let numbers = |of: fn(&mut Mark) -> &mut u8, past: &mut Past| {
            let mut all: Vec<u8> = past.marks().into_iter().map(|mark| *of(mark)).collect();
            all.sort_unstable();
            all.dedup();
            for mark in past.marks() {
                let number = of(mark);
                let place = all.iter().position(|one| one == number).expect("it is among them");
                *number = u8::try_from(place).expect("few");
            }
        };
        numbers(|mark| &mut mark.term, self);
        numbers(|mark| &mut mark.sync, self);
    }

    fn marks(&mut self) -> Vec<&mut Mark> {
        let mut marks = vec![&mut self.now];
        marks.extend(self.copy.as_mut().map(|(_, mark)| mark));
        marks.extend(self.seen.iter_mut().map(|seen| &mut seen.mark));
        marks
    }
}

/// Whether the copy may be put back now. Whoever was away for that long has let its fuse blow; and whoever is recorded in `/sync`
/// has read that it is: the record wakes it, so that between the two there are milliseconds.
pub(crate) fn may_be_restored(state: &State) -> bool {
    let Some(past) = &state.past else { return false };
    let covered = state.dcs.sync.map_or(Nodes::NONE, |sync| sync.standbys.with(sync.leader));
    past.copy.is_some()
        && state.nodes.iter().all(|node| !node.fuse)
        && covered.iter().all(|node| past.seen(node).mark.sync == past.now.sync)
}

/// Takes the copy.
pub(crate) fn copy(state: &mut State) {
    let store = state.dcs.clone();
    if let Some(past) = &mut state.past {
        past.copy = Some((store, past.now));
        past.copied = true;
    }
}

/// Puts it back, without the leases.
pub(crate) fn restore(state: &mut State) {
    let Some(past) = &mut state.past else { return };
    let Some((store, mark)) = past.copy.take() else { return };
    let (other_term, other_sync) = (past.now.term != mark.term, past.now.sync != mark.sync);
    (past.now, past.restored) = (mark, true);
    state.dcs = Store { holder: None, ..store };
    if other_term {
        state.nodes.iter_mut().for_each(|node| node.held_this_term = false);
        state.oracle.born_this_term = false;
    }
    if other_sync {
        sync_was_written(state);
    }
}

/// A node looks at the DCS.
pub(crate) fn look(state: &mut State, node: NodeId) {
    if let Some(past) = &mut state.past {
        past.look(node);
    }
}

/// After every change.
pub(crate) fn settle(state: &mut State) {
    if let Some(past) = &mut state.past {
        past.settle();
    }
}
