//! `GET /cluster` and `GET /history`: all members as they published themselves, in Patroni's shape.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use outrider_dcs::{Member, Snapshot};
use outrider_wal::Lsn;
use serde_json::{Map, Value, json};

use super::Api;
use super::answer::text;
use super::restart;
use crate::lag::end_of_wal;
use crate::report::Report;

/// `GET /cluster`.
pub(super) async fn show(State(api): State<Api>) -> Response {
    let report = api.reports.borrow().clone();
    let Some((report, cluster)) = report.as_ref().and_then(|report| Some((report, report.cluster.as_ref()?)))
    else {
        return unseen();
    };
    let mut document = document(cluster, &api.config.scope);
    document.insert("outrider".to_owned(), ours(report, &api.config.name));
    Json(Value::Object(document)).into_response()
}

/// `GET /history`.
pub(super) async fn history(State(api): State<Api>) -> Response {
    let report = api.reports.borrow().clone();
    match report.as_ref().and_then(|report| report.cluster.as_ref()) {
        None => unseen(),
        Some(cluster) => {
            Json(json!(cluster.history.as_ref().map(|entry| entry.value.as_slice()).unwrap_or_default()))
                .into_response()
        }
    }
}

pub(super) fn unseen() -> Response {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "this member has not seen the DCS yet; ask another, or look at its log",
    )
}

/// Which member says so, and how fresh it is: one that is cut off from the DCS shows what it saw last.
fn ours(report: &Report, name: &str) -> Value {
    json!({
        "told_by": name,
        "dcs_last_seen": report.dcs_last_seen.map(|seen| seen.to_string()),
        "term": report.cluster.as_ref().map(|cluster| cluster.term),
        "rollback": report.cluster.as_ref().and_then(|cluster| cluster.rollback.as_ref()).map(|taken| &taken.claim),
        "request": report.cluster.as_ref().and_then(|cluster| cluster.failover.as_ref()).map(|entry| &entry.value),
        "switchover": report.cluster.as_ref().and_then(|cluster| cluster.intent.as_ref()).map(|intent| &intent.value),
    })
}

fn document(cluster: &Snapshot, scope: &str) -> Map<String, Value> {
    let mut members: Vec<&Member> = cluster.members.iter().collect();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    let mut document = Map::new();
    document.insert("members".to_owned(), members.iter().map(|one| member(one, cluster)).collect());
    document.insert("scope".to_owned(), json!(scope));
    if let Some(request) = cluster.failover.as_ref().map(|entry| &entry.value)
        && let Some(at) = &request.scheduled_at
    {
        let mut scheduled = Map::new();
        scheduled.insert("at".to_owned(), json!(at));
        scheduled.extend(request.leader.as_ref().map(|leader| ("from".to_owned(), json!(leader))));
        scheduled.extend(request.member.as_ref().map(|member| ("to".to_owned(), json!(member))));
        document.insert("scheduled_switchover".to_owned(), Value::Object(scheduled));
    }
    document
}

fn member(member: &Member, cluster: &Snapshot) -> Value {
    let leads = cluster.leader.as_ref().is_some_and(|leader| leader.name == member.name);
    let is_sync = cluster.sync.as_ref().is_some_and(|sync| sync.value.has_standby(&member.name));
    let role = match (leads, is_sync) {
        (true, _) => "leader",
        (false, true) => "sync_standby",
        (false, false) => "replica",
    };
    let replication_state = member.value.get("replication_state").and_then(Value::as_str);
    let state = if leads { member.state() } else { replication_state.or(member.state()) };
    let mut row = Map::new();
    let mut put = |key: &str, value: Value| row.insert(key.to_owned(), value);
    put("name", json!(member.name));
    put("role", json!(role));
    put("state", json!(state.unwrap_or_default()));
    put("api_url", json!(member.api_url().unwrap_or_default()));
    if let Some((host, port)) = member.conn_url().and_then(host_and_port) {
        put("host", json!(host));
        put("port", json!(port));
    }
    put("timeline", json!(member.timeline().unwrap_or_default()));
    for key in ["tags", "pending_restart", "pending_restart_reason", "outrider"] {
        if let Some(value) = member.value.get(key) {
            put(key, value.clone());
        }
    }
    if let Some(restart) =
        restart::scheduled(cluster.restart.as_ref().map(|entry| &entry.value), &member.name)
    {
        put("scheduled_restart", restart);
    }
    if !leads {
        let end = end_of_wal(cluster);
        let location = |key: &str| member.value.get(key).and_then(Value::as_u64).map(Lsn::new);
        for (name, at) in [("receive", location("receive_lsn")), ("replay", location("replay_lsn"))] {
            put(&format!("{name}_lag"), lag(at, end));
            put(&format!("{name}_lsn"), lsn(at));
        }
        put("lag", lag(member.xlog_location(), end));
        put("lsn", lsn(member.xlog_location()));
    }
    Value::Object(row)
}

fn lag(at: Option<Lsn>, end: Lsn) -> Value {
    at.map_or(json!("unknown"), |at| json!(end.get().saturating_sub(at.get())))
}

fn lsn(at: Option<Lsn>) -> Value {
    at.map_or(json!("unknown"), |at| json!(at.to_string()))
}

/// Of `postgres://host:port/postgres`.
fn host_and_port(url: &str) -> Option<(&str, u16)> {
    let rest = url.split_once("://")?.1;
    let address = rest.split_once('/').map_or(rest, |(address, _)| address);
    let address = address.rsplit_once('@').map_or(address, |(_, address)| address);
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use outrider_dcs::{Entry, Failover, Leader, Status, SyncState};

    use super::*;
    use crate::sample::entry;

    fn seen() -> Snapshot {
        let leader = Leader { name: "p1".to_owned(), term: 1, revision: 1, lease: 1, mine: false };
        let sync = SyncState::parse(r#"{"leader":"p1","sync_standby":"p2"}"#);
        Snapshot {
            leader: Some(leader),
            members: vec![
                entry("p3", json!({"state": "starting", "role": "replica"})),
                entry(
                    "p2",
                    json!({"conn_url": "postgres://h:5433/postgres", "api_url": "http://h:8009/patroni", "state": "running",
                           "role": "replica", "timeline": 5, "xlog_location": 0x0400_0060, "replication_state": "streaming",
                           "receive_lsn": 0x0400_0060, "replay_lsn": 0x0400_0050, "outrider": {"reason": "following"}}),
                ),
                entry(
                    "p1",
                    json!({"conn_url": "postgres://[::1]:5432/postgres", "state": "running", "role": "primary",
                           "timeline": 5, "xlog_location": 0x0400_0070}),
                ),
            ],
            status: Some(Entry { value: Status::parse("67108960"), revision: 1 }),
            sync: Some(Entry { value: sync, revision: 1 }),
            ..Snapshot::default()
        }
    }

    #[test]
    fn members_are_shown_in_patronis_shape() {
        let document = Value::Object(document(&seen(), "demo"));
        assert_eq!(
            document["members"][0],
            json!({"name": "p1", "role": "leader", "state": "running", "api_url": "", "host": "::1", "port": 5432, "timeline": 5})
        );
        assert_eq!(
            document["members"][1],
            json!({"name": "p2", "role": "sync_standby", "state": "streaming", "api_url": "http://h:8009/patroni", "host": "h",
                   "port": 5433, "timeline": 5, "outrider": {"reason": "following"}, "receive_lag": 16, "receive_lsn": "0/4000060",
                   "replay_lag": 32, "replay_lsn": "0/4000050", "lag": 16, "lsn": "0/4000060"})
        );
        for key in ["lag", "lsn", "receive_lag", "receive_lsn", "replay_lag", "replay_lsn"] {
            assert_eq!(document["members"][2][key], "unknown", "{key}");
        }
        assert_eq!(document["scope"], "demo");
    }

    #[test]
    fn a_scheduled_switchover_is_shown() {
        let request = r#"{"leader":"p1","scheduled_at":"2026-01-01T12:00+00:00"}"#;
        let failover = Failover::parse(request).map(|value| Entry { value, revision: 3 });
        let document = document(&Snapshot { failover, ..seen() }, "demo");
        assert_eq!(document["scheduled_switchover"], json!({"at": "2026-01-01T12:00+00:00", "from": "p1"}));
    }
}
