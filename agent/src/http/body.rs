//! Reads a request's JSON object, with limits on size and time.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::answer::text;

/// Maximum size of a body, in bytes.
pub(super) const BODY_MAX: usize = 1 << 20;
/// Time limit for the whole body.
const BODY_LIMIT: Duration = Duration::from_secs(5);

/// The object in the body, or the response when it has none.
pub(super) async fn object(request: Request) -> Result<Map<String, Value>, Box<Response>> {
    let refuse = |code, words: String| Err(Box::new(text(code, words)));
    let bytes = match timeout(BODY_LIMIT, Bytes::from_request(request, &())).await {
        Err(_) => {
            let words = format!("no whole body within {} s", BODY_LIMIT.as_secs());
            return refuse(StatusCode::REQUEST_TIMEOUT, words);
        }
        Ok(Err(fault)) => return refuse(fault.status(), fault.body_text()),
        Ok(Ok(bytes)) => bytes,
    };
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => refuse(StatusCode::BAD_REQUEST, "expected a JSON object".to_owned()),
        Err(fault) => refuse(StatusCode::BAD_REQUEST, format!("cannot read the body as JSON: {fault}")),
    }
}
