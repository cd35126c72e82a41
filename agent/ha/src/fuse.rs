//! How long a fuse lives under a lease: it has blown, and Postgres is dead, before the lease can be another's.

use core::time::Duration;

/// Time that the supervisor may need to kill a busy Postgres.
pub const KILL_BUDGET: Duration = Duration::from_millis(500);

/// How long before its lease ends a fuse blows: the time to kill Postgres, and a tenth of the ttl, by which no two clocks differ.
#[must_use]
pub fn fuse_margin(ttl: Duration) -> Duration {
    ttl / 10 + KILL_BUDGET
}

/// How long a fuse may live that is armed when a lease of this ttl begins.
pub(crate) fn fuse_life(ttl: Duration) -> Duration {
    ttl.saturating_sub(fuse_margin(ttl))
}
