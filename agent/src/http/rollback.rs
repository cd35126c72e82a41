//! `POST /rollback` asks for the running cluster to be rolled back, `DELETE /rollback` takes that back until the swap begins,
//! `GET /rollback` says how far it is and how the last one ended. Does none: what is asked for stands in the DCS for the leader.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use outrider_archive::BackupId;
use outrider_dcs::{RollbackRequest, RollbackTarget, Snapshot};
use outrider_restore::Target;
use serde_json::{Map, Value, json};
use tracing::info;

use super::answer::{dcs_fault, text};
use super::{Visitors, asked};
use crate::clock;
use crate::rollback::goal;

/// `GET /rollback`. From the DCS, so that who has just asked for one sees the request.
pub(super) async fn show(State(visitors): State<Visitors>) -> Response {
    match visitors.dcs.read().await {
        Ok(cluster) => Json(document(&cluster)).into_response(),
        Err(fault) => dcs_fault(&fault),
    }
}

/// `POST /rollback`: 202 with the request; 409 with what runs already.
pub(super) async fn ask(State(visitors): State<Visitors>, request: Request) -> Response {
    let wish = |object: &Map<String, Value>| {
        read(&Value::Object(object.clone())).map_err(|words| (StatusCode::BAD_REQUEST, words))
    };
    let ((target, backup), cluster) = match asked::wish(&visitors, request, wish).await {
        Ok(both) => both,
        Err(answer) => return *answer,
    };
    if cluster.leader.is_none() {
        let words = "the cluster has no leader now, and only a leader can be rolled back; try again later";
        return text(StatusCode::SERVICE_UNAVAILABLE, words);
    }
    if cluster.rollback.is_some() || cluster.rollback_request.is_some() {
        return (StatusCode::CONFLICT, Json(document(&cluster))).into_response();
    }
    let now = clock::wall();
    let request = RollbackRequest {
        id: format!("{}-{}", visitors.config.name, now.as_nanosecond()),
        by: visitors.config.name.clone(),
        at: now.to_string(),
        target,
        backup,
        ..RollbackRequest::default()
    };
    match visitors.dcs.request_rollback(&request).await {
        Ok(_) => {}
        Err(fault) if fault.is_conflict() => {
            let words = "a rollback was requested at the same time; see GET /rollback";
            return text(StatusCode::CONFLICT, words);
        }
        Err(fault) => return dcs_fault(&fault),
    }
    info!(id = request.id, target = %json!(request.target), "a rollback was requested");
    visitors.waker.wake();
    (StatusCode::ACCEPTED, Json(json!({"id": request.id}))).into_response()
}

/// `DELETE /rollback`: the request goes, and the leader gives it up.
pub(super) async fn cancel(State(visitors): State<Visitors>) -> Response {
    let cluster = match visitors.dcs.read().await {
        Ok(cluster) => cluster,
        Err(fault) => return dcs_fault(&fault),
    };
    let Some(entry) = cluster.rollback_request else {
        return text(StatusCode::NOT_FOUND, "no rollback is requested or in progress");
    };
    if entry.value.swap.is_some() {
        let words = "the data is being swapped and it is too late to cancel; see GET /rollback";
        return text(StatusCode::CONFLICT, words);
    }
    // The request changes when the swap begins, and then this changes nothing.
    match visitors.dcs.withdraw_rollback(entry.revision).await {
        Ok(()) => {
            info!(id = entry.value.id, "the rollback was cancelled");
            visitors.waker.wake();
            (StatusCode::OK, Json(json!({"id": entry.value.id, "cancelled": true}))).into_response()
        }
        Err(fault) => dcs_fault(&fault),
    }
}

/// The target and the backup, as they go into the DCS: a time that counts from now is one on the wall there.
fn read(asked: &Value) -> Result<(RollbackTarget, Option<String>), String> {
    const KEYS: [&str; 9] = [
        "target_time",
        "target_lsn",
        "target_xid",
        "target_name",
        "immediate",
        "latest",
        "exclusive",
        "timeline",
        "backup",
    ];
    let keys = asked.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    if let Some(unknown) = keys.into_iter().find(|key| !KEYS.contains(key)) {
        return Err(format!("{unknown} is unknown; expected {}", KEYS.join(", ")));
    }
    let mut target: RollbackTarget =
        serde_json::from_value(asked.clone()).map_err(|fault| format!("not a target: {fault}"))?;
    let goal = goal(&target, clock::wall())?;
    if let Target::Time(time) = goal.target {
        target.target_time = Some(time.to_string());
    }
    let backup = match &asked["backup"] {
        Value::Null => None,
        Value::String(id) => {
            id.parse::<BackupId>().map_err(|fault| format!("backup: {fault}"))?;
            Some(id.clone())
        }
        other => return Err(format!("backup: {other} is not the name of a backup")),
    };
    Ok((target, backup))
}

/// The three records; what is not there is `null`.
fn document(cluster: &Snapshot) -> Value {
    json!({
        "request": cluster.rollback_request.as_ref().map(|entry| &entry.value),
        "running": cluster.rollback.as_ref().map(|taken| &taken.claim),
        "last": cluster.rollback_last.as_ref().map(|entry| &entry.value),
    })
}
