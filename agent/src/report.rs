//! The report of the round: what it saw, decided and did. Written only by the round, read by HTTP handlers and tasks.

pub(crate) mod recorder;
#[cfg(test)]
pub(crate) mod sample;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use outrider_dcs::Snapshot;
use outrider_ha::{Plan, Step, View};
use outrider_postgres::{Configuration, KnownParameters, Observation, Observer};
use outrider_wal::Lsn;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{debug, info};

use self::recorder::{Record, Recorder};
use crate::instruments::Instruments;
use crate::log::Said;
use crate::state::{Counters, DcsRecord, Failed, State};
use crate::{clock, member};

/// Receives the report; `None` until the first round has ended.
pub(crate) type Board = watch::Receiver<Option<Arc<Report>>>;

/// One round, and sums since the start.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// When the round ended.
    pub(crate) at: Timestamp,
    /// What it saw.
    pub(crate) view: View,
    /// What it decided.
    pub(crate) plan: Plan,
    /// The error of the step that failed; the steps after it were not tried.
    pub(crate) failure: Option<String>,
    /// The last snapshot of the DCS, however old.
    pub(crate) cluster: Option<Snapshot>,
    /// When that was.
    pub(crate) dcs_last_seen: Option<Timestamp>,
    /// What this member remembers of the DCS.
    pub(crate) dcs_record: Arc<DcsRecord>,
    /// Until when the leader lease is certainly held, in nanoseconds since boot; `None` when it is not.
    pub(crate) lease_until_boottime_ns: Option<u64>,
    /// What Postgres says of itself; `None` when it does not answer.
    pub(crate) postgres: Option<Observation>,
    /// Patroni's word for the state of Postgres, such as `running` or `creating replica`.
    pub(crate) state: &'static str,
    /// The long work that failed last and has not succeeded since.
    pub(crate) failing: Option<Failed>,
    /// Longest wait until the next round.
    pub(crate) next_round: Duration,
    /// Status of the archive; `None` when none is configured.
    pub(crate) archive: Option<outrider_archive::Status>,
    /// How far the unfinished segment is streamed; `None` when it is not.
    pub(crate) stream: Option<outrider_archive::StreamStatus>,
    /// Start of the WAL that this member keeps because it may fill a gap in the archive.
    pub(crate) kept_for_gap: Option<Lsn>,
    /// What is wrong at this member: `archive_gaps`, `not_honoured`, `file_faults`, `start_failure`.
    pub(crate) troubles: Vec<(&'static str, Vec<String>)>,
    /// Most bytes that a healthy replica may have left to replay; `None` for no limit.
    pub(crate) maximum_lag_on_replica: Option<u64>,
    /// The cluster's parameters and lines of `pg_hba.conf` that Postgres is given.
    pub(crate) configuration: Configuration,
    /// What Postgres knows of parameters; `None` before it first ran.
    pub(crate) known: Option<Arc<KnownParameters>>,
    /// Sizes of the databases in bytes, by name; at most a minute old.
    pub(crate) database_sizes: BTreeMap<String, u64>,
    /// Sums since the start of the agent.
    pub(crate) counters: Counters,
}

/// Interval between queries for the sizes of databases, which read directories.
const SIZES_INTERVAL: Duration = Duration::from_secs(60);

/// The same while Postgres does not answer.
const SIZES_RETRY: Duration = Duration::from_secs(2);

/// Writes the report, the log and the flight recorder.
pub(crate) struct Reporter {
    board: watch::Sender<Option<Arc<Report>>>,
    recorder: Recorder,
    sizes: watch::Receiver<BTreeMap<String, u64>>,
    sizing: JoinHandle<()>,
    last_reason: Said,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.sizing.abort();
    }
}

impl Reporter {
    /// No report yet.
    pub(crate) fn new(instruments: &Instruments) -> Self {
        let (sizes_seen, sizes) = watch::channel(BTreeMap::new());
        let sizing = tokio::spawn(size(instruments.postgres.observer(), sizes_seen));
        let recorder = Recorder::new(&instruments.config.postgres.state_directory);
        Reporter { board: watch::Sender::new(None), recorder, sizes, sizing, last_reason: Said::default() }
    }

    /// For readers.
    pub(crate) fn board(&self) -> Board {
        self.board.subscribe()
    }

    /// Logs a plan that differs from the one before.
    pub(crate) fn note_plan(&mut self, plan: &Plan) {
        let reason = plan.reason.to_string();
        if self.last_reason.is_news(&reason) {
            info!("{reason}");
        }
        if plan.steps.iter().any(|step| *step != Step::RenewLease) {
            debug!(steps = ?plan.steps, "the plan");
        }
    }

    /// Publishes what this round saw, decided and did.
    #[expect(clippy::too_many_arguments, reason = "the report needs all that a round has")]
    pub(crate) fn post(
        &mut self,
        view: View,
        plan: Plan,
        failure: Option<String>,
        took: Duration,
        next_round: Duration,
        instruments: &Instruments,
        state: &mut State,
    ) {
        let at = clock::wall();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let record = Record { at, version, view, plan, failure };
        self.recorder.record(&record);
        let Record { view, plan, failure, .. } = record;
        state.counters.note_round(plan.reason.label(), took);
        state.counters.recorder_failures = self.recorder.failures;
        let postgres = state.postgres.seen();
        let archive = instruments.archive.as_ref().map(|archive| archive.status(postgres));
        let report = Report {
            at,
            state: member::state(&view),
            view,
            plan,
            failure,
            cluster: state.cluster.snapshot().cloned(),
            dcs_last_seen: state.cluster.last_seen(),
            dcs_record: state.dcs.record(),
            lease_until_boottime_ns: state.lease.held().map(|lease| lease.until_ns),
            postgres: postgres.cloned(),
            failing: state.jobs.failing().cloned(),
            next_round,
            troubles: member::troubles(state, archive.as_ref()),
            archive,
            stream: instruments.archive.as_ref().and_then(|archive| archive.stream_status()),
            kept_for_gap: instruments.slot.kept_for_gap(),
            maximum_lag_on_replica: state.rules.maximum_lag_on_replica(),
            configuration: state.settings.wanted().clone(),
            known: state.rules.known().cloned(),
            database_sizes: self.sizes.borrow().clone(),
            counters: state.counters.clone(),
        };
        self.board.send_replace(Some(Arc::new(report)));
    }
}

async fn size(observer: Observer, sizes: watch::Sender<BTreeMap<String, u64>>) {
    loop {
        match observer.database_sizes().await {
            Ok(seen) => {
                sizes.send_replace(seen.into_iter().collect());
                sleep(SIZES_INTERVAL).await;
            }
            // Postgres is not up yet.
            Err(_) => sleep(SIZES_RETRY).await,
        }
    }
}
