//! The health checks of load balancers and of Kubernetes: a path is a question about this member, 200 is yes, 503 is no.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, RawQuery, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use outrider_ha::Replay;
use outrider_postgres::memory_bytes;
use serde_json::{Value, json};

use super::Visitors;
use super::answer::text;
use super::status::Status;
use crate::clock;
use crate::config::Config;
use crate::member::replay;

/// Minimum lag that still counts as ready: a cluster limit of 0, which no standby under load meets all the time, would make
/// readiness flap.
const READY_LAG_MIN: u64 = 1 << 20;

/// The question that a path asks.
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
    /// Matches parts of the path in Patroni's order, so that `/foo-primary` works as it does there.
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

    /// Whether it is about a standby, whose lag then matters.
    const fn is_about_standbys(self) -> bool {
        match self {
            Question::Replica
            | Question::ReadOnly
            | Question::Sync
            | Question::Async
            | Question::ReadOnlySync => true,
            Question::Primary | Question::Health | Question::Unknown => false,
        }
    }
}

/// The conditions in the query string. Of several with the same name the first counts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Conditions {
    /// In bytes.
    lag: Option<u64>,
    replication_state: Option<String>,
    /// `mode=write`: the received position counts instead of the replayed one.
    written: bool,
    tags: Vec<(String, String)>,
}

impl Conditions {
    /// # Errors
    /// In words, when a value is invalid: a mistyped limit must not look as if all were well.
    fn of(query: Option<&str>) -> Result<Self, String> {
        let uri = Uri::builder().path_and_query(format!("/?{}", query.unwrap_or_default())).build();
        let uri = uri.map_err(|fault| format!("cannot read the query string: {fault}"))?;
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&uri)
            .map_err(|fault| format!("cannot read the query string: {fault}"))?;
        let mut conditions = Conditions::default();
        let mut known: Vec<&str> = Vec::new();
        for (key, value) in &pairs {
            if known.contains(&key.as_str()) {
                continue;
            }
            known.push(key);
            match key.as_str() {
                "lag" => {
                    let bytes = memory_bytes(value)
                        .map_err(|rule| format!("lag={value}: {rule}; such as lag=16777216 or lag=16MB"))?;
                    conditions.lag = Some(bytes);
                }
                "replication_state" => conditions.replication_state = Some(value.clone()),
                "mode" => {
                    conditions.written = match value.as_str() {
                        "write" => true,
                        "apply" => false,
                        _ => return Err(format!("mode={value}: expected apply or write")),
                    };
                }
                _ => {
                    if let Some(tag) = key.strip_prefix("tag_") {
                        conditions.tags.push((tag.to_owned(), value.clone()));
                    }
                }
            }
        }
        Ok(conditions)
    }
}

/// Every other path.
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
    let verdict = match judge(uri.path(), query.as_deref(), &status, &visitors.config) {
        Ok(verdict) => verdict,
        Err(words) => return text(StatusCode::BAD_REQUEST, words),
    };
    let code = code(verdict.yes);
    if method != Method::GET {
        return code.into_response();
    }
    let mut document = status.document(&visitors);
    if let Some(why) = verdict.too_far_behind {
        document["outrider"]["too_far_behind"] = json!(why);
    }
    (code, Json(document)).into_response()
}

/// The answer about this member.
pub(super) struct Verdict {
    /// Whether it is what was asked for.
    pub(super) yes: bool,
    /// Why it is not, when it is a standby, a standby was asked for, and it has too much left to replay.
    pub(super) too_far_behind: Option<String>,
}

/// Whether this member is what the path and its conditions ask for.
///
/// # Errors
/// In words, when a condition is invalid.
pub(super) fn judge(
    path: &str,
    query: Option<&str>,
    status: &Status,
    config: &Config,
) -> Result<Verdict, String> {
    let (question, conditions) = (Question::of(path), Conditions::of(query)?);
    let yes = holds(question, &conditions, status, config);
    let behind = too_far_behind(&conditions, status).filter(|_| !yes && question.is_about_standbys());
    Ok(Verdict { yes, too_far_behind: behind })
}

/// `GET /liveness`: whether the agent makes its rounds. Asks nothing of Postgres.
pub(super) async fn liveness(State(visitors): State<Visitors>) -> StatusCode {
    let Some(report) = visitors.board.borrow().clone() else {
        return StatusCode::OK;
    };
    let patience = if report.lease_until_boottime_ns.is_some() { 1 } else { 2 };
    let age = Duration::try_from(clock::wall().duration_since(report.at)).unwrap_or_default();
    code(age <= report.next_round + report.view.policy.ttl * patience)
}

/// `GET /readiness`: whether it leads, or streams and is not far behind.
pub(super) async fn readiness(State(visitors): State<Visitors>, RawQuery(query): RawQuery) -> Response {
    let conditions = match Conditions::of(query.as_deref()) {
        Ok(conditions) => conditions,
        Err(words) => return text(StatusCode::BAD_REQUEST, words),
    };
    let status = Status::now(&visitors).await;
    code(status.is_leader() || is_ready(&conditions, &status)).into_response()
}

fn is_ready(conditions: &Conditions, status: &Status) -> bool {
    let of_cluster = status.report.as_ref().map_or(0, |report| report.view.policy.maximum_lag_on_failover);
    let limit = conditions.lag.unwrap_or(of_cluster.max(READY_LAG_MIN));
    let streams =
        status.postgres.as_ref().and_then(|postgres| postgres.replication_state()) == Some("streaming");
    let lag = status.lag().map(|lag| if conditions.written { lag.receive } else { lag.replay });
    streams && lag.is_some_and(|lag| lag <= limit)
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
    let state = status.postgres.as_ref().and_then(|postgres| postgres.replication_state());
    let is_in_state = conditions.replication_state.as_deref().is_none_or(|wanted| state == Some(wanted));
    let is_near = too_far_behind(conditions, status).is_none();
    status.is_standby() && noloadbalance != Some(&Value::Bool(true)) && is_near && is_in_state
}

/// Why a standby has too much left to replay for the request, or else for the rules of the cluster.
fn too_far_behind(conditions: &Conditions, status: &Status) -> Option<String> {
    let of_cluster = status.report.as_ref().and_then(|report| report.maximum_lag_on_replica);
    let (limit, named) = match conditions.lag {
        Some(limit) => (limit, "lag"),
        None => (of_cluster?, "maximum_lag_on_replica"),
    };
    let behind = status.lag()?.replay;
    let replay = status.postgres.as_ref().and_then(replay::of);
    let cause = replay.as_ref().and_then(Replay::cause).map(|cause| format!(": {cause}"));
    (behind > limit).then(|| {
        format!("{behind} bytes still to replay, more than {limit} ({named}){}", cause.unwrap_or_default())
    })
}

/// A tag that is not a text is compared in lower case, as Python prints it.
fn has_tag(tag: Option<&Value>, wanted: &str) -> bool {
    match tag {
        None => false,
        Some(Value::String(text)) => text == wanted,
        Some(other) => other.to_string().to_lowercase() == wanted,
    }
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
        ))
        .unwrap();
        assert_eq!(conditions.lag, Some(16 << 20));
        assert_eq!(conditions.tags, [("zone".to_owned(), "a".to_owned())]);
        assert_eq!(conditions.replication_state.as_deref(), Some("in archive recovery"));
    }

    #[test]
    fn a_limit_is_read_in_postgresqls_units_and_what_is_none_is_refused() {
        let lag = |query| Conditions::of(Some(query)).map(|conditions| conditions.lag);
        for (query, bytes) in [
            ("lag=1048576", 1 << 20),
            ("lag=1024kB", 1 << 20),
            ("lag=16+MB", 16 << 20),
            ("lag=1%2E5GB", 3 << 29),
            ("lag=0", 0),
        ] {
            assert_eq!(lag(query), Ok(Some(bytes)), "{query}");
        }
        assert_eq!(Conditions::of(None).unwrap().lag, None);
        for query in ["lag=much", "lag=", "lag", "lag=-1", "lag=16mb", "lag=1s", "lag=%ff", "mode=read"] {
            assert!(lag(query).is_err(), "{query}");
        }
    }

    #[test]
    fn tags_are_compared_as_python_prints_them() {
        assert!(has_tag(Some(&Value::Bool(true)), "true"));
        assert!(has_tag(Some(&Value::from(5)), "5"));
        assert!(has_tag(Some(&Value::from("A")), "A") && !has_tag(Some(&Value::from("A")), "a"));
        assert!(!has_tag(None, "true"));
    }
}
