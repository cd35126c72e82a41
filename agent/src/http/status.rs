//! `GET /patroni`: the state of this member, which peers read in an election and health checks judge. Patroni's keys,
//! and ours under `outrider`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use outrider_ha::{Dcs, Postgres, StoreId};
use outrider_postgres::{Observation, Role, WalSender};
use outrider_wal::Lsn;
use serde_json::{Map, Value, json};

use super::Api;
use crate::clock;
use crate::lag::Lag;
use crate::member::{pending_restart_reason, replay};
use crate::report::Report;
use crate::state::Failed;

/// This member at this moment.
pub(super) struct Status {
    /// The last round; `None` before the first has ended.
    pub(super) report: Option<Arc<Report>>,
    /// A query made just now; `None` when Postgres does not answer.
    pub(super) postgres: Option<Observation>,
}

/// Always answers 200.
pub(super) async fn show(State(api): State<Api>) -> Json<Value> {
    Json(Status::now(&api).await.document(&api))
}

impl Status {
    /// Queries Postgres and reads the report.
    pub(super) async fn now(api: &Api) -> Self {
        let postgres = api.observer.observe().await;
        let report = api.reports.borrow().clone();
        Status { report, postgres }
    }

    /// Whether it accepts writes at this moment and has the right to: its lease has not expired.
    pub(super) fn is_leader(&self) -> bool {
        let until = self.report.as_ref().and_then(|report| report.lease_until_boottime_ns);
        until.is_some_and(|until| until > clock::boottime_ns())
            && self.postgres.as_ref().is_some_and(Observation::is_primary)
    }

    /// Whether it is in recovery and answers.
    pub(super) fn is_standby(&self) -> bool {
        self.postgres.as_ref().is_some_and(|postgres| !postgres.is_primary())
    }

    /// Whether it is recorded as a standby that may be promoted without loss.
    pub(super) fn is_sync_standby(&self, name: &str) -> bool {
        let sync = self.report.as_ref().and_then(|report| report.cluster.as_ref()?.sync.as_ref());
        self.is_standby() && sync.is_some_and(|sync| sync.value.has_standby(name))
    }

    /// How far this standby is behind; `None` when it is not a standby.
    pub(super) fn lag(&self) -> Option<Lag> {
        let cluster = self.report.as_ref().and_then(|report| report.cluster.as_ref());
        Lag::of(self.postgres.as_ref()?, cluster)
    }

    /// Patroni's word for the state of Postgres.
    pub(super) fn state(&self) -> &'static str {
        match (&self.postgres, &self.report) {
            (Some(_), _) => "running",
            // It ran a round ago and does not answer now.
            (None, Some(report)) if report.state == "running" => "unknown",
            (None, Some(report)) => report.state,
            (None, None) => "starting",
        }
    }

    fn role(&self) -> &'static str {
        match &self.postgres {
            Some(postgres) if postgres.is_primary() => return "primary",
            Some(_) => return "replica",
            None => {}
        }
        match self.report.as_ref().map(|report| &report.view.local.postgres) {
            Some(
                Postgres::Primary { .. }
                | Postgres::Starting { writable: true, .. }
                | Postgres::Unresponsive { writable: true, .. },
            ) => "primary",
            Some(Postgres::Empty) => "uninitialized",
            Some(
                Postgres::Standby { .. }
                | Postgres::Starting { .. }
                | Postgres::Unresponsive { .. }
                | Postgres::Stopped { .. }
                | Postgres::Unusable(_),
            )
            | None => "replica",
        }
    }

    /// What Patroni has no key for.
    fn ours(&self, api: &Api) -> Value {
        // In an election the others must learn what this member has seen even before its first round.
        let Some(report) = &self.report else { return json!({"watermark": api.watermark}) };
        let lease = report.lease_until_boottime_ns.map(clock::until_boottime);
        let mut ours = json!({
            "round_at": report.at.to_string(),
            "reason": report.plan.reason.label(),
            "why": report.plan.reason.to_string(),
            "failure": report.failure,
            "failing": report.failing.as_ref().map(Failed::document),
            "term": report.view.local.watermark.term.0,
            "lease_seconds": lease.map(seconds),
            "fuse_seconds": report.view.local.fuse.map(seconds),
            "archive_waiting": report.archive.as_ref().map(|archive| archive.waiting),
            "watermark": report.view.local.watermark,
            "finds_blank": finds_blank(report),
            "timelines": report.view.local.lineage(),
            "replay": self.postgres.as_ref().and_then(replay::of).map(|seen| replay::shown(&seen)),
            "receive_lag": self.lag().map(|lag| lag.receive),
            "replay_lag": self.lag().map(|lag| lag.replay),
        });
        for (key, lines) in &report.troubles {
            ours[*key] = json!(lines);
        }
        ours
    }

    /// The JSON of `/patroni` and of every health check.
    pub(super) fn document(&self, api: &Api) -> Value {
        let config = &api.config;
        let mut document = Map::new();
        document.insert("state".to_owned(), json!(self.state()));
        document.insert("role".to_owned(), json!(self.role()));
        if let Some(postgres) = &self.postgres {
            add_postgres(&mut document, postgres);
        }
        let mut put = |key: &str, value: Value| document.insert(key.to_owned(), value);
        if self.is_sync_standby(&config.name) {
            put("sync_standby", json!(true));
        }
        if let Some(report) = &self.report {
            if report.cluster.as_ref().is_none_or(|cluster| cluster.leader.is_none()) {
                put("cluster_unlocked", json!(true));
            }
            put("dcs_last_seen", json!(report.dcs_last_seen.map_or(0, |seen| seen.as_second())));
        }
        put("outrider", self.ours(api));
        if !config.tags.is_empty() {
            put("tags", Value::Object(config.tags.clone()));
        }
        put(
            "patroni",
            json!({"version": env!("CARGO_PKG_VERSION"), "scope": config.scope, "name": config.name}),
        );
        Value::Object(document)
    }
}

fn add_postgres(document: &mut Map<String, Value>, postgres: &Observation) {
    let mut put = |key: &str, value: Value| document.insert(key.to_owned(), value);
    put("postmaster_start_time", json!(with_minutes(&postgres.postmaster_start_time)));
    put("server_version", json!(postgres.server_version));
    put("database_system_identifier", json!(postgres.system_identifier.to_string()));
    put("timeline", json!(postgres.timeline.get()));
    put(
        "xlog",
        match &postgres.role {
            Role::Primary { flushed } => json!({"location": flushed.get()}),
            Role::Standby { received, replayed, replayed_timestamp, replay_paused, .. } => json!({
                // As in Patroni: one that never streamed has received what it has replayed.
                "received_location": if *received == Lsn::INVALID { replayed.get() } else { received.get() },
                "replayed_location": replayed.get(),
                "replayed_timestamp": replayed_timestamp.as_deref().map(with_minutes),
                "paused": replay_paused,
            }),
        },
    );
    if let Some(replication_state) = postgres.replication_state() {
        put("replication_state", json!(replication_state));
    }
    if !postgres.walsenders.is_empty() {
        put("replication", postgres.walsenders.iter().map(walsender).collect());
    }
    if !postgres.pending_restart.is_empty() {
        put("pending_restart", json!(true));
        put("pending_restart_reason", pending_restart_reason(&postgres.pending_restart));
    }
}

fn walsender(sender: &WalSender) -> Value {
    json!({
        "usename": sender.usename,
        "application_name": sender.application_name,
        "client_addr": sender.client_addr,
        "state": sender.state,
        "sync_state": sender.sync_state,
        "sync_priority": sender.sync_priority,
    })
}

/// The store in which this member finds no keys of a cluster.
fn finds_blank(report: &Report) -> Option<StoreId> {
    match &report.view.dcs {
        Dcs::Seen(cluster) if cluster.blank => cluster.store,
        Dcs::Seen(_) | Dcs::Silent { .. } => None,
    }
}

/// To the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// PostgreSQL omits the minutes of an offset when they are 0; Patroni does not.
fn with_minutes(timestamp: &str) -> String {
    match timestamp.rfind(['+', '-']) {
        Some(at) if timestamp.len() - at == 3 => format!("{timestamp}:00"),
        _ => timestamp.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_written_as_patroni_writes_them() {
        assert_eq!(with_minutes("2026-11-24 11:08:08.54+00"), "2026-11-24 11:08:08.54+00:00");
        assert_eq!(with_minutes("2026-11-24 11:08:08.54+05:30"), "2026-11-24 11:08:08.54+05:30");
    }
}
