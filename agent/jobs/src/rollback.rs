//! Rollbacks of the running cluster. The leader claims a request once; one that does not finish is recorded as failed and never
//! retried, since rolling back is a person's decision. Until the swap it can be cancelled; after the swap it can only be finished.

use alloc::string::String;
use core::time::Duration;

use outrider_wal::TimelineId;

use crate::step::{self, Claim};
use crate::view::{Postgres, View};

/// Time limit for the round to begin the swap; it relaxes `/sync` and the setting first.
pub const OFFER_LIMIT: Duration = Duration::from_secs(30);

/// What is done next.
pub type Step = step::Step<GivenUp, Own>;

/// The DCS's keys for rollbacks, and what this agent has in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Who is doing one.
    pub claim: Claim,
    /// The request for one.
    pub request: Option<Request>,
    /// The last outcome in the DCS is that of what is in hand.
    pub recorded: bool,
    /// What this agent has in hand.
    pub hand: Hand,
    /// A rollback has left something beside this member's data that is to be removed.
    pub remains: bool,
    /// The request whose data an earlier agent of this member has put in its place.
    pub swapped: Option<String>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its id.
    pub id: String,
    /// A leader has started it.
    pub begun: bool,
}

/// What an agent has in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hand {
    /// Nothing.
    Nothing,
    /// A rollback is under way; the old data is still in place.
    Before {
        /// The request that it answers.
        request: String,
        /// The term of the lease under which it was begun.
        term: u64,
        /// The timeline of the cluster when it was begun.
        timeline: TimelineId,
        /// How far it is.
        stage: Stage,
        /// It was told to stop.
        given_up: bool,
        /// There is progress that is not written yet.
        news: bool,
    },
    /// The prepared data is in its place.
    Swapped {
        /// The timeline of that data.
        timeline: TimelineId,
        /// That is not written yet.
        news: bool,
    },
    /// It has ended, and the DCS does not know.
    Ended {
        /// The request that it answers.
        request: String,
    },
}

/// The stage of a rollback before its swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The data is being prepared.
    Preparing,
    /// It is prepared.
    Prepared,
    /// Offered to the round for the swap, for how long.
    Offered(Duration),
}

/// Why a rollback is told to stop before its swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GivenUp {
    /// The request was cancelled.
    Withdrawn,
    /// The leader lease was lost, even if it was regained.
    LeaseLost,
    /// This agent or its Postgres is told to end.
    Ending,
    /// Postgres of this member is down, or is on another timeline.
    Down,
    /// The round did not begin the swap in time.
    Late,
}

/// What only rollbacks do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Own {
    /// Remove what is left beside the data.
    CleanUp,
    /// Go on with the one whose data an earlier agent has put in its place; claim it first when nobody has.
    Resume,
    /// Forget that one: another member has ended it.
    LetEnd,
    /// Record that it can no longer be cancelled, and offer the prepared data to the round for the swap.
    Offer,
    /// Postgres runs with the prepared data: finish it as successful.
    Finish,
    /// The data was swapped, but another member leads with the old data: finish it as failed.
    EndSupplanted,
}

/// What is done next.
#[must_use]
pub fn next(view: &View, job: &Job) -> Step {
    match &job.hand {
        Hand::Ended { request } => step::record(job.claim, is_wanted(job, request), job.recorded),
        Hand::Swapped { .. } if view.leaving => Step::Wait,
        Hand::Swapped { timeline, news } => match watch_the_start(view, *timeline) {
            Some(end) => Step::Own(end),
            None if *news && job.claim == Claim::Mine => Step::Report,
            None => Step::Wait,
        },
        Hand::Before { given_up: true, .. } => Step::Wait,
        Hand::Before { request, term, timeline, stage, news, .. } => {
            match why_not(view, is_wanted(job, request), (*term, *timeline), *stage) {
                Some(why) => Step::GiveUp(why),
                None if *stage == Stage::Prepared => Step::Own(Own::Offer),
                None if *news && job.claim == Claim::Mine => Step::Report,
                None => Step::Wait,
            }
        }
        Hand::Nothing if job.remains => Step::Own(Own::CleanUp),
        Hand::Nothing if view.leaving => Step::Wait,
        Hand::Nothing => look_for_work(view, job),
    }
}

fn is_wanted(job: &Job, id: &str) -> bool {
    job.request.as_ref().is_some_and(|request| request.id == id)
}

fn why_not(view: &View, wanted: bool, (term, timeline): (u64, TimelineId), stage: Stage) -> Option<GivenUp> {
    let leads = view.leader.as_ref().is_some_and(|leader| leader.mine && leader.term == term);
    let runs = match view.postgres {
        Postgres::Primary(now) => now == timeline,
        Postgres::Silent => true,
        Postgres::Standby | Postgres::Down => false,
    };
    let late = match stage {
        Stage::Offered(since) => since > OFFER_LIMIT,
        Stage::Preparing | Stage::Prepared => false,
    };
    if view.leaving {
        Some(GivenUp::Ending)
    } else if !wanted {
        Some(GivenUp::Withdrawn)
    } else if !leads {
        Some(GivenUp::LeaseLost)
    } else if view.terminating {
        Some(GivenUp::Ending)
    } else if !runs {
        Some(GivenUp::Down)
    } else if late {
        Some(GivenUp::Late)
    } else {
        None
    }
}

fn watch_the_start(view: &View, prepared: TimelineId) -> Option<Own> {
    let leader = view.leader.as_ref()?;
    match view.postgres {
        _ if !leader.mine => Some(Own::EndSupplanted),
        Postgres::Primary(timeline) if timeline >= prepared => Some(Own::Finish),
        Postgres::Primary(_) | Postgres::Standby | Postgres::Silent | Postgres::Down => None,
    }
}

fn look_for_work(view: &View, job: &Job) -> Step {
    let Some(request) = &job.request else {
        return if job.swapped.is_some() { Step::Own(Own::LetEnd) } else { Step::Wait };
    };
    let resumes = job.swapped.as_ref() == Some(&request.id);
    match job.claim {
        Claim::Others => Step::Wait,
        Claim::Mine | Claim::Free if resumes => Step::Own(Own::Resume),
        // Whoever started it is gone.
        Claim::Mine => Step::Refuse,
        Claim::Free if !view.leads() => Step::Wait,
        Claim::Free if request.begun => Step::Refuse,
        // A Postgres that does not answer is not rolled back.
        Claim::Free => match view.postgres {
            Postgres::Primary(_) if !view.terminating => Step::Take,
            Postgres::Primary(_) | Postgres::Standby | Postgres::Silent | Postgres::Down => Step::Wait,
        },
    }
}
