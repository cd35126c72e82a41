//! Turns what the DCS holds into the cluster of the view. Does not read the DCS.

use std::time::Duration;

use jiff::Timestamp;
use outrider_dcs::{Failover, Snapshot};
use outrider_ha::{
    Cluster, Initialize, Lease, MemberName, Request, RequestKind, StoreId, Switchover, SyncState, SystemId,
    Term,
};
use outrider_wal::{Lsn, TimelineHistory};

use super::restart;
use crate::clock;

/// What this member remembers beside the snapshot.
pub(super) struct Remembered<'memory> {
    /// How long the lease has been free.
    pub(super) free_for: Duration,
    /// The switchover in progress, when this member takes part in it.
    pub(super) switchover: Option<&'memory SwitchoverProgress>,
    /// How long the present turn of a restart has been seen.
    pub(super) turn_for: Duration,
    /// For a turn, when the request names no time.
    pub(super) turn_limit: Duration,
}

/// How far this member is in an announced switchover.
#[derive(Clone, Debug)]
pub(crate) struct SwitchoverProgress {
    /// Identifier of the announcement.
    pub(crate) id: String,
    /// Its own CHECKPOINT for it is done.
    pub(crate) checkpointed: bool,
    /// When its Postgres was told to stop for it.
    pub(crate) stopping_since: Option<tokio::time::Instant>,
}

/// The cluster as `snapshot` shows it.
pub(super) fn cluster(snapshot: &Snapshot, remembered: &Remembered<'_>) -> Cluster {
    Cluster {
        lease: match &snapshot.leader {
            None => Lease::Free { since: remembered.free_for },
            Some(leader) if leader.mine => Lease::Mine,
            Some(leader) => Lease::Theirs { holder: MemberName::from(leader.name.as_str()) },
        },
        term: Term(snapshot.term),
        store: Some(StoreId(snapshot.store)),
        generation: snapshot.generation.as_ref().map_or(0, |entry| entry.value.generation),
        revision: snapshot.revision,
        sync_revision: snapshot.sync_revision,
        blank: snapshot.is_blank(),
        initialize: initialize(snapshot),
        sync: snapshot.sync.as_ref().map(|entry| SyncState {
            leader: entry.value.leader.as_deref().map(MemberName::from),
            standbys: entry.value.sync_standby.iter().map(|name| MemberName::from(name.as_str())).collect(),
            revision: entry.revision,
        }),
        last_position: snapshot.status.as_ref().map_or(Lsn::INVALID, |entry| entry.value.optime),
        history: history(snapshot),
        least_timeline: snapshot
            .rollback_last
            .as_ref()
            .and_then(|entry| entry.value.least_timeline)
            .unwrap_or_default(),
        swapping: snapshot
            .rollback_request
            .as_ref()
            .and_then(|entry| Some(MemberName::from(entry.value.swap.as_ref()?.member.as_str()))),
        request: snapshot.failover.as_ref().map(|entry| request(&entry.value, entry.revision)),
        switchover: switchover(snapshot, remembered.switchover),
        restart: restart::restart(snapshot, remembered),
    }
}

/// An identifier that is no number is not this cluster's, whatever it is: 0 is no system identifier.
fn initialize(snapshot: &Snapshot) -> Initialize {
    match snapshot.initialize.as_ref().map(|entry| entry.value.trim()) {
        None => Initialize::Absent,
        Some("") => Initialize::Bootstrapping,
        Some(text) => Initialize::Done(SystemId(text.parse().unwrap_or_default())),
    }
}

fn history(snapshot: &Snapshot) -> TimelineHistory {
    let rows = snapshot.history.as_ref().map(|entry| entry.value.as_slice()).unwrap_or_default();
    let lines: String = rows
        .iter()
        .map(|row| format!("{}\t{}\t{}\n", row.timeline, row.lsn, row.reason.replace('\n', " ")))
        .collect();
    // Rows that do not ascend were written by no leader of this cluster: nothing is concluded from them.
    lines.parse().unwrap_or_default()
}

fn request(wish: &Failover, revision: i64) -> Request {
    let due_in = due_in(wish.scheduled_at.as_deref());
    Request {
        kind: if wish.leader.is_some() { RequestKind::Switchover } else { RequestKind::Failover },
        from: wish.leader.as_deref().map(MemberName::from),
        to: wish.member.as_deref().map(MemberName::from),
        due_in,
        revision,
    }
}

/// Time left until a moment on the wall.
pub(super) fn due_in(scheduled_at: Option<&str>) -> Duration {
    scheduled_at.map_or(Duration::ZERO, |at| {
        // What cannot be read is never due: it stays visible in the DCS until somebody takes it away.
        at.parse::<Timestamp>().map_or(Duration::MAX, |at| {
            Duration::try_from(at.duration_since(clock::wall())).unwrap_or(Duration::ZERO)
        })
    })
}

fn now_unix_ms() -> u64 {
    u64::try_from(clock::wall().as_millisecond()).unwrap_or_default()
}

fn switchover(snapshot: &Snapshot, progress: Option<&SwitchoverProgress>) -> Option<Switchover> {
    let announced = &snapshot.intent.as_ref()?.value;
    let progress = progress.filter(|progress| progress.id == announced.id);
    Some(Switchover {
        id: announced.id.clone(),
        from: MemberName::from(announced.from.as_str()),
        to: MemberName::from(announced.to.as_str()),
        stopping_for: match progress.and_then(|progress| progress.stopping_since) {
            Some(since) => clock::monotonic().saturating_duration_since(since),
            // An agent that was restarted meanwhile does not know since when; the announcement says until when.
            None if now_unix_ms() > announced.deadline_unix_ms => Duration::MAX,
            None => Duration::ZERO,
        },
        checkpointed: progress.is_some_and(|progress| progress.checkpointed),
    })
}
