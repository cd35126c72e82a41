//! Long work beside the round: at most one job, and the proof that commits wait.

use outrider_ha::{Job, MemberName, StartAs, StopMode};
use outrider_postgres::{Configuration, Error};
use outrider_supervisor::protocol;
use outrider_wal::Lsn;
use tracing::{error, info, warn};

use super::coming_up::coming_up;
use super::{Actor, StepError};
use crate::config::Origin;
use crate::from_archive;
use crate::instruments::Instruments;
use crate::log::causes;
use crate::state::{Answered, Background, Ended, HeldLease, State};

/// What has ended beside the round.
pub(crate) enum Finished {
    /// Long work.
    Work(Ended),
    /// The proof that commits wait.
    Proof(Result<Lsn, Error>),
    /// A question about parameters.
    Answer(Answered),
}

/// Waits for the first of them to end; for ever when there is none.
pub(crate) async fn finished(state: &mut State) -> Finished {
    let State { jobs, commits, rules, .. } = state;
    tokio::select! {
        ended = jobs.ended() => Finished::Work(ended),
        outcome = commits.proof_ended() => Finished::Proof(outcome),
        answer = rules.answered() => Finished::Answer(answer),
    }
}

/// Notes in memory what has ended.
pub(crate) fn conclude(finished: Finished, instruments: &Instruments, state: &mut State) {
    match finished {
        Finished::Work(Ended::Job(kind, outcome)) => conclude_job(kind, outcome, instruments, state),
        Finished::Work(Ended::WriteGap(measured)) => {
            state.jobs.write_gap_is_measured();
            state.counters.last_write_gap = measured;
            match measured {
                Some(gap) => info!(?gap, "switched over; write gap"),
                None => info!("switched over; the write gap was not measured"),
            }
        }
        Finished::Work(Ended::CameUp(outcome)) => {
            state.jobs.stop_waiting_for_postgres();
            if let Err(fault) = outcome {
                warn!(fault = %causes(&fault), "cannot detect when Postgres is up");
            }
            // A primary that was started with the setting has it from its first commit on; the proof is still due.
            if state.commits.need_proof() {
                state.commits.are_being_proven(prove(instruments, state.settings.wanted().clone()));
            }
        }
        Finished::Proof(outcome) => state.commits.were_proven(outcome),
        Finished::Answer(answer) => {
            if state.rules.learn(answer) {
                state.rules.keep(instruments.postgres.settings());
            }
        }
    }
}

fn conclude_job(kind: Job, outcome: Result<(), Error>, instruments: &Instruments, state: &mut State) {
    let took = state.jobs.end();
    state.data.is_in_use();
    match (kind, &outcome) {
        (Job::Initdb | Job::Clone | Job::Rollback, _) | (Job::Rewind, Ok(())) => {
            state.data.was_replaced();
            state.promotion.forget();
        }
        // A primary that cannot be reached is no reason to give the data up.
        (Job::Rewind, Err(fault)) => {
            let for_good = !matches!(fault, Error::Reach { .. } | Error::SupervisorRefused { .. });
            state.data.was_not_rewound(for_good);
        }
        (Job::PostBootstrap, Ok(())) => state.postgres.users_were_made(),
        (Job::Checkpoint, Ok(())) => state.cluster.has_checkpointed(),
        (Job::Start, Ok(())) => {
            state.counters.postgres_starts += 1;
            state.jobs.wait_for_postgres(coming_up(instruments));
        }
        (Job::Stop | Job::Start | Job::PostBootstrap | Job::Checkpoint, _) => {}
    }
    match outcome {
        Ok(()) => {
            info!(job = %kind, ?took, "done");
            // That the postmaster was started does not mean that it comes up.
            if kind != Job::Start {
                state.jobs.succeeded(kind);
            }
        }
        Err(fault) => {
            let fault = causes(&fault);
            error!(job = %kind, ?took, fault, "failed");
            // Nobody writes until Postgres is up again, with the data that it had.
            if kind != Job::Rollback {
                state.jobs.failed(kind, &fault, state.rules.policy().loop_wait);
            }
        }
    }
}

/// Begins the proof of what `configuration` says.
pub(super) fn prove(instruments: &Instruments, configuration: Configuration) -> Background<Lsn> {
    let postgres = instruments.postgres.clone();
    Background::begin(async move { postgres.prove_synchronous(&configuration).await })
}

impl Actor<'_> {
    pub(super) fn begin(
        &mut self,
        kind: Job,
        work: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        info!(job = %kind, "begins");
        self.state.data.is_in_use();
        self.state.jobs.begin(kind, Background::begin(work));
    }

    /// By initdb, or from an archive when that is what the configuration says.
    pub(super) fn make_first_data(&mut self) {
        let postgres = self.instruments.postgres.clone();
        let config = self.instruments.config.clone();
        match (&config.origin, &self.instruments.archive) {
            (Origin::Archive(origin), Some(archive)) => {
                let (origin, shipper) = (origin.as_ref().clone(), archive.shipper());
                let mut wanted = self.state.settings.wanted().clone();
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

    pub(super) fn start(&mut self, start_as: &StartAs) -> Result<(), StepError> {
        let postgres = self.instruments.postgres.clone();
        self.set_stopping(false);
        self.state.rules.were_given(None);
        self.state.jobs.stop_waiting_for_postgres();
        self.state.commits.forget();
        self.state.settings.hasten(false);
        match start_as {
            StartAs::Primary { synchronous } => {
                let fuse = self.live_lease("start Postgres as primary")?.fuse;
                let names: Vec<String> = synchronous.iter().map(ToString::to_string).collect();
                self.state.settings.follow(None);
                self.state.settings.wait_for(&names);
                self.state.commits.were_set_to(synchronous);
                let configuration = self.state.settings.wanted().clone();
                self.begin(Job::Start, async move { postgres.start_primary(&configuration, &fuse).await });
            }
            StartAs::Standby { upstream } => {
                let upstream = upstream.as_ref().map(|name| self.upstream(name)).transpose()?;
                self.state.settings.follow(upstream);
                self.state.settings.wait_for(&[]);
                let configuration = self.state.settings.wanted().clone();
                self.begin(Job::Start, async move { postgres.start_standby(&configuration).await });
            }
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, mode: &StopMode) {
        let postgres = self.instruments.postgres.clone();
        self.set_stopping(true);
        self.state.jobs.stop_waiting_for_postgres();
        if self.state.cluster.stops() {
            self.state.jobs.write_gap_begins();
        }
        self.state.commits.forget();
        // A leader that is stopped at once was given up: it hung, which is as good as a crash loop.
        if *mode == StopMode::Immediate && self.state.lease.held().is_some() {
            self.state.supervisor.postgres_was_given_up();
            self.state.promotion.gave_up();
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
        let walsenders = self.state.postgres.seen().into_iter().flat_map(|seen| &seen.walsenders);
        let is_named = |name: &str| standbys.iter().any(|standby| standby.as_str() == name);
        walsenders.filter(|sender| !is_named(&sender.application_name)).map(|sender| sender.pid).collect()
    }

    pub(super) fn clone(&mut self, from: &outrider_ha::MemberName) -> Result<(), StepError> {
        let upstream = self.upstream(from)?;
        let postgres = self.instruments.postgres.clone();
        let config = self.instruments.config.clone();
        let named = self.state.cluster.snapshot().and_then(|snapshot| snapshot.initialize.as_ref());
        let system = named.and_then(|entry| entry.value.trim().parse().ok());
        self.begin(Job::Clone, from_archive::clone(postgres, config, system, upstream));
        Ok(())
    }

    pub(super) fn rewind(&mut self, from: &outrider_ha::MemberName) -> Result<(), StepError> {
        let upstream = self.upstream(from)?;
        let postgres = self.instruments.postgres.clone();
        let mut configuration = self.state.settings.wanted().clone();
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
    pub(super) fn live_lease(&self, act: &'static str) -> Result<HeldLease, StepError> {
        self.state.lease.live().ok_or(StepError::LeaseTooOld { act })
    }
}
