//! The report of the round: what it saw, decided and did. Written only by the round, read by HTTP handlers and tasks.

pub(crate) mod recorder;
mod said;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use outrider_dcs::Snapshot;
use outrider_ha::{Plan, Step, View};
use outrider_postgres::{Configuration, KnownParameters, Observation, Observer, PendingRestart};
use outrider_wal::Lsn;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{debug, info};

use self::recorder::{Record, Recorder};
pub(crate) use self::said::Said;
use crate::act::{self, Fault};
use crate::clock;
use crate::round::{DcsRecord, Failed, Instruments, Memory};

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

/// Sums since the start of the agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// Rounds by label of their reason.
    pub(crate) rounds: BTreeMap<&'static str, u64>,
    /// Durations of rounds: the number within each bound of [`ROUND_BOUNDS`], in its order, and last all others.
    pub(crate) round_durations: [u64; ROUND_BOUNDS.len() + 1],
    /// Their sum.
    pub(crate) round_duration_sum: Duration,
    /// How long the last confirmed renewal of the lease took.
    pub(crate) last_renewal: Option<Duration>,
    /// Failed requests to the DCS by kind: `unreachable`, `conflict`, `unknown`, `refused`.
    pub(crate) dcs_errors: BTreeMap<&'static str, u64>,
    /// Promotions of this member without a planned hand-over.
    pub(crate) failovers: u64,
    /// Planned promotions of this member, and hand-overs by it.
    pub(crate) switchovers: u64,
    /// Times the supervisor fenced Postgres because the fuse blew.
    pub(crate) fenced: u64,
    /// Times Postgres was started by this agent.
    pub(crate) postgres_starts: u64,
    /// The last write gap that this member measured as the old primary of a switchover.
    pub(crate) last_write_gap: Option<Duration>,
    /// Lines that the flight recorder could not write.
    pub(crate) recorder_failures: u64,
}

/// Upper bounds of the histogram of round durations, in seconds.
pub(crate) const ROUND_BOUNDS: [f64; 8] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];

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
    #[expect(clippy::too_many_arguments, reason = "all that a round has is what the board shows")]
    pub(crate) fn post(
        &mut self,
        view: View,
        plan: Plan,
        fault: Option<Fault>,
        took: Duration,
        next_round: Duration,
        instruments: &Instruments,
        memory: &mut Memory,
    ) {
        let failure = fault.map(|fault| causes(&fault));
        let at = clock::wall();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let record = Record { at, version, view, plan, failure };
        self.recorder.record(&record);
        let Record { view, plan, failure, .. } = record;
        memory.counters.note_round(plan.reason.label(), took);
        memory.counters.recorder_failures = self.recorder.failures;
        let archive = instruments.archive.as_ref().map(|archive| archive.status(memory.seen.as_ref()));
        let report = Report {
            at,
            state: act::state(&view),
            view,
            plan,
            failure,
            cluster: memory.snapshot.clone(),
            dcs_last_seen: memory.dcs_last_seen,
            dcs_record: memory.dcs.record(),
            lease_until_boottime_ns: memory.lease.map(|lease| lease.until_ns),
            postgres: memory.seen.clone(),
            failing: memory.failures.last().cloned(),
            next_round,
            troubles: act::troubles(memory, archive.as_ref()),
            archive,
            stream: instruments.archive.as_ref().and_then(|archive| archive.stream_status()),
            kept_for_gap: instruments.slot.kept_for_gap(),
            maximum_lag_on_replica: memory.rules.maximum_lag_on_replica,
            configuration: memory.configuration.clone(),
            known: memory.rules.known.clone(),
            database_sizes: self.sizes.borrow().clone(),
            counters: memory.counters.clone(),
        };
        self.board.send_replace(Some(Arc::new(report)));
    }
}

impl Counters {
    fn note_round(&mut self, reason: &'static str, took: Duration) {
        *self.rounds.entry(reason).or_default() += 1;
        let bound =
            ROUND_BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound).unwrap_or(ROUND_BOUNDS.len());
        self.round_durations[bound] += 1;
        self.round_duration_sum += took;
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

/// Patroni's format: each parameter with the value in effect and the pending one.
pub(crate) fn pending_restart_reason(pending: &[PendingRestart]) -> Value {
    let parameter = |one: &PendingRestart| {
        (one.name.clone(), json!({"old_value": one.old_value, "new_value": one.new_value}))
    };
    Value::Object(pending.iter().map(parameter).collect())
}

/// An error and all its causes, in one line.
pub(crate) fn causes(fault: &dyn std::error::Error) -> String {
    let mut text = fault.to_string();
    let mut next = fault.source();
    while let Some(cause) = next {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}
