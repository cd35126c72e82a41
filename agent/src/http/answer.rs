//! Responses with a line of text, and responses for failed requests to the DCS.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use outrider_dcs::Error;

use crate::log::causes;

/// A response with a line of text, as Patroni's tools show it.
pub(super) fn text(code: StatusCode, text: impl Into<String>) -> Response {
    (code, text.into()).into_response()
}

/// 409 when somebody else was first (read again), 503 when the DCS did not do it.
pub(super) fn dcs_fault(fault: &Error) -> Response {
    let code = if fault.is_conflict() { StatusCode::CONFLICT } else { StatusCode::SERVICE_UNAVAILABLE };
    text(code, causes(fault))
}
