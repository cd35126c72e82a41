//! The keys of the cluster written anew, by a primary that still runs or by a person's command. Whose data is taken the shipped `rebuild` says.

use outrider_ha::{Role, SyncState, SynchronousMode, Testimony, Watermark, Witness};

use outrider_wal::TimelineId;

use crate::ids::{NodeId, Nodes, name, names, number};
use crate::look;
use crate::mutant::rebuild_as;
use crate::setup::Setup;
use crate::state::State;
use crate::state::past::write_anew;
use crate::store::{Store, Sync};

/// Whether somebody has a reason to: the DCS is an old copy, or all agents find nothing.
pub(crate) fn may_be_asked_for(state: &State) -> bool {
    let Some(past) = &state.past else { return false };
    let wiped = past.elsewhere.is_some() && state.ids().all(|node| state.keys_of(node).is_none());
    !past.rebuilt && (past.restored || wiped)
}

/// Who would lead, and whose record is the newest, when these nodes answer; `None` when it is refused.
pub(crate) fn rebuilding(setup: &Setup, state: &State, heard: Nodes) -> Option<(NodeId, NodeId)> {
    if state.dcs.holder.is_some() && state.looks_here(0) {
        return None;
    }
    let witnesses: Vec<Witness> = state
        .ids()
        .map(|node| Witness {
            name: name(node),
            says: heard.has(node).then(|| testimony(state, node)).flatten(),
        })
        .collect();
    let dcs = state.keys_of(0).map_or(Watermark::default(), |(_, mark)| mark.watermark());
    let mode = if setup.synchronous { SynchronousMode::On } else { SynchronousMode::Off };
    let outcome = rebuild_as(setup.mutant, &witnesses, &dcs, mode).ok()?;
    Some((number(&outcome.best), number(&outcome.record_of)))
}

fn testimony(state: &State, node: NodeId) -> Option<Testimony> {
    let (here, seen) = (state.node(node), state.past.as_ref()?.seen(node));
    if here.lost {
        return None;
    }
    let member = look::member_state(state, node);
    // As `GET /dcs` tells it.
    let role = if here.postgres.is_writable() { Role::Primary } else { member.role };
    let record = seen.record?;
    let sync = record.sync.map(|sync| SyncState {
        leader: Some(name(sync.leader)),
        standbys: names(sync.standbys),
        given_up: TimelineId::default(),
        revision: seen.watermark().sync_revision,
    });
    Some(Testimony {
        watermark: seen.watermark(),
        sync,
        leader: record.leader.map(name),
        role,
        system: member.system,
        timeline: here.wal.timeline(),
        position: here.wal.lsn(),
        may_lead: true,
    })
}

/// By a person: `best` alone may be promoted.
pub(crate) fn rebuild(setup: &Setup, state: &mut State, heard: Nodes) {
    let Some((best, record_of)) = rebuilding(setup, state, heard) else { return };
    let sync = setup.synchronous.then_some(Sync { leader: best, standbys: Nodes::NONE });
    let keys = Store::new(None, sync, state.node(record_of).wal.branches());
    let Some(by) = state.past.as_ref().map(|past| past.seen(record_of)) else { return };
    write_anew(state, keys, by);
}

/// By the primary that still runs. False when there are keys.
pub(crate) fn recreate(setup: &Setup, state: &mut State, node: NodeId, standbys: Nodes) -> bool {
    let Some(by) = state.past.as_ref().map(|past| past.seen(node)) else { return false };
    if state.keys_of(node).is_some() {
        return false;
    }
    let sync = setup.synchronous.then_some(Sync { leader: node, standbys });
    let keys = Store::new(Some(node), sync, state.dcs.branches);
    write_anew(state, keys, by);
    true
}
