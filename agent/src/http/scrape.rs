//! `GET /metrics`, for Prometheus.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::Visitors;
use super::answer::text;
use crate::metrics;

/// What the last round said.
pub(super) async fn show(State(visitors): State<Visitors>) -> Response {
    let report = visitors.board.borrow().clone();
    let Some(report) = report else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "this member has not made its first round yet");
    };
    match metrics::encode(&report, &visitors.config, visitors.shelf.as_ref()) {
        Ok(written) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], written).into_response(),
        Err(fault) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the metrics: {fault}")),
    }
}
