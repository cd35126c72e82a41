//! Replication slots of members, the WAL that they keep, and what becomes of a member whose WAL is gone. Only in worlds with
//! `Setup::slots`; in the others no WAL is ever removed.

use super::State;
use crate::act::Act;
use crate::ids::{NodeId, Nodes};
use crate::mutant::Mutant;
use crate::node::Postgres;
use crate::setup::Setup;

/// Positions up to which members have confirmed, by number of the node; `None` where there is no slot.
type Positions = [Option<u8>; 3];

/// All slots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slots {
    /// As the leader published them, with its own position at its place. The copies that its standbys hold follow at once.
    published: Positions,
    /// What its slots were then.
    promised: Positions,
    /// Members to which nothing is promised any more: when their slot was made anew, a standby may have removed the WAL before it.
    expired: Nodes,
    /// By number of the node.
    kept: [Kept; 3],
    /// Somebody has emptied a data directory because its WAL was gone.
    emptied: bool,
}

/// What one node keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Kept {
    /// The first record that is still there.
    from: u8,
    /// The first one that ever was since its data was copied.
    since: u8,
    /// The slots of a primary.
    slots: Positions,
}

impl Slots {
    /// Of nodes of which the first leads and has slots for the others; `None` where there shall be none.
    #[must_use]
    pub fn of(setup: &Setup) -> Option<Box<Self>> {
        let all = [0, 1, 2].map(|node| (node < setup.nodes).then_some(0));
        let others = [None, all[1], all[2]];
        let leader = Kept { slots: others, ..Kept::default() };
        let kept = [leader, Kept::default(), Kept::default()];
        let slots = Slots { published: all, promised: all, expired: Nodes::NONE, kept, emptied: false };
        setup.slots.then(|| Box::new(slots))
    }

    fn of_node(&self, node: NodeId) -> &Kept {
        &self.kept[usize::from(node)]
    }

    fn of_node_mut(&mut self, node: NodeId) -> &mut Kept {
        &mut self.kept[usize::from(node)]
    }
}

impl State {
    /// Whether `source` still has the record that comes after all that `node` has.
    #[must_use]
    pub fn keeps_what_follows(&self, source: NodeId, node: NodeId) -> bool {
        let next = self.node(node).wal.position();
        self.slots.as_ref().is_none_or(|slots| slots.of_node(source).from <= next)
    }

    /// Whether this member could follow the leader, and the WAL that it needs is gone there.
    #[must_use]
    pub fn is_cut_off(&self, node: NodeId) -> bool {
        let Some(leader) = self.dcs.holder.filter(|leader| *leader != node) else { return false };
        let (here, there) = (self.node(node), self.node(leader));
        let follows = here.postgres.has_data() && here.wal.is_prefix_of(there.wal) && here.wal != there.wal;
        there.postgres == Postgres::Primary && follows && !self.keeps_what_follows(leader, node)
    }
}

/// The nodes for which `node` has a slot.
pub(crate) fn present(state: &State, node: NodeId) -> Nodes {
    let has = |other: &NodeId| {
        state.slots.as_ref().is_none_or(|slots| slots.of_node(node).slots[usize::from(*other)].is_some())
    };
    state.ids().filter(has).fold(Nodes::NONE, Nodes::with)
}

/// A primary makes slots. One that nobody uses keeps what is written from now on. False when it is none.
pub(crate) fn create(state: &mut State, node: NodeId, names: Nodes) -> bool {
    let position = state.node(node).wal.position();
    let is_primary = state.node(node).postgres == Postgres::Primary;
    let Some(slots) = state.slots.as_mut().filter(|_| is_primary) else { return false };
    for name in names.iter() {
        slots.of_node_mut(node).slots[usize::from(name)].get_or_insert(position);
    }
    true
}

/// After every change: who streams has told how far it is.
pub(crate) fn settle(state: &mut State) {
    let Some(mut slots) = state.slots.take() else { return };
    for node in state.ids() {
        let Postgres::Standby { upstream: Some(upstream) } = state.node(node).postgres else { continue };
        let (here, there) = (state.node(node), state.node(upstream));
        let next = here.wal.position();
        let flows = there.postgres == Postgres::Primary
            && here.wal.is_prefix_of(there.wal)
            && slots.of_node(upstream).from <= next;
        let slot = &mut slots.of_node_mut(upstream).slots[usize::from(node)];
        *slot = slot.map(|before| if flows { next } else { before });
    }
    state.slots = Some(slots);
}

/// What the leader would publish.
fn to_publish(state: &State) -> Option<(NodeId, Positions)> {
    let leader = state.dcs.holder?;
    let here = state.node(leader);
    let mut positions = state.slots.as_ref()?.of_node(leader).slots;
    positions[usize::from(leader)] = Some(here.wal.position());
    (here.postgres == Postgres::Primary && here.knows_lease).then_some((leader, positions))
}

/// Whether the leader has anything new to publish.
pub(crate) fn may_be_published(state: &State) -> bool {
    let promised = state.slots.as_ref().map(|slots| slots.promised);
    to_publish(state).is_some_and(|(_, positions)| Some(positions) != promised)
}

/// It publishes it.
pub(crate) fn publish(setup: &Setup, state: &mut State) {
    let Some((leader, positions)) = to_publish(state) else { return };
    let end = positions[usize::from(leader)];
    let Some(slots) = &mut state.slots else { return };
    slots.promised = positions;
    slots.published = positions;
    if setup.mutant == Some(Mutant::MovesCopiesTooFar) {
        slots.published = positions.map(|position| position.and(end));
    }
}

/// From which record on a running node must keep its WAL now: a primary for its slots, a standby for the copies that it holds.
fn needed_from(setup: &Setup, state: &State, node: NodeId) -> Option<u8> {
    let (here, slots) = (state.node(node), state.slots.as_ref()?);
    let positions = match here.postgres {
        Postgres::Primary => slots.of_node(node).slots,
        Postgres::Standby { .. } if setup.mutant == Some(Mutant::HoldsNoCopies) => Positions::default(),
        Postgres::Standby { .. } => slots.published,
        _ => return None,
    };
    let others = state.ids().filter(|other| *other != node);
    let needed = others.filter_map(|other| positions[usize::from(other)]).min();
    Some(needed.unwrap_or(u8::MAX).min(here.wal.position()))
}

/// Whether a checkpoint or a restart point would remove anything.
pub(crate) fn may_remove(setup: &Setup, state: &State, node: NodeId) -> bool {
    let from = state.slots.as_ref().map(|slots| slots.of_node(node).from);
    needed_from(setup, state, node) > from && from.is_some()
}

/// It removes all that it need not keep.
pub(crate) fn remove(setup: &Setup, state: &mut State, node: NodeId) {
    let needed = needed_from(setup, state, node);
    if let (Some(slots), Some(needed)) = (&mut state.slots, needed) {
        slots.of_node_mut(node).from = needed;
    }
}

/// A standby was promoted: its copies are its slots.
pub(crate) fn promoted(setup: &Setup, state: &mut State, node: NodeId) {
    let Some(slots) = &mut state.slots else { return };
    let dropped = setup.mutant == Some(Mutant::DropsCopies);
    let mut copies = if dropped { Positions::default() } else { slots.published };
    copies[usize::from(node)] = None;
    slots.of_node_mut(node).slots = copies;
}

/// After a step: a rewind copies the WAL that its source has, a clone what is written from its begin on.
pub(crate) fn copied(state: &mut State, node: NodeId, act: Act) {
    let (Act::Rewind(source) | Act::Clone(source)) = act else { return };
    let position = state.node(source).wal.position();
    let Some(slots) = &mut state.slots else { return };
    let from = if act == Act::Clone(source) { position } else { slots.of_node(source).from };
    *slots.of_node_mut(node) = Kept { from, since: from, slots: Positions::default() };
}

/// Whether the leader may give up on a member: it has been away for `member_slots_ttl`, as one whose turn does not come.
pub(crate) fn may_expire(state: &State, node: NodeId) -> bool {
    let Some(leader) = state.dcs.holder.filter(|leader| *leader != node) else { return false };
    let there = state.node(leader);
    let is_behind = state.node(node).wal != there.wal;
    let keeps = state.slots.is_some() && there.postgres == Postgres::Primary;
    keeps && is_behind && present(state, leader).has(node)
}

/// It does, and so do the standbys.
pub(crate) fn expire(state: &mut State, node: NodeId) {
    let Some((leader, slots)) = state.dcs.holder.zip(state.slots.as_mut()) else { return };
    let place = usize::from(node);
    slots.of_node_mut(leader).slots[place] = None;
    slots.expired = slots.expired.with(node);
    (slots.published[place], slots.promised[place]) = (None, None);
}

/// A person has emptied the data directory of a member whose WAL is gone.
pub(crate) fn emptied(state: &mut State) {
    if let Some(slots) = &mut state.slots {
        slots.emptied = true;
    }
}

/// Every member that was promised its WAL finds it where the leader is, unless the leader's data was copied later than that.
pub(crate) fn promises_are_kept(state: &State) -> bool {
    let (Some(leader), Some(slots)) = (state.dcs.holder, &state.slots) else { return true };
    let kept = slots.of_node(leader);
    let promised = |node: NodeId| {
        let next = state.node(node).wal.position();
        let promised = slots.promised[usize::from(node)].is_some_and(|promised| promised <= next);
        promised && !slots.expired.has(node) && kept.since <= next
    };
    state.ids().all(|node| !promised(node) || !state.is_cut_off(node))
}

/// Whether the leader has a slot for every member that is there.
pub(crate) fn are_complete(state: &State, leader: NodeId) -> bool {
    let has = present(state, leader);
    state.slots.is_none() || state.numbered().all(|(node, here)| node == leader || here.lost || has.has(node))
}

/// It must be reachable that a member whose WAL was gone follows again.
pub(crate) fn was_copied_anew(state: &State) -> bool {
    state.slots.as_ref().is_some_and(|slots| slots.emptied)
}
