//! Reads a request and the cluster at that moment. Judges neither.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use outrider_dcs::Snapshot;
use serde_json::{Map, Value};

use super::answer::{dcs_fault, text};
use super::{Api, body};

/// The request in the body, parsed by `read`, and what the DCS shows now; or the response when either fails.
pub(super) async fn parsed<Parsed, Words: Into<String>>(
    api: &Api,
    request: Request,
    read: impl FnOnce(&Map<String, Value>) -> Result<Parsed, (StatusCode, Words)>,
) -> Result<(Parsed, Snapshot), Box<Response>> {
    let object = body::object(request).await?;
    let parsed = read(&object).map_err(|(code, words)| Box::new(text(code, words)))?;
    let cluster = api.dcs.read().await.map_err(|fault| Box::new(dcs_fault(&fault)))?;
    Ok((parsed, cluster))
}
