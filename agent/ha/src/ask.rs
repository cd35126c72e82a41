//! Whom to ask directly before deciding, and how long to wait for the answer. Asking itself is the shell's work.

use alloc::vec::Vec;

use crate::decide::{is_my_turn, went_back};
use crate::view::cluster::{Cluster, Lease};
use crate::view::local::Postgres;
use crate::view::member::{Member, MemberName, Role};
use crate::view::request::Request;
use crate::view::{Dcs, Job, View};

/// How long an answer is worth waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The decision needs it.
    Patient,
    /// It would be good to know; a dead host swallows a connection, and that silence must not hold up an election.
    Brief,
}

/// The members whose state must be fresh for the decision on this view; none in a quiet round.
#[must_use]
pub fn whom_to_ask(view: &View) -> Vec<(MemberName, Patience)> {
    let Dcs::Seen(cluster) = &view.dcs else { return Vec::new() };
    let needed = match (&cluster.lease, &view.local.postgres) {
        (Lease::Free { .. }, Postgres::Standby { .. } | Postgres::Primary { .. }) => true,
        (
            Lease::Mine,
            Postgres::Stopped { .. } | Postgres::Starting { .. } | Postgres::Unresponsive { .. },
        ) => true,
        (Lease::Mine, Postgres::Primary { .. }) => {
            cluster.request.as_ref().is_some_and(Request::is_due)
                || cluster.switchover.is_some()
                || view.local.shut_out.is_some()
                || view.local.frozen.is_some()
                || is_my_turn(view, cluster)
        }
        // Where nothing of a cluster stands, somebody may know of one.
        (Lease::Free { .. }, Postgres::Empty | Postgres::Unusable(_)) => cluster.blank,
        (
            Lease::Free { .. },
            Postgres::Stopped { .. } | Postgres::Starting { .. } | Postgres::Unresponsive { .. },
        )
        | (Lease::Mine, Postgres::Standby { .. } | Postgres::Empty | Postgres::Unusable(_))
        | (Lease::Theirs { .. }, _) => false,
    };
    if !needed || view.job.is_some_and(|job| job != Job::Checkpoint) {
        return Vec::new();
    }
    view.members.iter().map(|member| (member.name.clone(), patience(cluster, member))).collect()
}

/// Whether a member that answered has seen more of the DCS than this view shows. It may have looked a moment later, so the DCS
/// is read once more before that is held against it.
#[must_use]
pub fn must_read_again(view: &View) -> bool {
    let Dcs::Seen(cluster) = &view.dcs else { return false };
    went_back::knows_more(view, cluster).is_some()
}

/// A member that may hold acknowledged commits is worth waiting for; the former primary is not.
fn patience(cluster: &Cluster, member: &Member) -> Patience {
    let was_primary = member.published.as_ref().is_some_and(|state| state.role == Role::Primary)
        || cluster.sync.as_ref().is_some_and(|sync| sync.leader.as_ref() == Some(&member.name));
    let covered = cluster.sync.as_ref().is_none_or(|sync| sync.covers(&member.name));
    if covered && !was_primary { Patience::Patient } else { Patience::Brief }
}
