//! How many bytes a standby is behind its primary, in receiving and in replaying, measured from the furthest known position
//! of the primary. Judges nothing.

use outrider_dcs::Snapshot;
use outrider_postgres::{Observation, Role};
use outrider_wal::Lsn;

/// The lag of one standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lag {
    /// Bytes still to be received and flushed.
    pub(crate) receive: u64,
    /// Bytes still to be replayed.
    pub(crate) replay: u64,
}

impl Lag {
    /// The lag of this standby, which may know more than the DCS shows; `None` when it is not a standby.
    pub(crate) fn of(seen: &Observation, cluster: Option<&Snapshot>) -> Option<Self> {
        let Role::Standby { received, replayed, latest_end, .. } = &seen.role else { return None };
        let got = (*received).max(*replayed);
        let end = cluster.map_or(Lsn::INVALID, end_of_wal).max(got).max(*latest_end);
        Some(Lag { receive: got.behind(end), replay: replayed.behind(end) })
    }
}

/// The furthest position that the leader has published, in its entry or in `/status`.
pub(crate) fn end_of_wal(cluster: &Snapshot) -> Lsn {
    let leader = cluster.leader.as_ref().and_then(|leader| cluster.member(&leader.name)?.xlog_location());
    let status = cluster.status.as_ref().map(|entry| entry.value.optime);
    leader.max(status).unwrap_or(Lsn::INVALID)
}
