//! Makes a new cluster, once: the leader lease decides who does, so that a half-made one is made anew by its next holder.

use super::went_back;
use crate::plan::{Plan, Step};
use crate::reason::Reason;
use crate::view::cluster::{Cluster, Initialize};
use crate::view::local::Unusable;
use crate::view::{Job, View};

/// An empty member, no leader: make the cluster if there never was one.
pub(super) fn race(view: &View, cluster: &Cluster) -> Plan {
    match cluster.initialize {
        Initialize::Done(_) => return Plan::wait(Reason::WaitingForLeader),
        Initialize::Absent | Initialize::Bootstrapping => {}
    }
    if !view.policy.tags.may_lead() {
        return Plan::wait(Reason::MayNotLead);
    }
    if leaves_it_to_others(view, cluster) {
        return Plan::wait(Reason::LeavingBootstrap);
    }
    // Someone here has data already: an existing Postgres that is being taken over. A new cluster beside it would
    // make that data foreign.
    let owner = view
        .members
        .iter()
        .find(|member| member.published.as_ref().is_some_and(|state| state.system.is_some()));
    if let Some(owner) = owner {
        return Plan::wait(Reason::WaitingForMemberWithData { member: owner.name.clone() });
    }
    // The keys of a cluster were lost, whose data somebody has.
    if let Some((member, lost)) = went_back::knows_more(view, cluster) {
        return Plan::wait(Reason::MemberKnowsMore { member, lost })
            .and_look_again_in(view.policy.loop_wait / 4);
    }
    Plan::step(
        Reason::RacingToBootstrap,
        Step::AcquireLease { sync_revision: cluster.sync.as_ref().map(|sync| sync.revision), request: None },
    )
}

/// The same where an earlier attempt left half a data directory behind.
pub(super) fn race_again(view: &View, cluster: &Cluster, fault: Unusable) -> Plan {
    match fault {
        Unusable::HalfInitialized | Unusable::HalfCloned => race(view, cluster),
        Unusable::HalfRewound => Plan::wait(Reason::WaitingForLeader),
        Unusable::Refused => Plan::wait(Reason::DataDirectoryRefused),
    }
}

/// The leader lease is mine and there is no data here.
pub(super) fn initialize(view: &View, cluster: &Cluster) -> Plan {
    if view.job.is_some() {
        return Plan::step(Reason::Bootstrapping, Step::RenewLease);
    }
    if leaves_it_to_others(view, cluster) {
        return Plan::step(Reason::LeavingBootstrap, Step::ReleaseLease);
    }
    match cluster.initialize {
        Initialize::Absent => {
            Plan::steps(Reason::Bootstrapping, [Step::RenewLease, Step::ClaimInitialize, Step::Initdb])
        }
        Initialize::Bootstrapping => Plan::steps(Reason::Bootstrapping, [Step::RenewLease, Step::Initdb]),
        // The data of this cluster is elsewhere, and so must its leader be.
        Initialize::Done(_) => Plan::step(Reason::NothingToLead, Step::ReleaseLease),
    }
}

/// The same with half a data directory.
pub(super) fn initialize_again(view: &View, cluster: &Cluster, fault: Unusable) -> Plan {
    match fault {
        Unusable::HalfInitialized | Unusable::HalfCloned => initialize(view, cluster),
        Unusable::HalfRewound | Unusable::Refused if view.job.is_some() => {
            Plan::step(Reason::NothingToLead, Step::RenewLease)
        }
        Unusable::HalfRewound | Unusable::Refused => Plan::step(Reason::NothingToLead, Step::ReleaseLease),
    }
}

/// Whether some part of making the cluster has failed here again and again and is not tried at the moment, and another member could make
/// it. What was made here so far is worth nothing to anybody; data that was here before is.
pub(super) fn leaves_it_to_others(view: &View, cluster: &Cluster) -> bool {
    match cluster.initialize {
        Initialize::Done(_) => return false,
        Initialize::Absent | Initialize::Bootstrapping => {}
    }
    let in_vain = |job| view.local.hopeless.contains(job) && view.local.backing_off.contains(job);
    let is_worthless = view.local.unrecorded || view.local.system.is_none();
    is_worthless
        && [Job::Initdb, Job::Start, Job::PostBootstrap].iter().any(in_vain)
        && view.members.iter().any(|member| member.tags.may_lead() && member.published.is_some())
}
