//! A running standby: promotes itself when the lease is its own, follows the leader when it is not.

use alloc::vec::Vec;

use core::time::Duration;

use outrider_wal::TimelineId;

use super::election;
use super::rejoin::{self, Lineage};
use super::restart;
use crate::plan::{Plan, Step, StopMode};
use crate::reason::Reason;
use crate::view::cluster::Cluster;
use crate::view::local::Streaming;
use crate::view::member::MemberName;
use crate::view::{Job, View};

/// How soon a promotion is looked at again: it takes about 30 ms and sends no event.
const PROMOTION_POLL: Duration = Duration::from_millis(5);

/// The lease is mine: promote. It is renewed first, because a lease that was handed over or found again has armed no
/// fuse yet, and Postgres is not promoted without one.
pub(super) fn promote(view: &View, cluster: &Cluster, timeline: TimelineId, promoting: bool) -> Plan {
    // Its own checkpoint may take minutes, and does not stand in the way.
    if view.job.is_some_and(|job| job != Job::Checkpoint) {
        return Plan::step(Reason::JobUnderWay, Step::RenewLease);
    }
    if promoting {
        return Plan::step(Reason::Promoting, Step::RenewLease).and_look_again_in(PROMOTION_POLL);
    }
    // The lease was taken on an older view; others may have led and left since. In synchronous mode their change of
    // /sync would have forbidden it, in asynchronous mode nothing did.
    let newest = election::newest_timeline(view, cluster);
    let given_up = election::asked_for(view, cluster).is_some_and(|request| request.accept_data_loss);
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
    if timeline < newest {
        steps.push(Step::SkipTimelines { newest });
    }
    steps.push(Step::Promote);
    Plan { reason: Reason::Promoting, steps, look_again: Some(PROMOTION_POLL) }
}

/// Another member leads: stream from it.
pub(super) fn follow(view: &View, cluster: &Cluster, leader: &MemberName, streaming: &Streaming) -> Plan {
    if view.job.is_some() {
        return Plan::wait(Reason::JobUnderWay);
    }
    // PostgreSQL cannot follow where its own WAL goes past the point at which the leader's timeline left it.
    if matches!(rejoin::lineage(view, cluster, leader), Lineage::Diverged | Lineage::Namesake) {
        return Plan::step(Reason::Diverged, Step::Stop(StopMode::Fast));
    }
    if streaming.upstream.as_ref() != Some(leader) {
        return Plan::step(Reason::Following, Step::Follow { upstream: leader.clone() });
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
