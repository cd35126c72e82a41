//! Whether the DCS shows less than somebody has seen of it.

use crate::view::View;
use crate::view::cluster::Cluster;
use crate::view::member::MemberName;
use crate::view::policy::SynchronousMode;
use crate::view::watermark::{Lost, Watermark};

/// A member that answers and has seen what the DCS does not show: `/sync` may have named others since, whose commits were
/// acknowledged.
pub(crate) fn knows_more(view: &View, cluster: &Cluster) -> Option<(MemberName, Lost)> {
    view.members.iter().find_map(|member| {
        let seen = &member.answered()?.watermark;
        Some((member.name.clone(), seen.lost_by(&shown(view, cluster, seen))?))
    })
}

/// How far the DCS is, to one who has `seen` that much. In synchronous mode a `/sync` that somebody has seen and that no leader
/// has deleted is missed: without it anybody could be promoted.
pub(super) fn shown(view: &View, cluster: &Cluster, seen: &Watermark) -> Watermark {
    match view.policy.synchronous_mode {
        SynchronousMode::On => cluster.watermark(),
        SynchronousMode::Off => cluster.watermark_without_sync(seen),
    }
}
