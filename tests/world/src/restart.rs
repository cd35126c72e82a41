//! A restart of all members, one after the other, that somebody asked for: how it goes on, and what is judged of it.

use outrider_ha::{RestartTurn, TurnState};

use crate::act::{Act, Acts, Note};
use crate::ids::{NodeId, name};
use crate::node::Postgres;
use crate::oracle::judge;
use crate::state::{State, Wrong};
use crate::store::{Restart, Turn};

/// Of a postmaster that is to end, and of the one after it.
const BEFORE: &str = "before";
const AFTER: &str = "after";

impl Restart {
    fn turn(&mut self, node: NodeId) -> &mut Turn {
        &mut self.turns[usize::from(node)]
    }

    /// As `decide` gets it.
    #[must_use]
    pub fn members(&self, nodes: usize) -> Vec<RestartTurn> {
        let state = |turn: &Turn| match turn {
            Turn::Waiting => TurnState::Waiting,
            Turn::Begun { switching, .. } => {
                TurnState::Begun { started: BEFORE.into(), switching: *switching }
            }
            Turn::Ended => TurnState::Ended,
        };
        let members = self.turns.iter().take(nodes).zip(0..);
        members.map(|(turn, node)| RestartTurn { name: name(node), state: state(turn) }).collect()
    }
}

/// `pg_postmaster_start_time()`.
pub(crate) fn postmaster(state: &State, node: NodeId) -> String {
    let turn = state.dcs.restart.map(|restart| restart.turns[usize::from(node)]);
    let after = matches!(turn, Some(Turn::Begun { same: false, .. }));
    if after { AFTER } else { BEFORE }.to_owned()
}

/// Somebody asks for it.
pub(crate) fn ask(state: &mut State, primary_first: bool) {
    state.left.restarts -= 1;
    state.dcs.restart = Some(Restart { turns: [Turn::Waiting; 3], primary_first });
}

/// Another postmaster runs.
pub(crate) fn started(state: &mut State, node: NodeId) {
    if let Some(restart) = &mut state.dcs.restart
        && let Turn::Begun { same, .. } = restart.turn(node)
    {
        *same = false;
    }
}

/// Compared with what was seen by the caller.
pub(crate) fn record(state: &mut State, node: NodeId, note: Note) {
    let nodes = state.nodes.len();
    let Some(restart) = &mut state.dcs.restart else { return };
    match note {
        Note::Begins { switching } => {
            let others = restart.turns.iter().zip(0..).filter(|(_, other)| *other != node);
            let together = others.into_iter().any(|(turn, _)| matches!(turn, Turn::Begun { .. }));
            *restart.turn(node) = Turn::Begun { same: true, switching };
            if together {
                judge(state, Wrong::RestartedTogether);
            }
        }
        Note::Ends => *restart.turn(node) = Turn::Ended,
        Note::GivesUp => state.dcs.restart = None,
    }
    if state
        .dcs
        .restart
        .is_some_and(|restart| restart.turns.iter().take(nodes).all(|turn| *turn == Turn::Ended))
    {
        state.dcs.restart = None;
    }
    for other in state.lookers() {
        state.node_mut(other).plan.restart_was_written();
    }
}

/// A node has decided to begin: what it sees is what there is.
pub(crate) fn judge_plan(state: &mut State, node: NodeId, plan: Acts) {
    let Some(Act::RecordRestart { note: Note::Begins { switching }, .. }) =
        plan.iter().find(|act| matches!(act, Act::RecordRestart { .. }))
    else {
        return;
    };
    let Some(restart) = state.dcs.restart else { return };
    let waits = |node: NodeId| restart.turns[usize::from(node)] == Turn::Waiting;
    let others: Vec<NodeId> = state.ids().filter(|other| *other != node).collect();
    let leads = state.node(node).postgres == Postgres::Primary;
    let others_run = others.iter().all(|other| state.node(*other).postgres.accepts_connections());
    let leader_waits =
        others.iter().any(|other| state.node(*other).postgres == Postgres::Primary && waits(*other));
    let in_order = match (restart.primary_first, leads) {
        (true, true) => true,
        (true, false) => !leader_waits,
        // One whose turn was begun as a standby goes on with it.
        (false, true) => !waits(node) || !others.iter().any(|other| waits(*other)),
        (false, false) => true,
    };
    let first = restart.primary_first && leads;
    if !others_run && !first {
        judge(state, Wrong::RestartedTogether);
    }
    if !in_order {
        judge(state, Wrong::RestartedOutOfOrder);
    }
    if leads && !restart.primary_first && !switching {
        judge(state, Wrong::PrimaryRestarted);
    }
}

/// A node stops its Postgres in good order.
pub(crate) fn judge_stop(state: &mut State, node: NodeId) {
    let Some(restart) = state.dcs.restart else { return };
    let turn = restart.turns[usize::from(node)];
    let in_place = turn == (Turn::Begun { same: true, switching: false }) && !restart.primary_first;
    if in_place && state.node(node).postgres == Postgres::Primary {
        judge(state, Wrong::PrimaryRestarted);
    }
}
