//! `POST /backup` asks for a base backup, `DELETE /backup` takes that back, `GET /backup` says how far it is and how the
//! last one ended. Takes none: what is asked for stands in the DCS for the member whose turn it is.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use outrider_dcs::{BackupOutcome, BackupRequest, Changes, Snapshot};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::info;

use super::Visitors;
use super::answer::{dcs_fault, text};
use crate::clock;

/// Interval between reads of the DCS when it reports no change.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A backup that takes longer than this is not waited for.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// `GET /backup`. From the DCS, so that who has just asked for one sees the request.
pub(super) async fn show(State(visitors): State<Visitors>) -> Response {
    match visitors.dcs.read().await {
        Ok(cluster) => Json(document(&cluster)).into_response(),
        Err(fault) => dcs_fault(&fault),
    }
}

/// `POST /backup`: 202 with the request, or with `?wait=true` its outcome; 409 with what runs already.
pub(super) async fn ask(
    State(visitors): State<Visitors>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if visitors.config.archive.is_none() {
        return text(StatusCode::PRECONDITION_FAILED, "this member has no archive: set archive.store");
    }
    let waits = matches!(query.get("wait").map(String::as_str), Some("true" | "1" | ""));
    let cluster = match visitors.dcs.read().await {
        Ok(cluster) => cluster,
        Err(fault) => return dcs_fault(&fault),
    };
    if cluster.leader.is_none() {
        let words = "the cluster has no leader now, and no backup ends without a primary; try again later";
        return text(StatusCode::SERVICE_UNAVAILABLE, words);
    }
    if cluster.backup.is_some() || cluster.backup_request.is_some() {
        return (StatusCode::CONFLICT, Json(document(&cluster))).into_response();
    }
    let now = clock::wall();
    let request = BackupRequest {
        id: format!("{}-{}", visitors.config.name, now.as_nanosecond()),
        by: visitors.config.name.clone(),
        at: now.to_string(),
        attempts: 0,
    };
    // Watched from before the request is written, so that nothing that comes of it is missed.
    let changes = visitors.dcs.watch();
    match visitors.dcs.request_backup(&request).await {
        Ok(_) => {}
        Err(fault) if fault.is_conflict() => {
            let words = "a backup was requested at the same time; see GET /backup";
            return text(StatusCode::CONFLICT, words);
        }
        Err(fault) => return dcs_fault(&fault),
    }
    info!(id = request.id, "a base backup was requested");
    visitors.waker.wake();
    if waits {
        return outcome(&visitors, &request.id, changes).await;
    }
    (StatusCode::ACCEPTED, Json(json!({"id": request.id}))).into_response()
}

/// `DELETE /backup`: the request goes, and whoever takes it gives it up.
pub(super) async fn cancel(State(visitors): State<Visitors>) -> Response {
    let cluster = match visitors.dcs.read().await {
        Ok(cluster) => cluster,
        Err(fault) => return dcs_fault(&fault),
    };
    let Some(entry) = cluster.backup_request else {
        return text(StatusCode::NOT_FOUND, "no backup is requested or in progress");
    };
    match visitors.dcs.withdraw_backup(entry.revision).await {
        Ok(()) => {
            info!(id = entry.value.id, "the base backup was cancelled");
            visitors.waker.wake();
            (StatusCode::OK, Json(json!({"id": entry.value.id, "cancelled": true}))).into_response()
        }
        Err(fault) => dcs_fault(&fault),
    }
}

/// Waits until the backup has ended or was taken back.
async fn outcome(visitors: &Visitors, id: &str, mut changes: watch::Receiver<Changes>) -> Response {
    let begun = clock::monotonic();
    while begun.elapsed() < WAIT_MAX {
        changes.mark_unchanged();
        // A DCS that does not answer is asked again: until it does, the outcome is not known.
        if let Ok(cluster) = visitors.dcs.read().await {
            if let Some(last) = cluster.backup_last.filter(|entry| entry.value.request == id) {
                return ended(&last.value);
            }
            let stands = cluster.backup_request.is_some_and(|entry| entry.value.id == id);
            let runs = cluster.backup.is_some_and(|taken| taken.claim.request == id);
            if !stands && !runs {
                return text(StatusCode::CONFLICT, "the backup was cancelled before it started");
            }
        }
        // Whether something has changed or the time is over: look.
        let _ = timeout(LOOK_INTERVAL, changes.changed()).await;
    }
    text(StatusCode::SERVICE_UNAVAILABLE, "the backup has not ended within a day; see GET /backup")
}

fn ended(outcome: &BackupOutcome) -> Response {
    let code = match &outcome.error {
        None => StatusCode::OK,
        Some(_) if outcome.cancelled => StatusCode::CONFLICT,
        Some(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, Json(json!(outcome))).into_response()
}

/// The three records; what is not there is `null`.
pub(super) fn document(cluster: &Snapshot) -> Value {
    json!({
        "request": cluster.backup_request.as_ref().map(|entry| &entry.value),
        "running": cluster.backup.as_ref().map(|taken| &taken.claim),
        "last": cluster.backup_last.as_ref().map(|entry| &entry.value),
    })
}
