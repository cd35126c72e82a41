//! Turns the keys of the DCS into the cluster of the view. Does not read the DCS.

use std::time::Duration;

use jiff::Timestamp;
use outrider_dcs::{Failover, Snapshot};
use outrider_ha::{
    Cluster, Initialize, Lease, MemberName, Policy, Request, RequestKind, StoreId, Switchover, SyncState,
    SystemId, Term, Watermark,
};
use outrider_wal::{Lsn, TimelineHistory};

use super::restart;
use crate::clock;

/// What this member remembers besides the snapshot.
pub(super) struct Remembered<'memory> {
    /// How long the lease has been free.
    pub(super) free_for: Duration,
    /// How long it has seen this request unchanged.
    pub(super) request_seen_for: Duration,
    /// The rules of the cluster.
    pub(super) policy: &'memory Policy,
    /// The switchover in progress, when this member takes part in it.
    pub(super) switchover: Option<&'memory SwitchoverProgress>,
    /// How long the current turn of a restart has been seen.
    pub(super) turn_for: Duration,
    /// Time limit for a turn when the request names none.
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

/// The record of who may be promoted, last changed at `revision`.
pub(crate) fn sync_state(record: &outrider_dcs::SyncState, revision: i64) -> SyncState {
    SyncState {
        leader: record.leader.as_deref().map(MemberName::from),
        standbys: record.sync_standby.iter().map(|name| MemberName::from(name.as_str())).collect(),
        given_up: record.given_up,
        revision,
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

fn request(wish: &Failover, revision: i64, remembered: &Remembered<'_>) -> Request {
    Request {
        kind: if wish.leader.is_some() { RequestKind::Switchover } else { RequestKind::Failover },
        from: wish.leader.as_deref().map(MemberName::from),
        to: wish.member.as_deref().map(MemberName::from),
        due_in: due_in(wish.scheduled_at.as_deref()),
        expires_in: expires_in(wish, remembered.request_seen_for, remembered.policy),
        dated: wish.outrider.is_some(),
        wait: wish.outrider.as_ref().is_some_and(|terms| terms.wait),
        accept_data_loss: wish.outrider.as_ref().is_some_and(|terms| terms.accept_data_loss),
        revision,
    }
}

/// An unreadable time is never due: it stays visible in the DCS until somebody removes it.
pub(super) fn due_in(scheduled_at: Option<&str>) -> Duration {
    scheduled_at.map_or(Duration::ZERO, |at| at.parse().map_or(FOREVER, until))
}

/// How long a request is still valid: by its deadline and by this member's own count. The clocks of members differ, and one that
/// is behind must not do what all others have abandoned. A schedule is a wall-clock time, and limits its own validity.
pub(crate) fn expires_in(wish: &Failover, seen_for: Duration, policy: &Policy) -> Duration {
    let limit = policy.request_limit();
    match (wish.scheduled_at.as_deref(), &wish.outrider) {
        (Some(at), terms) => {
            let valid = terms.as_ref().map_or(limit, |terms| Duration::from_millis(terms.valid_ms));
            at.parse::<Timestamp>()
                .map_or(FOREVER, |at| until(at.saturating_add(valid).unwrap_or(Timestamp::MAX)))
        }
        (None, Some(terms)) => {
            let by_the_clock = Duration::from_millis(terms.deadline_unix_ms.saturating_sub(now_unix_ms()));
            by_the_clock.min(Duration::from_millis(terms.valid_ms).saturating_sub(seen_for))
        }
        (None, None) => limit.saturating_sub(seen_for),
    }
}

/// The longest that a recorded view can express.
const FOREVER: Duration = Duration::from_millis(u64::MAX);

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(clock::wall())).unwrap_or(Duration::ZERO)
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
        stopping: announced.stopping,
    })
}

#[cfg(test)]
mod tests {
    use outrider_dcs::FailoverTerms;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> Policy {
        Policy {
            ttl: SECOND * 5,
            loop_wait: SECOND,
            maximum_lag_on_failover: 0,
            primary_start_timeout: SECOND,
            switchover_timeout: SECOND,
            step_down_margin: SECOND,
            synchronous_mode: outrider_ha::SynchronousMode::On,
            synchronous_node_count: 1,
            tags: outrider_ha::Tags::default(),
        }
    }

    fn dated(deadline_unix_ms: u64) -> Failover {
        let terms = FailoverTerms {
            id: "x".to_owned(),
            deadline_unix_ms,
            valid_ms: 20_000,
            accept_data_loss: false,
            wait: false,
        };
        Failover { member: Some("p2".to_owned()), outrider: Some(terms), ..Failover::default() }
    }

    #[test]
    fn a_wish_is_void_by_whichever_clock_says_so_first() {
        let (now, policy) = (now_unix_ms(), policy());
        let in_an_hour = dated(now + 3_600_000);
        assert_eq!(expires_in(&in_an_hour, SECOND, &policy), SECOND * 19);
        assert_eq!(expires_in(&in_an_hour, SECOND * 21, &policy), Duration::ZERO);
        assert_eq!(expires_in(&dated(now - 1), Duration::ZERO, &policy), Duration::ZERO);
    }

    #[test]
    fn a_wish_of_patronis_command_line_counts_from_when_it_is_first_seen() {
        let wish = Failover { member: Some("p2".to_owned()), ..Failover::default() };
        assert_eq!(expires_in(&wish, Duration::ZERO, &policy()), SECOND * 20);
        assert_eq!(expires_in(&wish, SECOND * 30, &policy()), Duration::ZERO);
    }

    #[test]
    fn a_schedule_that_was_missed_is_void() {
        let at = |offset: i64| Failover {
            leader: Some("p1".to_owned()),
            scheduled_at: Some(
                Timestamp::from_second(clock::wall().as_second() + offset).unwrap().to_string(),
            ),
            ..Failover::default()
        };
        let policy = policy();
        assert!(expires_in(&at(60), SECOND * 3600, &policy) > SECOND * 70);
        assert!(due_in(at(60).scheduled_at.as_deref()) > SECOND * 50);
        let (late, missed) = (at(-5), at(-60));
        assert_eq!(due_in(late.scheduled_at.as_deref()), Duration::ZERO);
        assert!(!expires_in(&late, Duration::ZERO, &policy).is_zero());
        assert_eq!(expires_in(&missed, Duration::ZERO, &policy), Duration::ZERO);
    }
}
