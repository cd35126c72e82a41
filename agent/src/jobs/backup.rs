//! Base backups as jobs: starts a claimed one, shows its progress and says how it ended. `crate::backup` takes it;
//! `outrider_jobs::backup` decides who takes it, and when.

use std::sync::Arc;
use std::time::Duration;

use outrider_dcs::{BackupClaim, BackupOutcome, BackupRequest, Dcs, Error, Snapshot};
use outrider_jobs::backup::{ATTEMPTS_MAX, End, GivenUp, Hand as Seen, Job, Own, Request, Step, next};
use outrider_jobs::{Claim, Postgres, View};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::claimed::{Claimed, Ended, Hand, Kind, Records, Running, Stepped, Taken};
use super::seen;
use crate::backup::{BackupOrder, BackupProgress, FinishedBackup, TakeError, Taker};
use crate::clock;
use crate::report::Report;
use crate::schedule::{BY_SCHEDULE, Schedule};

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intervals {
    /// Minimum interval between progress writes.
    pub(crate) progress: Duration,
    /// How long each member waits for the one before it, which may have no archive, or hang.
    pub(crate) grace: Duration,
    /// How long a member whose own Postgres failed leaves the request to others.
    pub(crate) declined: Duration,
}

impl Intervals {
    /// For real members.
    pub(crate) const USUAL: Intervals = Intervals {
        progress: Duration::from_secs(1),
        grace: Duration::from_secs(3),
        declined: Duration::from_secs(30),
    };
}

/// What a member knows of base backups beside what is in the DCS.
pub(crate) struct Backup {
    schedule: Option<Schedule>,
    taker: Arc<dyn Taker>,
    /// The unclaimed request, by its id, and since when.
    open_since: Option<(String, Instant)>,
    /// The request that this member could not answer, and since when.
    declined: Option<(String, Instant)>,
    intervals: Intervals,
}

/// The backup under way. Dropped, it is cancelled.
pub(crate) struct Run {
    on_standby: bool,
    progress: watch::Receiver<BackupProgress>,
    cancel: CancellationToken,
    task: JoinHandle<Result<FinishedBackup, TakeError>>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Backup {
    /// `schedule`: `None` for backups on request only.
    pub(crate) fn new(schedule: Option<Schedule>, taker: Arc<dyn Taker>, intervals: Intervals) -> Self {
        Backup { schedule, taker, open_since: None, declined: None, intervals }
    }

    /// What stands in the DCS, as this member has seen it for how long.
    fn seen(&mut self, records: &Records<BackupRequest>) -> Option<Request> {
        let asked = records.request.as_ref().filter(|_| records.claim == Claim::Free);
        self.open_since = asked.map(|asked| match self.open_since.take() {
            Some((id, since)) if id == asked.value.id => (id, since),
            Some(_) | None => (asked.value.id.clone(), clock::monotonic()),
        });
        let request = &records.request.as_ref()?.value;
        let open_for = self.open_since.as_ref().map(|(_, since)| since.elapsed()).unwrap_or_default();
        let declined = self.declined.as_ref().filter(|(id, _)| *id == request.id);
        Some(Request {
            id: request.id.clone(),
            attempts: request.attempts,
            open_for,
            declined_for: declined.map(|(_, at)| at.elapsed()),
        })
    }

    fn is_due(&self, cluster: &Snapshot) -> bool {
        let last = cluster.backup_last.as_ref().map(|entry| &entry.value);
        self.schedule.as_ref().is_some_and(|schedule| schedule.is_due(last, clock::wall()))
    }
}

impl Kind for Backup {
    const WHAT: &'static str = "backup";
    const LOOSE: &'static str = "the backup does not finish; its claim expires with the session";
    type Request = BackupRequest;
    type Claim = BackupClaim;
    type Outcome = BackupOutcome;
    type Run = Run;
    type Came = Result<FinishedBackup, TakeError>;
    type End = End;
    type GivenUp = GivenUp;
    type Own = Own;

    fn records(cluster: &Snapshot) -> Records<BackupRequest> {
        Records {
            request: cluster.backup_request.clone(),
            claim: seen::claim(cluster.backup.as_ref().map(|taken| taken.mine)),
            last: cluster.backup_last.as_ref().map(|entry| entry.value.request.clone()),
        }
    }

    fn id(request: &BackupRequest) -> &str {
        &request.id
    }

    async fn put_claim(
        dcs: &dyn Dcs,
        claim: &BackupClaim,
        request: &BackupRequest,
        seen: i64,
    ) -> Result<i64, Error> {
        dcs.claim_backup(claim, request, seen).await
    }

    async fn put_progress(dcs: &dyn Dcs, claim: &BackupClaim) -> Result<(), Error> {
        dcs.report_backup(claim).await
    }

    async fn put_outcome(dcs: &dyn Dcs, outcome: &BackupOutcome, seen: i64) -> Result<i64, Error> {
        dcs.finish_backup(outcome, seen).await
    }

    fn next(
        &mut self,
        view: &View,
        records: &Records<BackupRequest>,
        recorded: bool,
        cluster: &Snapshot,
        hand: &mut Hand<Self>,
    ) -> Step {
        let hand = match hand {
            Hand::Nothing => Seen::Nothing,
            Hand::Running(running) => Seen::Running {
                news: running.news(),
                request: running.taken.request.id.clone(),
                on_standby: running.run.on_standby,
                given_up: running.given_up.is_some(),
            },
            Hand::Ended(ended) => Seen::Ended {
                request: ended.taken.request.id.clone(),
                attempts: ended.taken.request.attempts,
                end: ended.end,
                given_up: ended.given_up,
            },
        };
        let (grace, declined) = (self.intervals.grace, self.intervals.declined);
        let (request, due) = (self.seen(records), self.is_due(cluster));
        next(view, &Job { claim: records.claim, request, recorded, due, hand, grace, declined })
    }

    fn look_again(&self) -> Option<Duration> {
        self.open_since.is_some().then_some(self.intervals.progress)
    }

    fn progress_interval(&self) -> Duration {
        self.intervals.progress
    }

    fn claim(&self, asked: &BackupRequest, member: &str) -> (BackupClaim, BackupRequest) {
        let claim = BackupClaim {
            request: asked.id.clone(),
            member: member.to_owned(),
            began: clock::wall().to_string(),
            phase: "beginning".to_owned(),
            ..BackupClaim::default()
        };
        (claim, BackupRequest { attempts: asked.attempts.saturating_add(1), ..asked.clone() })
    }

    fn begin(&mut self, taken: Taken<Self>, view: &View, _: &Report) -> Hand<Self> {
        self.open_since = None;
        let on_standby = view.postgres == Postgres::Standby;
        let BackupRequest { id, by, attempts, .. } = &taken.request;
        info!(request = id, by, attempts, on_standby, "taking a base backup");
        let (told, progress) =
            watch::channel(BackupProgress { phase: "beginning".to_owned(), ..BackupProgress::default() });
        let (taker, order) = (self.taker.clone(), BackupOrder { on_standby, label: id.clone() });
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let task = tokio::spawn(async move { taker.take(order, told, token).await });
        Hand::Running(Running { taken, run: Run { on_standby, progress, cancel, task }, given_up: None })
    }

    fn refuse(&self, taken: Taken<Self>) -> Ended<Self> {
        let why = format!("{ATTEMPTS_MAX} attempts did not finish; see the members' logs");
        error!(fault = why, "the base backup failed");
        let outcome = outcome(&taken, &Err(TakeError::Failed(why)), false);
        Ended { taken, outcome, end: End::Failed, given_up: None }
    }

    fn news(run: &mut Run, claim: &mut BackupClaim) -> bool {
        let changed = run.progress.has_changed().unwrap_or(false);
        let now = run.progress.borrow_and_update().clone();
        claim.backup = now.backup;
        claim.phase = now.phase;
        (claim.bytes_done, claim.bytes_total) = (now.bytes_done, now.bytes_total);
        (claim.bytes_stored, claim.rate) = (now.bytes_stored, now.rate);
        claim.seconds_left = now.seconds_left;
        changed
    }

    fn give_up(&mut self, running: &mut Running<Self>, why: GivenUp, _: &View) {
        info!(request = running.taken.request.id, ?why, "cancelling the backup");
        running.given_up = Some(why);
        running.run.cancel.cancel();
    }

    async fn comes(run: &mut Run) -> Result<FinishedBackup, TakeError> {
        match (&mut run.task).await {
            Ok(outcome) => outcome,
            Err(broken) => Err(TakeError::Here(format!("the backup ended unexpectedly: {broken}"))),
        }
    }

    fn conclude(
        &mut self,
        mut running: Running<Self>,
        came: Result<FinishedBackup, TakeError>,
    ) -> Hand<Self> {
        running.news();
        let Running { taken, given_up, .. } = running;
        match (&came, given_up) {
            (Ok(whole), _) => info!(
                backup = whole.backup,
                bytes = whole.bytes,
                stored = whole.bytes_stored,
                "the base backup is in the archive"
            ),
            (Err(fault), Some(why)) => info!(?why, %fault, "the base backup was given up"),
            (Err(fault), None) => error!(%fault, "the base backup failed"),
        }
        let end = match &came {
            Ok(_) => End::Done,
            Err(TakeError::Here(_)) => End::FailedHere,
            Err(TakeError::Failed(_) | TakeError::Cancelled) => End::Failed,
        };
        if end == End::FailedHere && given_up.is_none() {
            self.declined = Some((taken.request.id.clone(), clock::monotonic()));
        }
        let outcome = outcome(&taken, &came, given_up.is_some());
        Hand::Ended(Ended { taken, outcome, end, given_up })
    }

    fn follow(outcome: &mut BackupOutcome, cluster: &Snapshot) {
        let before = cluster.backup_last.as_ref().map_or(0, |entry| entry.value.failures);
        outcome.failures = match (&outcome.error, outcome.cancelled) {
            (None, _) => 0,
            (Some(_), true) => before,
            (Some(_), false) => before.saturating_add(1),
        };
    }

    fn recorded(&self) {}

    async fn act(claimed: &mut Claimed<Self>, own: Own, _: &Report, cluster: &Snapshot) -> Stepped {
        match own {
            Own::Ask => claimed.ask().await,
            Own::GiveBack => claimed.give_back(cluster).await,
        }
        Stepped::Acted
    }
}

impl Claimed<Backup> {
    /// Once: the request stands only where none does.
    async fn ask(&mut self) {
        let now = clock::wall();
        let request = BackupRequest {
            id: format!("{BY_SCHEDULE}-{}", now.as_nanosecond()),
            by: BY_SCHEDULE.to_owned(),
            at: now.to_string(),
            attempts: 0,
        };
        info!(id = request.id, "a base backup is due");
        let asked = self.dcs.request_backup(&request).await;
        self.note(asked, "request the backup that is due").await;
    }

    async fn give_back(&mut self, cluster: &Snapshot) {
        if let (Hand::Nothing, Some(left)) = (&self.hand, &cluster.backup) {
            info!(request = left.claim.request, "the backup ended with the agent that took it");
        }
        let released = self.dcs.release_backup().await;
        if self.note(released, "give the backup back").await.is_some() {
            self.hand = Hand::Nothing;
        }
    }
}

/// What is to be recorded of it.
fn outcome(taken: &Taken<Backup>, came: &Result<FinishedBackup, TakeError>, given_up: bool) -> BackupOutcome {
    let Taken { request, claim, .. } = taken;
    let whole = came.as_ref().ok();
    let cancelled = given_up || matches!(came, Err(TakeError::Cancelled));
    BackupOutcome {
        request: request.id.clone(),
        by: request.by.clone(),
        asked: request.at.clone(),
        member: claim.member.clone(),
        backup: whole.map(|whole| whole.backup.clone()),
        began: claim.began.clone(),
        finished: clock::wall().to_string(),
        bytes: whole.map_or(claim.bytes_done, |whole| whole.bytes),
        bytes_stored: whole.map_or(0, |whole| whole.bytes_stored),
        error: came.as_ref().err().map(ToString::to_string),
        cancelled: cancelled && whole.is_none(),
        failures: 0,
    }
}
