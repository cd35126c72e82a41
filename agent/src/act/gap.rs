//! Measures the gap in writing of a planned switchover, as the old primary sees it: from the stop of its own Postgres until
//! the new one says that it leads. Changes nothing.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::observe::peers::Peers;

/// Between two looks at the new primary.
const INTERVAL: Duration = Duration::from_millis(5);
/// Longer than this it is no gap but a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// The measurement under way.
pub(crate) struct Gap {
    task: JoinHandle<Option<Duration>>,
}

impl Drop for Gap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gap {
    /// Measures from `since` until the member whose API is at `api_url` leads.
    pub(super) fn measure(since: Instant, peers: Peers, api_url: String) -> Self {
        let task = tokio::spawn(async move {
            loop {
                let gap = clock::monotonic().saturating_duration_since(since);
                if gap > LIMIT {
                    return None;
                }
                if peers.leads(&api_url).await {
                    return Some(clock::monotonic().saturating_duration_since(since));
                }
                sleep(INTERVAL).await;
            }
        });
        Gap { task }
    }

    /// The gap, once the new primary leads; `None` when it does not come to that.
    pub(super) async fn measured(&mut self) -> Option<Duration> {
        (&mut self.task).await.ok().flatten()
    }
}
