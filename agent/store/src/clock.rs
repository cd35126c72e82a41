//! The one place of this crate that reads a clock.

use tokio::time::Instant;

/// Now, by the clock that does not jump; it may not count sleep.
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}
