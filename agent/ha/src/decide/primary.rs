//! A Postgres that accepts writes, or did until a moment ago: keep it, revive it, hand over, or stop it.

use alloc::vec::Vec;
use core::time::Duration;

use outrider_wal::{Lsn, TimelineId};

use super::failing::{is_never_promoted, never_comes_up, struck};
use super::standbys::{has_all, recorded};
use super::{bootstrap, election, restart, switchover, synchronous, went_back};
use crate::plan::{Plan, StartAs, Step, StopMode};
use crate::reason::Reason;
use crate::view::cluster::{Cluster, Initialize, SyncState};
use crate::view::local::{Postgres, Shutdown};
use crate::view::member::{Member, MemberName, Role};
use crate::view::{Job, View};

/// Whether this Postgres accepts writes, or will once it is up.
pub(super) fn is_writable(postgres: &Postgres) -> bool {
    match postgres {
        Postgres::Primary { .. } => true,
        Postgres::Starting { writable, .. } | Postgres::Unresponsive { writable, .. } => *writable,
        Postgres::Standby { .. } | Postgres::Stopped { .. } | Postgres::Empty | Postgres::Unusable(_) => {
            false
        }
    }
}

/// The lease is mine and Postgres is a primary: the quiet round of a leader, and its housekeeping.
pub(super) fn keep(view: &View, cluster: &Cluster) -> Plan {
    match view.job {
        None | Some(Job::Checkpoint) => {}
        Some(
            Job::Initdb
            | Job::PostBootstrap
            | Job::Start
            | Job::Stop
            | Job::Clone
            | Job::Rewind
            | Job::Rollback,
        ) => {
            return Plan::step(Reason::JobUnderWay, Step::RenewLease);
        }
    }
    if is_shut_for_good(view) && heir(view, cluster).is_some() {
        return Plan::steps(Reason::GivingUpOnHang, [Step::RenewLease, Step::Stop(StopMode::Immediate)]);
    }
    if view.local.terminating {
        return Plan::steps(Reason::Terminating, [Step::RenewLease, Step::Stop(StopMode::Fast)]);
    }
    let mut plan = next_duty(view, cluster);
    plan.steps.insert(0, Step::RenewLease);
    plan
}

/// The first thing that is not as it should be; one a round.
fn next_duty(view: &View, cluster: &Cluster) -> Plan {
    match (cluster.initialize, view.local.system) {
        (Initialize::Done(_), _) | (_, None) => {}
        (Initialize::Absent | Initialize::Bootstrapping, Some(_)) if !view.local.users_ready => {
            if view.job.is_some() {
                return Plan::wait(Reason::Bootstrapping);
            }
            if view.local.unrecorded && bootstrap::leaves_it_to_others(view, cluster) {
                return Plan::step(Reason::LeavingBootstrap, Step::Stop(StopMode::Fast));
            }
            return Plan::step(Reason::Bootstrapping, Step::PostBootstrap);
        }
        (Initialize::Absent | Initialize::Bootstrapping, Some(system)) => {
            return Plan::step(Reason::Bootstrapping, Step::RecordInitialize { system });
        }
    }
    if let Some(plan) = synchronous::maintain(view, cluster) {
        return plan;
    }
    if let Some(plan) = roll_back(view, cluster) {
        return plan;
    }
    if let Some(plan) = switchover::lead(view, cluster) {
        return plan;
    }
    if let Some(plan) = restart::primary(view, cluster) {
        return plan;
    }
    // A promoted candidate is a standby again some day.
    if view.local.hastened {
        return Plan::step(Reason::Leading, Step::RelaxReplay);
    }
    if history_is_missing(view, cluster) {
        return Plan::step(Reason::Leading, Step::RecordHistory);
    }
    // Promotion does not wait for its checkpoint, but former primaries that must be rewound do.
    if view.local.awaiting_checkpoint && view.job.is_none() {
        return Plan::step(Reason::Leading, Step::Checkpoint);
    }
    let names: Vec<MemberName> = view
        .members
        .iter()
        .filter(|member| member.published.is_some() && !view.local.slots.contains(&member.name))
        .map(|member| member.name.clone())
        .collect();
    if !names.is_empty() {
        return Plan::step(Reason::Leading, Step::CreateSlots { names });
    }
    let hangs = view.local.shut_out.is_some() || view.local.frozen.is_some();
    let plan = Plan::wait(if hangs { Reason::TakesNoConnection } else { Reason::Leading });
    and_look_when_frozen_long_enough(view, plan)
}

/// Whether the postmaster has stood still for so long that it is as good as a machine that is lost.
fn is_frozen_for_good(view: &View) -> bool {
    view.local.frozen.is_some_and(|frozen| frozen >= view.policy.ttl)
}

/// Whether nobody can come in any more. Those who are in can write, so one that is perhaps only slow has all the time that it would
/// have to start.
fn is_shut_for_good(view: &View) -> bool {
    let shut = view.local.shut_out.is_some_and(|shut| shut >= view.policy.primary_start_timeout);
    shut || is_frozen_for_good(view)
}

/// That a postmaster still stands still sends no event.
fn and_look_when_frozen_long_enough(view: &View, plan: Plan) -> Plan {
    match view.local.frozen.and_then(|frozen| view.policy.ttl.checked_sub(frozen)) {
        Some(left) => plan.and_look_again_in(left),
        None => plan,
    }
}

/// Prepared data takes the place of this primary's own once nobody else may be promoted: `synchronous::maintain` has seen to
/// that, and in asynchronous mode the lease does. A switchover that was announced goes first, and ends the rollback.
fn roll_back(view: &View, cluster: &Cluster) -> Option<Plan> {
    let alone = |sync: &SyncState| sync.leader.as_ref() == Some(&view.me) && sync.standbys.is_empty();
    let alone = cluster.sync.as_ref().is_none_or(alone);
    let free = view.local.rollback_prepared && cluster.switchover.is_none() && view.job.is_none();
    (alone && free).then(|| Plan::step(Reason::RollingBack, Step::Rollback))
}

/// Whether the DCS does not yet tell where this timeline came from, by which former primaries find out that they diverged.
fn history_is_missing(view: &View, cluster: &Cluster) -> bool {
    let (own, recorded) = (view.local.history.switches(), cluster.history.switches());
    let same = own.len() == recorded.len()
        && own
            .iter()
            .zip(recorded)
            .all(|(own, there)| own.timeline == there.timeline && own.end == there.end);
    // A first timeline has no history file; neither has one whose file was not read yet.
    !own.is_empty() && !same
}

/// The lease is free and Postgres is a primary: mine ran out a moment ago, or the DCS lost it.
pub(super) fn reclaim(view: &View, cluster: &Cluster) -> Plan {
    if view.job == Some(Job::Stop) {
        return Plan::wait(Reason::JobUnderWay);
    }
    let nobody_between = cluster.term == view.local.held_term;
    let mine_in_sync = cluster.sync.as_ref().is_none_or(|sync| sync.leader.as_ref() == Some(&view.me));
    let known = match cluster.initialize {
        Initialize::Done(_) => true,
        Initialize::Absent | Initialize::Bootstrapping => !view.local.users_ready,
    };
    let fuse_lives = view.local.fuse.is_some_and(|left| !left.is_zero());
    let other_primary =
        view.members.iter().any(|member| member.answered().is_some_and(|state| state.role == Role::Primary));
    let shows_all = went_back::knows_more(view, cluster).is_none();
    if nobody_between && mine_in_sync && known && fuse_lives && shows_all && !other_primary {
        let sync_revision = cluster.sync.as_ref().map(|sync| sync.revision);
        return Plan::step(Reason::ReclaimingLease, Step::AcquireLease { sync_revision, request: None });
    }
    step_down(view)
}

/// Somebody else leads and Postgres is a primary here: it must not be.
pub(super) fn step_down(view: &View) -> Plan {
    match view.job {
        Some(Job::Stop) => Plan::wait(Reason::SteppingDown),
        None
        | Some(
            Job::Initdb
            | Job::PostBootstrap
            | Job::Start
            | Job::Clone
            | Job::Rewind
            | Job::Checkpoint
            | Job::Rollback,
        ) => Plan::step(Reason::SteppingDown, Step::Stop(StopMode::Immediate)),
    }
}

/// Not my lease, and Postgres is on its way up, or hangs: harmless when it is a standby.
pub(super) fn wait_or_step_down(view: &View, writable: bool) -> Plan {
    if writable { step_down(view) } else { Plan::wait(Reason::StillStarting) }
}

/// My lease, and Postgres is on its way up: wait, but not for ever when a standby could lead.
pub(super) fn wait_for_start(view: &View, cluster: &Cluster, since: Duration) -> Plan {
    let late = since > view.policy.primary_start_timeout || is_frozen_for_good(view);
    let overdue = late && heir(view, cluster).is_some();
    wait_or_give_up(view, Reason::StillStarting, Reason::GivingUpOnStart, overdue)
}

/// My lease, and Postgres runs but does not answer: one that stands still has as long as a machine that is lost, any other, which may
/// only be slow, twice as long.
pub(super) fn wait_for_answer(view: &View, cluster: &Cluster, since: Duration) -> Plan {
    let late = since > view.policy.ttl * 2 || is_frozen_for_good(view);
    let overdue = late && heir(view, cluster).is_some();
    // It could not even be killed (storage that hangs). In synchronous mode nothing that it still does can be
    // acknowledged once its standby is promoted; in asynchronous mode it could, so there the lease is kept.
    if overdue && since > view.policy.ttl * 4 && cluster.sync.is_some() {
        return Plan::step(Reason::LettingGo, Step::LetLeaseRunOut);
    }
    wait_or_give_up(view, Reason::Unresponsive, Reason::GivingUpOnHang, overdue)
}

fn wait_or_give_up(view: &View, waiting: Reason, giving_up: Reason, overdue: bool) -> Plan {
    // A rollback stops Postgres as a stop does, and bounds it itself.
    if overdue && !matches!(view.job, Some(Job::Stop | Job::Rollback)) {
        return Plan::steps(giving_up, [Step::RenewLease, Step::Stop(StopMode::Immediate)]);
    }
    and_look_when_frozen_long_enough(view, Plan::step(waiting, Step::RenewLease))
}

/// My lease, and Postgres is stopped: it crashed, or was stopped for a switchover, or is new.
pub(super) fn revive_or_release(
    view: &View,
    cluster: &Cluster,
    timeline: TimelineId,
    end: Lsn,
    shutdown: Shutdown,
) -> Plan {
    if view.job.is_some() {
        return Plan::step(Reason::JobUnderWay, Step::RenewLease);
    }
    if bootstrap::leaves_it_to_others(view, cluster) {
        return Plan::step(Reason::LeavingBootstrap, Step::ReleaseLease);
    }
    let as_primary = Step::Start(StartAs::Primary { synchronous: recorded(view, cluster) });
    let exact_end = match shutdown {
        Shutdown::Standby if never_comes_up(view) || is_never_promoted(view) => {
            return give_way(view, cluster, timeline);
        }
        Shutdown::Standby => {
            let as_standby = Step::Start(StartAs::Standby { upstream: None });
            return Plan::steps(Reason::StartingToStand, [Step::RenewLease, as_standby]);
        }
        Shutdown::CleanPrimary => {
            if let Some(plan) = switchover::hand_over(view, cluster, timeline, end, &as_primary) {
                return plan;
            }
            if restart::stays(view, cluster) && !never_comes_up(view) {
                return Plan::steps(Reason::Restarting, [Step::RenewLease, as_primary]);
            }
            Some((timeline, end))
        }
        Shutdown::CrashedPrimary => None,
    };
    // A synchronous standby has every acknowledged commit and takes over twenty times faster than a crashed Postgres
    // recovers. In asynchronous mode the crashed one knows more than anyone, so it comes back itself.
    match successor(view, cluster, exact_end) {
        None if view.local.terminating => Plan::step(Reason::Terminating, Step::ReleaseLease),
        Some(to) => Plan::step(Reason::FailingOver { to: to.clone() }, Step::HandOverLease { to }),
        // Whoever may lead, and does not say so at this moment, can take the lease; if nobody does, this member stands for it as soon
        // as it comes up.
        None if never_comes_up(view) && could_another_lead(view, cluster) => {
            Plan::step(Reason::NotComingUp, Step::ReleaseLease)
        }
        None => Plan::steps(Reason::Reviving, [Step::RenewLease, as_primary]),
    }
}

/// Nothing was written under this lease, so whoever else has every acknowledged commit may lead, and one that answers does at once. Those whom
/// this member struck from `/sync` for a promotion that never ended recovery have it still.
fn give_way(view: &View, cluster: &Cluster, timeline: TimelineId) -> Plan {
    if let Some(struck) = struck(view, cluster) {
        let before = SyncState { given_up: timeline.max(struck.given_up), ..struck.clone() };
        return Plan::steps(Reason::NeverPromoted, [Step::RenewLease, Step::RestoreSync { before }]);
    }
    let covered = |member: &&Member| cluster.sync.as_ref().is_some_and(|sync| sync.covers(&member.name));
    let able = view.members.iter().filter(covered).filter(|member| member.tags.may_lead());
    let heir = able
        .filter_map(|member| Some((member, member.answered()?)))
        .filter(|(_, state)| state.role == Role::Standby)
        .max_by_key(|(member, state)| election::order(member, state));
    match heir.map(|(member, _)| member.name.clone()) {
        Some(to) => Plan::step(Reason::FailingOver { to: to.clone() }, Step::HandOverLease { to }),
        None => Plan::step(Reason::NotComingUp, Step::ReleaseLease),
    }
}

/// The best member that can lead in my place without losing an acknowledged commit, or in a crash loop within the
/// limits of the policy; only one that answered a moment ago. `exact_end`: on which timeline and where my WAL ends, when
/// that is certain.
fn successor(view: &View, cluster: &Cluster, exact_end: Option<(TimelineId, Lsn)>) -> Option<MemberName> {
    best(view, cluster, exact_end, never_comes_up(view))
}

/// Whether the lease would be of use to somebody else.
fn could_another_lead(view: &View, cluster: &Cluster) -> bool {
    let is_made = matches!(cluster.initialize, Initialize::Done(_));
    is_made
        && view.members.iter().any(|member| {
            let covered = cluster.sync.as_ref().is_none_or(|sync| sync.covers(&member.name));
            member.tags.may_lead() && member.published.is_some() && covered
        })
}

/// The member that could lead in the place of a Postgres that does not come up or does not answer, and is to be given up.
fn heir(view: &View, cluster: &Cluster) -> Option<MemberName> {
    best(view, cluster, None, true)
}

fn best(
    view: &View,
    cluster: &Cluster,
    exact_end: Option<(TimelineId, Lsn)>,
    given_up: bool,
) -> Option<MemberName> {
    let recorded = recorded(view, cluster);
    // Nobody has rolled back data but this member.
    let exact_only = cluster.sync.is_some() || election::swapping(cluster).is_some();
    view.members
        .iter()
        .filter(|member| member.tags.may_lead())
        .filter_map(|member| Some((member, member.answered()?)))
        .filter(|(member, state)| {
            let has_all = exact_end.is_some_and(|(timeline, end)| has_all(view, state, timeline, end));
            let lag = state.position.behind(view.local.last_position);
            let within_policy = given_up && !exact_only && lag <= view.policy.maximum_lag_on_failover;
            state.role == Role::Standby && (recorded.contains(&member.name) || has_all || within_policy)
        })
        .max_by_key(|(member, state)| election::order(member, state))
        .map(|(member, _)| member.name.clone())
}
