//! A backup that this member takes: its task, how far it is, and why it is to stop before its end.

use std::sync::Arc;

use outrider_dcs::{BackupClaim, BackupOutcome, BackupRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Order, Progress, TakeError, Taken, Taker};
use crate::clock;

/// Why a backup is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// The request was taken back.
    Withdrawn,
    /// Another member takes it: this one's session had run out.
    Lost,
    /// This member's Postgres is not any more what it was when it began.
    RoleChanged,
    /// This agent or its Postgres is told to end.
    Ending,
}

/// The backup under way. Dropped, it is cancelled.
pub(super) struct Run {
    /// The request that it answers, with this attempt.
    pub(super) request: BackupRequest,
    /// Its revision.
    pub(super) seen: i64,
    /// Whether Postgres was a standby when it began.
    pub(super) on_standby: bool,
    claim: BackupClaim,
    progress: watch::Receiver<Progress>,
    cancel: CancellationToken,
    given_up: Option<GivenUp>,
    task: JoinHandle<Result<Taken, TakeError>>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Run {
    /// Begins with a request that was claimed.
    pub(super) fn begin(
        taker: Arc<dyn Taker>,
        order: Order,
        (request, seen): (BackupRequest, i64),
        claim: BackupClaim,
    ) -> Self {
        let on_standby = order.on_standby;
        let (told, progress) =
            watch::channel(Progress { phase: "beginning".to_owned(), ..Progress::default() });
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let task = tokio::spawn(async move { taker.take(order, told, token).await });
        Run { request, seen, on_standby, claim, progress, cancel, given_up: None, task }
    }

    /// The claim as it stands, if it says something new since it was asked for last.
    pub(super) fn news(&mut self) -> Option<BackupClaim> {
        let changed = self.progress.has_changed().unwrap_or(false);
        let now = self.progress.borrow_and_update().clone();
        self.claim.backup = now.backup;
        self.claim.phase = now.phase;
        (self.claim.bytes_done, self.claim.bytes_total) = (now.bytes_done, now.bytes_total);
        (self.claim.bytes_stored, self.claim.rate) = (now.bytes_stored, now.rate);
        self.claim.seconds_left = now.seconds_left;
        changed.then(|| self.claim.clone())
    }

    /// The claim as it stands.
    pub(super) fn claim(&mut self) -> BackupClaim {
        self.news();
        self.claim.clone()
    }

    /// Tells it to stop; the first reason counts.
    pub(super) fn give_up(&mut self, why: GivenUp) {
        if self.given_up.is_none() {
            info!(request = self.request.id, ?why, "giving the backup up");
            self.given_up = Some(why);
            self.cancel.cancel();
        }
    }

    /// Why it was told to stop.
    pub(super) fn given_up(&self) -> Option<GivenUp> {
        self.given_up
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> Result<Taken, TakeError> {
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(broken) => Err(TakeError::Here(format!("the backup broke off: {broken}"))),
        }
    }

    /// What is to be recorded of it.
    pub(super) fn outcome(&mut self, ended: &Result<Taken, TakeError>, failures: u32) -> BackupOutcome {
        let claim = self.claim();
        let cancelled = self.given_up.is_some() || matches!(ended, Err(TakeError::Cancelled));
        let taken = ended.as_ref().ok();
        BackupOutcome {
            request: self.request.id.clone(),
            by: self.request.by.clone(),
            asked: self.request.at.clone(),
            member: claim.member,
            backup: taken.map(|taken| taken.backup.clone()),
            began: claim.began,
            finished: clock::wall().to_string(),
            bytes: taken.map_or(claim.bytes_done, |taken| taken.bytes),
            bytes_stored: taken.map_or(0, |taken| taken.bytes_stored),
            error: ended.as_ref().err().map(ToString::to_string),
            cancelled: cancelled && taken.is_none(),
            failures: match (taken, cancelled) {
                (Some(_), _) => 0,
                (None, true) => failures,
                (None, false) => failures.saturating_add(1),
            },
        }
    }
}
