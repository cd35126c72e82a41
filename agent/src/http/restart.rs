//! `POST /restart` requests a restart of this member, as in Patroni, or of several, one after the other. `DELETE /restart`
//! cancels what has not begun. `GET /restart` shows progress. Restarts nothing: the request is in the DCS.

mod wish;

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use outrider_dcs::{RestartRequest, RestartState};
use outrider_postgres::Observation;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tracing::info;

use self::wish::Wish;
use super::answer::{dcs_fault, text};
use super::status::Status;
use super::{Visitors, asked};
use crate::clock;

/// Longest wait for the outcome before answering.
const WAIT_MAX: Duration = Duration::from_secs(100);
/// Interval between reads of the DCS when it reports no change.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// `GET /restart`. Reads the DCS, so that whoever has just requested one sees it.
pub(super) async fn show(State(visitors): State<Visitors>) -> Response {
    match visitors.dcs.read().await {
        Ok(cluster) => {
            let asked = cluster.restart.map(|entry| entry.value);
            let (open, last): (Option<_>, Option<_>) = if asked.as_ref().is_some_and(RestartRequest::is_open)
            {
                (asked, None)
            } else {
                (None, asked)
            };
            Json(json!({"request": open, "last": last})).into_response()
        }
        Err(fault) => dcs_fault(&fault),
    }
}

/// `POST /restart`.
pub(super) async fn ask(State(visitors): State<Visitors>, request: Request) -> Response {
    let (wish, cluster) = match asked::wish(&visitors, request, Wish::read).await {
        Ok(both) => both,
        Err(answer) => return *answer,
    };
    if let Some(open) = cluster.restart.as_ref().filter(|entry| entry.value.is_open()) {
        return match &open.value.scheduled_at {
            Some(_) => text(StatusCode::CONFLICT, "Another restart is already scheduled"),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "restart already in progress; see GET /restart"),
        };
    }
    let members = match wish.members(&cluster, &visitors.config.name) {
        Ok(members) => members,
        Err((code, words)) => return text(code, words),
    };
    if !wish.is_for_several()
        && let Err(words) = fits(&wish, &visitors).await
    {
        return text(StatusCode::SERVICE_UNAVAILABLE, words);
    }
    if cluster.leader.is_none() {
        let words = "the cluster has no leader now, and nobody is restarted before it has one";
        return text(StatusCode::SERVICE_UNAVAILABLE, words);
    }
    let now = clock::wall();
    let (name, seen) = (&visitors.config.name, cluster.restart.map_or(0, |entry| entry.revision));
    let asked = RestartRequest {
        id: format!("{name}-{}", now.as_nanosecond()),
        by: name.clone(),
        at: now.to_string(),
        scheduled_at: wish.scheduled_at.clone(),
        pending: wish.pending,
        timeout_seconds: wish.timeout.map(|timeout| timeout.as_secs().max(1)),
        members,
        ..RestartRequest::default()
    };
    match visitors.dcs.write_restart(&asked, seen).await {
        Ok(_) => {}
        Err(fault) if fault.is_conflict() => {
            return text(StatusCode::CONFLICT, "Another restart was requested at the same time");
        }
        Err(fault) => return dcs_fault(&fault),
    }
    info!(id = asked.id, at = ?asked.scheduled_at, pending = asked.pending, "a restart was requested");
    visitors.waker.wake();
    match (&asked.scheduled_at, wish.wait) {
        (Some(_), true) => text(StatusCode::ACCEPTED, "Restart scheduled"),
        (_, false) => (StatusCode::ACCEPTED, Json(json!({"id": asked.id}))).into_response(),
        (None, true) => outcome(&visitors, &asked).await,
    }
}

/// `DELETE /restart`: a member that has begun finishes, nobody else begins.
pub(super) async fn cancel(State(visitors): State<Visitors>) -> Response {
    let cluster = match visitors.dcs.read().await {
        Ok(cluster) => cluster,
        Err(fault) => return dcs_fault(&fault),
    };
    let Some(entry) = cluster.restart.filter(|entry| entry.value.is_open()) else {
        return text(StatusCode::NOT_FOUND, "no restarts are scheduled");
    };
    let words =
        if entry.value.scheduled_at.is_some() { "scheduled restart deleted" } else { "restart cancelled" };
    let finished = Some(clock::wall().to_string());
    let taken_back = RestartRequest { cancelled: true, finished, ..entry.value };
    match visitors.dcs.write_restart(&taken_back, entry.revision).await {
        Ok(_) => {
            info!(id = taken_back.id, "the restart was cancelled");
            visitors.waker.wake();
            text(StatusCode::OK, words)
        }
        Err(fault) => dcs_fault(&fault),
    }
}

/// Patroni's conditions for a restart of this member.
async fn fits(wish: &Wish, visitors: &Visitors) -> Result<(), String> {
    let status = Status::now(visitors).await;
    let Some(postgres) = &status.postgres else {
        return Err(match status.state() {
            "starting" => "postgres is still starting".to_owned(),
            state => format!("postgres does not run here ({state})"),
        });
    };
    let role = if postgres.is_primary() { "primary" } else { "replica" };
    let is_pending = |postgres: &Observation| !postgres.pending_restart.is_empty();
    let fits = wish.role.as_deref().is_none_or(|wanted| wanted == role)
        && wish.below_version.is_none_or(|version| postgres.server_version < version)
        && (!wish.pending || wish.scheduled_at.is_some() || is_pending(postgres));
    if fits { Ok(()) } else { Err("restart conditions are not satisfied".to_owned()) }
}

async fn outcome(visitors: &Visitors, asked: &RestartRequest) -> Response {
    let mut changes = visitors.dcs.watch();
    let deadline = clock::monotonic() + WAIT_MAX;
    loop {
        changes.mark_unchanged();
        // A DCS that does not answer is asked again: until it does, the outcome is not known.
        let now = visitors.dcs.read().await.ok().and_then(|cluster| cluster.restart);
        if let Some(entry) = now.filter(|entry| entry.value.id != asked.id || !entry.value.is_open()) {
            return ended(&entry.value, asked);
        }
        if clock::monotonic() >= deadline {
            let words = format!(
                "restart status unknown after {} seconds; it goes on, see GET /restart",
                WAIT_MAX.as_secs()
            );
            return text(StatusCode::SERVICE_UNAVAILABLE, words);
        }
        wait(&mut changes, deadline.min(clock::monotonic() + LOOK_INTERVAL)).await;
    }
}

async fn wait(changes: &mut tokio::sync::watch::Receiver<outrider_dcs::Changes>, until: Instant) {
    tokio::select! {
        () = sleep_until(until) => {}
        // The watch ends only with the agent.
        _ = changes.changed() => {}
    }
}

fn ended(now: &RestartRequest, asked: &RestartRequest) -> Response {
    if now.id != asked.id {
        return text(StatusCode::SERVICE_UNAVAILABLE, "restart failed: another one took its place");
    }
    if now.cancelled {
        return text(StatusCode::SERVICE_UNAVAILABLE, "restart failed: it was cancelled");
    }
    if let Some(error) = &now.error {
        return text(StatusCode::SERVICE_UNAVAILABLE, format!("restart failed: {error}"));
    }
    let skipped = now.members.iter().all(|member| member.state == RestartState::Skipped);
    if skipped {
        return text(StatusCode::SERVICE_UNAVAILABLE, "restart conditions are not satisfied");
    }
    match now.members.as_slice() {
        [_] => text(StatusCode::OK, "restarted successfully"),
        _ => (StatusCode::OK, Json(json!(now))).into_response(),
    }
}

/// What `GET /cluster` shows for a member with a scheduled restart.
pub(super) fn scheduled(restart: Option<&RestartRequest>, member: &str) -> Option<Value> {
    let open = restart.filter(|restart| restart.is_open())?;
    let at = open.scheduled_at.as_ref()?;
    open.members
        .iter()
        .any(|one| one.name == member)
        .then(|| json!({"schedule": at, "restart_pending": open.pending}))
}
