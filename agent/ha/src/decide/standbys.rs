//! What a leader knows of its standbys: who is recorded as synchronous, and who has all of its WAL.

use alloc::vec::Vec;

use outrider_wal::{Lsn, TimelineId};

use crate::view::View;
use crate::view::cluster::Cluster;
use crate::view::member::{MemberName, MemberState, Role};

/// The standbys that are recorded as synchronous with this member.
pub(super) fn recorded(view: &View, cluster: &Cluster) -> Vec<MemberName> {
    cluster
        .sync
        .as_ref()
        .filter(|sync| sync.leader.as_ref() == Some(&view.me))
        .map(|sync| sync.standbys.clone())
        .unwrap_or_default()
}

/// Whether a standby has all of this member's WAL, which ends on `timeline` at `end`. The position alone does not tell: a member
/// that diverged before this timeline was begun may be further on in its own; nor does the number of the timeline.
pub(super) fn has_all(view: &View, state: &MemberState, timeline: TimelineId, end: Lsn) -> bool {
    let same = state.timeline == timeline && view.local.starts.begun_twice(&state.lineage).is_none();
    state.role == Role::Standby && same && state.position >= end
}
