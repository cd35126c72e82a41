//! Who may stand when the leader lease is free. Promotion itself is `standby::promote`, after the lease is held.

use core::time::Duration;

use alloc::vec::Vec;
use outrider_wal::{Lsn, TimelineId};

use crate::plan::{Plan, StartAs, Step};
use crate::reason::Reason;
use crate::view::View;
use crate::view::cluster::{Cluster, Initialize};
use crate::view::member::{Member, MemberName, MemberState, Role};
use crate::view::policy::SynchronousMode;
use crate::view::request::{Request, RequestKind};
use crate::view::watermark::{Lost, Watermark};

/// A standby, no leader: stand unless somebody forbids it or is better.
pub(super) fn stand(
    view: &View,
    cluster: &Cluster,
    timeline: TimelineId,
    position: Lsn,
    free_for: Duration,
) -> Plan {
    if view.job.is_some() {
        return Plan::wait(Reason::JobUnderWay);
    }
    let asked_for_me = failover_request(cluster).is_some_and(|request| request.to.as_ref() == Some(&view.me));
    let refusal = forbidden(view, cluster, timeline, position, asked_for_me)
        .or_else(|| outdone(view, cluster, timeline, position, free_for, asked_for_me));
    match refusal {
        // What is waited for here (a member that comes back, one that takes the lease) mostly shows as an event in
        // the DCS; that others grow silent does not.
        Some(reason) => Plan::wait(reason).and_look_again_in(view.policy.loop_wait / 2),
        None => Plan::step(
            Reason::Standing,
            Step::AcquireLease { sync_revision: cluster.sync.as_ref().map(|sync| sync.revision) },
        ),
    }
}

/// A stopped data directory, no leader: it starts as a standby, whatever it was, and stands when it is up.
pub(super) fn start_then_stand(view: &View) -> Plan {
    if view.job.is_some() {
        return Plan::wait(Reason::JobUnderWay);
    }
    Plan::step(Reason::StartingToStand, Step::Start(StartAs::Standby { upstream: None }))
}

/// A failover request that is due, made while there is no leader.
fn failover_request(cluster: &Cluster) -> Option<&Request> {
    cluster.request.as_ref().filter(|request| {
        request.due_in.is_zero()
            && match request.kind {
                RequestKind::Failover => true,
                RequestKind::Switchover => false,
            }
    })
}

/// What in me forbids it.
fn forbidden(
    view: &View,
    cluster: &Cluster,
    timeline: TimelineId,
    position: Lsn,
    asked_for_me: bool,
) -> Option<Reason> {
    match cluster.initialize {
        // Somebody began a cluster that is not mine and died of it.
        Initialize::Bootstrapping => return Some(Reason::WaitingForLeader),
        Initialize::Absent | Initialize::Done(_) => {}
    }
    if !view.policy.tags.may_lead() {
        return Some(Reason::MayNotLead);
    }
    if let Some(lost) = view.local.watermark.lost_by(&shown(view, cluster, &view.local.watermark)) {
        return Some(Reason::DcsWentBack { lost });
    }
    let newest = newest_timeline(view, cluster);
    if timeline < newest {
        return Some(Reason::TimelineBehind { own: timeline, cluster: newest });
    }
    // A person who names the candidate of a failover takes what it lacks upon himself; the checks above hold even so.
    if asked_for_me {
        return None;
    }
    if let Some(sync) = &cluster.sync {
        return if sync.covers(&view.me) { None } else { Some(Reason::NotSynchronous) };
    }
    match swapping(cluster) {
        // What it lacks it has thrown away.
        Some(member) if *member == view.me => return None,
        Some(member) => return Some(Reason::SwapUnknown { member: member.clone() }),
        None => {}
    }
    let lag = position.behind(cluster.last_position);
    (lag > view.policy.maximum_lag_on_failover).then_some(Reason::LagsTooMuch { bytes: lag })
}

/// Who else speaks against it.
fn outdone(
    view: &View,
    cluster: &Cluster,
    timeline: TimelineId,
    position: Lsn,
    free_for: Duration,
    asked_for_me: bool,
) -> Option<Reason> {
    let answers: Vec<(&Member, &MemberState)> =
        view.members.iter().filter_map(|member| Some((member, member.answered()?))).collect();
    if let Some((primary, _)) = answers.iter().find(|(_, state)| state.role == Role::Primary) {
        return Some(Reason::PrimaryStillRunning { member: primary.name.clone() });
    }
    if let Some((member, lost)) = knows_more(view, cluster) {
        return Some(Reason::MemberKnowsMore { member, lost });
    }
    if asked_for_me {
        return None;
    }
    if let Some(candidate) = failover_request(cluster).and_then(|request| request.to.as_ref())
        && answers.iter().any(|(member, _)| member.name == *candidate)
    {
        return Some(Reason::CandidateIsNamed { member: candidate.clone() });
    }
    // Nobody else will stand.
    if swapping(cluster).is_some_and(|member| *member == view.me) {
        return None;
    }
    // A better candidate that does not take the lease (cut off from the DCS, say) must not keep it free for ever.
    // Whoever is covered by /sync has all that was acknowledged, so taking turns loses nothing.
    let patience = match &cluster.sync {
        Some(_) => view.policy.loop_wait * 2,
        None => view.policy.ttl * 2,
    };
    if free_for >= patience {
        return None;
    }
    answers
        .iter()
        .filter(|(member, state)| {
            member.tags.may_lead()
                && state.role == Role::Standby
                && cluster.sync.as_ref().is_none_or(|sync| sync.covers(&member.name))
        })
        .find(|(member, state)| {
            let theirs = rank(state.timeline, state.position, member.tags.failover_priority, &member.name);
            theirs > rank(timeline, position, view.policy.tags.failover_priority, &view.me)
        })
        .map(|(member, _)| Reason::BetterCandidate { member: member.name.clone() })
}

/// A member that answers and has seen what the DCS does not show: `/sync` may have named others since, whose commits were
/// acknowledged.
pub(crate) fn knows_more(view: &View, cluster: &Cluster) -> Option<(MemberName, Lost)> {
    view.members.iter().find_map(|member| {
        let seen = &member.answered()?.watermark;
        Some((member.name.clone(), seen.lost_by(&shown(view, cluster, seen))?))
    })
}

/// How far the DCS is, to one who has `seen` that much. In synchronous mode a `/sync` that somebody has seen and that no leader
/// has deleted is missed: without it anybody could be promoted.
fn shown(view: &View, cluster: &Cluster, seen: &Watermark) -> Watermark {
    match view.policy.synchronous_mode {
        SynchronousMode::On => cluster.watermark(),
        SynchronousMode::Off => cluster.watermark_without_sync(seen),
    }
}

/// Who alone may stand because a rollback was swapping its data. Where `/sync` says who may, it was made to say that before
/// the swap.
pub(super) fn swapping(cluster: &Cluster) -> Option<&MemberName> {
    cluster.swapping.as_ref().filter(|_| cluster.sync.is_none())
}

/// More of the WAL first, then priority, then the name that sorts first.
fn rank(
    timeline: TimelineId,
    position: Lsn,
    priority: u32,
    name: &MemberName,
) -> (TimelineId, Lsn, u32, core::cmp::Reverse<&MemberName>) {
    (timeline, position, priority, core::cmp::Reverse(name))
}

/// The newest timeline of which anything is known.
pub(super) fn newest_timeline(view: &View, cluster: &Cluster) -> TimelineId {
    let recorded = cluster.history.switches().last().map(|switch| TimelineId::new(switch.timeline.get() + 1));
    let answered = view.members.iter().filter_map(|member| Some(member.answered()?.timeline));
    answered.chain(recorded).max().unwrap_or_default().max(cluster.least_timeline)
}
