//! The one place of this crate that reads the wall clock, for times that people read. Measures no deadline.

use std::time::SystemTime;

/// Now, for a status line. Deadlines use the runtime's own clock.
#[expect(clippy::disallowed_methods, reason = "this is the clock of the crate")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
