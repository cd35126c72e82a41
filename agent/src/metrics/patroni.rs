//! Patroni's metrics, under its names, so that its dashboards and alerts keep working.

use jiff::Timestamp;
use outrider_postgres::{Observation, Role};
use outrider_wal::Lsn;

use super::family::Families;
use crate::config::Config;
use crate::report::Report;

/// Patroni's states; the value of the metric is the index in this list.
const STATES: &[&str] = &[
    "initializing new cluster",
    "initdb failed",
    "running custom bootstrap script",
    "custom bootstrap failed",
    "creating replica",
    "running",
    "starting",
    "starting after custom bootstrap",
    "start failed",
    "restarting",
    "restart failed",
    "stopping",
    "stopped",
    "stop failed",
    "crashed",
];

pub(super) fn add(report: &Report, config: &Config, families: &mut Families) {
    let seen = report.postgres.as_ref();
    let cluster = report.cluster.as_ref();
    let is_standby = seen.is_some_and(|seen| !seen.is_primary());
    let is_sync = cluster
        .and_then(|cluster| cluster.sync.as_ref())
        .is_some_and(|sync| sync.value.has_standby(&config.name));
    let state = STATES.iter().position(|state| *state == report.state);
    let state = state.map_or(-1.0, |index| u32::try_from(index).map_or(-1.0, f64::from));
    let unlocked = cluster.is_none_or(|cluster| cluster.leader.is_none());
    let seen_at = report.dcs_last_seen.map_or(0.0, |at| at.as_second() as f64);
    let tags = &report.view.policy.tags;
    let priority = if tags.may_lead() { tags.failover_priority } else { 0 };

    families.gauge("patroni_version", "Version of the agent, 010203 for 1.2.3", version());
    families.gauge("patroni_postgres_running", "1 if Postgres is running", seen.is_some());
    let started = seen.and_then(|seen| epoch(&seen.postmaster_start_time)).unwrap_or_default();
    families.gauge(
        "patroni_postmaster_start_time",
        "When Postgres started, in seconds since the epoch",
        started,
    );
    families.gauge("patroni_primary", "1 if this member is the leader", is_leader(report));
    families.gauge("patroni_standby_leader", "1 if this member leads a standby cluster", false);
    families.gauge("patroni_replica", "1 if this member is a standby", is_standby);
    families.gauge(
        "patroni_sync_standby",
        "1 if this member is a synchronous standby",
        is_standby && is_sync,
    );
    families.gauge("patroni_quorum_standby", "1 if this member is a quorum standby", false);
    add_positions(seen, families);
    families.gauge(
        "patroni_postgres_server_version",
        "Version of Postgres",
        seen.map_or(0, |seen| seen.server_version),
    );
    families.gauge(
        "patroni_postgres_timeline",
        "Timeline of Postgres",
        seen.map_or(0, |seen| seen.timeline.get()),
    );
    families.gauge("patroni_postgres_state", "State of Postgres, -1 if it is not known", state);
    families.gauge("patroni_cluster_unlocked", "1 if the cluster has no leader", unlocked);
    families.gauge("patroni_failsafe_mode_is_active", "1 if failsafe mode is active", false);
    families.gauge(
        "patroni_dcs_last_seen",
        "When the DCS last answered, in seconds since the epoch",
        seen_at,
    );
    let restart = seen.is_some_and(|seen| !seen.pending_restart.is_empty());
    families.gauge("patroni_pending_restart", "1 if Postgres needs a restart for its parameters", restart);
    families.gauge("patroni_is_paused", "1 if the agent is paused", false);
    families.gauge("patroni_failover_priority", "Priority in a failover, 0 for never", priority);
}

fn add_positions(seen: Option<&Observation>, families: &mut Families) {
    let (mut location, mut received, mut replayed, mut at, mut paused) = (0, 0, 0, 0.0, false);
    match seen.map(|seen| &seen.role) {
        Some(Role::Primary { flushed }) => location = flushed.get(),
        Some(Role::Standby { received: got, replayed: done, replayed_timestamp, replay_paused, .. }) => {
            // As in Patroni: one that never streamed has received what it has replayed.
            let got = if *got == Lsn::INVALID { *done } else { *got };
            (received, replayed, paused) = (got.get(), done.get(), *replay_paused);
            at = replayed_timestamp.as_deref().and_then(epoch).unwrap_or_default();
        }
        None => {}
    }
    let state = seen.and_then(Observation::replication_state);
    families.old_counter("patroni_xlog_location", "Flushed position of the primary, 0 elsewhere", location);
    families.old_counter(
        "patroni_xlog_received_location",
        "Received position of a standby, 0 elsewhere",
        received,
    );
    families.old_counter(
        "patroni_xlog_replayed_location",
        "Replayed position of a standby, 0 elsewhere",
        replayed,
    );
    families.gauge(
        "patroni_xlog_replayed_timestamp",
        "Commit time of the last replayed transaction, in seconds since the epoch",
        at,
    );
    families.gauge("patroni_xlog_paused", "1 if replay is paused", paused);
    families.gauge("patroni_postgres_streaming", "1 if WAL is streamed", state == Some("streaming"));
    let from_archive = state == Some("in archive recovery");
    families.gauge("patroni_postgres_in_archive_recovery", "1 if WAL comes from the archive", from_archive);
}

fn is_leader(report: &Report) -> bool {
    let until = report.lease_until_boottime_ns.is_some_and(|until| until > crate::clock::boottime_ns());
    until && report.postgres.as_ref().is_some_and(Observation::is_primary)
}

/// Of a time in PostgreSQL's format.
fn epoch(text: &str) -> Option<f64> {
    text.parse::<Timestamp>().ok().map(|at| at.as_microsecond() as f64 / 1e6)
}

fn version() -> f64 {
    let parts = env!("CARGO_PKG_VERSION")
        .split(['.', '-'])
        .take(3)
        .map(|part| part.parse::<u32>().unwrap_or_default());
    f64::from(parts.fold(0, |version, part| version * 100 + part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_postgres_are_read() {
        assert_eq!(epoch("1970-01-01 00:00:01.5+00"), Some(1.5));
        assert_eq!(epoch("1970-01-01 01:00:00+01"), Some(0.0));
        assert_eq!(epoch("soon"), None);
    }
}
