//! `GET`, `PATCH` and `PUT /config`: the rules of the cluster, in the DCS. Refuses what no member could follow.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use outrider_postgres::{Configuration, KnownParameters};
use serde_json::{Map, Value};
use tracing::info;

use super::Api;
use super::admission::Access;
use super::answer::{dcs_fault, text};
use super::{body, privileged};
use crate::config::{self, Judged, Rest};

/// Without a server there is nobody who knows.
const UNKNOWN: &str = "the Postgres of this member has never answered, so that nobody can say whether its parameters would be \
                       taken; ask another member, or try again when it runs";

/// `GET /config`. Reads the DCS, so that whoever has just changed it sees the change; the last rules seen while the DCS is
/// silent.
pub(super) async fn show(State(api): State<Api>) -> Response {
    let cluster = match api.dcs.read().await {
        Ok(cluster) => Some(cluster),
        Err(_) => api.reports.borrow().as_ref().and_then(|report| report.cluster.clone()),
    };
    match cluster.and_then(|cluster| cluster.config) {
        Some(entry) => Json(&*entry.value).into_response(),
        None => text(StatusCode::BAD_GATEWAY, "the cluster has no configuration yet"),
    }
}

/// `PATCH /config`: merges; `null` removes a key.
pub(super) async fn patch(
    State(api): State<Api>,
    Extension(access): Extension<Access>,
    request: Request,
) -> Response {
    let changes = match body::object(request).await {
        Ok(changes) if changes.is_empty() => {
            return text(StatusCode::BAD_REQUEST, "expected a JSON object with a change");
        }
        Ok(changes) => changes,
        Err(answer) => return *answer,
    };
    let cluster = match api.dcs.read().await {
        Ok(cluster) => cluster,
        Err(fault) => return dcs_fault(&fault),
    };
    let Some(seen) = cluster.config else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the cluster has no configuration yet");
    };
    let mut wanted = (*seen.value).clone();
    merge(&mut wanted, &changes);
    replace(&api, access, &wanted, Some(&seen.value), seen.revision).await
}

/// `PUT /config`: replaces everything.
pub(super) async fn put(
    State(api): State<Api>,
    Extension(access): Extension<Access>,
    request: Request,
) -> Response {
    let wanted = match body::object(request).await {
        Ok(wanted) => Value::Object(wanted),
        Err(answer) => return *answer,
    };
    match api.dcs.read().await.map(|cluster| cluster.config) {
        Ok(Some(seen)) => replace(&api, access, &wanted, Some(&seen.value), seen.revision).await,
        Ok(None) => replace(&api, access, &wanted, None, 0).await,
        Err(fault) => dcs_fault(&fault),
    }
}

async fn replace(api: &Api, access: Access, wanted: &Value, seen: Option<&Value>, revision: i64) -> Response {
    if seen == Some(wanted) {
        return Json(wanted).into_response();
    }
    let privileged = privileged::changes(seen.unwrap_or(&Value::Null), wanted);
    if access == Access::Anonymous && !privileged.is_empty() {
        let socket = Rest::socket(&api.config.postgres.state_directory);
        let words = format!(
            "{}: may make a member run what somebody else wrote, name files, or let people in, so it is not taken without \
             authentication; set restapi.authentication, or send it as the agent's user or root by {}",
            privileged.join(", "),
            socket.display()
        );
        return text(StatusCode::FORBIDDEN, words);
    }
    if let Err((code, words)) = check(api, wanted, seen).await {
        return text(code, words);
    }
    let written = match seen {
        Some(_) => api.dcs.replace_config(wanted, revision).await,
        None => api.dcs.create_config(wanted).await,
    };
    match written {
        Ok(revision) => {
            info!(revision, "the configuration of the cluster was changed through this member");
            api.waker.wake();
            Json(wanted).into_response()
        }
        Err(fault) => dcs_fault(&fault),
    }
}

/// Whether all members could follow the change; parameters are checked with the local Postgres.
async fn check(api: &Api, wanted: &Value, seen: Option<&Value>) -> Result<(), (StatusCode, String)> {
    let settings = &api.config.postgres;
    let for_postgres = |rules: Option<&Value>| rules.and_then(|rules| rules.get("postgresql")).cloned();
    let changes_postgres = for_postgres(seen) != for_postgres(Some(wanted));
    let report = api.reports.borrow().clone();
    let known = if changes_postgres {
        let live = api.observer.known_parameters().await.map(Arc::new);
        let known = live.or_else(|| report.as_ref().and_then(|report| report.known.clone()));
        Some(known.ok_or((StatusCode::SERVICE_UNAVAILABLE, UNKNOWN.to_owned()))?)
    } else {
        None
    };
    let last = report.map(|report| report.configuration.clone()).unwrap_or_default();
    let before = seen.map(|seen| judge(seen, api, known.as_deref(), &last)).unwrap_or_default();
    let after = judge(wanted, api, known.as_deref(), &last);
    let mut faults = new_violations(&after, &before);
    if faults.is_empty() && after.parameters != before.parameters {
        let tried = config::try_parameters(settings, &before.parameters, &after.parameters).await;
        faults.extend(tried.violations(&after.parameters).iter().map(ToString::to_string));
    }
    if faults.is_empty() { Ok(()) } else { Err((StatusCode::BAD_REQUEST, faults.join("\n"))) }
}

fn judge(rules: &Value, api: &Api, known: Option<&KnownParameters>, last: &Configuration) -> Judged {
    config::judge(rules, &api.config.postgres, known, last)
}

/// What a change would make wrong. What was wrong before does not keep anybody from fixing something else.
fn new_violations(after: &Judged, before: &Judged) -> Vec<String> {
    let new = after.violations.iter().filter(|violation| !before.violations.contains(violation));
    new.map(ToString::to_string).collect()
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
    use crate::config::sample;

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
        let settings = sample::config(None).postgres;
        let judge = |rules: &Value| config::judge(rules, &settings, None, &Configuration::default());
        let old = judge(&json!({"ttl": 1, "x": 1}));
        assert_eq!(new_violations(&judge(&json!({"ttl": 1, "x": 1, "loop_wait": 1})), &old), [""; 0]);
        let words = new_violations(&judge(&json!({"ttl": 5, "loop_wait": 4})), &judge(&json!({"ttl": 5})));
        assert_eq!(words, ["ttl: 5: loop_wait (4) + 2 * retry_timeout (1) must not exceed ttl (5)"]);
    }
}
