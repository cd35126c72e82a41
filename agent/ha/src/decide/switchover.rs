//! The leader's part in a planned switchover: pre-flight, checkpoint, stop, hand over, or take it all back.

use alloc::vec::Vec;
use core::time::Duration;

use outrider_wal::{Lsn, TimelineId};

use super::CAUGHT_UP;
use super::request::{date, to_be_made_synchronous};
use super::standbys::{has_all, recorded};
use crate::plan::{Plan, Step, StopMode};
use crate::reason::{Reason, Unfit};
use crate::view::View;
use crate::view::cluster::Cluster;
use crate::view::local::Postgres;
use crate::view::member::{Hold, Member, MemberName, MemberState, Role, Tags};
use crate::view::request::{Request, RequestKind};

/// How soon the candidate is asked again whether it has the last of the WAL: it arrives within milliseconds.
const CANDIDATE_POLL: Duration = Duration::from_millis(5);

/// How soon a candidate that is not ready is looked at again.
const FITNESS_POLL: Duration = Duration::from_millis(200);

/// What a request asks of a leader whose Postgres runs; `None` when nothing is asked or it is not due.
pub(super) fn lead(view: &View, cluster: &Cluster) -> Option<Plan> {
    let Some(request) = &cluster.request else {
        // Somebody took the request back, or it was refused, after it was announced.
        return cluster
            .switchover
            .as_ref()
            .filter(|_| view.job.is_none())
            .map(|_| Plan::step(Reason::SwitchoverWithdrawn, Step::ClearSwitchover));
    };
    if view.job.is_some() {
        return None;
    }
    let clear = Step::ClearRequest { revision: request.revision };
    if request.is_void() {
        return Some(Plan::steps(Reason::RequestExpired, [Step::ClearSwitchover, clear]));
    }
    if !request.dated {
        return Some(date(request));
    }
    if !request.is_due() {
        return None;
    }
    let taken_over = cluster.switchover.as_ref().is_some_and(|switchover| switchover.to == view.me);
    let from_another = request.from.as_ref().is_some_and(|from| *from != view.me);
    if request.to.as_ref() == Some(&view.me) || (from_another && taken_over) {
        let finish = Step::FinishRequest { revision: request.revision };
        return Some(Plan::steps(Reason::SwitchoverDone, [Step::ClearSwitchover, finish]));
    }
    if from_another {
        return Some(Plan::steps(Reason::NotTheLeaderNamed, [Step::ClearSwitchover, clear]));
    }
    let to = match candidate(view, cluster, request) {
        Ok(to) => to,
        Err(why) if request.wait && passes(&why) => {
            let reason = Reason::WaitingToSwitchOver { to: request.to.clone(), why };
            return Some(Plan::wait(reason).and_look_again_in(FITNESS_POLL));
        }
        Err(why) => {
            let reason = Reason::SwitchoverRefused { to: request.to.clone(), why };
            return Some(Plan::steps(reason, [Step::ClearSwitchover, clear]));
        }
    };
    if to_be_made_synchronous(view, cluster).is_some_and(|asked| !recorded(view, cluster).contains(asked)) {
        return Some(Plan::wait(Reason::MakingSynchronous { to }).and_look_again_in(FITNESS_POLL));
    }
    Some(match &cluster.switchover {
        Some(announced) if announced.from == view.me && announced.to == to && announced.checkpointed => {
            let announce = Step::AnnounceStop { to: to.clone(), request: request.revision };
            Plan::steps(Reason::StoppingForSwitchover { to }, [announce, Step::Stop(StopMode::Fast)])
        }
        Some(announced) if announced.from == view.me && announced.to == to => {
            Plan::step(Reason::PreparingSwitchover { to: to.clone() }, Step::ShortenStop { to })
        }
        Some(_) | None => {
            let announce = Step::AnnounceSwitchover { to: to.clone() };
            let shorten = Step::ShortenStop { to: to.clone() };
            Plan::steps(Reason::PreparingSwitchover { to }, [announce, shorten])
        }
    })
}

/// Postgres stopped cleanly and its WAL ends on `timeline` at `end`: when that was for a switchover, hand over as soon
/// as the candidate has it all, or start again when it does not come to that. `None` when no switchover was announced.
pub(super) fn hand_over(
    view: &View,
    cluster: &Cluster,
    timeline: TimelineId,
    end: Lsn,
    as_primary: &Step,
) -> Option<Plan> {
    let announced = cluster.switchover.as_ref().filter(|switchover| switchover.from == view.me)?;
    let to = announced.to.clone();
    let candidate = view.member(&to).and_then(Member::answered);
    let has_all = candidate.is_some_and(|state| {
        let replayed = state.replay.as_ref().is_some_and(|replay| replay.position >= end);
        has_all(view, state, timeline, end) && replayed
    });
    if has_all {
        return Some(Plan::step(Reason::HandingOver { to: to.clone() }, Step::HandOverLease { to }));
    }
    if announced.stopping_for <= view.policy.switchover_timeout {
        let waiting = Plan::step(Reason::WaitingForCandidate { to }, Step::RenewLease);
        return Some(waiting.and_look_again_in(CANDIDATE_POLL));
    }
    let why = match candidate {
        None => Some(Unfit::NoAnswer),
        Some(state) => replay_fault(view, state, end),
    };
    let reason = Reason::SwitchoverRolledBack { to, why };
    let mut back = Plan::steps(reason, [Step::RenewLease, Step::ClearSwitchover]);
    if let Some(request) = &cluster.request {
        back.steps.push(Step::ClearRequest { revision: request.revision });
    }
    back.steps.push(as_primary.clone());
    Some(back)
}

/// The member that is to take over: the one that is named, or the best that is fit; one that is synchronous already goes first.
pub(super) fn candidate(view: &View, cluster: &Cluster, request: &Request) -> Result<MemberName, Unfit> {
    if view.local.faulty_files && request.kind == RequestKind::Switchover {
        return Err(Unfit::FaultyFiles);
    }
    if let Some(name) = &request.to {
        let member = view.member(name).ok_or(Unfit::Unknown)?;
        return fitness(view, cluster, request, member).map(|_| name.clone());
    }
    let recorded = recorded(view, cluster);
    let announced = cluster.switchover.as_ref().filter(|announced| announced.from == view.me);
    let judged: Vec<(&Member, Result<Lsn, Unfit>)> =
        view.members.iter().map(|member| (member, fitness(view, cluster, request, member))).collect();
    let best = judged
        .iter()
        .filter_map(|(member, position)| Some((*member, position.as_ref().ok()?)))
        .max_by_key(|(member, position)| {
            let begun = announced.is_some_and(|announced| announced.to == member.name);
            let synchronous = recorded.contains(&member.name);
            let name = core::cmp::Reverse(member.name.clone());
            (begun, synchronous, member.tags.failover_priority, **position, name)
        });
    if let Some((member, _)) = best {
        return Ok(member.name.clone());
    }
    // What keeps the one that is synchronous tells the most.
    let why = judged.iter().find(|(member, _)| recorded.contains(&member.name));
    Err(why.and_then(|(_, fitness)| fitness.as_ref().err().cloned()).unwrap_or(Unfit::Nobody))
}

/// Whether a member can take over at all, as far as it says itself, whoever leads; and what it says. Whoever accepts a request asks this,
/// and so does the leader who carries it out.
///
/// # Errors
/// Why not.
pub fn may_take_over(tags: Tags, answer: Option<&MemberState>) -> Result<&MemberState, Unfit> {
    let state = answer.ok_or(Unfit::NoAnswer)?;
    if !tags.may_lead() {
        return Err(Unfit::MayNotLead);
    }
    if state.role == Role::NotRunning { Err(Unfit::NotRunning) } else { Ok(state) }
}

/// Whether a member can take over within a moment, and its position.
fn fitness(view: &View, cluster: &Cluster, request: &Request, member: &Member) -> Result<Lsn, Unfit> {
    let state = may_take_over(member.tags, member.answered())?;
    if state.role != Role::Standby || !state.streaming {
        return Err(Unfit::NotStreaming);
    }
    let synchronous = cluster.sync.is_none() || recorded(view, cluster).contains(&member.name);
    let can_be = !member.tags.nosync && !view.local.rollback_prepared && request.to.is_some();
    match request.kind {
        RequestKind::Switchover if !synchronous && !can_be => return Err(Unfit::NotSynchronous),
        RequestKind::Switchover | RequestKind::Failover => {}
    }
    let end = match &view.local.postgres {
        Postgres::Primary { position, .. } => *position,
        Postgres::Standby { .. }
        | Postgres::Stopped { .. }
        | Postgres::Starting { .. }
        | Postgres::Unresponsive { .. }
        | Postgres::Empty
        | Postgres::Unusable(_) => Lsn::INVALID,
    };
    let lag = state.position.behind(end);
    if lag > view.policy.maximum_lag_on_failover.max(CAUGHT_UP) {
        return Err(Unfit::Lags { bytes: lag });
    }
    match replay_fault(view, state, end) {
        None => Ok(state.position),
        Some(why) => Err(why),
    }
}

/// What would keep a member from having replayed all of a WAL that ends at `end` within a moment.
fn replay_fault(view: &View, state: &MemberState, end: Lsn) -> Option<Unfit> {
    let Some(replay) = &state.replay else { return Some(Unfit::ReplayUnknown) };
    if replay.is_delayed() {
        return Some(Unfit::ReplayDelayed { by: replay.delay });
    }
    match &replay.hold {
        Some(Hold::Paused) => return Some(Unfit::ReplayPaused),
        Some(Hold::Parameters { lacking }) => {
            return Some(Unfit::LacksParameters { lacking: lacking.clone() });
        }
        Some(Hold::Conflict { queries }) => return Some(Unfit::Conflict { queries: queries.clone() }),
        None => {}
    }
    let bytes = replay.position.behind(end);
    (bytes > view.policy.maximum_lag_on_failover.max(CAUGHT_UP)).then_some(Unfit::ReplayLags { bytes })
}

/// Whether what is wrong with a candidate may pass by itself.
fn passes(why: &Unfit) -> bool {
    match why {
        Unfit::NoAnswer
        | Unfit::NotRunning
        | Unfit::NotStreaming
        | Unfit::Lags { .. }
        | Unfit::ReplayLags { .. }
        | Unfit::ReplayPaused
        | Unfit::LacksParameters { .. }
        | Unfit::Conflict { .. }
        | Unfit::Nobody => true,
        Unfit::Unknown
        | Unfit::FaultyFiles
        | Unfit::MayNotLead
        | Unfit::NotSynchronous
        | Unfit::ReplayUnknown
        | Unfit::ReplayDelayed { .. } => false,
    }
}
