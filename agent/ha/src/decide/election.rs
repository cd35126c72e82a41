//! Who may stand when the leader lease is free. Promotion itself is `standby::promote`, after the lease is held.

use core::time::Duration;

use alloc::vec::Vec;
use outrider_wal::{Lsn, TimelineId};

use super::failing::is_never_promoted;
use super::{bootstrap, request, went_back};
use crate::plan::{Plan, StartAs, Step};
use crate::reason::{Lack, Reason};
use crate::view::View;
use crate::view::cluster::{Cluster, Initialize};
use crate::view::member::{Member, MemberName, MemberState, Role, Tags};
use crate::view::request::Request;

/// The higher goes first.
pub(super) type Rank = (TimelineId, bool, Lsn, u32, core::cmp::Reverse<MemberName>);

/// A standby, no leader: stand unless somebody forbids it or is better.
pub(super) fn stand(
    view: &View,
    cluster: &Cluster,
    timeline: TimelineId,
    position: Lsn,
    delayed: bool,
    free_for: Duration,
) -> Plan {
    if view.job.is_some() {
        return Plan::wait(Reason::JobUnderWay);
    }
    if let Some(request) = request::failover_request(cluster).filter(|request| !request.dated) {
        return request::date(request);
    }
    let asked = request::asked_for(view, cluster);
    let lack = lack(view, cluster, timeline, position, asked.is_some());
    if let Some(request) = asked
        && let Some(refusal) = refuse(view, request, lack.as_ref())
    {
        return refusal;
    }
    let refusal = forbidden(view, cluster, lack.as_ref().filter(|_| asked.is_none()))
        .or_else(|| outdone(view, cluster, (timeline, position, delayed), free_for));
    let acquire = |request| Step::AcquireLease {
        sync_revision: cluster.sync.as_ref().map(|sync| sync.revision),
        request,
    };
    match (refusal, lack, asked) {
        // What is waited for here (a member that comes back, one that takes the lease) mostly shows as an event in
        // the DCS; that others grow silent does not.
        (Some(reason), _, _) => Plan::wait(reason).and_look_again_in(view.policy.loop_wait / 2),
        (None, Some(why), Some(request)) => {
            Plan::step(Reason::AcceptingLoss { why }, acquire(Some(request.revision)))
        }
        (None, _, _) => Plan::step(Reason::Standing, acquire(None)),
    }
}

/// A stopped data directory, no leader: it starts as a standby, whatever it was, and stands when it is up.
pub(super) fn start_then_stand(view: &View, cluster: &Cluster) -> Plan {
    if view.job.is_some() {
        return Plan::wait(Reason::JobUnderWay);
    }
    if bootstrap::leaves_it_to_others(view, cluster) {
        return Plan::wait(Reason::LeavingBootstrap);
    }
    Plan::step(Reason::StartingToStand, Step::Start(StartAs::Standby { upstream: None }))
}

/// What this member lacks that others have, or may have. `named`: somebody wants this one, which passes over every other that has
/// more.
fn lack(view: &View, cluster: &Cluster, timeline: TimelineId, position: Lsn, named: bool) -> Option<Lack> {
    let newest = newest_timeline(view, cluster);
    if timeline < newest {
        return Some(Lack::Timeline { own: timeline, cluster: newest });
    }
    if let Some(sync) = &cluster.sync {
        return if sync.covers(&view.me) { None } else { Some(Lack::NotSynchronous) };
    }
    match swapping(cluster) {
        // What it lacks it has thrown away.
        Some(member) if *member == view.me => return None,
        Some(member) => return Some(Lack::Swap { member: member.clone() }),
        None => {}
    }
    let bytes = position.behind(cluster.last_position);
    if bytes > view.policy.maximum_lag_on_failover {
        return Some(Lack::Bytes { bytes });
    }
    let ahead = |member: &&Member| {
        member.tags.may_lead()
            && member.answered().is_some_and(|state| {
                state.role == Role::Standby && (state.timeline, state.position) > (timeline, position)
            })
    };
    view.members.iter().filter(|_| named).find(ahead).map(|member| Lack::Behind {
        member: member.name.clone(),
        bytes: member.answered().map_or(0, |state| position.behind(state.position)),
    })
}

/// A failover to this member that is not done, and so is taken away: it must not be done later, when nobody reckons with it.
fn refuse(view: &View, request: &Request, lack: Option<&Lack>) -> Option<Plan> {
    let clear = Step::ClearRequest { revision: request.revision };
    if !view.policy.tags.may_lead() {
        return Some(Plan::step(Reason::FailoverForbidden, clear));
    }
    let why = lack.filter(|_| !request.accept_data_loss)?.clone();
    Some(Plan::step(Reason::FailoverRefused { why }, clear))
}

/// What in me forbids it.
fn forbidden(view: &View, cluster: &Cluster, lack: Option<&Lack>) -> Option<Reason> {
    match cluster.initialize {
        // Somebody began a cluster that is not mine and died of it.
        Initialize::Bootstrapping => return Some(Reason::WaitingForLeader),
        Initialize::Absent | Initialize::Done(_) => {}
    }
    if !view.policy.tags.may_lead() {
        return Some(Reason::MayNotLead);
    }
    if let Some(lost) = view.local.watermark.lost_by(&went_back::shown(view, cluster, &view.local.watermark))
    {
        return Some(Reason::DcsWentBack { lost });
    }
    lack.cloned().map(|lack| match lack {
        Lack::Timeline { own, cluster } => Reason::TimelineBehind { own, cluster },
        Lack::NotSynchronous => Reason::NotSynchronous,
        Lack::Bytes { bytes } => Reason::LagsTooMuch { bytes },
        Lack::Behind { member, .. } => Reason::BetterCandidate { member },
        Lack::Swap { member } => Reason::SwapUnknown { member },
    })
}

/// Who else speaks against it.
fn outdone(
    view: &View,
    cluster: &Cluster,
    (timeline, position, delayed): (TimelineId, Lsn, bool),
    free_for: Duration,
) -> Option<Reason> {
    let answers: Vec<(&Member, &MemberState)> =
        view.members.iter().filter_map(|member| Some((member, member.answered()?))).collect();
    if let Some((primary, _)) = answers.iter().find(|(_, state)| state.role == Role::Primary) {
        return Some(Reason::PrimaryStillRunning { member: primary.name.clone() });
    }
    if let Some((member, lost)) = went_back::knows_more(view, cluster) {
        return Some(Reason::MemberKnowsMore { member, lost });
    }
    if request::asked_for(view, cluster).is_some() {
        return None;
    }
    let mine = (timeline, position);
    if let Some(candidate) = awaited_candidate(cluster, &answers, mine) {
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
            let within_policy = match &cluster.sync {
                Some(sync) => sync.covers(&member.name),
                None => state.position.behind(cluster.last_position) <= view.policy.maximum_lag_on_failover,
            };
            member.tags.may_lead() && state.role == Role::Standby && within_policy
        })
        .find(|(member, state)| {
            let theirs = order(member, state);
            // Whoever can be promoted goes before one that cannot.
            is_never_promoted(view) || theirs > rank(delayed, timeline, position, view.policy.tags, &view.me)
        })
        .map(|(member, _)| Reason::BetterCandidate { member: member.name.clone() })
}

/// The member that a failover names, when it answers and may take over: one that may not is not waited for, and never is anybody
/// passed over for it.
fn awaited_candidate<'view>(
    cluster: &'view Cluster,
    answers: &[(&Member, &MemberState)],
    mine: (TimelineId, Lsn),
) -> Option<&'view MemberName> {
    let request = request::failover_request(cluster)?;
    let candidate = request.to.as_ref()?;
    let (member, state) = answers.iter().find(|(member, _)| member.name == *candidate)?;
    let has_all = match &cluster.sync {
        Some(sync) => sync.covers(candidate) && state.timeline >= mine.0,
        None => (state.timeline, state.position) >= mine,
    };
    let may = member.tags.may_lead() && state.role == Role::Standby && (has_all || request.accept_data_loss);
    may.then_some(candidate)
}

/// Who alone may stand because a rollback was swapping its data. Where `/sync` says who may, it was made to say that before
/// the swap.
pub(super) fn swapping(cluster: &Cluster) -> Option<&MemberName> {
    cluster.swapping.as_ref().filter(|_| cluster.sync.is_none())
}

/// By which those who answered are chosen.
pub(super) fn order(member: &Member, state: &MemberState) -> Rank {
    rank(state.is_delayed(), state.timeline, state.position, member.tags, &member.name)
}

/// The newest timeline first, then one that does not replay late on purpose, which would have to catch up before it could serve; then
/// more of the WAL, then priority, then the name that sorts first.
pub(super) fn rank(
    delayed: bool,
    timeline: TimelineId,
    position: Lsn,
    tags: Tags,
    name: &MemberName,
) -> Rank {
    (timeline, !delayed, position, tags.failover_priority, core::cmp::Reverse(name.clone()))
}

/// The newest timeline that nobody led on, although somebody may have it.
pub(super) fn given_up(cluster: &Cluster) -> TimelineId {
    cluster.sync.as_ref().map_or(TimelineId::default(), |sync| sync.given_up)
}

/// The newest timeline of which anything is known, but for those that nobody led on. The history does not tell the number of the last one: some may have been
/// passed over.
pub(super) fn newest_timeline(view: &View, cluster: &Cluster) -> TimelineId {
    let recorded = cluster.history.switches().last().map(|switch| TimelineId::new(switch.timeline.get() + 1));
    let given_up = given_up(cluster);
    let answered = view.members.iter().filter_map(|member| Some(member.answered()?.timeline));
    let answered = answered.filter(|timeline| *timeline > given_up);
    answered.chain(recorded).max().unwrap_or_default().max(cluster.last_timeline).max(cluster.least_timeline)
}
