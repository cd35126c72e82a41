//! The swap of a rollback: data that was restored beside the running primary takes the place of its own. What the task and the job of
//! the program do around `Step::Rollback`; how it was prepared is not in it.

use super::State;
use crate::ids::NodeId;
use crate::mutant::Mutant;
use crate::node::Postgres;
use crate::setup::Setup;
use crate::wal::{Record, Wal};

/// A rollback that a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rollback {
    /// Which node.
    pub by: NodeId,
    /// Up to where the data is restored.
    pub to: Wal,
    /// How far it is.
    pub stage: Stage,
    /// The lease is of the term under which it was prepared.
    pub same_term: bool,
}

/// How far a rollback is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The data is prepared, the DCS says so, and the round is to swap it.
    Offered,
    /// The job runs: Postgres stops, or has, and nothing is renamed.
    Stopping,
    /// The data is in its place, and the journal says so.
    Swapped,
    /// It has not come to that.
    Failed,
}

/// Something that happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Turn {
    /// Postgres is gone for it.
    Stops,
    /// The data takes its place, or does not because the lease is not sure to be held.
    Swaps,
    /// It is given up.
    GivesUp,
    /// How it ended is recorded.
    Ends,
}

impl State {
    /// The rollback that this node does.
    #[must_use]
    pub fn rollback_of(&self, node: NodeId) -> Option<&Rollback> {
        self.rollback.as_ref().filter(|rollback| rollback.by == node)
    }
}

/// Whether somebody may ask this node for one: it leads and serves, and has done none.
pub(crate) fn may_be_asked(state: &State, node: NodeId) -> bool {
    state.left.rollbacks > 0
        && state.dcs.holder == Some(node)
        && state.node(node).postgres == Postgres::Primary
        && state.dcs.swapping.is_none()
}

/// The data is prepared up to where the primary is now, and the DCS says that the swap may begin.
pub(crate) fn prepare(state: &mut State, node: NodeId) {
    state.left.rollbacks -= 1;
    state.dcs.swapping = Some(node);
    state.rollback =
        Some(Rollback { by: node, to: state.node(node).wal, stage: Stage::Offered, same_term: true });
}

/// What happens to it next by itself.
pub(crate) fn next(state: &State) -> Option<Turn> {
    let Rollback { by, stage, .. } = state.rollback?;
    let here = state.node(by);
    let leads = state.dcs.holder == Some(by);
    if here.lost {
        // Whoever leads then ends it.
        return (!leads && state.dcs.holder.is_some()).then_some(Turn::Ends);
    }
    match stage {
        Stage::Offered => (!leads || here.postgres != Postgres::Primary).then_some(Turn::GivesUp),
        Stage::Stopping if here.postgres.runs() => Some(Turn::Stops),
        Stage::Stopping => Some(Turn::Swaps),
        Stage::Swapped => {
            let taken_over = !leads && state.dcs.holder.is_some();
            (taken_over || (leads && here.postgres == Postgres::Primary)).then_some(Turn::Ends)
        }
        Stage::Failed => Some(Turn::Ends),
    }
}

/// Whether it may be given up although nothing speaks against it: it is late.
pub(crate) fn may_be_late(state: &State) -> bool {
    state.rollback.is_some_and(|rollback| rollback.stage == Stage::Offered && !state.node(rollback.by).lost)
}

pub(crate) fn take(setup: &Setup, state: &mut State, turn: Turn) {
    let Some(Rollback { by, stage, .. }) = state.rollback else { return };
    match turn {
        Turn::Stops => state.node_mut(by).stop_fast(),
        Turn::Swaps => swap(state),
        Turn::GivesUp => fail(state),
        Turn::Ends => {
            let swapped = stage == Stage::Swapped && state.dcs.holder == Some(by);
            if swapped && setup.mutant != Some(Mutant::ForgetsTheSwap) {
                state.dcs.least_timeline = state.node(by).wal.timeline();
            }
            (state.dcs.swapping, state.rollback) = (None, None);
        }
    }
}

/// The second rename is the point of no return.
fn swap(state: &mut State) {
    let Some(Rollback { by, to, .. }) = state.rollback else { return };
    let here = state.node(by);
    if here.postgres != Postgres::StoppedClean || !here.fuse {
        return fail(state);
    }
    let birth = state.oracle.births;
    state.oracle.births += 1;
    state.oracle.acknowledged &= to.commits();
    state.oracle.rolled_back = Some(birth);
    state.node_mut(by).wal = to;
    state.node_mut(by).wal.push(Record::Birth(birth));
    set_stage(state, Stage::Swapped);
}

/// Before the swap an agent that ends leaves the old data, or puts it back.
pub(crate) fn agent_ends(state: &mut State, node: NodeId) {
    if state.rollback_of(node).is_some_and(|rollback| rollback.stage != Stage::Swapped) {
        fail(state);
    }
}

fn fail(state: &mut State) {
    set_stage(state, Stage::Failed);
}

/// The job begins with what is offered; nothing when that was withdrawn. What was prepared under an earlier lease is withdrawn.
pub(crate) fn begin(state: &mut State, node: NodeId) {
    match state.rollback_of(node) {
        Some(Rollback { stage: Stage::Offered, same_term: true, .. }) => set_stage(state, Stage::Stopping),
        Some(Rollback { stage: Stage::Offered, same_term: false, .. }) => fail(state),
        Some(_) | None => {}
    }
}

/// The lease has another holder, or the same one anew.
pub(crate) fn term_begins(state: &mut State) {
    state.rollback = state.rollback.map(|rollback| Rollback { same_term: false, ..rollback });
}

fn set_stage(state: &mut State, stage: Stage) {
    state.rollback = state.rollback.map(|rollback| Rollback { stage, ..rollback });
}
