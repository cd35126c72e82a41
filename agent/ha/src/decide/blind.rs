//! The DCS is silent: nobody is promoted, nothing is changed, and a primary stops itself before its fuse does.

use crate::plan::{Plan, Step, StopMode};
use crate::reason::Reason;
use crate::view::{Job, View};

/// A primary goes on while its fuse has time, then stops in good order: a fast stop lets its standbys have everything,
/// the fuse would not.
pub(super) fn keep_or_step_down(view: &View) -> Plan {
    let left = view.local.fuse.unwrap_or_default();
    match left.checked_sub(view.policy.step_down_margin) {
        Some(time) if !time.is_zero() => {
            Plan::wait(Reason::DcsSilentKeeping).and_look_again_in(time.min(view.policy.loop_wait))
        }
        Some(_) | None if view.job == Some(Job::Stop) => Plan::wait(Reason::DcsSilentSteppingDown),
        Some(_) | None => Plan::step(Reason::DcsSilentSteppingDown, Step::Stop(StopMode::Fast)),
    }
}

/// A Postgres that would accept writes once it is up is held to the same deadline.
pub(super) fn wait_or_step_down(view: &View, writable: bool) -> Plan {
    if writable { keep_or_step_down(view) } else { wait() }
}

/// A standby keeps streaming and replaying, whatever it is connected to.
pub(super) fn wait() -> Plan {
    Plan::wait(Reason::DcsSilentWaiting)
}
