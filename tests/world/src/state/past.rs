//! A DCS that does not show what it has shown: put back to an earlier copy of itself, or another, empty store to which agents are led; and
//! what each member remembers. Revisions are not counted: a store may have come as far again as it was, which is the hardest case.

use outrider_ha::{Lost, StoreId, Term, Watermark};

use super::State;
use crate::act::Act;
use crate::ids::{NodeId, Nodes};
use crate::setup::Setup;
use crate::store::{Store, Sync};

/// How far the DCS is: only what is more and what is less counts, so that the numbers stay small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Which store; 0 where there is only one.
    pub store: u8,
    /// How often the keys were written anew.
    pub generation: u8,
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
    /// What it can write keys anew from, where that may be asked of it.
    pub record: Option<Keys>,
}

/// The keys as a member saw them last, and its lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keys {
    /// `/sync`.
    pub sync: Option<Sync>,
    /// Who led, or was to be handed the lease.
    pub leader: Option<NodeId>,
    /// The term that it held last.
    pub held: u8,
}

/// The DCS as it may be again, or may seem to be, and who has seen what of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Past {
    /// How far the DCS is.
    pub now: Mark,
    /// The copy, when one was taken and not put back yet, and how far the DCS was then.
    pub copy: Option<(Store, Mark)>,
    /// A copy may not be taken: none shall be, or one was.
    pub copied: bool,
    /// It was put back.
    pub restored: bool,
    /// Somebody has rebuilt the keys.
    pub rebuilt: bool,
    /// By number of the node.
    pub seen: Vec<Seen>,
    /// Another store.
    pub elsewhere: Option<Elsewhere>,
}

/// A store to which agents are led: empty, until one of them writes the keys of the cluster there. From then on this is the one that they
/// have left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Elsewhere {
    /// Whose agents look there.
    pub led: Nodes,
    /// Whose were ever led there: each is once.
    pub been: Nodes,
    /// The keys there; `None` where there are none.
    pub keys: Option<Box<Store>>,
    /// How far it is.
    pub mark: Mark,
}

/// Above the term that a node is said to have held where it held none of these.
const FIRST: u8 = 2;

impl Mark {
    /// As `decide` gets it.
    #[must_use]
    pub fn watermark(self) -> Watermark {
        let (term, sync_revision) = (Term(u64::from(self.term + FIRST)), i64::from(self.sync + FIRST));
        let store = (self.store > 0).then_some(StoreId(self.store.into()));
        Watermark { store, generation: self.generation.into(), term, sync_revision, ..Watermark::default() }
    }

    fn of(watermark: &Watermark) -> Self {
        let small = |number: u64| u8::try_from(number).expect("few changes");
        Mark {
            store: watermark.store.map_or(0, |store| small(store.0)),
            generation: small(watermark.generation),
            term: small(watermark.term.0) - FIRST,
            sync: small(watermark.sync_revision.unsigned_abs()) - FIRST,
        }
    }
}

impl Seen {
    /// As `decide` gets it.
    #[must_use]
    pub fn watermark(self) -> Watermark {
        let lost = self.lost.then_some(Lost::Sync { seen: 0, now: 0 });
        Watermark { lost, ..self.mark.watermark() }
    }

    /// After a look at a DCS that is at `now` and has these keys; the shipped rule says what is remembered.
    #[must_use]
    pub fn after(self, now: Mark, keys: &Store) -> Self {
        let went_back = self.watermark().lost_by(&now.watermark()).is_some();
        let after = self.watermark().after(&now.watermark());
        let record = self.record.map(|record| if went_back { record } else { record.after(keys) });
        Seen { mark: Mark::of(&after), lost: after.lost.is_some(), record }
    }
}

impl Keys {
    fn after(self, keys: &Store) -> Self {
        Keys { sync: keys.sync, leader: keys.holder.or(self.leader), ..self }
    }
}

impl Past {
    /// Of nodes that have seen the DCS as it is; `None` where it never is any other.
    #[must_use]
    pub fn of(setup: &Setup) -> Option<Box<Self>> {
        if !setup.restores && !setup.led_elsewhere {
            return None;
        }
        let record = (setup.led_elsewhere || setup.rebuilds).then(Keys::default);
        let now = Mark { store: u8::from(setup.led_elsewhere), ..Mark::default() };
        let seen = vec![Seen { mark: now, lost: false, record }; usize::from(setup.nodes)];
        let elsewhere = setup.led_elsewhere.then(|| Elsewhere {
            led: Nodes::NONE,
            been: Nodes::NONE,
            keys: None,
            mark: Mark { store: 2, ..Mark::default() },
        });
        let copied = !setup.restores;
        Some(Box::new(Past { now, copy: None, copied, restored: false, rebuilt: false, seen, elsewhere }))
    }

    /// What a node remembers.
    #[must_use]
    pub fn seen(&self, node: NodeId) -> Seen {
        self.seen[usize::from(node)]
    }

    /// Whether only a person can say how the cluster goes on.
    #[must_use]
    pub fn awaits_a_person(&self) -> bool {
        let led = self.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.led != Nodes::NONE);
        led || (self.restored && !self.rebuilt)
    }

    /// The numbers in their order, without gaps.
    fn settle(&mut self) {
        let numbers = |of: fn(&mut Self) -> Vec<&mut u8>, past: &mut Past| {
            let mut all: Vec<u8> = of(past).into_iter().map(|number| *number).collect();
            all.sort_unstable();
            all.dedup();
            for number in of(past) {
                let place = all.iter().position(|one| one == number).expect("it is among them");
                *number = u8::try_from(place).expect("few");
            }
        };
        numbers(Past::terms, self);
        numbers(|past| past.marks().into_iter().map(|mark| &mut mark.sync).collect(), self);
    }

    fn terms(&mut self) -> Vec<&mut u8> {
        let mut terms = vec![&mut self.now.term];
        terms.extend(self.copy.as_mut().map(|(_, mark)| &mut mark.term));
        terms.extend(
            self.elsewhere.as_mut().filter(|there| there.keys.is_some()).map(|there| &mut there.mark.term),
        );
        for seen in &mut self.seen {
            terms.push(&mut seen.mark.term);
            terms.extend(seen.record.as_mut().map(|record| &mut record.held));
        }
        terms
    }

    fn marks(&mut self) -> Vec<&mut Mark> {
        let mut marks = vec![&mut self.now];
        marks.extend(self.copy.as_mut().map(|(_, mark)| mark));
        marks.extend(
            self.elsewhere.as_mut().filter(|there| there.keys.is_some()).map(|there| &mut there.mark),
        );
        marks.extend(self.seen.iter_mut().map(|seen| &mut seen.mark));
        marks
    }
}

impl State {
    /// Whether the agent of `node` looks at `dcs`, and not elsewhere.
    #[must_use]
    pub fn looks_here(&self, node: NodeId) -> bool {
        let elsewhere = self.past.as_ref().and_then(|past| past.elsewhere.as_ref());
        elsewhere.is_none_or(|elsewhere| !elsewhere.led.has(node))
    }

    /// Those whose agents look at `dcs`.
    pub(crate) fn lookers(&self) -> Vec<NodeId> {
        self.ids().filter(|node| self.looks_here(*node)).collect()
    }

    /// The keys that the agent of `node` looks at, and how far they are; `None` where there are none.
    #[must_use]
    pub fn keys_of(&self, node: NodeId) -> Option<(&Store, Mark)> {
        let now = self.past.as_ref().map_or(Mark::default(), |past| past.now);
        if self.looks_here(node) {
            return Some((&self.dcs, now));
        }
        let elsewhere = self.past.as_ref()?.elsewhere.as_ref()?;
        Some((elsewhere.keys.as_deref()?, elsewhere.mark))
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
        state.sync_was_written();
    }
}

/// Whether the agent of `node` may be led to the other store now. Whoever is recorded in `/sync` has read that it is, as above.
pub(crate) fn may_be_led(state: &State, node: NodeId) -> bool {
    let Some(past) = &state.past else { return false };
    let covered = state.dcs.sync.is_some_and(|sync| sync.standbys.with(sync.leader).has(node));
    let has_read = !covered || past.seen(node).mark.sync == past.now.sync;
    let may = |elsewhere: &Elsewhere| elsewhere.keys.is_none() && !elsewhere.been.has(node);
    has_read && past.elsewhere.as_ref().is_some_and(may)
}

/// Whether it may be led back: not in the milliseconds between the answers of all and the writing of the keys.
pub(crate) fn may_be_led_back(state: &State, node: NodeId) -> bool {
    !state.looks_here(node)
        && state.keys_of(node).is_none()
        && state.nodes.iter().all(|other| !matches!(other.plan.next(), Some(Act::Recreate(_))))
}

/// Leads the agent of `node` to the other store, or back.
pub(crate) fn lead(state: &mut State, node: NodeId, there: bool) {
    if let Some(elsewhere) = state.past.as_mut().and_then(|past| past.elsewhere.as_mut()) {
        elsewhere.led = if there { elsewhere.led.with(node) } else { elsewhere.led.without(node) };
        elsewhere.been = elsewhere.been.with(node);
    }
}

/// Does `act` with the keys that the agent of `node` looks at in the place of `dcs`; `None` where there are none.
pub(crate) fn at_its_store<Outcome>(
    state: &mut State,
    node: NodeId,
    act: impl FnOnce(&mut State) -> Outcome,
) -> Option<Outcome> {
    if state.looks_here(node) {
        return Some(act(state));
    }
    state.keys_of(node)?;
    exchange(state);
    let outcome = act(state);
    exchange(state);
    Some(outcome)
}

/// The other store takes the place of `dcs`, and that its place.
fn exchange(state: &mut State) {
    let everybody = state.ids().fold(Nodes::NONE, Nodes::with);
    let Some(past) = &mut state.past else { return };
    let Some(elsewhere) = &mut past.elsewhere else { return };
    if let Some(keys) = &mut elsewhere.keys {
        std::mem::swap(&mut state.dcs, keys);
        std::mem::swap(&mut past.now, &mut elsewhere.mark);
        elsewhere.led =
            everybody.iter().filter(|node| !elsewhere.led.has(*node)).fold(Nodes::NONE, Nodes::with);
    }
}

/// The keys are written anew where there are none, of a higher generation and term. From now on the cluster is there; whoever holds the
/// lease in the store that is left renews it no longer.
pub(crate) fn write_anew(state: &mut State, keys: Store, by: Seen) {
    let Some(past) = &mut state.past else { return };
    past.rebuilt = true;
    let old = past.now;
    let next = |of: fn(Mark) -> u8| {
        past.seen.iter().map(|seen| of(seen.mark)).chain([of(old)]).max().unwrap_or(0) + 1
    };
    let mut mark = Mark {
        generation: by.mark.generation + 1,
        term: next(|mark| mark.term),
        sync: next(|mark| mark.sync),
        store: old.store,
    };
    if let Some(elsewhere) = past.elsewhere.as_mut().filter(|elsewhere| elsewhere.led != Nodes::NONE) {
        mark.store = elsewhere.mark.store;
        elsewhere.mark = mark;
        elsewhere.keys = Some(Box::new(keys));
        exchange(state);
    } else {
        past.now = mark;
        state.dcs = keys;
    }
    let Some(past) = &mut state.past else { return };
    if let Some(elsewhere) = &mut past.elsewhere {
        if let Some(left) = &mut elsewhere.keys {
            left.holder = None;
        }
        // Nobody is left there.
        if elsewhere.led == Nodes::NONE {
            past.elsewhere = None;
        }
    }
    for node in state.lookers() {
        state.node_mut(node).held_this_term = false;
    }
    state.oracle.born_this_term = false;
    state.sync_was_written();
}

/// What a node remembers after a look. A store in which nothing of a cluster stands is not remembered.
pub(crate) fn after_a_look(state: &State, node: NodeId) -> Option<Seen> {
    let seen = state.past.as_ref()?.seen(node);
    Some(state.keys_of(node).map_or(seen, |(keys, mark)| seen.after(mark, keys)))
}

/// A node looks at the DCS.
pub(crate) fn look(state: &mut State, node: NodeId) {
    let after = after_a_look(state, node);
    if let (Some(past), Some(after)) = (&mut state.past, after) {
        past.seen[usize::from(node)] = after;
    }
}

/// Whether a look would teach it anything.
pub(crate) fn teaches(state: &State, node: NodeId) -> bool {
    state.past.as_ref().is_some_and(|past| after_a_look(state, node) != Some(past.seen(node)))
}

/// After every change.
pub(crate) fn settle(state: &mut State) {
    if let Some(past) = &mut state.past {
        past.settle();
    }
}
