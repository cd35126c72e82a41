//! Keeps the cluster's backups going: asks for those that are due, takes them up, writes how far they are and how they
//! ended. One at a time in the cluster: the claim in the DCS decides, and goes with the session of whoever holds it.

use std::sync::Arc;
use std::time::Duration;

use outrider_dcs::{BackupClaim, BackupOutcome, BackupRequest, Dcs, Snapshot};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::hopeless::Hopeless;
use super::run::{GivenUp, Run};
use super::{Order, TakeError, Taken, Taker, turn};
use crate::clock;
use crate::keeper::{Freshness, Task};
use crate::log::causes;
use crate::report::{Board, Report};
use crate::schedule::{BY_SCHEDULE, Schedule};

/// A request that was begun with so often is given up: whoever takes it dies of it.
const ATTEMPTS_MAX: u32 = 5;

/// How long the keeper waits for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// At the most so often how far a backup is is written.
    pub(crate) progress: Duration,
    /// Before the next in the order takes what the one before it leaves: it may have no archive, or hang.
    pub(crate) grace: Duration,
    /// A member whose Postgres did not do its part leaves the request to others for so long.
    pub(crate) declined: Duration,
}

impl Pace {
    /// For real members.
    pub(crate) const USUAL: Pace = Pace {
        progress: Duration::from_secs(1),
        grace: Duration::from_secs(3),
        declined: Duration::from_secs(30),
    };
}

/// The task of one member. It ends when this is dropped.
pub(crate) struct Keeper {
    task: Task,
}

impl Keeper {
    /// Begins to look at the board. `schedule`: `None` for backups on request only.
    pub(crate) fn start(
        dcs: Arc<dyn Dcs>,
        board: Board,
        schedule: Option<Schedule>,
        taker: Arc<dyn Taker>,
        pace: Pace,
    ) -> Self {
        let desk = Desk {
            dcs,
            board,
            schedule,
            taker,
            run: None,
            ended: None,
            open_since: None,
            declined: None,
            freshness: Freshness::default(),
            pace,
        };
        Keeper { task: Task::spawn(|told| desk.keep(told)) }
    }

    /// Gives a backup under way back for another member to take, and ends.
    pub(crate) async fn end(self) {
        self.task.end("the backup does not come to its end; the claim runs out with the session").await;
    }
}

/// What the keeper has in hand.
struct Desk {
    dcs: Arc<dyn Dcs>,
    board: Board,
    schedule: Option<Schedule>,
    taker: Arc<dyn Taker>,
    run: Option<Run>,
    /// A backup has ended, and the DCS does not know yet.
    ended: Option<Ended>,
    /// The request that nobody takes, by its id, and since when.
    open_since: Option<(String, Instant)>,
    /// The request that this member could not answer, and since when.
    declined: Option<(String, Instant)>,
    freshness: Freshness,
    pace: Pace,
}

/// An end that is to be recorded.
struct Ended {
    outcome: BackupOutcome,
    request: BackupRequest,
    seen: i64,
    claim: BackupClaim,
}

impl Desk {
    async fn keep(mut self, mut told: oneshot::Receiver<()>) {
        loop {
            let report = self.board.borrow_and_update().clone();
            if let Some(report) = report {
                self.step(&report).await;
            }
            tokio::select! {
                changed = self.board.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep(self.pace.progress), if self.is_waiting() => {}
                ended = ended(self.run.as_mut()) => self.conclude(ended).await,
                _ = &mut told => return self.leave().await,
            }
        }
    }

    /// Whether something may come to pass between two boards.
    fn is_waiting(&self) -> bool {
        self.run.is_some() || self.ended.is_some() || self.open_since.is_some()
    }

    async fn step(&mut self, report: &Report) {
        let Some(cluster) = &report.cluster else { return };
        if !self.freshness.is_news(cluster.revision) {
            return;
        }
        if self.ended.is_some() {
            self.record(cluster).await;
        } else if self.run.is_some() {
            self.watch_over(cluster, report).await;
        } else {
            self.look_for_work(cluster, report).await;
        }
    }

    /// This member takes a backup: whether it still may, and how far it is.
    async fn watch_over(&mut self, cluster: &Snapshot, report: &Report) {
        let Some(run) = &mut self.run else { return };
        let wanted = cluster.backup_request.as_ref().filter(|entry| entry.value.id == run.request.id);
        let is_standby = report.postgres.as_ref().map(|seen| !seen.is_primary());
        let why = if wanted.is_none() {
            Some(GivenUp::Withdrawn)
        } else if report.view.local.terminating {
            Some(GivenUp::Ending)
        } else if is_standby.is_some_and(|is_standby| is_standby != run.on_standby) {
            Some(GivenUp::RoleChanged)
        } else if cluster.backup.as_ref().is_some_and(|taken| !taken.mine) {
            Some(GivenUp::Lost)
        } else {
            None
        };
        if let Some(why) = why {
            return run.give_up(why);
        }
        if let (None, Some(wanted)) = (&cluster.backup, wanted) {
            // The session had run out while the DCS was silent; nobody else has taken it up.
            let (claim, request) = (run.claim(), wanted.value.clone());
            match self.dcs.claim_backup(&claim, &request, wanted.revision).await {
                Ok(revision) => {
                    run.seen = revision;
                    self.freshness.changed(revision);
                    info!(request = run.request.id, "claimed the backup under way anew");
                }
                Err(fault) => warn!(fault = %causes(&fault), "cannot claim the backup under way anew"),
            }
            return;
        }
        if let Some(claim) = run.news()
            && let Err(fault) = self.dcs.report_backup(&claim).await
            && !fault.is_conflict()
        {
            warn!(fault = %causes(&fault), "cannot write how far the backup is");
        }
    }

    /// This member takes none: whether one is due, or to be taken up.
    async fn look_for_work(&mut self, cluster: &Snapshot, report: &Report) {
        match (&cluster.backup, &cluster.backup_request) {
            // Left from an agent of this member that died with it.
            (Some(taken), _) if taken.mine => {
                info!(request = taken.claim.request, "the backup ended with the agent that took it");
                let released = self.dcs.release_backup().await;
                self.note(released, "give back the backup of an earlier agent").await;
            }
            (Some(_), _) => self.open_since = None,
            (None, None) => {
                self.open_since = None;
                self.ask_if_due(cluster).await;
            }
            (None, Some(asked)) => {
                let since = match &self.open_since {
                    Some((id, since)) if *id == asked.value.id => *since,
                    Some(_) | None => {
                        let now = clock::monotonic();
                        self.open_since = Some((asked.value.id.clone(), now));
                        now
                    }
                };
                let declined = self
                    .declined
                    .as_ref()
                    .is_some_and(|(id, at)| *id == asked.value.id && at.elapsed() < self.pace.declined);
                let patience = turn::place(cluster, self.dcs.name()).map(|place| self.pace.grace * place);
                if !declined && patience.is_some_and(|patience| since.elapsed() >= patience) {
                    self.take_up(cluster, report, &asked.value.clone(), asked.revision).await;
                }
            }
        }
    }

    /// The leader asks for a backup that is due, once: the request stands only where none does.
    async fn ask_if_due(&mut self, cluster: &Snapshot) {
        let leads = cluster.leader.as_ref().is_some_and(|leader| leader.mine);
        let made = cluster.initialize.as_ref().is_some_and(|entry| !entry.value.is_empty());
        let Some(schedule) = self.schedule.as_ref().filter(|_| leads && made) else { return };
        let now = clock::wall();
        if !schedule.is_due(cluster.backup_last.as_ref().map(|entry| &entry.value), now) {
            return;
        }
        let request = BackupRequest {
            id: format!("{BY_SCHEDULE}-{}", now.as_nanosecond()),
            by: BY_SCHEDULE.to_owned(),
            at: now.to_string(),
            attempts: 0,
        };
        info!(id = request.id, "a base backup is due");
        let asked = self.dcs.request_backup(&request).await;
        self.note(asked, "ask for the backup that is due").await;
    }

    async fn take_up(&mut self, cluster: &Snapshot, report: &Report, asked: &BackupRequest, seen: i64) {
        // A Postgres that does not answer, or is not what the others think, takes none.
        let Some(postgres) = &report.postgres else { return };
        let leader = cluster.leader.as_ref().filter(|leader| leader.mine == postgres.is_primary());
        let Some(leader) = leader.filter(|_| !report.view.local.terminating) else { return };
        let claim = BackupClaim {
            request: asked.id.clone(),
            member: self.dcs.name().to_owned(),
            began: clock::wall().to_string(),
            phase: "beginning".to_owned(),
            ..BackupClaim::default()
        };
        let request = BackupRequest { attempts: asked.attempts.saturating_add(1), ..asked.clone() };
        let claimed = self.dcs.claim_backup(&claim, &request, seen).await;
        let Some(seen) = self.note(claimed, "claim the backup").await else { return };
        self.open_since = None;
        let attempts = request.attempts;
        let order = Order { on_standby: !leader.mine, label: request.id.clone() };
        info!(
            request = request.id,
            by = request.by,
            attempts,
            on_standby = order.on_standby,
            "taking a base backup"
        );
        let taker: Arc<dyn Taker> = if attempts > ATTEMPTS_MAX {
            Arc::new(Hopeless { attempts: ATTEMPTS_MAX })
        } else {
            self.taker.clone()
        };
        self.run = Some(Run::begin(taker, order, (request, seen), claim));
    }

    /// The backup of this member has ended.
    async fn conclude(&mut self, ended: Result<Taken, TakeError>) {
        let Some(mut run) = self.run.take() else { return };
        let report = self.board.borrow().clone();
        let last = report.as_ref().and_then(|report| report.cluster.as_ref()?.backup_last.as_ref());
        let failures = last.map_or(0, |entry| entry.value.failures);
        let outcome = run.outcome(&ended, failures);
        match (&ended, run.given_up()) {
            (Ok(taken), _) => info!(
                backup = taken.backup,
                bytes = taken.bytes,
                stored = taken.bytes_stored,
                "the base backup is in the archive"
            ),
            (Err(fault), Some(why)) => info!(?why, %fault, "the base backup was given up"),
            (Err(fault), None) => error!(%fault, "the base backup failed"),
        }
        match (&ended, run.given_up()) {
            (Ok(_), _)
            | (Err(_), Some(GivenUp::Withdrawn))
            | (Err(TakeError::Failed(_) | TakeError::Cancelled), None) => {
                let claim = run.claim();
                self.ended = Some(Ended { outcome, request: run.request.clone(), seen: run.seen, claim });
            }
            (Err(TakeError::Here(_)), None) if run.request.attempts >= ATTEMPTS_MAX => {
                let claim = run.claim();
                self.ended = Some(Ended { outcome, request: run.request.clone(), seen: run.seen, claim });
            }
            // It is another's now.
            (Err(_), Some(GivenUp::Lost)) => {}
            (Err(_), Some(GivenUp::RoleChanged | GivenUp::Ending)) | (Err(TakeError::Here(_)), None) => {
                if run.given_up().is_none() {
                    self.declined = Some((run.request.id.clone(), clock::monotonic()));
                }
                let released = self.dcs.release_backup().await;
                self.note(released, "give the backup back").await;
            }
        }
        if let Some(cluster) = report.as_ref().and_then(|report| report.cluster.as_ref())
            && self.ended.is_some()
        {
            self.record(cluster).await;
        }
    }

    /// Writes the end into the DCS; tried until it is there, or is somebody else's to write.
    async fn record(&mut self, cluster: &Snapshot) {
        let Some(ended) = &mut self.ended else { return };
        match self.dcs.finish_backup(&ended.outcome, ended.seen).await {
            Ok(revision) => {
                self.freshness.changed(revision);
                self.ended = None;
            }
            Err(fault) if fault.is_conflict() => {
                let asked =
                    cluster.backup_request.as_ref().filter(|entry| entry.value.id == ended.request.id);
                // The session had run out meanwhile. What is in the archive need not be taken again.
                if let (Some(asked), None) = (asked, &cluster.backup)
                    && let Ok(seen) = self.dcs.claim_backup(&ended.claim, &asked.value, asked.revision).await
                {
                    ended.seen = seen;
                    return;
                }
                warn!(fault = %causes(&fault), "how the backup ended is not recorded");
                self.ended = None;
            }
            Err(fault) => warn!(fault = %causes(&fault), "cannot record yet how the backup ended"),
        }
    }

    /// The agent ends.
    async fn leave(mut self) {
        let Some(mut run) = self.run.take() else { return };
        run.give_up(GivenUp::Ending);
        let ended = run.ended().await;
        self.run = Some(run);
        self.conclude(ended).await;
    }

    /// Notes the revision of a change; what failed is looked at again with the next board.
    async fn note(&mut self, outcome: Result<i64, outrider_dcs::Error>, act: &str) -> Option<i64> {
        match outcome {
            Ok(revision) => {
                self.freshness.changed(revision);
                Some(revision)
            }
            // Somebody else was first.
            Err(fault) if fault.is_conflict() => None,
            Err(fault) => {
                warn!(fault = %causes(&fault), "cannot {act}");
                // It may have happened after all: only what is read from now on counts.
                if let Ok(cluster) = self.dcs.read().await {
                    self.freshness.changed(cluster.revision);
                }
                None
            }
        }
    }
}

async fn ended(run: Option<&mut Run>) -> Result<Taken, TakeError> {
    match run {
        Some(run) => run.ended().await,
        None => std::future::pending().await,
    }
}
