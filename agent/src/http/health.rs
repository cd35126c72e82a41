//! The health checks of load balancers and of Kubernetes: a path is a question about this member, 200 is yes, 503 is no.

use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::Visitors;
use super::status::Status;
use crate::clock;
use crate::config::Config;

/// A standby this far behind counts as ready where the cluster's own limit is smaller: a limit of 0, which no standby
/// under load meets at every moment, would make readiness flap.
const READY_LAG_MIN: u64 = 1 << 20;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Primary,
    Replica,
    ReadOnly,
    Health,
    Sync,
    Async,
    ReadOnlySync,
    Unknown,
}

impl Question {
    /// By parts of the path and in Patroni's order, so that `/foo-primary` works as it does there.
    fn of(path: &str) -> Self {
        let has = |part: &str| path.contains(part);
        if has("standby_leader") || has("standby-leader") {
            // There are no standby clusters, so no member leads one.
            Question::Unknown
        } else if path == "/" || ["leader", "primary", "master", "read-write"].iter().any(|part| has(part)) {
            Question::Primary
        } else if has("replica") {
            Question::Replica
        } else if has("read-only") && !has("sync") && !has("quorum") {
            Question::ReadOnly
        } else if has("health") {
            Question::Health
        } else {
            match path {
                "/sync" | "/synchronous" => Question::Sync,
                "/async" | "/asynchronous" => Question::Async,
                "/read-only-sync" | "/read-only-synchronous" => Question::ReadOnlySync,
                _ => Question::Unknown,
            }
        }
    }
}

/// The conditions behind the question mark. The first of several with one name counts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Conditions {
    lag: Option<u64>,
    replication_state: Option<String>,
    mode: Option<String>,
    tags: Vec<(String, String)>,
}

impl Conditions {
    fn of(query: Option<&str>) -> Self {
        let mut conditions = Conditions::default();
        for (key, value) in query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "lag" => conditions.lag = conditions.lag.or_else(|| bytes(value)),
                "replication_state" if conditions.replication_state.is_none() => {
                    conditions.replication_state = Some(value.replace(['+'], " ").replace("%20", " "));
                }
                "mode" if conditions.mode.is_none() => conditions.mode = Some(value.to_owned()),
                _ => {
                    if let Some(tag) = key.strip_prefix("tag_")
                        && !conditions.tags.iter().any(|(known, _)| known == tag)
                    {
                        conditions.tags.push((tag.to_owned(), value.to_owned()));
                    }
                }
            }
        }
        conditions
    }
}

/// Every path that is nothing else.
pub(super) async fn check(
    State(visitors): State<Visitors>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Response {
    if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(&method) {
        return (StatusCode::NOT_IMPLEMENTED, format!("Unsupported method ('{method}')\n")).into_response();
    }
    let status = Status::now(&visitors).await;
    let yes = judge(uri.path(), query.as_deref(), &status, &visitors.config);
    let code = if yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if method == Method::GET {
        (code, Json(status.document(&visitors))).into_response()
    } else {
        code.into_response()
    }
}

/// Whether this member is what the path and the conditions behind it ask for.
pub(super) fn judge(path: &str, query: Option<&str>, status: &Status, config: &Config) -> bool {
    holds(Question::of(path), &Conditions::of(query), status, config)
}

/// The agent makes its rounds: `GET /liveness`. Asks nothing of Postgres.
pub(super) async fn liveness(State(visitors): State<Visitors>) -> StatusCode {
    let Some(report) = visitors.board.borrow().clone() else {
        return StatusCode::OK;
    };
    let patience = if report.lease_until_boottime_ns.is_some() { 1 } else { 2 };
    let age = Duration::try_from(clock::wall().duration_since(report.at)).unwrap_or_default();
    code(age <= report.next_round + report.view.policy.ttl * patience)
}

/// Leads, or streams and is not far behind: `GET /readiness`.
pub(super) async fn readiness(State(visitors): State<Visitors>, RawQuery(query): RawQuery) -> StatusCode {
    let conditions = Conditions::of(query.as_deref());
    let status = Status::now(&visitors).await;
    if status.is_leader() {
        return StatusCode::OK;
    }
    let of_cluster = status.report.as_ref().map_or(0, |report| report.view.policy.maximum_lag_on_failover);
    let limit = conditions.lag.unwrap_or(of_cluster.max(READY_LAG_MIN));
    let streams =
        status.postgres.as_ref().and_then(|postgres| postgres.replication_state()) == Some("streaming");
    let written = conditions.mode.as_deref() == Some("write");
    let lag = status.lag().map(|lag| if written { lag.receive } else { lag.replay });
    code(streams && lag.is_some_and(|lag| lag <= limit))
}

fn code(yes: bool) -> StatusCode {
    if yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn holds(question: Question, conditions: &Conditions, status: &Status, config: &Config) -> bool {
    let (tags, me) = (&config.tags, &config.name);
    let leader = status.is_leader();
    let replica = || is_usable_replica(conditions, status, tags.get("noloadbalance"));
    let with_tags =
        |yes: bool| yes && conditions.tags.iter().all(|(tag, wanted)| has_tag(tags.get(tag), wanted));
    match question {
        Question::Primary => leader,
        Question::Replica => with_tags(replica()),
        Question::ReadOnly => with_tags(leader || replica()),
        Question::Health => with_tags(status.postgres.is_some()),
        Question::Sync => with_tags(replica() && status.is_sync_standby(me)),
        Question::Async => with_tags(replica() && !status.is_sync_standby(me)),
        Question::ReadOnlySync => with_tags(leader || replica() && status.is_sync_standby(me)),
        Question::Unknown => false,
    }
}

fn is_usable_replica(conditions: &Conditions, status: &Status, noloadbalance: Option<&Value>) -> bool {
    let is_near = conditions.lag.is_none_or(|limit| status.lag().is_some_and(|lag| lag.replay <= limit));
    let state = status.postgres.as_ref().and_then(|postgres| postgres.replication_state());
    let is_in_state = conditions.replication_state.as_deref().is_none_or(|wanted| state == Some(wanted));
    status.is_standby() && noloadbalance != Some(&Value::Bool(true)) && is_near && is_in_state
}

/// A tag that is no text is compared in small letters, as Python prints it.
fn has_tag(tag: Option<&Value>, wanted: &str) -> bool {
    match tag {
        None => false,
        Some(Value::String(text)) => text == wanted,
        Some(other) => other.to_string().to_lowercase() == wanted,
    }
}

/// `16777216`, `16MB`, with PostgreSQL's units.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1_u64 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_in_patronis_order() {
        for (path, question) in [
            ("/", Question::Primary),
            ("/primary", Question::Primary),
            ("/leader", Question::Primary),
            ("/read-write", Question::Primary),
            ("/foo-primary", Question::Primary),
            ("/standby-leader", Question::Unknown),
            ("/replica", Question::Replica),
            ("/read-only", Question::ReadOnly),
            ("/read-only-sync", Question::ReadOnlySync),
            ("/health", Question::Health),
            ("/sync", Question::Sync),
            ("/asynchronous", Question::Async),
            ("/favicon.ico", Question::Unknown),
        ] {
            assert_eq!(Question::of(path), question, "{path}");
        }
    }

    #[test]
    fn the_first_of_several_conditions_counts() {
        let conditions = Conditions::of(Some(
            "lag=16MB&lag=1&tag_zone=a&tag_zone=b&replication_state=in%20archive%20recovery",
        ));
        assert_eq!(conditions.lag, Some(16 << 20));
        assert_eq!(conditions.tags, [("zone".to_owned(), "a".to_owned())]);
        assert_eq!(conditions.replication_state.as_deref(), Some("in archive recovery"));
        assert_eq!(Conditions::of(Some("lag=much")), Conditions::default());
    }

    #[test]
    fn tags_are_compared_as_python_prints_them() {
        assert!(has_tag(Some(&Value::Bool(true)), "true"));
        assert!(has_tag(Some(&Value::from(5)), "5"));
        assert!(has_tag(Some(&Value::from("A")), "A") && !has_tag(Some(&Value::from("A")), "a"));
        assert!(!has_tag(None, "true"));
    }
}
