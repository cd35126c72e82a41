//! The one place of this crate that reads a clock.

use std::time::SystemTime;

use tokio::time::Instant;

/// Now, by the clock that does not jump; it may not count sleep.
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// Now, by the clock on the wall: for the names of backups and for times that people read.
#[expect(clippy::disallowed_methods, reason = "this is the clock of the crate")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
