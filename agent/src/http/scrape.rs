//! `GET /metrics`, for Prometheus.

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::Api;
use super::answer::text;
use crate::metrics::{self, Exposition};

/// Metrics from the last round.
pub(super) async fn show(State(api): State<Api>, headers: HeaderMap) -> Response {
    let report = api.reports.borrow().clone();
    let Some(report) = report else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "this member has not made its first round yet");
    };
    let exposition = Exposition::asked_for(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    match metrics::encode(&report, &api.config, api.catalog.as_ref(), exposition) {
        Ok(written) => {
            ([(CONTENT_TYPE, exposition.content_type()), (VARY, "Accept")], written).into_response()
        }
        Err(fault) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the metrics: {fault}")),
    }
}
