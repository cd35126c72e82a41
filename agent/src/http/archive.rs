//! `GET /backups`: the base backups in the archive and the recovery window. `GET /archive`: the state of shipping and
//! streaming WAL, and what could be restored now.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use outrider_archive::catalog::{Backup, BackupState, Catalog, Window};
use outrider_archive::{BackupInfo, Status, StreamStatus};
use serde_json::{Value, json};

use super::Api;
use super::answer::text;
use super::backup::document;
use crate::backup::{CatalogCache, CatalogSnapshot, Drills};
use crate::log::causes;

/// Maximum age of what is shown.
const AGE_MAX: Duration = Duration::from_secs(10);

/// `GET /backups`.
pub(super) async fn backups(State(api): State<Api>) -> Response {
    let Some(catalog) = &api.catalog else { return none() };
    match catalog.look(AGE_MAX).await {
        Ok(seen) => Json(listed(catalog, &seen)).into_response(),
        Err(fault) => text(StatusCode::SERVICE_UNAVAILABLE, causes(&fault)),
    }
}

/// `GET /archive`. Answers also while the store is down, with what was last seen.
pub(super) async fn archive(State(api): State<Api>) -> Response {
    let Some(catalog) = &api.catalog else { return none() };
    let report = api.reports.borrow().clone();
    let (seen, fault) = match catalog.look(AGE_MAX).await {
        Ok(seen) => (Some(seen), None),
        Err(fault) => (catalog.last(), Some(causes(&fault))),
    };
    let cluster = report.as_ref().and_then(|report| report.cluster.as_ref());
    let shipping = report.as_ref().and_then(|report| report.archive.as_ref());
    let streaming = report.as_ref().and_then(|report| report.stream.as_ref());
    let window = seen.as_ref().and_then(|seen| seen.catalog.window());
    Json(json!({
        "archive": catalog.url(),
        "told_by": api.config.name,
        "shipping": shipping.map(status),
        "streaming": streaming.map(stream),
        "kept_for_gap": report.as_ref().and_then(|report| report.kept_for_gap).map(|from| from.to_string()),
        "fault": fault,
        "read_at": seen.as_ref().map(|seen| seen.at.to_string()),
        "window": window.as_ref().map(shown_window),
        "backup": cluster.map(document),
        "drill": drill(&catalog.drills()),
        "last_verified": catalog.verified().map(|at| at.to_string()),
    }))
    .into_response()
}

fn none() -> Response {
    text(StatusCode::NOT_FOUND, "this member has no archive: set archive.store")
}

fn listed(catalog: &CatalogCache, seen: &CatalogSnapshot) -> Value {
    let Catalog { backups, wal, .. } = &seen.catalog;
    json!({
        "archive": catalog.url(),
        "read_at": seen.at.to_string(),
        "window": seen.catalog.window().as_ref().map(shown_window),
        "wal": {"segments": wal.segments, "bytes": wal.bytes},
        "backups": backups.iter().map(backup).collect::<Vec<_>>(),
    })
}

fn backup(backup: &Backup) -> Value {
    let (state, problem) = match &backup.state {
        BackupState::Good(_) => ("good", None),
        BackupState::Lacking { missing, .. } => ("lacking", Some(missing.clone())),
        BackupState::Failed(info) => ("failed", info.error.clone()),
        BackupState::Unfinished => ("unfinished", None),
        BackupState::Foreign { .. } => ("foreign", backup.fault()),
        BackupState::Unreadable { fault } => ("unreadable", Some(fault.clone())),
    };
    let info = backup.info();
    let told = |read: fn(&BackupInfo) -> Option<String>| info.and_then(read);
    json!({
        "id": backup.id.to_string(),
        "state": state,
        "problem": problem,
        "began": told(|info| info.begin_time.map(|at| at.to_string())),
        "ended": told(|info| info.end_time.map(|at| at.to_string())),
        "timeline": info.and_then(|info| info.timeline).map(|timeline| timeline.get()),
        "begin_lsn": told(|info| info.begin_lsn.map(|lsn| lsn.to_string())),
        "end_lsn": told(|info| info.end_lsn.map(|lsn| lsn.to_string())),
        "begin_wal": told(|info| info.begin_wal.map(|wal| wal.to_string())),
        "end_wal": told(|info| info.end_wal.map(|wal| wal.to_string())),
        "system_identifier": told(|info| info.system_identifier.map(|system| system.to_string())),
        "bytes": info.and_then(|info| info.cluster_size),
        "bytes_stored": backup.bytes,
        "keep": backup.keep.map(|keep| keep.to_string()),
    })
}

fn shown_window(window: &Window) -> Value {
    let chain = &window.chain;
    json!({
        "first": {
            "backup": window.oldest.to_string(),
            "time": window.begin_time.map(|at| at.to_string()),
            "lsn": window.begin_lsn.map(|lsn| lsn.to_string()),
        },
        "last": {
            "time": window.end_time.map(|at| at.to_string()),
            "lsn": chain.end.to_string(),
            "timeline": chain.timeline.get(),
            "segment": chain.last.map(|segment| segment.to_string()),
        },
        "gaps": chain.gaps.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// What this member's shipper does; only the leader's ships.
fn status(status: &Status) -> Value {
    let archived = status.last_archived.as_ref();
    let failure = status.last_failure.as_ref();
    json!({
        "enabled": status.term.is_some(),
        "writer_term": status.term.filter(|_| status.claimed),
        "writer_conflict": status.writer_conflict,
        "archived_to": status.archived_to.map(|(timeline, lsn)| json!({"timeline": timeline.get(), "lsn": lsn.to_string()})),
        "in_flight": status.in_flight,
        "waiting_files": status.waiting,
        "waiting_bytes": status.waiting_bytes,
        "oldest_waiting_seconds": status.oldest_waiting.map(|age| age.as_secs_f64()),
        "free_bytes": status.free_bytes,
        "full_in_seconds": status.full_in.map(|left| left.as_secs()),
        "gaps": status.gaps.iter().map(|(first, last)| format!("{first} to {last}")).collect::<Vec<_>>(),
        "compared_at": status.compared_at.and_then(wall),
        "store_failing": status.store_failing,
        "last_archived": archived.map(|archived| archived.name.to_string()),
        "last_archived_at": archived.and_then(|archived| wall(archived.at)),
        "last_failure": failure.map(|failure| failure.text.as_str()),
        "last_failure_at": failure.and_then(|failure| wall(failure.at)),
        "conflict": status.conflict.as_ref().map(|conflict| conflict.object.as_str()),
        "refused": status.refused.iter().map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>(),
    })
}

/// How much of the unfinished segment is in the archive.
fn stream(status: &StreamStatus) -> Value {
    json!({
        "enabled": status.term.is_some(),
        "segment": status.segment.map(|segment| segment.to_string()),
        "streamed_to": status.streamed_to.map(|lsn| lsn.to_string()),
        "flushed": status.flushed.map(|lsn| lsn.to_string()),
        "behind_bytes": status.behind_bytes(),
        "behind_seconds": status.behind().as_secs_f64(),
        "chunks": status.counters.chunks,
        "bytes": status.counters.bytes_in,
        "bytes_stored": status.counters.bytes_out,
        "last_streamed_at": status.last_streamed.and_then(wall),
        "store_failing": status.store_failing,
        "last_failure": status.last_failure.as_ref().map(|(text, _)| text.as_str()),
        "last_failure_at": status.last_failure.as_ref().and_then(|(_, at)| wall(*at)),
        "conflict": status.conflict,
    })
}

/// The restore drills of this member.
fn drill(drills: &Drills) -> Value {
    let Drills { running, done, failed, skipped, given_up, last_fault } = drills;
    json!({
        "running": running,
        "done": done,
        "failed": failed,
        "skipped": skipped,
        "given_up": given_up,
        "last_fault": last_fault,
    })
}

/// In the format of the document's other times.
fn wall(at: SystemTime) -> Option<String> {
    Timestamp::try_from(at).ok().map(|at| at.to_string())
}
