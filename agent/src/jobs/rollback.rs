//! Rollbacks as jobs: prepares the data, offers it to the round for the swap, and says how it ended. Whether it goes on, is given up
//! or has ended is decided in `outrider_jobs::rollback`, when the data is swapped in `outrider_ha`.

mod end;
mod swap;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use outrider_archive::Shipper;
use outrider_dcs::{Dcs, Error, RollbackClaim, RollbackOutcome, RollbackRequest, Snapshot};
use outrider_jobs::View;
use outrider_jobs::rollback::{GivenUp, Hand as Seen, Job, Own, Request, Stage as SeenStage, Step, next};
use outrider_postgres::{Postgres, Settled, Swap};
use outrider_wal::{SegmentSize, TimelineId};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::end::{outcome, outcome_of};
use super::claimed::{Claimed, Ended, Hand, Kind, Records, Running, Stepped, Taken};
use super::seen;
use crate::clock;
use crate::config::Config;
use crate::instruments::{Archive, Instruments};
use crate::report::Report;
use crate::rollback::{Preparation, Ready, goal, prepare};
use crate::swap_offer::{SwapOffer, Swapped};
use crate::wake::Waker;

/// Minimum interval between progress writes.
const PACE: Duration = Duration::from_secs(1);

/// What a member knows of rollbacks beside what is in the DCS.
pub(crate) struct Rollback {
    waker: Waker,
    swap_offer: SwapOffer,
    postgres: Postgres,
    config: Arc<Config>,
    shipper: Option<Shipper>,
    /// What lies beside the data is to be removed.
    remains: bool,
    /// An earlier agent has put rolled back data in its place.
    swapped: Option<Swap>,
}

/// The rollback under way. Dropped, the preparing ends by itself and is not repeated.
pub(crate) struct Run {
    /// The term of the lease under which it was begun.
    term: u64,
    /// The timeline of the cluster when it began.
    timeline: TimelineId,
    stage: Stage,
    told: watch::Receiver<RollbackClaim>,
    /// The claim says something that was not told.
    news: bool,
    /// Why it was told to stop, in words.
    why: Option<&'static str>,
}

/// How far it is.
enum Stage {
    /// The data is being prepared beside that of the running primary.
    Preparing { task: JoinHandle<Result<Ready, String>>, cancel: CancellationToken },
    /// It is prepared.
    Prepared(Ready),
    /// It is prepared, and was given up.
    Stopped,
    /// The round is to swap it.
    Offered { done: oneshot::Receiver<Result<Swapped, String>>, since: Instant },
    /// It is in its place, and Postgres is to come up with it.
    Starting { stopping: Option<Instant> },
}

/// What has ended.
pub(crate) enum Came {
    Prepared(Result<Ready, String>),
    Swapped(Result<Swapped, String>),
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Stage::Preparing { cancel, .. } = &self.stage {
            cancel.cancel();
        }
    }
}

impl Rollback {
    /// `settled`: what was found of an earlier agent's rollback.
    pub(crate) fn new(instruments: &Instruments, waker: Waker, settled: Settled) -> Self {
        let (remains, swapped) = match settled {
            Settled::Nothing => (false, None),
            Settled::Undone { .. } => (true, None),
            Settled::Swapped(swap) => (false, Some(swap)),
        };
        Rollback {
            waker,
            swap_offer: instruments.rollback.clone(),
            postgres: instruments.postgres.clone(),
            config: instruments.config.clone(),
            shipper: instruments.archive.as_ref().map(Archive::shipper),
            remains,
            swapped,
        }
    }

    /// What is to be prepared.
    ///
    /// # Errors
    /// Why nothing can be, in words.
    fn preparation(&self, request: &RollbackRequest, report: &Report) -> Result<Preparation, String> {
        let backup = request.backup.as_deref().map(str::parse).transpose();
        let postgres = report.postgres.as_ref().ok_or("its Postgres does not answer")?;
        let mut wanted = report.configuration.clone();
        wanted.set_synchronous(&[]);
        wanted.upstream = None;
        Ok(Preparation {
            id: request.id.clone(),
            goal: goal(&request.target, clock::wall())?,
            backup: backup.map_err(|_| "the backup's name is invalid".to_owned())?,
            archive: self.config.archive.clone().ok_or("the leader has no archive: set archive.store")?,
            shipper: self.shipper.clone(),
            postgres: self.postgres.clone(),
            wanted,
            system: postgres.system_identifier,
            timeline: postgres.timeline,
            segment_size: SegmentSize::new(postgres.wal_segment_size)
                .ok_or("the size of its WAL segments is unknown")?,
        })
    }

    /// It failed before the swap, or the swap was undone.
    fn fail(&mut self, mut running: Running<Self>, why: String) -> Ended<Self> {
        running.news();
        let mut outcome = outcome(&running.taken.request, &running.taken.claim, false);
        let given_up = running.given_up;
        outcome.cancelled = given_up == Some(GivenUp::Withdrawn);
        let why = running.run.why.map_or(why, str::to_owned);
        error!(request = running.taken.request.id, why, "the cluster was not rolled back and keeps its data");
        outcome.error = Some(why);
        self.remains = true;
        Ended { taken: running.taken, outcome, end: (), given_up }
    }
}

impl Kind for Rollback {
    const WHAT: &'static str = "rollback";
    const LOOSE: &'static str = "the rollback does not finish; the next agent removes its remains";
    type Request = RollbackRequest;
    type Claim = RollbackClaim;
    type Outcome = RollbackOutcome;
    type Run = Run;
    type Came = Came;
    type End = ();
    type GivenUp = GivenUp;
    type Own = Own;

    fn records(cluster: &Snapshot) -> Records<RollbackRequest> {
        Records {
            request: cluster.rollback_request.clone(),
            claim: seen::claim(cluster.rollback.as_ref().map(|taken| taken.mine)),
            last: cluster.rollback_last.as_ref().map(|entry| entry.value.request.clone()),
        }
    }

    fn id(request: &RollbackRequest) -> &str {
        &request.id
    }

    async fn put_claim(
        dcs: &dyn Dcs,
        claim: &RollbackClaim,
        request: &RollbackRequest,
        seen: i64,
    ) -> Result<i64, Error> {
        dcs.claim_rollback(claim, request, seen).await
    }

    async fn put_progress(dcs: &dyn Dcs, claim: &RollbackClaim) -> Result<(), Error> {
        dcs.report_rollback(claim).await
    }

    async fn put_outcome(dcs: &dyn Dcs, outcome: &RollbackOutcome, seen: i64) -> Result<i64, Error> {
        dcs.finish_rollback(outcome, seen).await
    }

    fn next(
        &mut self,
        view: &View,
        records: &Records<RollbackRequest>,
        recorded: bool,
        _: &Snapshot,
        hand: &mut Hand<Self>,
    ) -> Step {
        let hand = match hand {
            Hand::Nothing => Seen::Nothing,
            Hand::Running(running) => in_hand(running),
            Hand::Ended(ended) => Seen::Ended { request: ended.taken.request.id.clone() },
        };
        let request = records.request.as_ref().map(|entry| &entry.value);
        let request = request.map(|asked| Request { id: asked.id.clone(), begun: asked.begun });
        let swapped = self.swapped.as_ref().map(|swap| swap.id.clone());
        next(view, &Job { claim: records.claim, request, recorded, hand, remains: self.remains, swapped })
    }

    fn look_again(&self) -> Option<Duration> {
        self.remains.then_some(PACE)
    }

    fn progress_interval(&self) -> Duration {
        PACE
    }

    fn claim(&self, asked: &RollbackRequest, member: &str) -> (RollbackClaim, RollbackRequest) {
        let target = goal(&asked.target, clock::wall());
        let claim = RollbackClaim {
            request: asked.id.clone(),
            member: member.to_owned(),
            began: clock::wall().to_string(),
            target: target.map(|goal| goal.target.to_string()).unwrap_or_default(),
            phase: "beginning".to_owned(),
            ..RollbackClaim::default()
        };
        (claim, RollbackRequest { begun: true, ..asked.clone() })
    }

    fn begin(&mut self, taken: Taken<Self>, view: &View, report: &Report) -> Hand<Self> {
        let preparation = match self.preparation(&taken.request, report) {
            Ok(preparation) => preparation,
            Err(why) => {
                let mut outcome = outcome_of(&taken.request, &taken.claim.member);
                (outcome.target, outcome.error) = (taken.claim.target.clone(), Some(why));
                return Hand::Ended(Ended { taken, outcome, end: (), given_up: None });
            }
        };
        let RollbackRequest { id, by, .. } = &taken.request;
        info!(request = id, by, target = taken.claim.target, "preparing a rollback");
        let timeline = preparation.timeline;
        let (tell, told) = watch::channel(taken.claim.clone());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(prepare(preparation, tell, cancel.clone()));
        let stage = Stage::Preparing { task, cancel };
        let term = view.leader.as_ref().map_or(0, |leader| leader.term);
        let run = Run { term, timeline, stage, told, news: false, why: None };
        Hand::Running(Running { taken, run, given_up: None })
    }

    /// Whoever began with it is gone.
    fn refuse(&self, taken: Taken<Self>) -> Ended<Self> {
        let swap = taken.request.swap.as_ref();
        let member = swap.map_or(taken.claim.member.as_str(), |swap| swap.member.as_str());
        let mut outcome = outcome_of(&taken.request, member);
        outcome.error = Some(match swap {
            None => "the agent that prepared it ended, or lost the lease; nothing was changed".to_owned(),
            Some(swap) => format!(
                "{} was lost during the swap; the cluster continues with its leader's data (on {} the old data is in its \
                 place, or in {})",
                swap.member, swap.member, swap.old_data
            ),
        });
        Ended { taken, outcome, end: (), given_up: None }
    }

    fn news(run: &mut Run, claim: &mut RollbackClaim) -> bool {
        if run.told.has_changed().unwrap_or(false) {
            claim.clone_from(&run.told.borrow_and_update());
            run.news = true;
        }
        std::mem::take(&mut run.news)
    }

    fn give_up(&mut self, running: &mut Running<Self>, why: GivenUp, view: &View) {
        let run = &mut running.run;
        match &run.stage {
            Stage::Preparing { cancel, .. } => cancel.cancel(),
            Stage::Prepared(_) => run.stage = Stage::Stopped,
            // The order goes, and with it whoever would tell that it was carried out.
            Stage::Offered { .. } if self.swap_offer.take().is_some() => {}
            Stage::Offered { .. } | Stage::Starting { .. } | Stage::Stopped => return,
        }
        let words = in_words(why, view.leaving);
        info!(request = running.taken.request.id, why = words, "cancelling the rollback");
        (run.why, running.given_up) = (Some(words), Some(why));
    }

    async fn comes(run: &mut Run) -> Came {
        match &mut run.stage {
            Stage::Preparing { task, .. } => {
                let broken = |fault| Err(format!("the preparation ended unexpectedly: {fault}"));
                Came::Prepared(task.await.unwrap_or_else(broken))
            }
            Stage::Stopped => Came::Prepared(Err("it was abandoned".to_owned())),
            Stage::Offered { done, .. } => {
                let broken = |_| Err("the swap was abandoned before it began".to_owned());
                Came::Swapped(done.await.unwrap_or_else(broken))
            }
            // What comes next of these, a report tells.
            Stage::Prepared(_) | Stage::Starting { .. } => pending().await,
        }
    }

    fn conclude(&mut self, mut running: Running<Self>, came: Came) -> Hand<Self> {
        match came {
            Came::Prepared(Ok(ready)) if running.given_up.is_none() => {
                running.run.stage = Stage::Prepared(ready);
                Hand::Running(running)
            }
            Came::Prepared(Ok(_)) => Hand::Ended(self.fail(running, "it was abandoned".to_owned())),
            Came::Swapped(Ok(Swapped { stopping })) => {
                running.run.stage = Stage::Starting { stopping: Some(stopping) };
                running.phase("starting");
                running.run.news = true;
                Hand::Running(running)
            }
            Came::Prepared(Err(why)) | Came::Swapped(Err(why)) => Hand::Ended(self.fail(running, why)),
        }
    }

    fn follow(outcome: &mut RollbackOutcome, cluster: &Snapshot) {
        let before = cluster.rollback_last.as_ref().and_then(|entry| entry.value.least_timeline);
        outcome.least_timeline = outcome.least_timeline.or(before);
    }

    /// Whoever is on an earlier timeline is not promoted from now on.
    fn recorded(&self) {
        self.waker.wake();
    }

    async fn act(claimed: &mut Claimed<Self>, own: Own, report: &Report, cluster: &Snapshot) -> Stepped {
        match own {
            Own::CleanUp => claimed.clean_up().await,
            Own::Resume => claimed.resume(cluster).await,
            Own::LetEnd => claimed.let_end(),
            Own::Offer => return claimed.offer(report).await,
            Own::Finish => return claimed.finish(report).await,
            Own::EndSupplanted => return claimed.end_supplanted(cluster),
        }
        Stepped::Acted
    }
}

impl Running<Rollback> {
    /// Other words for what is being done.
    fn phase(&mut self, phase: &str) {
        self.news();
        let claim = &mut self.taken.claim;
        phase.clone_into(&mut claim.phase);
        (claim.bytes_done, claim.bytes_total, claim.rate) = (0, 0, 0);
        claim.seconds_left = None;
    }
}

fn in_hand(running: &mut Running<Rollback>) -> Seen {
    let news = running.news();
    let stage = match &running.run.stage {
        Stage::Preparing { .. } | Stage::Stopped => SeenStage::Preparing,
        Stage::Prepared(_) => SeenStage::Prepared,
        Stage::Offered { since, .. } => SeenStage::Offered(since.elapsed()),
        Stage::Starting { .. } => {
            let swap = running.taken.request.swap.as_ref();
            return Seen::Swapped { timeline: swap.map(|swap| swap.new_timeline).unwrap_or_default(), news };
        }
    };
    Seen::Before {
        request: running.taken.request.id.clone(),
        term: running.run.term,
        timeline: running.run.timeline,
        stage,
        given_up: running.given_up.is_some(),
        news,
    }
}

fn in_words(why: GivenUp, leaving: bool) -> &'static str {
    match why {
        GivenUp::Withdrawn => "it was cancelled",
        GivenUp::LeaseLost => "the leader lease was lost or has changed hands",
        GivenUp::Ending if leaving => "the agent of the leader was told to end",
        GivenUp::Ending => "the leader was told to end",
        GivenUp::Down => "Postgres of the leader went down, or is on another timeline",
        GivenUp::Late => "the round did not start the swap in time",
    }
}
