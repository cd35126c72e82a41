//! The DCS has lost every key of the cluster, and the primary still runs: it writes them anew, or stops before its fuse does.

use alloc::vec::Vec;
use core::time::Duration;

use crate::plan::{Plan, Step};
use crate::reason::Reason;
use crate::view::cluster::{Cluster, Initialize};
use crate::view::local::{Postgres, Synchronous};
use crate::view::member::{Member, MemberName, Role};
use crate::view::policy::SynchronousMode;
use crate::view::{Job, View};

/// How soon the others are asked again: that they find the same sends no event.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What a primary does in a DCS that has lost its cluster; `None` where that is to stop, as in any other that went back. Nobody
/// else leads: whoever could have taken the lease needed it to run out first, and the fuse blows before that.
pub(super) fn instead_of_stopping(view: &View, cluster: &Cluster) -> Option<Plan> {
    let Postgres::Primary { synchronous, .. } = &view.local.postgres else { return None };
    let led_last = view.local.held_term == view.local.watermark.term;
    let stops = !matches!(view.job, None | Some(Job::Checkpoint)) || view.local.terminating;
    let blank = cluster.blank && cluster.initialize == Initialize::Absent;
    if !blank || !led_last || stops || view.local.system.is_none() {
        return None;
    }
    let left = view.local.fuse?.checked_sub(view.policy.step_down_margin).filter(|left| !left.is_zero())?;
    Some(match dissenter(view, cluster) {
        None => {
            let standbys = promotable(view, synchronous);
            Plan::step(Reason::RecreatingCluster, Step::RecreateCluster { standbys })
        }
        Some(member) => {
            Plan::wait(Reason::WaitingToRecreate { member }).and_look_again_in(left.min(ASK_AGAIN))
        }
    })
}

/// In synchronous mode: who was recorded when the DCS was last seen, and for whom every commit has waited since. One that was taken out
/// of either may lack commits.
fn promotable(view: &View, synchronous: &Synchronous) -> Option<Vec<MemberName>> {
    let waited_for = |name: &&MemberName| synchronous.names.contains(name);
    match view.policy.synchronous_mode {
        SynchronousMode::Off => None,
        SynchronousMode::On => Some(view.local.recorded.iter().filter(waited_for).cloned().collect()),
    }
}

/// A member of the cluster that does not find the same emptiness in the same store, or is not heard. It may follow another store,
/// which this agent was pointed away from, and elect there; or have seen a later `/sync`.
pub(crate) fn dissenter(view: &View, cluster: &Cluster) -> Option<MemberName> {
    let mine = &view.local.watermark;
    let agrees = |member: &&Member| {
        member.answered().is_some_and(|state| {
            let theirs = &state.watermark;
            let knows_no_more = theirs.generation <= mine.generation
                && theirs.term <= mine.term
                && theirs.sync_revision <= mine.sync_revision;
            state.role != Role::Primary
                && cluster.store.is_some()
                && state.finds_blank == cluster.store
                && knows_no_more
        })
    };
    view.members.iter().find(|member| !agrees(member)).map(|member| member.name.clone())
}
