//! Which standbys commits wait for, and which are recorded as promotable. The order of the changes is everything:
//! to relax, first `/sync`, then the setting; to grow, first the setting, then proof, then `/sync`. At every moment
//! each member recorded in `/sync` holds every commit that was acknowledged.

use alloc::vec::Vec;

use outrider_wal::Lsn;

use super::standbys::recorded;
use super::{CAUGHT_UP, request};
use crate::plan::{Plan, Step};
use crate::reason::Reason;
use crate::view::View;
use crate::view::cluster::Cluster;
use crate::view::local::{Postgres, Synchronous, WalSender};
use crate::view::member::{MemberName, MemberState};
use crate::view::policy::SynchronousMode;

/// The next change, `None` when all is as it should be.
pub(super) fn maintain(view: &View, cluster: &Cluster) -> Option<Plan> {
    let Postgres::Primary { position, walsenders, synchronous, .. } = &view.local.postgres else {
        return None;
    };
    match view.policy.synchronous_mode {
        SynchronousMode::Off => turn_off(cluster, synchronous),
        SynchronousMode::On => hold(view, cluster, *position, walsenders, synchronous),
    }
}

fn turn_off(cluster: &Cluster, synchronous: &Synchronous) -> Option<Plan> {
    if let Some(sync) = &cluster.sync {
        return Some(Plan::step(Reason::SynchronousOff, Step::ClearSync { revision: sync.revision }));
    }
    let stands = !synchronous.names.is_empty() || is_unknown(synchronous);
    stands.then(|| Plan::step(Reason::SynchronousOff, Step::SetSynchronous { names: Vec::new() }))
}

/// An agent that was restarted does not know whom commits wait for, and nobody may be left who could confirm them.
fn is_unknown(synchronous: &Synchronous) -> bool {
    synchronous.names.is_empty() && synchronous.since.is_none()
}

fn hold(
    view: &View,
    cluster: &Cluster,
    position: Lsn,
    walsenders: &[WalSender],
    synchronous: &Synchronous,
) -> Option<Plan> {
    let revision = cluster.sync.as_ref().map(|sync| sync.revision);
    let record = |reason, standbys| Some(Plan::step(reason, Step::RecordSync { standbys, revision }));
    if cluster.sync.as_ref().is_none_or(|sync| sync.leader.as_ref() != Some(&view.me)) {
        return record(Reason::SynchronousOn, Vec::new());
    }
    let recorded = recorded(view, cluster);
    let streams =
        |name: &&MemberName| walsenders.iter().any(|sender| sender.name == **name && sender.streaming);

    // A standby that is gone, or one more than is wanted, may no longer be promoted ...
    let wanted = choose(view, cluster, &recorded, position, walsenders, synchronous);
    let gone = recorded.iter().any(|name| !streams(&name));
    let replaced = wanted.iter().all(|name| recorded.contains(name)) && wanted.len() < recorded.len();
    if gone || replaced {
        let stays = |name: &&MemberName| streams(name) && (!replaced || wanted.contains(name));
        return record(Reason::SynchronousRelaxed, recorded.iter().filter(stays).cloned().collect());
    }
    // ... before commits stop waiting for it; a new one is waited for before it may be.
    let mut names = wanted;
    names.extend(recorded.iter().cloned());
    names.sort();
    names.dedup();
    if names != synchronous.names || is_unknown(synchronous) {
        return Some(Plan::step(Reason::SynchronousChanged, Step::SetSynchronous { names }));
    }
    let since = synchronous.since?;
    let holds_all = |name: &&MemberName| {
        walsenders.iter().any(|sender| sender.name == **name && sender.sync && sender.flushed >= since)
    };
    let proven: Vec<MemberName> =
        synchronous.names.iter().filter(|name| recorded.contains(name) || holds_all(name)).cloned().collect();
    if proven == recorded { None } else { record(Reason::SynchronousGrown, proven) }
}

/// The standbys that commits should wait for: those that do not replay late on purpose, of them those that are not about to be
/// restarted, then those recorded, then those already
/// waited for, then the furthest; and the one that a switchover names.
fn choose(
    view: &View,
    cluster: &Cluster,
    recorded: &[MemberName],
    position: Lsn,
    walsenders: &[WalSender],
    synchronous: &Synchronous,
) -> Vec<MemberName> {
    let mut fit: Vec<&WalSender> = walsenders
        .iter()
        .filter(|sender| {
            sender.streaming && (recorded.contains(&sender.name) || is_fit(view, sender, position))
        })
        .collect();
    fit.sort_by_key(|sender| {
        let is_recorded = recorded.contains(&sender.name);
        let newcomer = !synchronous.names.contains(&sender.name);
        // Those recorded have all the same: how far each is at this moment must not make them change places.
        let flushed = core::cmp::Reverse(if is_recorded { Lsn::INVALID } else { sender.flushed });
        let waits = (is_delayed(view, &sender.name), is_short(view, &sender.name));
        (waits, !is_recorded, newcomer, flushed, sender.name.clone())
    });
    let wanted = wanted(view);
    let asked = request::to_be_made_synchronous(view, cluster).filter(|_| wanted > 0);
    let (first, rest) = fit.split_at(wanted.min(fit.len()));
    let named = rest.iter().filter(|sender| Some(&sender.name) == asked);
    let mut names: Vec<MemberName> = first.iter().chain(named).map(|sender| sender.name.clone()).collect();
    names.sort();
    names
}

/// Whether a standby says that it replays late on purpose: it would have to catch up before it could take over.
fn is_delayed(view: &View, name: &MemberName) -> bool {
    let published = view.member(name).and_then(|member| member.published.as_ref());
    published.is_some_and(MemberState::is_delayed)
}

/// Whether a standby is about to be restarted, because it has less than this primary of what it must not have less of.
fn is_short(view: &View, name: &MemberName) -> bool {
    view.member(name).and_then(|member| member.published.as_ref()).is_some_and(|state| state.short)
}

/// For how many standbys commits wait. Before the data of this primary is rolled back none may be promoted: it would bring
/// back what the rollback throws away.
fn wanted(view: &View) -> usize {
    if view.local.rollback_prepared { 0 } else { view.policy.synchronous_node_count as usize }
}

/// Whether commits may wait for this standby: a member that may lead, streaming, and not so far behind that every
/// commit would wait for it to catch up.
fn is_fit(view: &View, sender: &WalSender, position: Lsn) -> bool {
    let member = view.member(&sender.name);
    member.is_some_and(|member| member.tags.may_lead() && !member.tags.nosync)
        && sender.streaming
        && sender.flushed.behind(position) <= view.policy.maximum_lag_on_failover.max(CAUGHT_UP)
}
