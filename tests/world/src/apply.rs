//! What each event changes: the world after it. Decides nothing, and says nothing of what may happen when.

use crate::act::{Act, Acts};
use crate::event::{Event, is_fault};
use crate::ids::{NodeId, Nodes};
use crate::mutant::Mutant;
use crate::node::{Hang, Postgres, Read};
use crate::oracle;
use crate::perform::{break_off, perform, promoted, reload};
use crate::rebuild;
use crate::restart;
use crate::setup::Setup;
use crate::state::{State, Wrong, past, rollback, slots};
use crate::store::Request;
use crate::wal::Record;

/// The world after `event`; `None` when nothing has changed.
pub(crate) fn apply(setup: &Setup, before: &State, event: &Event) -> Option<State> {
    let mut state = before.clone();
    if is_fault(setup, before, event) {
        state.left.faults -= 1;
    }
    match event {
        Event::Round { node, plan, rule_broken } => {
            past::look(&mut state, *node);
            round(setup, &mut state, *node, *plan, *rule_broken);
        }
        Event::BlindRound { node, plan, rule_broken } => {
            round(setup, &mut state, *node, *plan, *rule_broken);
        }
        Event::AskForRollback(node) => rollback::prepare(&mut state, *node),
        Event::RollbackGoesOn(turn) => rollback::take(setup, &mut state, *turn),
        Event::PublishSlots => slots::publish(setup, &mut state),
        Event::RemoveWal(node) => slots::remove(setup, &mut state, *node),
        Event::SlotExpires(node) => slots::expire(&mut state, *node),
        Event::EmptyData(node) => empty_data(setup, &mut state, *node),
        Event::AskForRestart { primary_first } => restart::ask(&mut state, *primary_first),
        Event::CopyDcs => past::copy(&mut state),
        Event::RestoreDcs => past::restore(&mut state),
        Event::LedElsewhere(node) | Event::LedBack(node) => {
            state.node_mut(*node).plan = Acts::default();
            past::lead(&mut state, *node, matches!(event, Event::LedElsewhere(_)));
        }
        Event::Rebuild(heard) => rebuild::rebuild(setup, &mut state, *heard),
        Event::Read(node) => read(&mut state, *node),
        Event::Step(node) => step(setup, &mut state, *node),
        Event::ReplyIsLost(node) => lose_reply(setup, &mut state, *node),
        Event::Enter(node) => state.node_mut(*node).entered = true,
        Event::Publish(node) => state.node_mut(*node).publish(),
        Event::Stream(node) => receive(&mut state, *node),
        Event::Replay(node) => state.node_mut(*node).replay(),
        Event::Reload(node) => reload(&mut state, *node),
        Event::Commit(node) => commit(setup, &mut state, *node),
        Event::AskForSwitchover(to) => ask(&mut state, *to, false),
        Event::AskForFailover(to) => ask(&mut state, *to, true),
        Event::ShortenTtl => state.dcs.short_ttl = true,
        Event::RequestEnds => state.dcs.request = None,
        Event::Up(node) if state.node(*node).postgres == Postgres::Promoting => {
            promoted(setup, &mut state, *node);
        }
        Event::Up(node) => state.node_mut(*node).postgres = Postgres::Primary,
        Event::Hangs(node) => state.node_mut(*node).hang = Hang::Silent,
        Event::Answers(node) => state.node_mut(*node).hang = Hang::No,
        Event::Stops(node) => stop(&mut state, *node),
        Event::Terminate(node) => terminate(&mut state, *node),
        Event::SupervisorStops(node) => state.node_mut(*node).stop_fast(),
        Event::Return(node) => come_back(setup, &mut state, *node),
        Event::LeaseExpires => state.dcs.holder = None,
        Event::FuseBlows(node) => blow_fuse(setup, &mut state, *node),
        Event::PostgresCrashes(node) => state.node_mut(*node).crash(),
        Event::PromotionsFail(node) => state.node_mut(*node).never_promoted = true,
        Event::PromotionFails(node) => fail_promotion(&mut state, *node),
        Event::CopyBreaksOff(node) => break_off_plan(&mut state, *node),
        Event::DataIsLost(node) => lose_data(setup, &mut state, *node),
        Event::NodeIsLost(node) => lose_node(setup, &mut state, *node),
        Event::AgentRestarts(node) => {
            rollback::agent_ends(&mut state, *node);
            forget(setup, &mut state, *node);
        }
    }
    past::settle(&mut state);
    slots::settle(&mut state);
    oracle::watch(&mut state);
    (state != *before).then_some(state)
}

fn commit(setup: &Setup, state: &mut State, node: NodeId) {
    let number = setup.commits - state.left.commits;
    state.left.commits -= 1;
    state.node_mut(node).wal.push(Record::Commit(number));
}

fn ask(state: &mut State, to: NodeId, failover: bool) {
    let left = if failover { &mut state.left.failovers } else { &mut state.left.requests };
    *left -= 1;
    state.dcs.request = Some(Request { from: None, to: Some(to), failover });
    state.oracle.wanted = Some(to);
}

fn terminate(state: &mut State, node: NodeId) {
    state.left.terminations -= 1;
    state.node_mut(node).terminating = true;
}

fn come_back(setup: &Setup, state: &mut State, node: NodeId) {
    forget(setup, state, node);
    let here = state.node_mut(node);
    here.fuse = false;
    here.terminating = false;
}

fn read(state: &mut State, node: NodeId) {
    let read =
        Read { store: state.dcs.clone(), sync_is_last: true, held_its_term: state.node(node).held_this_term };
    state.node_mut(node).read = Some(Box::new(read));
}

/// A plan that only renews is carried out at once: the DCS compares by itself, so that an older view changes nothing.
fn round(setup: &Setup, state: &mut State, node: NodeId, plan: Acts, rule_broken: bool) {
    if rule_broken {
        state.oracle.wrong = state.oracle.wrong.or(Some(Wrong::RuleBroken));
    }
    restart::judge_plan(state, node, plan);
    state.node_mut(node).plan =
        if setup.broken_data || setup.slots { plan } else { plan.with_copies_alike() };
    state.node_mut(node).read = None;
    if plan.only_renews() {
        step(setup, state, node);
    }
}

fn step(setup: &Setup, state: &mut State, node: NodeId) {
    let plan = state.node(node).plan;
    let act = plan.next().expect("there is a step to take");
    let rest = plan.rest();
    state.node_mut(node).plan = rest;
    if perform(setup, state, node, act).is_err() {
        state.node_mut(node).plan = Acts::default();
    }
}

/// The DCS has done it; the agent has not armed its fuse, and looks again.
fn lose_reply(setup: &Setup, state: &mut State, node: NodeId) {
    let before = state.node(node).clone();
    let led = state.dcs.holder == Some(node) && !matches!(before.plan.next(), Some(Act::Recreate(_)));
    step(setup, state, node);
    let acquired = !led && state.dcs.holder == Some(node);
    let here = state.node_mut(node);
    here.plan = Acts::default();
    here.fuse = before.fuse;
    here.held_this_term &= before.held_this_term && !acquired;
    here.knows_lease = before.knows_lease;
    // What it does not know to have written it does not put back.
    here.struck = here.struck.filter(|_| before.struck.is_some());
}

/// What an agent keeps in its memory only.
fn forget(setup: &Setup, state: &mut State, node: NodeId) {
    let here = state.node_mut(node);
    here.entered = !setup.enters;
    here.plan = Acts::default();
    here.read = None;
    here.set = Nodes::NONE;
    here.since = None;
    here.knows_lease = false;
    here.forget_promotion();
    here.checkpointed = false;
    if let Hang::Stopping { awaited, .. } = &mut here.hang {
        *awaited = false;
    }
}

/// What a stop was for is done.
fn stop(state: &mut State, node: NodeId) {
    let here = state.node_mut(node);
    match here.hang {
        Hang::Stopping { fast: true, .. } => here.stop_fast(),
        Hang::Stopping { fast: false, .. } => here.crash(),
        Hang::No | Hang::Silent => {}
    }
}

fn receive(state: &mut State, node: NodeId) {
    let Postgres::Standby { upstream: Some(upstream) } = state.node(node).postgres else { return };
    let source = state.node(upstream).wal;
    state.node_mut(node).wal.receive_from(source);
}

fn blow_fuse(setup: &Setup, state: &mut State, node: NodeId) {
    state.node_mut(node).fuse = false;
    let writable = state.node(node).postgres.is_writable();
    if writable && setup.mutant != Some(Mutant::FuseIgnored) {
        state.node_mut(node).crash();
    }
}

/// The copy that was to be made ends half made.
fn break_off_plan(state: &mut State, node: NodeId) {
    let plan = std::mem::take(&mut state.node_mut(node).plan);
    break_off(state, node, plan.next().expect("there is a step to take"));
}

fn fail_promotion(state: &mut State, node: NodeId) {
    state.node_mut(node).crash();
    state.node_mut(node).promotion_failed = true;
}

fn empty_data(setup: &Setup, state: &mut State, node: NodeId) {
    lose_data(setup, state, node);
    slots::emptied(state);
}

fn lose_data(setup: &Setup, state: &mut State, node: NodeId) {
    forget(setup, state, node);
    state.node_mut(node).loses_data(Postgres::Empty);
}

fn lose_node(setup: &Setup, state: &mut State, node: NodeId) {
    state.node_mut(node).crash();
    forget(setup, state, node);
    let here = state.node_mut(node);
    here.fuse = false;
    here.lost = true;
}
