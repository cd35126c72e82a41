//! Carries out the steps of a kind of job whose requests are in the DCS: claims a request, starts it, writes its progress, cancels it,
//! records how it ended. The kind decides which step is next. Where an answer was lost, the next read tells what happened.

use std::fmt::Debug;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use outrider_dcs::{Dcs, Entry, Error, Snapshot};
use outrider_jobs::{Claim, Step, View};
use tracing::{info, warn};

use super::freshness::Freshness;
use super::runner::Job;
use super::seen;
use crate::log::causes;
use crate::report::Report;

/// Most steps when the agent ends: to cancel, record and clean up.
const LAST_STEPS: u32 = 4;

/// One kind of job whose requests stand in the DCS.
pub(crate) trait Kind: Send + Sync + Sized + 'static {
    /// What it is, in words.
    const WHAT: &'static str;
    /// As [`Job::LOOSE`].
    const LOOSE: &'static str;
    /// The request for one.
    type Request: Clone + Send + Sync;
    /// How far it is.
    type Claim: Clone + Send + Sync;
    /// How it ended.
    type Outcome: Send + Sync;
    /// What is under way.
    type Run: Send + Sync;
    /// What something under way has come to.
    type Came: Send;
    /// What the decision asks of one that has ended, besides.
    type End: Send + Sync;
    /// Why it may be told to stop.
    type GivenUp: Copy + Debug + Send + Sync;
    /// What only this kind does.
    type Own: Copy + Send;

    /// What stands in the DCS.
    fn records(cluster: &Snapshot) -> Records<Self::Request>;

    /// The name of a request.
    fn id(request: &Self::Request) -> &str;

    /// [`Dcs::claim_backup`] for this kind.
    fn put_claim(
        dcs: &dyn Dcs,
        claim: &Self::Claim,
        request: &Self::Request,
        seen: i64,
    ) -> impl Future<Output = Result<i64, Error>> + Send;

    /// [`Dcs::report_backup`] for this kind.
    fn put_progress(dcs: &dyn Dcs, claim: &Self::Claim) -> impl Future<Output = Result<(), Error>> + Send;

    /// [`Dcs::finish_backup`] for this kind.
    fn put_outcome(
        dcs: &dyn Dcs,
        outcome: &Self::Outcome,
        seen: i64,
    ) -> impl Future<Output = Result<i64, Error>> + Send;

    /// The decision. `recorded`: the last outcome in the DCS is that of what is in hand.
    fn next(
        &mut self,
        view: &View,
        records: &Records<Self::Request>,
        recorded: bool,
        cluster: &Snapshot,
        hand: &mut Hand<Self>,
    ) -> Step<Self::GivenUp, Self::Own>;

    /// How soon to look again for a reason of its own, when nothing is in hand.
    fn look_again(&self) -> Option<Duration>;

    /// Between two looks while something is in hand, and so between two writes of how far it is.
    fn progress_interval(&self) -> Duration;

    /// The claim of one that begins now, and the request that says so.
    fn claim(&self, asked: &Self::Request, member: &str) -> (Self::Claim, Self::Request);

    /// Begins with what is claimed.
    fn begin(&mut self, taken: Taken<Self>, view: &View, report: &Report) -> Hand<Self>;

    /// What is recorded of a request that is claimed because nobody goes on with it.
    fn refuse(&self, taken: Taken<Self>) -> Ended<Self>;

    /// Whether it has come further than it was asked about last; the claim says how far.
    fn news(run: &mut Self::Run, claim: &mut Self::Claim) -> bool;

    /// Tells it to stop, where it still can.
    fn give_up(&mut self, running: &mut Running<Self>, why: Self::GivenUp, view: &View);

    /// Waits for what comes next of it. Can be dropped while it waits.
    fn comes(run: &mut Self::Run) -> impl Future<Output = Self::Came> + Send;

    /// What is in hand when that has come.
    fn conclude(&mut self, running: Running<Self>, came: Self::Came) -> Hand<Self>;

    /// What an outcome takes over from the one before it.
    fn follow(outcome: &mut Self::Outcome, cluster: &Snapshot);

    /// An outcome has been recorded.
    fn recorded(&self);

    /// Does what only this kind does.
    fn act(
        claimed: &mut Claimed<Self>,
        own: Self::Own,
        report: &Report,
        cluster: &Snapshot,
    ) -> impl Future<Output = Stepped> + Send;
}

/// What stands in the DCS of one kind.
pub(crate) struct Records<Request> {
    /// The request for one.
    pub(super) request: Option<Entry<Request>>,
    /// Who has taken it up.
    pub(super) claim: Claim,
    /// The request that was answered last.
    pub(super) last: Option<String>,
}

/// A request that is claimed.
pub(crate) struct Taken<K: Kind> {
    pub(super) request: K::Request,
    /// Its revision.
    pub(super) seen: i64,
    pub(super) claim: K::Claim,
}

/// One that is under way.
pub(crate) struct Running<K: Kind> {
    pub(super) taken: Taken<K>,
    pub(super) run: K::Run,
    /// Why it was told to stop; the first reason counts.
    pub(super) given_up: Option<K::GivenUp>,
}

/// One that has ended, and the DCS does not know.
pub(crate) struct Ended<K: Kind> {
    pub(super) taken: Taken<K>,
    pub(super) outcome: K::Outcome,
    pub(super) end: K::End,
    pub(super) given_up: Option<K::GivenUp>,
}

/// What an agent has in hand.
pub(crate) enum Hand<K: Kind> {
    Nothing,
    Running(Running<K>),
    Ended(Ended<K>),
}

/// What a step has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stepped {
    /// There was nothing to do.
    Waits,
    /// What comes next shows in the next report.
    Acted,
    /// What was seen still holds.
    Again,
}

/// All of one kind that this agent has to do with.
pub(crate) struct Claimed<K: Kind> {
    pub(super) kind: K,
    pub(super) dcs: Arc<dyn Dcs>,
    pub(super) hand: Hand<K>,
    pub(super) freshness: Freshness,
}

impl<K: Kind> Claimed<K> {
    /// Nothing is in hand.
    pub(crate) fn new(kind: K, dcs: Arc<dyn Dcs>) -> Self {
        Claimed { kind, dcs, hand: Hand::Nothing, freshness: Freshness::default() }
    }

    async fn step(&mut self, report: &Report, cluster: &Snapshot, leaving: bool) -> Stepped {
        let view = seen::view(report, cluster, self.dcs.name(), leaving);
        let records = K::records(cluster);
        let mut recorded = false;
        if let Some(taken) = self.hand.taken_mut() {
            let id = K::id(&taken.request);
            recorded = records.last.as_deref() == Some(id);
            let own = records.request.as_ref().filter(|asked| K::id(&asked.value) == id);
            if let (Claim::Mine, Some(own)) = (records.claim, own) {
                // The answer to the claim may have been lost, and with it the revision.
                taken.seen = own.revision;
            }
        }
        match self.kind.next(&view, &records, recorded, cluster, &mut self.hand) {
            Step::Wait => return Stepped::Waits,
            Step::Take => {
                if let Some(taken) = self.take(records).await {
                    self.hand = self.kind.begin(taken, &view, report);
                }
            }
            Step::Refuse => {
                if let Some(taken) = self.take(records).await {
                    self.hand = Hand::Ended(self.kind.refuse(taken));
                    return Stepped::Again;
                }
            }
            Step::TakeAgain => self.take_again(records).await,
            Step::Report => self.report().await,
            Step::GiveUp(why) => {
                if let Hand::Running(running) = &mut self.hand {
                    self.kind.give_up(running, why, &view);
                }
            }
            Step::Record => self.record(cluster).await,
            Step::Forget => {
                self.hand = Hand::Nothing;
                return Stepped::Again;
            }
            Step::LeaveUnrecorded => {
                let fault = "its request is gone, or another has taken that up";
                warn!(fault, "how the {} ended is not recorded", K::WHAT);
                self.hand = Hand::Nothing;
                return Stepped::Again;
            }
            Step::Own(own) => return K::act(self, own, report, cluster).await,
        }
        Stepped::Acted
    }

    /// Claims the request, unless this member has.
    pub(super) async fn take(&mut self, records: Records<K::Request>) -> Option<Taken<K>> {
        let asked = records.request?;
        let (claim, request) = self.kind.claim(&asked.value, self.dcs.name());
        if records.claim == Claim::Mine {
            return Some(Taken { request: asked.value, seen: asked.revision, claim });
        }
        let claimed = K::put_claim(&*self.dcs, &claim, &request, asked.revision).await;
        let seen = self.note(claimed, &format!("claim the {}", K::WHAT)).await?;
        Some(Taken { request, seen, claim })
    }

    async fn take_again(&mut self, records: Records<K::Request>) {
        let Some(asked) = records.request else { return };
        let Some(taken) = self.hand.taken() else { return };
        let claimed = K::put_claim(&*self.dcs, &taken.claim, &asked.value, asked.revision).await;
        if let Some(seen) = self.note(claimed, &format!("claim the {} under way anew", K::WHAT)).await
            && let Some(taken) = self.hand.taken_mut()
        {
            taken.seen = seen;
            info!(request = K::id(&taken.request), "claimed the {} under way anew", K::WHAT);
        }
    }

    async fn report(&self) {
        let Some(taken) = self.hand.taken() else { return };
        if let Err(fault) = K::put_progress(&*self.dcs, &taken.claim).await
            && !fault.is_conflict()
        {
            warn!(fault = %causes(&fault), "cannot write how far the {} is", K::WHAT);
        }
    }

    async fn record(&mut self, cluster: &Snapshot) {
        let Hand::Ended(ended) = &mut self.hand else { return };
        K::follow(&mut ended.outcome, cluster);
        match K::put_outcome(&*self.dcs, &ended.outcome, ended.taken.seen).await {
            Ok(revision) => {
                self.freshness.changed(revision);
                self.hand = Hand::Nothing;
                self.kind.recorded();
            }
            // The session had run out: who has the claim now, the next report shows.
            Err(fault) if fault.is_conflict() => {}
            Err(fault) => warn!(fault = %causes(&fault), "cannot record yet how the {} ended", K::WHAT),
        }
    }

    /// Notes the revision of a change; what failed is looked at again with the next report.
    pub(super) async fn note(&mut self, outcome: Result<i64, Error>, act: &str) -> Option<i64> {
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

impl<K: Kind> Job for Claimed<K> {
    const LOOSE: &'static str = K::LOOSE;

    async fn look(&mut self, report: &Report) {
        let Some(cluster) = &report.cluster else { return };
        while self.freshness.is_news(cluster.revision)
            && self.step(report, cluster, false).await == Stepped::Again
        {}
    }

    async fn happened(&mut self) {
        let Hand::Running(running) = &mut self.hand else { return pending().await };
        let came = K::comes(&mut running.run).await;
        if let Hand::Running(running) = std::mem::replace(&mut self.hand, Hand::Nothing) {
            self.hand = self.kind.conclude(running, came);
        }
    }

    fn look_again(&self) -> Option<Duration> {
        match &self.hand {
            Hand::Nothing => self.kind.look_again(),
            Hand::Running(_) | Hand::Ended(_) => Some(self.kind.progress_interval()),
        }
    }

    async fn leave(mut self, last: Option<&Report>) {
        let Some((report, seen)) = last.and_then(|report| Some((report, report.cluster.as_ref()?))) else {
            return;
        };
        if let Hand::Nothing = self.hand {
            return;
        }
        self.step(report, seen, true).await;
        match &self.hand {
            Hand::Running(Running { given_up: Some(_), .. }) => self.happened().await,
            // It cannot be given up any more: the next agent goes on with it.
            Hand::Running(_) => return,
            Hand::Nothing | Hand::Ended(_) => {}
        }
        // The last report may be older than the last change.
        for _ in 0..LAST_STEPS {
            let Ok(cluster) = self.dcs.read().await else { return };
            if self.step(report, &cluster, true).await == Stepped::Waits {
                return;
            }
        }
    }
}

impl<K: Kind> Hand<K> {
    fn taken(&self) -> Option<&Taken<K>> {
        match self {
            Hand::Nothing => None,
            Hand::Running(Running { taken, .. }) | Hand::Ended(Ended { taken, .. }) => Some(taken),
        }
    }

    fn taken_mut(&mut self) -> Option<&mut Taken<K>> {
        match self {
            Hand::Nothing => None,
            Hand::Running(Running { taken, .. }) | Hand::Ended(Ended { taken, .. }) => Some(taken),
        }
    }
}

impl<K: Kind> Running<K> {
    /// Whether it has come further than it was asked about last; the claim says how far.
    pub(super) fn news(&mut self) -> bool {
        K::news(&mut self.run, &mut self.taken.claim)
    }
}
