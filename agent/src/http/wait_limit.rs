//! Limits how many requests may wait at one time for the DCS, the archive, a whole body or an outcome. Health checks are not
//! limited, so that they never wait behind these.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

/// Most waiting requests. Each may hold a body of a mebibyte.
const WAITING_MAX: usize = 32;

/// The waiting requests. Clones share it.
#[derive(Clone)]
pub(super) struct WaitLimit(Arc<Semaphore>);

impl WaitLimit {
    /// With nobody waiting.
    pub(super) fn new() -> Self {
        WaitLimit(Arc::new(Semaphore::new(WAITING_MAX)))
    }
}

/// Lets the request through, or answers at once that there are too many.
pub(super) async fn limit(
    State(WaitLimit(permits)): State<WaitLimit>,
    request: Request,
    next: Next,
) -> Response {
    match permits.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => {
            let words = format!("{WAITING_MAX} other requests are waiting for their answers; try again");
            let headers = [(RETRY_AFTER, "1"), (CONNECTION, "close")];
            (StatusCode::SERVICE_UNAVAILABLE, headers, words).into_response()
        }
    }
}
