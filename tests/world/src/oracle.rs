//! Knows what no node knows: which commits were acknowledged, and who was promoted when. Only watches.

use outrider_wal::TimelineId;

use crate::ids::NodeId;
use crate::node::Postgres;
use crate::setup::Setup;
use crate::state::{State, Wrong};
use crate::wal::Record;

/// After every change: who could tell its client of a commit has told it. The earliest moment is the hardest one.
pub(crate) fn watch(state: &mut State) {
    let acknowledged =
        state.numbered().map(|(node, _)| acknowledged_by(state, node)).fold(0, |all, some| all | some);
    state.oracle.acknowledged |= acknowledged;
    state.oracle.all_were_down |= state.nodes.iter().all(|node| !node.postgres.runs());
}

/// PostgreSQL's rule: a commit is acknowledged when every standby that it waits for has flushed it.
fn acknowledged_by(state: &State, primary: NodeId) -> u8 {
    let here = state.node(primary);
    if here.postgres != Postgres::Primary {
        return 0;
    }
    let everywhere = here.waits_for.iter().map(|standby| {
        if state.streams_from(standby) == Some(primary) { state.node(standby).wal.position() } else { 0 }
    });
    let flushed = everywhere.min().unwrap_or(u8::MAX);
    here.wal.records().take(flushed.into()).fold(0, |commits, record| match record {
        Record::Commit(number) => commits | 1 << number,
        Record::Birth(_) | Record::Shutdown => commits,
    })
}

/// Something was done that no node may do.
pub(crate) fn judge(state: &mut State, wrong: Wrong) {
    state.oracle.wrong = state.oracle.wrong.or(Some(wrong));
}

/// A promotion is about to happen.
pub(crate) fn judge_promotion(setup: &Setup, state: &mut State, node: NodeId) {
    let here = state.node(node);
    let has_all = state.oracle.acknowledged & !here.wal.commits() == 0;
    let leads_sync = state.dcs.sync.is_none_or(|sync| sync.leader == node);
    let is_next = here.wal.timeline() == TimelineId::new(1 + u32::from(state.oracle.births));
    let in_time = here.held_this_term && !state.oracle.born_this_term;
    let wrong = if setup.synchronous && !(has_all && leads_sync) {
        Some(Wrong::NotEligible)
    } else if setup.synchronous && !is_next {
        Some(Wrong::TimelineBornTwice)
    } else if !in_time {
        Some(Wrong::TermWentBack)
    } else {
        None
    };
    state.oracle.wrong = state.oracle.wrong.or(wrong);
}

/// A switchover hands the lease over, once its old primary has stopped in good order.
pub(crate) fn judge_hand_over(state: &mut State, from: NodeId, to: NodeId) {
    let planned = state.dcs.announced == Some((from, to));
    let end = state.node(from).wal.position();
    let behind = state.node(to).replayed.is_some_and(|replayed| replayed < end);
    if planned && state.node(from).postgres == Postgres::StoppedClean && behind {
        judge(state, Wrong::HandedOverUnreplayed);
    }
}
