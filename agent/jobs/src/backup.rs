//! Base backups: who takes a requested one, when the schedule requests one, and what happens to one that does not finish. When the
//! member that has claimed a request cannot go on, another member takes it over.

use alloc::string::String;
use core::time::Duration;

use crate::step::{self, Claim};
use crate::turn;
use crate::view::{Postgres, View};

/// After this many attempts, fail the request: it may be what kills the members that take it.
pub const ATTEMPTS_MAX: u32 = 5;

/// What is done next.
pub type Step = step::Step<GivenUp, Own>;

/// The DCS's keys for base backups, and what this agent has in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Who is taking one.
    pub claim: Claim,
    /// The request for one.
    pub request: Option<Request>,
    /// The last outcome in the DCS is that of what is in hand.
    pub recorded: bool,
    /// This member's schedule says that one is to be requested now.
    pub due: bool,
    /// What this agent has in hand.
    pub hand: Hand,
    /// How long a member waits for each member before it in the order.
    pub grace: Duration,
    /// How long a member whose own Postgres failed a backup leaves the request to others.
    pub declined: Duration,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its id.
    pub id: String,
    /// How often it has been started.
    pub attempts: u32,
    /// How long this member has seen it unclaimed.
    pub open_for: Duration,
    /// How long ago this member gave it back because its own Postgres failed.
    pub declined_for: Option<Duration>,
}

/// What an agent has in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hand {
    /// Nothing.
    Nothing,
    /// A backup is being taken.
    Running {
        /// The request that it answers.
        request: String,
        /// Whether Postgres was a standby when it began.
        on_standby: bool,
        /// It was told to stop.
        given_up: bool,
        /// There is progress that is not written yet.
        news: bool,
    },
    /// A backup has ended, and the DCS does not know.
    Ended {
        /// The request that it answers.
        request: String,
        /// Which attempt that was, from 1.
        attempts: u32,
        /// How it ended.
        end: End,
        /// Why it was told to stop before.
        given_up: Option<GivenUp>,
    },
}

/// How a backup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// It is in the archive, complete.
    Done,
    /// This member's Postgres failed; another's may not.
    FailedHere,
    /// Nobody could take it, or it was cancelled.
    Failed,
}

/// Why a backup is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GivenUp {
    /// The request was cancelled.
    Withdrawn,
    /// Another session has the claim; this one had expired.
    Lost,
    /// This member's Postgres has changed its role since it began.
    RoleChanged,
    /// This agent or its Postgres is told to end.
    Ending,
}

/// What only base backups do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Own {
    /// Request the one that is due.
    Ask,
    /// Delete this member's claim, and leave the request to another.
    GiveBack,
}

/// What is done next.
#[must_use]
pub fn next(view: &View, job: &Job) -> Step {
    match &job.hand {
        Hand::Nothing => look_for_work(view, job),
        Hand::Running { given_up: true, .. } => Step::Wait,
        Hand::Running { request, on_standby, news, .. } => {
            let wanted = is_wanted(job, request);
            match why_not(view, job, wanted, *on_standby) {
                Some(why) => Step::GiveUp(why),
                None if job.claim == Claim::Free => Step::TakeAgain,
                None if *news => Step::Report,
                None => Step::Wait,
            }
        }
        Hand::Ended { request, attempts, end, given_up } => {
            match becomes(*end, *given_up, *attempts) {
                Becomes::Recorded => step::record(job.claim, is_wanted(job, request), job.recorded),
                Becomes::Anothers if job.claim == Claim::Mine => Step::Own(Own::GiveBack),
                // Somebody else was first.
                Becomes::Anothers => Step::Forget,
            }
        }
    }
}

fn is_wanted(job: &Job, id: &str) -> bool {
    job.request.as_ref().is_some_and(|request| request.id == id)
}

fn why_not(view: &View, job: &Job, wanted: bool, on_standby: bool) -> Option<GivenUp> {
    let role_changed = match view.postgres {
        Postgres::Primary(_) => on_standby,
        Postgres::Standby => !on_standby,
        // Whether it comes back as what it was will show.
        Postgres::Silent | Postgres::Down => false,
    };
    if view.leaving {
        Some(GivenUp::Ending)
    } else if !wanted {
        Some(GivenUp::Withdrawn)
    } else if view.terminating {
        Some(GivenUp::Ending)
    } else if role_changed {
        Some(GivenUp::RoleChanged)
    } else if job.claim == Claim::Others {
        Some(GivenUp::Lost)
    } else {
        None
    }
}

/// What becomes of the request of a backup that has ended.
enum Becomes {
    /// It has its outcome.
    Recorded,
    /// Another member takes it up, or this one later.
    Anothers,
}

fn becomes(end: End, given_up: Option<GivenUp>, attempts: u32) -> Becomes {
    match (end, given_up) {
        (End::Done, _) | (End::FailedHere | End::Failed, Some(GivenUp::Withdrawn)) | (End::Failed, None) => {
            Becomes::Recorded
        }
        (End::FailedHere, None) if attempts >= ATTEMPTS_MAX => Becomes::Recorded,
        (End::FailedHere, None)
        | (End::FailedHere | End::Failed, Some(GivenUp::Lost | GivenUp::RoleChanged | GivenUp::Ending)) => {
            Becomes::Anothers
        }
    }
}

fn look_for_work(view: &View, job: &Job) -> Step {
    match (job.claim, &job.request) {
        // Left from an agent of this member that died with it.
        (Claim::Mine, _) => Step::Own(Own::GiveBack),
        (Claim::Free, None) if job.due && view.made && view.leads() && !view.leaving => Step::Own(Own::Ask),
        (Claim::Free, Some(request)) if is_my_turn(view, job, request) => {
            if request.attempts >= ATTEMPTS_MAX { Step::Refuse } else { Step::Take }
        }
        (Claim::Free | Claim::Others, _) => Step::Wait,
    }
}

fn is_my_turn(view: &View, job: &Job, request: &Request) -> bool {
    let declined = request.declined_for.is_some_and(|ago| ago < job.declined);
    let patience = turn::place(view).map(|place| job.grace * place);
    let is_next = !declined && patience.is_some_and(|patience| request.open_for >= patience);
    is_next && view.is_what_others_think() && !view.is_ending()
}
