//! Brings a member back behind the leader: start it, rewind it, or clone it anew. Does not choose whom to follow.

use outrider_wal::TimelineId;

use crate::plan::{Plan, StartAs, Step};
use crate::reason::Reason;
use crate::view::View;
use crate::view::cluster::{Cluster, Initialize};
use crate::view::local::{Postgres, Shutdown, Unusable};
use crate::view::member::{MemberName, MemberState, Role};

/// How this member's WAL relates to the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lineage {
    /// The leader is not a primary yet, or has not recorded where its timeline began.
    Unknown,
    /// All that is here is on the leader's timeline too.
    Ancestor,
    /// Something was written here that the leader never had.
    Diverged,
    /// Both have a timeline of this number, and not the same one.
    Namesake {
        /// The number.
        timeline: TimelineId,
    },
}

/// Whether this member's WAL lies on the history of the leader.
pub(super) fn lineage(view: &View, cluster: &Cluster, leader: &MemberName) -> Lineage {
    let (timeline, end) = match &view.local.postgres {
        Postgres::Stopped { timeline, end, .. } => (*timeline, *end),
        Postgres::Standby { timeline, position, .. } | Postgres::Primary { timeline, position, .. } => {
            (*timeline, *position)
        }
        Postgres::Empty
        | Postgres::Unusable(_)
        | Postgres::Starting { .. }
        | Postgres::Unresponsive { .. } => {
            return Lineage::Unknown;
        }
    };
    let Some(primary) = running_primary(view, leader) else { return Lineage::Unknown };
    if let Some(timeline) = begun_twice(view, timeline, primary) {
        return Lineage::Namesake { timeline };
    }
    if timeline > primary.timeline {
        return Lineage::Diverged;
    }
    if timeline == primary.timeline {
        // The same number is not yet the same timeline: a member that promoted itself and vanished, and its successor
        // that never heard of it, may have chosen the same one.
        let own = view.local.history.switches();
        let same = own.len() != cluster.history.switches().len()
            || own
                .iter()
                .zip(cluster.history.switches())
                .all(|(own, theirs)| own.timeline == theirs.timeline && own.end == theirs.end);
        return if same { Lineage::Ancestor } else { Lineage::Namesake { timeline } };
    }
    match cluster.history.left_at(timeline) {
        // After a rollback to before this timeline the leader's history does not know it at all, but knows another end of one
        // that both come from.
        None if timeline < cluster.least_timeline
            || parted(view, cluster)
            || is_passed_over(timeline, primary) =>
        {
            Lineage::Diverged
        }
        // The leader has not recorded its history yet.
        None => Lineage::Unknown,
        Some(left) if end <= left => Lineage::Ancestor,
        Some(_) => Lineage::Diverged,
    }
}

/// A timeline of the leader's WAL that was begun at another time than the one of that number here: whoever was promoted alone, from the same
/// place as its successor, has an equal history and other WAL. One that this member came to while nobody looked, and whose
/// beginning is gone, is not taken for the leader's.
fn begun_twice(view: &View, own: TimelineId, primary: &MemberState) -> Option<TimelineId> {
    let here = &view.local.starts;
    if let Some(timeline) = here.begun_twice(&primary.lineage) {
        return Some(timeline);
    }
    // A copy that was never started has yet to get the history of its timeline.
    let ancestors = view.local.history.switches();
    let looked = matches!(view.local.postgres, Postgres::Stopped { .. }) && !ancestors.is_empty();
    let unseen = |timeline: &TimelineId| !here.lists(*timeline) && primary.lineage.start(*timeline).is_some();
    let timelines = ancestors.iter().map(|switch| switch.timeline).chain([own]);
    timelines.filter(|_| looked).find(unseen)
}

/// Whether the leader's WAL never was on this timeline: it was begun where the leader's was, too, and given up.
fn is_passed_over(timeline: TimelineId, primary: &MemberState) -> bool {
    let tells_of_it = primary.lineage.timelines().next().is_some_and(|oldest| oldest <= timeline);
    tells_of_it && !primary.lineage.lists(timeline)
}

/// Whether this member's timeline and the leader's come from one that they left at different places.
fn parted(view: &View, cluster: &Cluster) -> bool {
    let own = view.local.history.switches().iter();
    own.filter_map(|own| Some((own, cluster.history.left_at(own.timeline)?)))
        .any(|(own, left)| own.end != left)
}

/// The leader leads, and Postgres is stopped here.
pub(super) fn choose(view: &View, cluster: &Cluster, leader: &MemberName, shutdown: Shutdown) -> Plan {
    if view.job.is_some() {
        return Plan::wait(Reason::JobUnderWay);
    }
    let start = Step::Start(StartAs::Standby { upstream: Some(leader.clone()) });
    match (lineage(view, cluster, leader), shutdown) {
        (Lineage::Ancestor | Lineage::Unknown, Shutdown::Standby)
        | (Lineage::Ancestor, Shutdown::CleanPrimary) => Plan::step(Reason::StartingAsStandby, start),
        (Lineage::Unknown, Shutdown::CleanPrimary | Shutdown::CrashedPrimary) => {
            Plan::wait(Reason::WaitingForLeader)
        }
        // Where the WAL of a crashed primary ends is not in its control file; pg_rewind finds out, and does nothing
        // when nothing is to be done.
        (Lineage::Ancestor, Shutdown::CrashedPrimary) | (Lineage::Diverged, _) => {
            rewind_or_clone(view, leader)
        }
        // For pg_rewind two timelines of one number are the same, and it would do nothing.
        (Lineage::Namesake { timeline }, _) => {
            let mut plan = clone(view, cluster, leader);
            if !plan.steps.is_empty() {
                plan.reason = Reason::BegunTwice { timeline };
            }
            plan
        }
    }
}

fn rewind_or_clone(view: &View, leader: &MemberName) -> Plan {
    let Some(primary) = running_primary(view, leader) else { return Plan::wait(Reason::WaitingForLeader) };
    if view.local.rewind_failed {
        return Plan::step(Reason::CloningAfterFailedRewind, Step::Clone { from: leader.clone() });
    }
    // pg_rewind reads the timeline from the control file of its source, which tells the new one only after the
    // checkpoint that follows a promotion.
    if primary.awaiting_checkpoint {
        return Plan::wait(Reason::WaitingForCheckpoint);
    }
    Plan::step(Reason::Rewinding, Step::Rewind { from: leader.clone() })
}

/// The leader leads, and there is no data here.
pub(super) fn clone(view: &View, cluster: &Cluster, leader: &MemberName) -> Plan {
    if view.job.is_some() {
        return Plan::wait(Reason::JobUnderWay);
    }
    match cluster.initialize {
        Initialize::Absent | Initialize::Bootstrapping => return Plan::wait(Reason::WaitingForBootstrap),
        Initialize::Done(_) => {}
    }
    if running_primary(view, leader).is_none() {
        return Plan::wait(Reason::WaitingForLeader);
    }
    Plan::step(Reason::Cloning, Step::Clone { from: leader.clone() })
}

/// The leader leads, and what is here must not be started.
pub(super) fn clone_over(view: &View, cluster: &Cluster, leader: &MemberName, fault: Unusable) -> Plan {
    match fault {
        Unusable::HalfInitialized | Unusable::HalfCloned | Unusable::HalfRewound => {
            clone(view, cluster, leader)
        }
        Unusable::Refused => Plan::wait(Reason::DataDirectoryRefused),
    }
}

/// The leader's published state, once its Postgres is a primary.
fn running_primary<'view>(view: &'view View, leader: &MemberName) -> Option<&'view MemberState> {
    view.member(leader)?.published.as_ref().filter(|state| state.role == Role::Primary)
}
