//! Whether something fails here so often that somebody else is preferred.

use crate::view::{Job, View};

/// So many unexpected exits within a minute are a crash loop: a standby is preferred whatever it lacks within the
/// limits of the policy.
const CRASH_LOOP: u32 = 3;

/// Whether Postgres has ended, or could not even be started, again and again.
pub(super) fn never_comes_up(view: &View) -> bool {
    view.local.recent_crashes >= CRASH_LOOP || view.local.hopeless.contains(&Job::Start)
}
