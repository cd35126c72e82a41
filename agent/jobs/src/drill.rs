//! Restore drills: which member makes the one that is due, whether there is room for it, and when it is given up. No claim and no
//! request: all members see the same cluster, and one of them is the first standby by name.

use crate::turn;
use crate::view::View;

/// What is left free at least; the replay of WAL makes a server grow.
const RESERVE_MIN: u64 = 1 << 30;
/// And as this part of the server.
const RESERVE_PART: u64 = 10;

/// What this agent knows of drills, and has in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// None is due, or it is not yet time to find out.
    NotDue,
    /// One is due as far as this member knows: what the archive knows was not asked yet.
    Due,
    /// One is due by what the archive knows, too.
    Confirmed {
        /// The size of the server, in bytes.
        size: u64,
        /// What the directory of drills has left, in bytes; `None` when that cannot be seen.
        free: Option<u64>,
    },
    /// One is under way.
    Running {
        /// The size of the server, in bytes.
        size: u64,
        /// What the directory of drills has left, in bytes; `None` when that cannot be seen.
        free: Option<u64>,
    },
}

/// Why a drill is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GivenUp {
    /// Another member is to make it, or this one ends.
    Anothers,
    /// It would fill the volume.
    Scarce,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Nothing now.
    Wait,
    /// Ask the archive whether one is due, and how large the server is.
    Look,
    /// Begin.
    Begin,
    /// Leave it out this time: there is no room.
    Skip,
    /// Tell the drill to stop.
    GiveUp(GivenUp),
}

/// What is done next.
#[must_use]
pub fn next(view: &View, job: &Job) -> Step {
    let mine = is_mine(view);
    match job {
        Job::NotDue => Step::Wait,
        Job::Due | Job::Confirmed { .. } if !mine => Step::Wait,
        Job::Due => Step::Look,
        Job::Confirmed { size, free } => {
            let has_room = free.is_some_and(|free| free >= size.saturating_add(reserve(*size)));
            if has_room { Step::Begin } else { Step::Skip }
        }
        Job::Running { .. } if !mine => Step::GiveUp(GivenUp::Anothers),
        Job::Running { size, free } if free.is_some_and(|free| free < reserve(*size) / 2) => {
            Step::GiveUp(GivenUp::Scarce)
        }
        Job::Running { .. } => Step::Wait,
    }
}

/// What a restore of a server of this size leaves free, in bytes.
#[must_use]
pub fn reserve(size: u64) -> u64 {
    RESERVE_MIN.max(size / RESERVE_PART)
}

/// Whether this member is the one that drills: the first standby by name, the leader where there is none. So there is one
/// at a time, and a primary has better things to do.
fn is_mine(view: &View) -> bool {
    let Some(leader) = &view.leader else { return false };
    let standbys = turn::order(view).into_iter().filter(|name| *name != leader.name);
    let runs_it = standbys.min().unwrap_or(&leader.name);
    runs_it == view.me && view.is_what_others_think() && !view.is_ending()
}
