//! Long work beside the round: at most one job, and the proof that commits wait.

use std::sync::Arc;
use std::time::Duration;

use outrider_ha::{Job, MemberName, StartAs, StopMode};
use outrider_postgres::{Configuration, Error, KnownParameters};
use outrider_supervisor::protocol;
use outrider_wal::Lsn;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::errand::errand;
use super::{Actor, Fault, Gap, HeldLease, from_archive};
use crate::config::{Origin, Tried};
use crate::report::causes;
use crate::round::{Instruments, Memory};
use crate::{clock, observe};

/// A job under way.
pub(crate) struct Running {
    kind: Job,
    task: JoinHandle<Result<(), Error>>,
    begun: Instant,
}

impl Running {
    /// What it is.
    pub(crate) fn kind(&self) -> Job {
        self.kind
    }

    /// Stops waiting for it; what it told the supervisor goes on.
    pub(crate) fn abandon(self) {
        self.task.abort();
    }
}

/// The proof under way that commits wait for the standbys that were set.
pub(crate) struct Proving {
    task: JoinHandle<Result<Lsn, Error>>,
}

impl Drop for Proving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What has ended.
pub(crate) enum Finished {
    /// The job.
    Job(Job, Result<(), Error>),
    /// The proof.
    Proof(Result<Lsn, Error>),
    /// The errand.
    Errand(Result<(), Error>),
    /// The measurement of a switchover's gap.
    Gap(Option<Duration>),
    /// The question what the server knows of parameters.
    Learned(Result<KnownParameters, Error>),
    /// The trial of parameters.
    Tried(Result<Tried, Error>),
}

/// Waits for the first of them to end; for ever when there is none.
pub(crate) async fn finished(memory: &mut Memory) -> Finished {
    let Memory { job, proving, errand, gap, rules, .. } = memory;
    tokio::select! {
        ended = ended(job.as_mut().map(|job| &mut job.task)) => {
            let kind = job.as_ref().map_or(Job::Start, Running::kind);
            Finished::Job(kind, ended)
        }
        ended = ended(proving.as_mut().map(|proving| &mut proving.task)) => Finished::Proof(ended),
        ended = ended(errand.as_mut().map(|errand| &mut errand.task)) => Finished::Errand(ended),
        measured = measured(gap.as_mut()) => Finished::Gap(measured),
        ended = ended(rules.learning.as_mut().map(|learning| &mut learning.task)) => Finished::Learned(ended),
        ended = ended(rules.trying.as_mut().map(|trying| &mut trying.task)) => Finished::Tried(ended),
    }
}

async fn measured(gap: Option<&mut Gap>) -> Option<Duration> {
    match gap {
        None => std::future::pending().await,
        Some(gap) => gap.measured().await,
    }
}

async fn ended<Outcome>(task: Option<&mut JoinHandle<Result<Outcome, Error>>>) -> Result<Outcome, Error> {
    match task {
        None => std::future::pending().await,
        Some(task) => match task.await {
            Ok(outcome) => outcome,
            // A defect of ours: it is not made worse by going on as if the work had failed.
            Err(fault) => {
                error!(%fault, "work beside the round broke off");
                Err(Error::TooSlow { act: "finish what was under way", limit: Duration::ZERO })
            }
        },
    }
}

/// Notes in memory what has ended.
pub(crate) fn conclude(finished: Finished, instruments: &Instruments, memory: &mut Memory) {
    match finished {
        Finished::Job(kind, outcome) => conclude_job(kind, outcome, instruments, memory),
        Finished::Proof(outcome) => {
            memory.proving = None;
            match outcome {
                Ok(since) => memory.synchronous.since = Some(since),
                Err(fault) => {
                    warn!(fault = %causes(&fault), "cannot prove whom commits wait for; setting it anew");
                    memory.forget_synchronous();
                }
            }
        }
        Finished::Gap(measured) => {
            memory.gap = None;
            memory.counters.last_write_gap = measured;
            match measured {
                Some(gap) => info!(?gap, "switched over; nobody could write for this long"),
                None => info!("switched over; for how long nobody could write was not measured"),
            }
        }
        Finished::Learned(outcome) => conclude_learning(outcome, instruments, memory),
        Finished::Tried(outcome) => {
            if let Some(trying) = memory.rules.trying.take() {
                // What broke off found nothing against them.
                memory.rules.verdict = Some((trying.wanted.clone(), outcome.unwrap_or_default()));
                memory.rules.again = true;
            }
        }
        Finished::Errand(outcome) => {
            memory.errand = None;
            if let Err(fault) = outcome {
                warn!(fault = %causes(&fault), "cannot tell when Postgres is up");
            }
            // A primary that was started with the setting has it from its first commit on; the proof is still due.
            if !memory.synchronous.names.is_empty()
                && memory.synchronous.since.is_none()
                && memory.proving.is_none()
            {
                memory.proving = Some(prove(instruments, memory.configuration.clone()));
            }
        }
    }
}

fn conclude_learning(
    outcome: Result<KnownParameters, Error>,
    instruments: &Instruments,
    memory: &mut Memory,
) {
    let Some(learning) = memory.rules.learning.take() else { return };
    match outcome {
        Ok(known) => {
            memory.rules.known_of.clone_from(&learning.of);
            if memory.rules.known.as_deref() != Some(&known) {
                memory.rules.known = Some(Arc::new(known));
                memory.rules.again = true;
                observe::rules::keep(instruments, memory);
            }
        }
        // It is asked again in the next round.
        Err(fault) => debug!(fault = %causes(&fault), "Postgres does not say what it knows of parameters"),
    }
}

fn conclude_job(kind: Job, outcome: Result<(), Error>, instruments: &Instruments, memory: &mut Memory) {
    let took = memory.job.take().map(|job| job.begun.elapsed()).unwrap_or_default();
    memory.control = None;
    match (kind, &outcome) {
        (Job::Initdb | Job::Clone, _) => memory.forget_data(),
        (Job::Rewind, Ok(())) | (Job::Rollback, _) => memory.forget_data(),
        // A primary that cannot be reached is no reason to give the data up.
        (Job::Rewind, Err(fault)) => {
            memory.rewind_failed = !matches!(fault, Error::Reach { .. } | Error::SupervisorRefused { .. });
        }
        (Job::PostBootstrap, Ok(())) => memory.users_ready = true,
        (Job::Checkpoint, Ok(())) => {
            if let Some(switchover) = &mut memory.switchover {
                switchover.checkpointed = true;
            }
        }
        (Job::Start, Ok(())) => {
            memory.counters.postgres_starts += 1;
            memory.errand = Some(errand(instruments));
        }
        (Job::Stop | Job::Start | Job::PostBootstrap | Job::Checkpoint, _) => {}
    }
    match outcome {
        Ok(()) => {
            info!(job = %kind, ?took, "done");
            // That the postmaster was started does not mean that it comes up.
            if kind != Job::Start {
                memory.failures.forget(kind);
            }
        }
        Err(fault) => {
            let fault = causes(&fault);
            error!(job = %kind, ?took, fault, "failed");
            // Nobody writes until Postgres is up again, with the data that it had.
            if kind != Job::Rollback {
                memory.failed(kind, &fault);
            }
        }
    }
}

/// Begins the proof of what `configuration` says.
pub(super) fn prove(instruments: &Instruments, configuration: Configuration) -> Proving {
    let postgres = instruments.postgres.clone();
    Proving { task: tokio::spawn(async move { postgres.prove_synchronous(&configuration).await }) }
}

impl Actor<'_> {
    pub(super) fn begin(
        &mut self,
        kind: Job,
        work: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        info!(job = %kind, "begins");
        // The plan never begins a second one while one is under way; should it, the older one is not waited for.
        if let Some(older) = self.memory.job.take() {
            older.abandon();
        }
        self.memory.control = None;
        self.memory.job = Some(Running { kind, task: tokio::spawn(work), begun: clock::monotonic() });
    }

    /// By initdb, or from an archive when that is what the configuration says.
    pub(super) fn make_first_data(&mut self) {
        let postgres = self.instruments.postgres.clone();
        let config = self.instruments.config.clone();
        match (&config.origin, &self.instruments.archive) {
            (Origin::Archive(origin), Some(archive)) => {
                let (origin, shipper) = (origin.as_ref().clone(), archive.shipper());
                let mut wanted = self.memory.configuration.clone();
                wanted.set_synchronous(&[]);
                wanted.upstream = None;
                let work = from_archive::bootstrap(postgres, config.clone(), shipper, origin, wanted);
                self.begin(Job::Initdb, work);
            }
            // An origin in an archive is refused in the configuration where there is none for the cluster.
            (Origin::Initdb, _) | (Origin::Archive(_), None) => {
                self.begin(Job::Initdb, async move { postgres.initdb().await });
            }
        }
    }

    pub(super) fn post_bootstrap(&mut self) {
        let postgres = self.instruments.postgres.clone();
        self.begin(Job::PostBootstrap, async move { postgres.create_users().await });
    }

    pub(super) fn checkpoint(&mut self) {
        let postgres = self.instruments.postgres.clone();
        self.begin(Job::Checkpoint, async move { postgres.checkpoint().await });
    }

    pub(super) fn shorten_stop(&mut self, to: &MemberName) {
        let postgres = self.instruments.postgres.clone();
        let candidate = to.to_string();
        self.begin(Job::Checkpoint, async move { postgres.shorten_stop(&candidate).await });
    }

    pub(super) fn start(&mut self, start_as: &StartAs) -> Result<(), Fault> {
        let postgres = self.instruments.postgres.clone();
        self.set_stopping(false);
        self.memory.rules.told_at = None;
        self.memory.errand = None;
        self.memory.forget_synchronous();
        self.memory.configuration.hastened = false;
        match start_as {
            StartAs::Primary { synchronous } => {
                let fuse = self.live_lease("start Postgres as primary")?.fuse;
                let names: Vec<String> = synchronous.iter().map(ToString::to_string).collect();
                self.memory.configuration.upstream = None;
                self.memory.configuration.set_synchronous(&names);
                self.memory.commits_wait_for(synchronous);
                let configuration = self.memory.configuration.clone();
                self.begin(Job::Start, async move { postgres.start_primary(&configuration, &fuse).await });
            }
            StartAs::Standby { upstream } => {
                let upstream = upstream.as_ref().map(|name| self.upstream(name)).transpose()?;
                self.memory.configuration.upstream = upstream;
                self.memory.configuration.set_synchronous(&[]);
                let configuration = self.memory.configuration.clone();
                self.begin(Job::Start, async move { postgres.start_standby(&configuration).await });
            }
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, mode: &StopMode) {
        let postgres = self.instruments.postgres.clone();
        self.set_stopping(true);
        self.memory.errand = None;
        if let Some(announced) = self.memory.snapshot.as_ref().and_then(|snapshot| snapshot.intent.as_ref())
            && let Some(progress) = &mut self.memory.switchover
            && progress.id == announced.value.id
        {
            progress.stopping_since = Some(clock::monotonic());
            self.memory.write_gap_since = Some(clock::monotonic());
        }
        self.memory.forget_synchronous();
        // A leader that is stopped at once was given up: it hung, which is as good as a crash loop.
        if *mode == StopMode::Immediate && self.memory.lease.is_some() {
            self.memory.gave_up();
        }
        let (mode, cut_off) = match mode {
            StopMode::Fast => (protocol::StopMode::Fast, Vec::new()),
            StopMode::FastAwaiting { standbys } => (protocol::StopMode::Fast, self.walsenders_but(standbys)),
            StopMode::Immediate => (protocol::StopMode::Immediate, Vec::new()),
        };
        self.begin(Job::Stop, async move { postgres.stop(mode, &cut_off).await });
    }

    /// The processes of the walsenders of all others.
    pub(super) fn walsenders_but(&self, standbys: &[MemberName]) -> Vec<i32> {
        let walsenders = self.memory.seen.iter().flat_map(|seen| &seen.walsenders);
        let is_named = |name: &str| standbys.iter().any(|standby| standby.as_str() == name);
        walsenders.filter(|sender| !is_named(&sender.application_name)).map(|sender| sender.pid).collect()
    }

    pub(super) fn clone(&mut self, from: &outrider_ha::MemberName) -> Result<(), Fault> {
        let upstream = self.upstream(from)?;
        let postgres = self.instruments.postgres.clone();
        let config = self.instruments.config.clone();
        let named = self.memory.snapshot.as_ref().and_then(|snapshot| snapshot.initialize.as_ref());
        let system = named.and_then(|entry| entry.value.trim().parse().ok());
        self.begin(Job::Clone, from_archive::clone(postgres, config, system, upstream));
        Ok(())
    }

    pub(super) fn rewind(&mut self, from: &outrider_ha::MemberName) -> Result<(), Fault> {
        let upstream = self.upstream(from)?;
        let postgres = self.instruments.postgres.clone();
        let mut configuration = self.memory.configuration.clone();
        configuration.set_synchronous(&[]);
        self.begin(Job::Rewind, async move { postgres.rewind(&configuration, &upstream).await });
        Ok(())
    }

    pub(super) fn set_stopping(&self, stopping: bool) {
        if let Some(archive) = &self.instruments.archive {
            archive.set_stopping(stopping);
        }
    }

    /// The lease, if it is still sure to be held.
    pub(super) fn live_lease(&self, act: &'static str) -> Result<HeldLease, Fault> {
        let live = self.memory.lease.filter(|lease| clock::boottime_ns() < lease.fuse.deadline_ns());
        live.ok_or(Fault::LeaseTooOld { act })
    }
}
