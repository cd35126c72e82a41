//! A standby that has less than its primary of what PostgreSQL does not let it have less of (`max_connections` and four others):
//! its replay stands, or will, until it is restarted with as much. One after the other, first those that are not synchronous;
//! what stops Postgres here, the usual rows of the table start again.

use core::time::Duration;

use crate::plan::{Plan, Step, StopMode};
use crate::reason::Reason;
use crate::view::View;
use crate::view::cluster::Cluster;
use crate::view::member::{Member, MemberName, MemberState, Role};

/// Somebody who does not come up keeps the others waiting for so many lifetimes of the lease, no longer.
const PATIENCE_TTLS: u32 = 6;

/// What is to be done about it; `None` when it has enough, or is about to take over.
pub(super) fn standby(view: &View, cluster: &Cluster, leader: &MemberName) -> Option<Plan> {
    let short_for = view.local.short_for?;
    if cluster.switchover.as_ref().is_some_and(|announced| announced.to == view.me) {
        return None;
    }
    let patient = short_for < view.policy.ttl * PATIENCE_TTLS;
    Some(match awaited(view, cluster, leader).filter(|_| patient) {
        Some(member) => {
            let member = member.name.clone();
            Plan::wait(Reason::WaitingToRaise { member }).and_look_again_in(soon(view))
        }
        None => Plan::step(Reason::Raising, Step::Stop(StopMode::Fast)),
    })
}

/// Whom this standby lets go first: who is down already, who comes before it, or who can be synchronous in its place.
fn awaited<'view>(view: &'view View, cluster: &Cluster, leader: &MemberName) -> Option<&'view Member> {
    let is_synchronous =
        |name: &MemberName| cluster.sync.as_ref().is_some_and(|sync| sync.standbys.contains(name));
    let place = |name: &MemberName| (is_synchronous(name), name.clone());
    let mine = place(&view.me);
    let comes_first = |member: &&Member, state: &MemberState| {
        let is_down = state.role == Role::NotRunning || (state.role == Role::Standby && !state.streaming);
        let stands_in =
            mine.0 && !is_synchronous(&member.name) && member.tags.may_lead() && !member.tags.nosync;
        is_down || (state.short && place(&member.name) < mine) || (!state.short && stands_in)
    };
    view.members
        .iter()
        .filter(|member| member.name != *leader)
        .find(|member| member.published.as_ref().is_some_and(|state| comes_first(member, state)))
}

fn soon(view: &View) -> Duration {
    view.policy.loop_wait / 2
}
