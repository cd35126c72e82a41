//! Carries out one step of a plan on the world, as the DCS, the supervisor and Postgres would. Decides nothing.

use crate::act::Act;
use crate::ids::{NodeId, Nodes};
use crate::mutant::Mutant;
use crate::node::{Hang, Postgres};
use crate::oracle;
use crate::rebuild;
use crate::restart;
use crate::setup::Setup;
use crate::state::past::{self, Keys};
use crate::state::{State, Wrong, rollback, slots};
use crate::store::{Request, Sync};
use crate::wal::Record;

/// The step was not done; the plan ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

type Outcome = Result<(), Refused>;

fn require(holds: bool) -> Outcome {
    if holds { Ok(()) } else { Err(Refused) }
}

pub(crate) fn perform(setup: &Setup, state: &mut State, node: NodeId, act: Act) -> Outcome {
    match act {
        Act::Recreate(standbys) => {
            require(rebuild::recreate(setup, state, node, standbys))?;
            renew(setup, state, node)
        }
        _ if act.is_write() => {
            past::at_its_store(state, node, |state| perform_there(setup, state, node, act))
                .unwrap_or(Err(Refused))
        }
        _ => {
            perform_there(setup, state, node, act)?;
            slots::copied(state, node, act);
            Ok(())
        }
    }
}

fn perform_there(setup: &Setup, state: &mut State, node: NodeId, act: Act) -> Outcome {
    let leads = state.dcs.holder == Some(node);
    match act {
        Act::AcquireLease { seen_last } => acquire(setup, state, node, seen_last),
        Act::RenewLease => renew(setup, state, node),
        Act::ReleaseLease => release(state, node),
        Act::ShortenFuse => {
            require(state.node(node).fuse)?;
            state.node_mut(node).long_fuse = false;
            Ok(())
        }
        Act::SetTtl => {
            state.node_mut(node).short_session = true;
            Ok(())
        }
        Act::HandOverLease(to) => hand_over(state, node, to),
        Act::RecordSync { standbys, seen_last } => record_sync(setup, state, node, standbys, seen_last),
        Act::RestoreSync { before, seen_last } => write_sync(state, node, before, seen_last),
        Act::RecordHistory => record_history(state, node),
        Act::ClearRequest => {
            state.dcs.request = None;
            Ok(())
        }
        Act::AnnounceSwitchover(to) => {
            require(leads)?;
            announce(state, Some((node, to)));
            Ok(())
        }
        Act::ClearSwitchover => {
            require(leads || state.dcs.announced.is_none())?;
            announce(state, None);
            Ok(())
        }
        Act::StartPrimary(_)
        | Act::StartStandby(_)
        | Act::StopFast
        | Act::StopImmediate
        | Act::Promote
        | Act::Follow(_)
        | Act::SetSynchronous(_)
        | Act::Checkpoint
        | Act::Rewind(_)
        | Act::Clone(_) => perform_here(setup, state, node, act),
        Act::CreateSlots(names) => require(slots::create(state, node, names)),
        Act::Recreate(_) => unreachable!("the caller has done it"),
        Act::AskSwitchover => {
            state.dcs.request = Some(Request { from: Some(node), to: None, failover: false });
            Ok(())
        }
        Act::RecordRestart { note, seen_last, of } => {
            require(seen_last && state.dcs.restart.is_some())?;
            restart::record(state, of, note);
            Ok(())
        }
        Act::Rollback => {
            require(state.node(node).fuse)?;
            rollback::begin(state, node);
            Ok(())
        }
        Act::Initdb => initdb(state, node),
    }
}

fn initdb(state: &mut State, node: NodeId) -> Outcome {
    oracle::judge(state, Wrong::SecondCluster);
    state.node_mut(node).loses_data(Postgres::StoppedClean);
    Ok(())
}

fn hand_over(state: &mut State, node: NodeId, to: NodeId) -> Outcome {
    require(state.dcs.holder == Some(node))?;
    oracle::judge_hand_over(state, node, to);
    if let Some(past) = &mut state.past {
        let record = &mut past.seen[usize::from(node)].record;
        *record = record.map(|record| Keys { leader: Some(to), ..record });
    }
    state.dcs.holder = Some(to);
    begin_term(state);
    Ok(())
}

/// Of one that is to be promoted: who was struck is remembered.
fn record_sync(setup: &Setup, state: &mut State, node: NodeId, standbys: Nodes, seen_last: bool) -> Outcome {
    let promotes = setup.promotions_fail && state.node(node).postgres != Postgres::Primary;
    let before = state.dcs.sync.filter(|_| promotes);
    write_sync(state, node, Sync { leader: node, standbys }, seen_last)?;
    state.node_mut(node).struck = before;
    Ok(())
}

fn write_sync(state: &mut State, node: NodeId, sync: Sync, seen_last: bool) -> Outcome {
    require(state.dcs.holder == Some(node) && seen_last)?;
    state.dcs.sync = Some(sync);
    state.sync_was_written();
    if let Some(past) = &mut state.past {
        past.now.sync += 1;
        let seen = &mut past.seen[usize::from(node)];
        seen.mark.sync = past.now.sync;
        seen.record = seen.record.map(|record| Keys { sync: state.dcs.sync, ..record });
    }
    Ok(())
}

/// One transaction: nobody holds it, and `/sync` is as it was seen.
fn acquire(setup: &Setup, state: &mut State, node: NodeId, seen_last: bool) -> Outcome {
    let blindly = setup.mutant == Some(Mutant::TakesLeaseBlindly);
    require(state.dcs.holder.is_none() && (seen_last || blindly))?;
    state.dcs.holder = Some(node);
    begin_term(state);
    if let Some(past) = &mut state.past {
        past.seen[usize::from(node)].mark.term = past.now.term;
    }
    renew(setup, state, node)
}

/// A confirmed renewal arms the fuse.
fn renew(setup: &Setup, state: &mut State, node: NodeId) -> Outcome {
    require(state.dcs.holder == Some(node))?;
    let here = state.node_mut(node);
    here.fuse = true;
    here.long_fuse = setup.shortens && !here.short_session;
    here.held_this_term = true;
    here.knows_lease = true;
    if let Some(past) = &mut state.past {
        let term = past.now.term;
        let record = &mut past.seen[usize::from(node)].record;
        *record = record.map(|record| Keys { held: term, ..record });
    }
    let here = state.node_mut(node);
    if here.postgres == Postgres::Primary && !setup.synchronous {
        state.dcs.last_position = state.node(node).wal.position();
    }
    Ok(())
}

fn release(state: &mut State, node: NodeId) -> Outcome {
    require(state.dcs.holder == Some(node))?;
    state.dcs.holder = None;
    Ok(())
}

fn record_history(state: &mut State, node: NodeId) -> Outcome {
    require(state.dcs.holder == Some(node))?;
    state.dcs.branches = state.node(node).wal.branches();
    Ok(())
}

fn begin_term(state: &mut State) {
    for node in state.lookers() {
        state.node_mut(node).held_this_term = false;
    }
    rollback::term_begins(state);
    state.oracle.born_this_term = false;
    if let Some(past) = &mut state.past {
        past.now.term += 1;
    }
}

/// What was done for an earlier announcement counts for nothing.
fn announce(state: &mut State, switchover: Option<(NodeId, NodeId)>) {
    state.dcs.announced = switchover;
    state.nodes.iter_mut().for_each(|node| node.checkpointed = false);
}

/// The steps that touch only the node's own Postgres.
fn perform_here(setup: &Setup, state: &mut State, node: NodeId, act: Act) -> Outcome {
    let announced = state.dcs.announced.is_some();
    let copy = match act {
        Act::Rewind(from) | Act::Clone(from) => source(state, from),
        _ => None,
    };
    watch_over(state, node, act);
    let here = state.node_mut(node);
    let stopped = !here.postgres.runs();
    let is_standby = matches!(here.postgres, Postgres::Standby { .. });
    let stopping = matches!(here.hang, Hang::Stopping { .. });
    let (may_start, may_promote) =
        (stopped && !here.terminating, is_standby && !here.terminating && !stopping);
    match act {
        Act::StartPrimary(names) => {
            require(may_start && here.fuse)?;
            here.becomes(Postgres::Starting);
            here.set_synchronous(names);
            here.waits_for = names;
        }
        Act::StartStandby(upstream) => {
            require(may_start)?;
            here.starts_as_standby(upstream);
        }
        Act::StopFast if setup.slow => here.begin_to_stop(true),
        Act::StopImmediate if setup.slow => here.begin_to_stop(false),
        Act::StopFast => here.stop_fast(),
        Act::StopImmediate => here.crash(),
        Act::Promote => {
            require(may_promote && (here.fuse || setup.mutant == Some(Mutant::PromotesFirst)))?;
            here.becomes(Postgres::Promoting);
        }
        Act::Follow(upstream) => {
            require(is_standby)?;
            here.postgres = Postgres::Standby { upstream: Some(upstream) };
        }
        Act::SetSynchronous(names) => {
            require(here.postgres == Postgres::Primary)?;
            here.set_synchronous(names);
        }
        Act::Checkpoint => {
            require(!stopped && here.hang == Hang::No)?;
            here.checkpointed = announced;
        }
        Act::Rewind(_) | Act::Clone(_) => {
            require(may_start)?;
            here.is_copied(copy.ok_or(Refused)?);
        }
        Act::AcquireLease { .. }
        | Act::RenewLease
        | Act::ReleaseLease
        | Act::ShortenFuse
        | Act::SetTtl
        | Act::HandOverLease(_)
        | Act::RecordSync { .. }
        | Act::RestoreSync { .. }
        | Act::RecordHistory
        | Act::ClearRequest
        | Act::AnnounceSwitchover(_)
        | Act::ClearSwitchover
        | Act::CreateSlots(_)
        | Act::Initdb
        | Act::Recreate(_)
        | Act::Rollback
        | Act::AskSwitchover
        | Act::RecordRestart { .. } => unreachable!("the caller has done these"),
    }
    Ok(())
}

/// What the rest of the world learns of a start or a stop.
fn watch_over(state: &mut State, node: NodeId, act: Act) {
    match act {
        Act::StartPrimary(_) | Act::StartStandby(_) => restart::started(state, node),
        Act::StopFast => restart::judge_stop(state, node),
        _ => {}
    }
    if matches!(act, Act::StartPrimary(_) | Act::StartStandby(_)) && !state.node(node).postgres.has_data() {
        oracle::judge(state, Wrong::UnusableStarted);
    }
}

/// A promotion is done: a timeline is born.
pub(crate) fn promoted(setup: &Setup, state: &mut State, node: NodeId) {
    oracle::judge_promotion(setup, state, node);
    slots::promoted(setup, state, node);
    let birth = state.oracle.births;
    state.oracle.births += 1;
    state.oracle.born_this_term = true;
    let here = state.node_mut(node);
    here.wal.push(Record::Birth(birth));
    here.replayed = here.replayed.map(|_| 0);
    here.becomes(Postgres::Primary);
    here.led = setup.promotions_fail.then_some(birth + 1);
    if setup.mutant != Some(Mutant::PutsBackAfterServing) {
        here.forget_promotion();
    }
}

/// A rewind or a clone is broken off.
pub(crate) fn break_off(state: &mut State, node: NodeId, act: Act) {
    let left = if matches!(act, Act::Rewind(_)) { Postgres::HalfRewound } else { Postgres::HalfCloned };
    state.node_mut(node).loses_data(left);
}

/// `pg_rewind` and `pg_basebackup` need a running primary.
fn source(state: &State, from: NodeId) -> Option<crate::wal::Wal> {
    let source = state.node(from);
    (source.postgres == Postgres::Primary && source.hang == Hang::No).then_some(source.wal)
}

/// The configuration file is read: commits wait for whom it names. The agent sees it, if it knows what it has written.
pub(crate) fn reload(state: &mut State, node: NodeId) {
    let here = state.node_mut(node);
    here.waits_for = here.configured;
    if here.set == here.configured {
        here.since = Some(here.wal.position());
    }
}

/// Whether there is anything for a reload to do.
pub(crate) fn may_reload(state: &State, node: NodeId) -> bool {
    let here = state.node(node);
    let unread = here.waits_for != here.configured;
    let unseen = here.since.is_none() && here.set == here.configured;
    here.postgres == Postgres::Primary && here.hang == Hang::No && (unread || unseen)
}
