//! A running standby: promotes itself when the lease is its own, follows the leader when it is not.

use alloc::vec::Vec;

use core::time::Duration;

use outrider_wal::{Lsn, TimelineId};

use super::election;
use super::failing::struck;
use super::raise;
use super::rejoin::{self, Lineage};
use super::request;
use super::restart;
use crate::plan::{Plan, Step, StopMode};
use crate::reason::Reason;
use crate::view::cluster::{Cluster, SyncState};
use crate::view::local::Streaming;
use crate::view::member::{Hold, MemberName, Replay};
use crate::view::{Job, View};

/// How soon a promotion is looked at again: it takes about 30 ms and sends no event.
const PROMOTION_POLL: Duration = Duration::from_millis(5);

/// How soon it is looked again whether queries hold up the replay of a candidate, while nobody can write.
const HASTE_POLL: Duration = Duration::from_millis(10);

/// The lease is mine: promote. It is renewed first, because a lease that was handed over or found again has armed no
/// fuse yet, and Postgres is not promoted without one.
pub(super) fn promote(
    view: &View,
    cluster: &Cluster,
    (timeline, position): (TimelineId, Lsn),
    promoting: bool,
    replay: Option<&Replay>,
) -> Plan {
    // Its own checkpoint may take minutes, and does not stand in the way.
    if view.job.is_some_and(|job| job != Job::Checkpoint) {
        return Plan::step(Reason::JobUnderWay, Step::RenewLease);
    }
    // PostgreSQL promotes nobody whose replay stands for this, and would end if it were resumed.
    if replay.is_some_and(|replay| matches!(replay.hold, Some(Hold::Parameters { .. }))) {
        return Plan::steps(Reason::Raising, [Step::RenewLease, Step::Stop(StopMode::Fast)]);
    }
    // Recovery ends when all that was received is replayed, and until then nobody serves writes.
    let behind = replay.filter(|replay| replay.position < position);
    let reason = behind.map_or(Reason::Promoting, |replay| Reason::Replaying {
        replayed: replay.position,
        received: position,
    });
    let held = behind.is_some_and(|replay| replay.hold.is_some());
    if promoting {
        let mut plan = Plan::step(reason, Step::RenewLease).and_look_again_in(PROMOTION_POLL);
        plan.steps.extend(held.then_some(Step::HastenReplay { resume: true }));
        return if behind.is_none() && lasts_too_long(view, cluster) {
            Plan::steps(Reason::GivingUpOnStart, [Step::RenewLease, Step::Stop(StopMode::Immediate)])
        } else {
            plan
        };
    }
    // The lease was taken on an older view; others may have led and left since. In synchronous mode their change of
    // /sync would have forbidden it, in asynchronous mode nothing did.
    let newest = election::newest_timeline(view, cluster);
    let given_up = request::asked_for(view, cluster).is_some_and(|request| request.accept_data_loss);
    if timeline < newest && !given_up {
        return Plan::step(Reason::TimelineBehind { own: timeline, cluster: newest }, Step::ReleaseLease);
    }
    let mut steps = Vec::from([Step::RenewLease]);
    // From the first commit on this primary waits for nobody, so nobody but itself may be promoted until a standby
    // has caught up and was recorded.
    if let Some(sync) = &cluster.sync
        && (sync.leader.as_ref() != Some(&view.me) || !sync.standbys.is_empty())
    {
        steps.push(Step::RecordSync { standbys: Vec::new(), revision: Some(sync.revision) });
    }
    let newest = newest.max(election::given_up(cluster));
    if timeline < newest {
        steps.push(Step::SkipTimelines { newest });
    }
    if behind.is_some() {
        steps.push(Step::HastenReplay { resume: true });
    }
    steps.push(Step::Promote);
    Plan { reason, steps, look_again: Some(PROMOTION_POLL) }
}

/// All is replayed, recovery does not end, and a member that was struck from `/sync` for this promotion could be promoted instead.
fn lasts_too_long(view: &View, cluster: &Cluster) -> bool {
    let could = |before: &SyncState| {
        view.members
            .iter()
            .any(|member| member.published.is_some() && member.tags.may_lead() && before.covers(&member.name))
    };
    view.local.promotion.lasts > view.policy.primary_start_timeout && struck(view, cluster).is_some_and(could)
}

/// Another member leads: stream from it.
pub(super) fn follow(
    view: &View,
    cluster: &Cluster,
    leader: &MemberName,
    streaming: &Streaming,
    replay: Option<&Replay>,
) -> Plan {
    if let Some(plan) = hasten_or_relax(view, cluster, replay) {
        return plan;
    }
    if view.job.is_some() {
        return Plan::wait(Reason::JobUnderWay);
    }
    // PostgreSQL cannot follow where its own WAL goes past the point at which the leader's timeline left it.
    let diverged = match rejoin::lineage(view, cluster, leader) {
        Lineage::Diverged => Some(Reason::Diverged),
        Lineage::Namesake { timeline } => Some(Reason::BegunTwice { timeline }),
        Lineage::Unknown | Lineage::Ancestor => None,
    };
    if let Some(reason) = diverged {
        return Plan::step(reason, Step::Stop(StopMode::Fast));
    }
    if streaming.upstream.as_ref() != Some(leader) {
        return Plan::step(Reason::Following, Step::Follow { upstream: leader.clone() });
    }
    if let Some(plan) = raise::standby(view, cluster, leader) {
        return plan;
    }
    if let Some(plan) = restart::standby(view, cluster, streaming) {
        return plan;
    }
    // The candidate of a switchover has less to flush when it is promoted; the leader does not wait for it.
    if cluster.switchover.as_ref().is_some_and(|announced| announced.to == view.me && !announced.checkpointed)
    {
        return Plan::step(Reason::PreparingSwitchover { to: view.me.clone() }, Step::Checkpoint);
    }
    Plan::wait(if streaming.active { Reason::Following } else { Reason::WaitingToStream })
}

/// From the stop of the old primary on nobody can write, so no query holds up the replay of its candidate, until it has taken over or
/// it does not come to that. Its own checkpoint may still be under way.
fn hasten_or_relax(view: &View, cluster: &Cluster, replay: Option<&Replay>) -> Option<Plan> {
    if view.job.is_some_and(|job| job != Job::Checkpoint) {
        return None;
    }
    let taking_over =
        cluster.switchover.as_ref().is_some_and(|announced| announced.to == view.me && announced.stopping);
    match (taking_over, view.local.hastened) {
        (true, hastened) => {
            let held = replay.is_some_and(|replay| matches!(replay.hold, Some(Hold::Conflict { .. })));
            let mut plan = Plan::wait(Reason::HasteningReplay).and_look_again_in(HASTE_POLL);
            plan.steps.extend((!hastened || held).then_some(Step::HastenReplay { resume: false }));
            Some(plan)
        }
        (false, true) => Some(Plan::step(Reason::RelaxingReplay, Step::RelaxReplay)),
        (false, false) => None,
    }
}
