//! Turns the keys of the DCS into the cluster of the view. Does not read the DCS.

use std::time::Duration;

use outrider_dcs::{Failover, Snapshot};
use outrider_ha::{
    Cluster, Initialize, Lease, MemberName, Request, RequestKind, StoreId, Switchover, SystemId, Term,
    Watermark,
};
use outrider_wal::{Lsn, TimelineHistory};

use super::remembered::Remembered;
use super::restart;
use crate::clock;
use crate::deadline::{due_in, expires_in, now_unix_ms};
use crate::state::{SwitchoverProgress, sync_state};

/// The cluster as `snapshot` shows it.
pub(super) fn cluster(snapshot: &Snapshot, remembered: &Remembered<'_>) -> Cluster {
    let Watermark { store, generation, term, revision, sync_revision, lost: _ } = watermark(snapshot);
    Cluster {
        lease: match &snapshot.leader {
            None => Lease::Free { since: remembered.free_for },
            Some(leader) if leader.mine => Lease::Mine,
            Some(leader) => Lease::Theirs { holder: MemberName::from(leader.name.as_str()) },
        },
        term,
        store,
        generation,
        revision,
        sync_revision,
        blank: snapshot.is_blank(),
        initialize: initialize(snapshot),
        sync: snapshot.sync.as_ref().map(|entry| sync_state(&entry.value, entry.revision)),
        last_position: snapshot.status.as_ref().map_or(Lsn::INVALID, |entry| entry.value.optime),
        last_timeline: snapshot.status.as_ref().and_then(|entry| entry.value.timeline).unwrap_or_default(),
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
        request: snapshot.failover.as_ref().map(|entry| request(&entry.value, entry.revision, remembered)),
        switchover: switchover(snapshot, remembered.switchover),
        restart: restart::restart(snapshot, remembered),
    }
}

/// How far the DCS has come.
pub(crate) fn watermark(snapshot: &Snapshot) -> Watermark {
    Watermark {
        store: Some(StoreId(snapshot.store)),
        generation: snapshot.generation.as_ref().map_or(0, |entry| entry.value.generation),
        term: Term(snapshot.term),
        revision: snapshot.revision,
        sync_revision: snapshot.sync_revision,
        lost: None,
    }
}

/// An identifier that is not a number is not this cluster's: 0 is no system identifier.
pub(super) fn initialize(snapshot: &Snapshot) -> Initialize {
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
    // Rows that do not ascend were written by no leader of this cluster: they are ignored.
    lines.parse().unwrap_or_default()
}

fn request(request: &Failover, revision: i64, remembered: &Remembered<'_>) -> Request {
    Request {
        kind: if request.leader.is_some() { RequestKind::Switchover } else { RequestKind::Failover },
        from: request.leader.as_deref().map(MemberName::from),
        to: request.member.as_deref().map(MemberName::from),
        due_in: due_in(request.scheduled_at.as_deref()),
        expires_in: expires_in(request, remembered.request_seen_for, remembered.policy),
        dated: request.outrider.is_some(),
        wait: request.outrider.as_ref().is_some_and(|terms| terms.wait),
        accept_data_loss: request.outrider.as_ref().is_some_and(|terms| terms.accept_data_loss),
        revision,
    }
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
        stopping: announced.stopping,
    })
}
