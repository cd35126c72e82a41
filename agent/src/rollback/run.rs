//! A rollback that this member does: its stage, how far it is, and what is recorded of its end.

use outrider_dcs::{RollbackClaim, RollbackOutcome, RollbackRequest};
use outrider_wal::TimelineId;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::prepare::{Ready, Work, prepare};
use crate::clock;
use crate::gate::{Gate, Swapped};

/// Why it is given up before the swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenUp {
    /// In words.
    pub(super) why: String,
    /// Somebody took the request back.
    pub(super) cancelled: bool,
}

/// How far it is.
pub(super) enum Stage {
    /// The data is being prepared beside that of the running primary.
    Preparing { task: JoinHandle<Result<Ready, String>>, cancel: CancellationToken },
    /// It is prepared, and the round is to swap it.
    Offered { done: oneshot::Receiver<Result<Swapped, String>>, since: Instant },
    /// It is in its place, and Postgres is to come up with it.
    Starting { stopping: Option<Instant> },
}

/// What has ended.
pub(super) enum Happened {
    Prepared(Result<Ready, String>),
    Swapped(Result<Swapped, String>),
}

/// The rollback under way. Dropped, the preparing ends by itself and is not repeated.
pub(super) struct Run {
    /// The request that it answers.
    pub(super) request: RollbackRequest,
    /// Its revision.
    pub(super) seen: i64,
    /// The term of the lease under which it was begun.
    pub(super) term: u64,
    /// The timeline of the cluster when it began.
    pub(super) timeline: TimelineId,
    pub(super) stage: Stage,
    claim: RollbackClaim,
    told: watch::Receiver<RollbackClaim>,
    given_up: Option<GivenUp>,
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Stage::Preparing { cancel, .. } = &self.stage {
            cancel.cancel();
        }
    }
}

impl Run {
    /// Begins with a request that was claimed.
    pub(super) fn begin(
        work: Work,
        (request, seen): (RollbackRequest, i64),
        claim: RollbackClaim,
        term: u64,
    ) -> Self {
        let timeline = work.timeline;
        let (tell, told) = watch::channel(claim.clone());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(prepare(work, tell, cancel.clone()));
        let stage = Stage::Preparing { task, cancel };
        Run { request, seen, term, timeline, stage, claim, told, given_up: None }
    }

    /// One whose data an earlier agent of this member has put in its place.
    pub(super) fn resumed((request, seen): (RollbackRequest, i64), claim: RollbackClaim) -> Self {
        let (_, told) = watch::channel(claim.clone());
        let stage = Stage::Starting { stopping: None };
        Run { request, seen, term: 0, timeline: TimelineId::default(), stage, claim, told, given_up: None }
    }

    /// The claim as it stands, if it says something new since it was asked for last.
    pub(super) fn news(&mut self) -> Option<RollbackClaim> {
        let changed = self.told.has_changed().unwrap_or(false);
        if changed {
            self.claim = self.told.borrow_and_update().clone();
        }
        changed.then(|| self.claim.clone())
    }

    /// The claim, with other words for what is being done.
    pub(super) fn claim(&mut self, phase: Option<&str>) -> RollbackClaim {
        self.news();
        if let Some(phase) = phase {
            phase.clone_into(&mut self.claim.phase);
            (self.claim.bytes_done, self.claim.bytes_total, self.claim.rate) = (0, 0, 0);
            self.claim.seconds_left = None;
        }
        self.claim.clone()
    }

    /// Tells it to stop, unless its data is being swapped; the first reason counts.
    pub(super) fn give_up(&mut self, why: GivenUp, gate: &Gate) {
        match &self.stage {
            Stage::Preparing { cancel, .. } => cancel.cancel(),
            // The order goes, and with it whoever would tell that it was carried out.
            Stage::Offered { .. } if gate.take().is_some() => {}
            Stage::Offered { .. } | Stage::Starting { .. } => return,
        }
        if self.given_up.is_none() {
            info!(request = self.request.id, why = why.why, "giving the rollback up");
            self.given_up = Some(why);
        }
    }

    /// Why it was told to stop.
    pub(super) fn given_up(&self) -> Option<GivenUp> {
        self.given_up.clone()
    }

    /// Waits until its stage has ended; for ever in the last one, whose end the board tells.
    pub(super) async fn happened(&mut self) -> Happened {
        match &mut self.stage {
            Stage::Preparing { task, .. } => {
                let broken = |fault| Err(format!("the preparing broke off: {fault}"));
                Happened::Prepared(task.await.unwrap_or_else(broken))
            }
            Stage::Offered { done, .. } => {
                let broken = |_| Err("the swap was broken off before it began".to_owned());
                Happened::Swapped(done.await.unwrap_or_else(broken))
            }
            Stage::Starting { .. } => std::future::pending().await,
        }
    }

    /// Whether the data is in its place.
    pub(super) fn is_swapped(&self) -> bool {
        matches!(self.stage, Stage::Starting { .. })
    }

    /// What is to be recorded of its end.
    pub(super) fn outcome(&mut self) -> RollbackOutcome {
        let claim = self.claim(None);
        let mut outcome = outcome_of(&self.request, &claim.member);
        outcome.backup = claim.backup.or(outcome.backup);
        if !claim.target.is_empty() {
            outcome.target = claim.target;
        }
        outcome.began = claim.began;
        if let Some(swap) =
            self.request.swap.as_ref().filter(|_| matches!(self.stage, Stage::Starting { .. }))
        {
            outcome.old_timeline = Some(swap.old_timeline);
            outcome.old_lsn = Some(swap.old_lsn);
            outcome.new_timeline = Some(swap.new_timeline);
            outcome.new_lsn = Some(swap.new_lsn);
            outcome.old_data = Some(swap.old_data.clone());
        }
        outcome
    }
}

/// As far as the request tells.
pub(super) fn outcome_of(request: &RollbackRequest, member: &str) -> RollbackOutcome {
    let swap = request.swap.clone().unwrap_or_default();
    RollbackOutcome {
        request: request.id.clone(),
        by: request.by.clone(),
        asked: request.at.clone(),
        member: member.to_owned(),
        target: swap.target,
        backup: Some(swap.backup).filter(|backup| !backup.is_empty()),
        began: swap.began,
        finished: clock::wall().to_string(),
        ..RollbackOutcome::default()
    }
}
