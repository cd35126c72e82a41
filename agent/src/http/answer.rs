//! Answers that are a line of text, and how a failed request to the DCS is told.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use outrider_dcs::Error;

use crate::log::causes;

/// An answer with a line of text, as Patroni's tools show it.
pub(super) fn text(code: StatusCode, text: impl Into<String>) -> Response {
    (code, text.into()).into_response()
}

/// Somebody else was first (409: read again), or the DCS did not do it (503).
pub(super) fn dcs_fault(fault: &Error) -> Response {
    let code = if fault.is_conflict() { StatusCode::CONFLICT } else { StatusCode::SERVICE_UNAVAILABLE };
    text(code, causes(fault))
}
