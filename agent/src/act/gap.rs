//! Measures the gap in writing of a planned switchover, as the old primary sees it: from the stop of its own Postgres until
//! the new one says that it leads. Changes nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::clock;
use crate::instruments::Peers;
use crate::state::Background;

/// Between two looks at the new primary.
const INTERVAL: Duration = Duration::from_millis(5);
/// Longer than this it is no gap but a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures from `since` until the member whose API is at `api_url` leads. `None` when it does not come to that.
pub(super) fn measure(since: Instant, peers: Peers, api_url: String) -> Background<Option<Duration>> {
    Background::begin(async move {
        loop {
            if clock::since(since) > LIMIT {
                return Ok(None);
            }
            if peers.leads(&api_url).await {
                return Ok(Some(clock::since(since)));
            }
            sleep(INTERVAL).await;
        }
    })
}
