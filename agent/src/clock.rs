//! The one place that reads the time.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Now, by the monotonic clock; it may not count sleep.
#[must_use]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// How long ago that was, by the same clock.
#[must_use]
pub(crate) fn since(at: Instant) -> Duration {
    Instant::now().saturating_duration_since(at)
}

/// Now, by the wall clock; for people only.
#[must_use]
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

/// Nanoseconds since boot, counting sleep and pauses of a virtual machine: the clock of the fuse.
#[must_use]
pub(crate) fn boottime_ns() -> u64 {
    outrider_supervisor::boottime_ns()
}

/// Time from now until `deadline_ns` of [`boottime_ns`]; zero when it has passed.
#[must_use]
pub(crate) fn until_boottime(deadline_ns: u64) -> Duration {
    Duration::from_nanos(deadline_ns.saturating_sub(boottime_ns()))
}
