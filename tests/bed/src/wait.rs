//! Waiting for a condition with a deadline: the only place of the bed that sleeps.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Looks until `look` finds something, for at most `limit`.
///
/// # Errors
/// When it did not come about in time; `what` is the end of the sentence "waited in vain until".
pub async fn wait_until<T>(
    what: impl std::fmt::Display,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Ok(Some(found)) = timeout(left, look()).await {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {:.1} s in vain until {what}", limit.as_secs_f64());
        }
        sleep(POLL).await;
    }
}

/// The time that a fault lasts, when this time is the fault itself. Nothing is waited for: see [`wait_until`].
pub async fn fault_lasts(time: Duration) {
    sleep(time).await;
}
