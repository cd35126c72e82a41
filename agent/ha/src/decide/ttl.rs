//! The ttl of this member's session, on which its entry and the lease hang: it follows the one of the cluster, and is lengthened when
//! the agent ends. A lease that is shorter than its fuse could be another's while this Postgres still writes: to shorten, first the
//! fuse and then the lease; to lengthen, first the lease.

use alloc::vec::Vec;
use core::time::Duration;

use super::refusal;
use crate::fuse::fuse_life;
use crate::plan::{Plan, Step};
use crate::reason::Reason;
use crate::view::cluster::{Cluster, Lease};
use crate::view::{Dcs, View};

/// An agent that ends on purpose leaves its successor this much time.
const HANDOVER_TTL: Duration = Duration::from_secs(30);

/// Adds the change to what is done anyway. A leader changes it right after a renewal, in a round that does nothing more urgent.
pub(super) fn follow(view: &View, cluster: &Cluster, plan: &mut Plan) {
    let Some(session) = view.local.session_ttl.filter(|ttl| *ttl != view.policy.ttl) else { return };
    let is_urgent = |step: &Step| step.begins_job() || *step == Step::Promote;
    if cluster.lease == Lease::Mine {
        if plan.steps.first() == Some(&Step::RenewLease) && !plan.steps.iter().any(is_urgent) {
            plan.steps.splice(1..1, change(session, view.policy.ttl));
        }
    } else if !plan.steps.iter().any(Step::takes_lease) {
        plan.steps.push(Step::SetTtl { ttl: view.policy.ttl });
    }
}

/// What an agent does that ends while its Postgres goes on: a leader leaves its successor time to come up before the fuse blows.
#[must_use]
pub fn leave(view: &View) -> Plan {
    let mut plan = Plan::wait(Reason::Leading);
    let takes_part = view.local.entered && !view.local.unsupervised;
    if let Dcs::Seen(cluster) = &view.dcs
        && let Some(session) = view.local.session_ttl
        && cluster.lease == Lease::Mine
        && takes_part
        && refusal(view, cluster).is_none()
    {
        plan.steps = change(session, view.policy.ttl.max(HANDOVER_TTL));
        plan.steps.push(Step::RenewLease);
    }
    plan
}

/// From the ttl that the leader's session has to another one.
fn change(session: Duration, ttl: Duration) -> Vec<Step> {
    let shorter = ttl < session;
    let fuse = shorter.then(|| Step::ShortenFuse { within: fuse_life(ttl) });
    fuse.into_iter().chain((ttl != session).then_some(Step::SetTtl { ttl })).collect()
}
