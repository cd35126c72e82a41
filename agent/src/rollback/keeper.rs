//! Keeps rollbacks going: the leader takes a request up once, prepares, offers the swap to the round, and records how it ended.
//! It is a human's act: what does not come to its end is recorded as failed and never begun again by itself.

use std::sync::Arc;
use std::time::Duration;

use outrider_archive::Shipper;
use outrider_dcs::{Dcs, RollbackOutcome, RollbackRequest, Snapshot};
use outrider_postgres::{Postgres, Settled, Swap};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::offer::why_not;
use super::run::{GivenUp, Happened, Run, Stage};
use crate::config::Config;
use crate::gate::{Gate, Swapped};
use crate::instruments::{Archive, Instruments};
use crate::keeper::{Freshness, Task};
use crate::log::causes;
use crate::report::{Board, Report};
use crate::wake::Waker;

/// At the most so often how far it is is written.
const PACE: Duration = Duration::from_secs(1);

/// The task of one member. It ends when this is dropped.
pub(crate) struct Keeper {
    task: Task,
}

impl Keeper {
    /// Begins to look at the board. `settled`: what was found of an earlier agent's rollback.
    pub(crate) fn start(instruments: &Instruments, board: Board, waker: Waker, settled: Settled) -> Self {
        let (discard, swapped) = match settled {
            Settled::Nothing => (false, None),
            Settled::Undone { .. } => (true, None),
            Settled::Swapped(swap) => (false, Some(swap)),
        };
        let desk = Desk {
            dcs: instruments.dcs.clone(),
            board,
            waker,
            gate: instruments.rollback.clone(),
            postgres: instruments.postgres.clone(),
            config: instruments.config.clone(),
            shipper: instruments.archive.as_ref().map(Archive::shipper),
            run: None,
            ended: None,
            discard,
            swapped,
            freshness: Freshness::default(),
        };
        Keeper { task: Task::spawn(|told| desk.keep(told)) }
    }

    /// Gives up what is being prepared, and ends.
    pub(crate) async fn end(self) {
        self.task
            .end("the rollback does not come to its end; the next agent removes what is left of it")
            .await;
    }
}

/// What the keeper has in hand.
pub(super) struct Desk {
    pub(super) dcs: Arc<dyn Dcs>,
    pub(super) board: Board,
    pub(super) waker: Waker,
    pub(super) gate: Gate,
    pub(super) postgres: Postgres,
    pub(super) config: Arc<Config>,
    pub(super) shipper: Option<Shipper>,
    pub(super) run: Option<Run>,
    /// A rollback has ended, and the DCS does not know yet.
    pub(super) ended: Option<Ended>,
    /// What lies beside the data is to be removed.
    pub(super) discard: bool,
    /// An earlier agent has put rolled back data in its place.
    pub(super) swapped: Option<Swap>,
    pub(super) freshness: Freshness,
}

/// An end that is to be recorded.
pub(super) struct Ended {
    pub(super) outcome: RollbackOutcome,
    pub(super) request: RollbackRequest,
    pub(super) seen: i64,
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
                () = sleep(PACE), if self.is_waiting() => {}
                happened = happened(self.run.as_mut()) => self.conclude(happened).await,
                _ = &mut told => return self.leave().await,
            }
        }
    }

    /// Whether something may come to pass between two boards.
    fn is_waiting(&self) -> bool {
        self.run.is_some() || self.ended.is_some() || self.discard
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
        } else if self.discard {
            self.clean_up().await;
        } else {
            self.look_for_work(cluster, report).await;
        }
    }

    /// This member does one: whether it still may, and how far it is.
    async fn watch_over(&mut self, cluster: &Snapshot, report: &Report) {
        let Some(run) = &mut self.run else { return };
        if run.is_swapped() {
            return self.watch_the_start(cluster, report).await;
        }
        if let Some(why) = why_not(run, cluster, report) {
            return run.give_up(why, &self.gate);
        }
        if let Some(claim) = run.news()
            && let Err(fault) = self.dcs.report_rollback(&claim).await
        {
            warn!(fault = %causes(&fault), "cannot write how far the rollback is");
        }
    }

    /// The data is in its place: whether Postgres is up with it.
    async fn watch_the_start(&mut self, cluster: &Snapshot, report: &Report) {
        let Some(run) = &mut self.run else { return };
        let swap = run.request.swap.clone().unwrap_or_default();
        let leads = cluster.leader.as_ref().map(|leader| leader.mine);
        let up =
            report.postgres.as_ref().filter(|seen| seen.is_primary() && seen.timeline >= swap.new_timeline);
        match (leads, up) {
            (Some(true), Some(seen)) => {
                let stopping = match run.stage {
                    Stage::Starting { stopping } => stopping,
                    Stage::Preparing { .. } | Stage::Offered { .. } => None,
                };
                let mut outcome = run.outcome();
                outcome.write_gap_seconds = stopping.map(|since| since.elapsed().as_secs_f64());
                (outcome.new_timeline, outcome.least_timeline) = (Some(seen.timeline), Some(seen.timeline));
                // Their passwords are those of that time.
                if let Err(fault) = self.postgres.create_users().await {
                    warn!(fault = %causes(&fault), "cannot set the passwords of the cluster's own users");
                }
                info!(timeline = %seen.timeline, old_data = swap.old_data, gap_seconds = outcome.write_gap_seconds, "the cluster is rolled back");
                self.end_run(outcome, cluster).await;
            }
            (Some(false), _) => {
                let mut outcome = run.outcome();
                let leader = cluster.leader.as_ref().map(|leader| leader.name.clone()).unwrap_or_default();
                outcome.error = Some(format!(
                    "the data of {} was swapped, but {leader} leads now with the data that the cluster had before",
                    outcome.member
                ));
                self.end_run(outcome, cluster).await;
            }
            (Some(true) | None, _) => {}
        }
    }

    /// The swap cannot be undone any more, and its journal is not needed.
    async fn end_run(&mut self, outcome: RollbackOutcome, cluster: &Snapshot) {
        if let Err(fault) = self.postgres.finish_rollback() {
            return warn!(fault = %causes(&fault), "cannot remove the journal of the rollback");
        }
        self.swapped = None;
        if let Some(run) = self.run.take() {
            self.ended = Some(Ended { outcome, request: run.request.clone(), seen: run.seen });
            self.record(cluster).await;
        }
    }

    /// A stage has ended.
    async fn conclude(&mut self, happened: Happened) {
        match happened {
            Happened::Prepared(Ok(ready)) => self.offer(ready).await,
            Happened::Swapped(Ok(Swapped { stopping })) => {
                if let Some(run) = &mut self.run {
                    run.stage = Stage::Starting { stopping: Some(stopping) };
                    let claim = run.claim(Some("starting"));
                    if let Err(fault) = self.dcs.report_rollback(&claim).await {
                        warn!(fault = %causes(&fault), "cannot write how far the rollback is");
                    }
                }
            }
            Happened::Prepared(Err(why)) | Happened::Swapped(Err(why)) => self.fail(why).await,
        }
    }

    /// It has not come to the swap, or that was undone.
    pub(super) async fn fail(&mut self, why: String) {
        let Some(mut run) = self.run.take() else { return };
        let mut outcome = run.outcome();
        let given_up = run.given_up();
        outcome.cancelled = given_up.as_ref().is_some_and(|given_up| given_up.cancelled);
        let why = given_up.map_or(why, |given_up| given_up.why);
        error!(
            request = run.request.id,
            why, "the cluster was not rolled back, and goes on with what it has"
        );
        outcome.error = Some(why);
        self.discard = true;
        self.ended = Some(Ended { outcome, request: run.request.clone(), seen: run.seen });
        let report = self.board.borrow().clone();
        if let Some(cluster) = report.as_ref().and_then(|report| report.cluster.as_ref()) {
            self.record(cluster).await;
        }
    }

    /// Writes the end into the DCS; tried until it is there, or is somebody else's to write.
    pub(super) async fn record(&mut self, cluster: &Snapshot) {
        let Some(ended) = &mut self.ended else { return };
        let before = cluster.rollback_last.as_ref().and_then(|entry| entry.value.least_timeline);
        ended.outcome.least_timeline = ended.outcome.least_timeline.or(before);
        match self.dcs.finish_rollback(&ended.outcome, ended.seen).await {
            Ok(revision) => {
                self.freshness.changed(revision);
                self.ended = None;
                // Whoever is on an earlier timeline is not promoted from now on.
                self.waker.wake();
            }
            Err(fault) if fault.is_conflict() => {
                let asked =
                    cluster.rollback_request.clone().filter(|entry| entry.value.id == ended.request.id);
                // The session had run out meanwhile.
                if let (Some(asked), None) = (asked, &cluster.rollback) {
                    let claim = self.claim(&asked.value);
                    if let Some(seen) = self.take_up(&claim, &asked).await
                        && let Some(ended) = &mut self.ended
                    {
                        ended.seen = seen;
                    }
                    return;
                }
                warn!(fault = %causes(&fault), "how the rollback ended is not recorded");
                self.ended = None;
            }
            Err(fault) => warn!(fault = %causes(&fault), "cannot record yet how the rollback ended"),
        }
    }

    async fn clean_up(&mut self) {
        match self.postgres.discard_rollback().await {
            Ok(()) => {
                self.discard = false;
                info!(path = %self.postgres.rollback_directory().display(), "removed what was left of a rollback");
            }
            Err(fault) => warn!(fault = %causes(&fault), "cannot remove yet what is left of a rollback"),
        }
    }

    /// The agent ends. What is being swapped is in the journal.
    async fn leave(mut self) {
        let Some(run) = &mut self.run else { return };
        run.give_up(
            GivenUp { why: "the agent of the leader was told to end".to_owned(), cancelled: false },
            &self.gate,
        );
        if run.given_up().is_none() {
            return;
        }
        let happened = run.happened().await;
        self.conclude(happened).await;
        if self.discard {
            self.clean_up().await;
        }
    }
}

async fn happened(run: Option<&mut Run>) -> Happened {
    match run {
        Some(run) => run.happened().await,
        None => std::future::pending().await,
    }
}
