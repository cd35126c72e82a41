//! `GET`, `PATCH` and `PUT /config`: the rules of the cluster, in the DCS. What no member could follow is refused.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Map, Value};
use tracing::info;

use super::Visitors;
use super::admission::Standing;
use super::answer::{dcs_fault, text};
use super::{body, perilous};
use crate::config::{self, Rest};

/// `GET /config`. From the DCS, so that who has just changed it sees the change; the last that was seen while it is silent.
pub(super) async fn show(State(visitors): State<Visitors>) -> Response {
    let cluster = match visitors.dcs.read().await {
        Ok(cluster) => Some(cluster),
        Err(_) => visitors.board.borrow().as_ref().and_then(|report| report.cluster.clone()),
    };
    match cluster.and_then(|cluster| cluster.config) {
        Some(entry) => Json(entry.value).into_response(),
        None => text(StatusCode::BAD_GATEWAY, "the cluster has no configuration yet"),
    }
}

/// `PATCH /config`: merges; `null` takes a key away.
pub(super) async fn patch(
    State(visitors): State<Visitors>,
    Extension(standing): Extension<Standing>,
    request: Request,
) -> Response {
    let changes = match body::object(request).await {
        Ok(changes) if changes.is_empty() => {
            return text(StatusCode::BAD_REQUEST, "expected a JSON object with a change");
        }
        Ok(changes) => changes,
        Err(answer) => return *answer,
    };
    let cluster = match visitors.dcs.read().await {
        Ok(cluster) => cluster,
        Err(fault) => return dcs_fault(&fault),
    };
    let Some(seen) = cluster.config else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the cluster has no configuration yet");
    };
    let mut wanted = seen.value.clone();
    merge(&mut wanted, &changes);
    replace(&visitors, standing, &wanted, Some(&seen.value), seen.revision).await
}

/// `PUT /config`: all of it anew.
pub(super) async fn put(
    State(visitors): State<Visitors>,
    Extension(standing): Extension<Standing>,
    request: Request,
) -> Response {
    let wanted = match body::object(request).await {
        Ok(wanted) => Value::Object(wanted),
        Err(answer) => return *answer,
    };
    match visitors.dcs.read().await.map(|cluster| cluster.config) {
        Ok(Some(seen)) => replace(&visitors, standing, &wanted, Some(&seen.value), seen.revision).await,
        Ok(None) => replace(&visitors, standing, &wanted, None, 0).await,
        Err(fault) => dcs_fault(&fault),
    }
}

async fn replace(
    visitors: &Visitors,
    standing: Standing,
    wanted: &Value,
    seen: Option<&Value>,
    revision: i64,
) -> Response {
    if seen == Some(wanted) {
        return Json(wanted).into_response();
    }
    let perilous = perilous::changes(seen.unwrap_or(&Value::Null), wanted);
    if standing == Standing::Anybody && !perilous.is_empty() {
        let socket = Rest::socket(&visitors.config.postgres.state_directory);
        let words = format!(
            "{}: may make a member run what somebody else wrote, name files, or let people in, so it is not taken without \
             authentication; set restapi.authentication, or send it as the agent's user or root by {}",
            perilous.join(", "),
            socket.display()
        );
        return text(StatusCode::FORBIDDEN, words);
    }
    if let Some(words) = new_violations(wanted, seen) {
        return text(StatusCode::BAD_REQUEST, words);
    }
    let written = match seen {
        Some(_) => visitors.dcs.replace_config(wanted, revision).await,
        None => visitors.dcs.create_config(wanted).await,
    };
    match written {
        Ok(revision) => {
            info!(revision, "the configuration of the cluster was changed through this member");
            visitors.waker.wake();
            Json(wanted).into_response()
        }
        Err(fault) => dcs_fault(&fault),
    }
}

/// What this change would make wrong. What was wrong before does not keep anybody from mending something else.
fn new_violations(wanted: &Value, seen: Option<&Value>) -> Option<String> {
    let before = seen.map(config::violations).unwrap_or_default();
    let faults: Vec<String> = config::violations(wanted)
        .into_iter()
        .filter(|violation| !before.contains(violation))
        .map(|violation| match violation.value {
            Some(value) => format!("{}: {value}: {}", violation.key, violation.rule),
            None => format!("{}: {}", violation.key, violation.rule),
        })
        .collect();
    (!faults.is_empty()).then(|| faults.join("\n"))
}

/// Patroni's merge: objects merge, `null` deletes, a scalar that reads the same stays as it is.
fn merge(target: &mut Value, changes: &Map<String, Value>) {
    let Value::Object(target) = target else {
        *target = Value::Object(Map::new());
        return merge(target, changes);
    };
    for (key, change) in changes {
        match (target.get_mut(key), change) {
            (_, Value::Null) => {
                target.shift_remove(key);
            }
            (Some(inner @ Value::Object(_)), Value::Object(change)) => merge(inner, change),
            (Some(inner), change) if reads_as(inner) == reads_as(change) => {}
            (_, Value::Object(change)) => {
                let mut inner = Value::Object(Map::new());
                merge(&mut inner, change);
                target.insert(key.clone(), inner);
            }
            (_, change) => {
                target.insert(key.clone(), change.clone());
            }
        }
    }
}

fn reads_as(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(mut target: Value, changes: &Value) -> Value {
        merge(&mut target, changes.as_object().unwrap());
        target
    }

    #[test]
    fn a_patch_merges_and_null_deletes() {
        let before = json!({"ttl": 30, "postgresql": {"parameters": {"a": 1, "b": 2}, "pg_hba": ["x"]}});
        let change = json!({"ttl": null, "postgresql": {"parameters": {"a": null, "c": 3}}, "new": {"x": null, "y": 1}});
        let after = json!({"postgresql": {"parameters": {"b": 2, "c": 3}, "pg_hba": ["x"]}, "new": {"y": 1}});
        assert_eq!(merged(before, &change), after);
        assert_eq!(merged(json!({"slots": {"a": 1}}), &json!({"slots": 5})), json!({"slots": 5}));
    }

    #[test]
    fn only_what_a_change_makes_wrong_is_refused() {
        let old = json!({"ttl": 1});
        assert_eq!(new_violations(&json!({"ttl": 1, "x": 1}), Some(&old)), None);
        let words = new_violations(&json!({"ttl": 5, "loop_wait": 4}), Some(&json!({"ttl": 5}))).unwrap();
        assert!(words.contains("loop_wait (4) + 2 * retry_timeout (1) must not exceed ttl (5)"), "{words}");
    }
}
