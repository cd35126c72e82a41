//! The round: observe, decide, act, report, and wait for the next thing that happens. The one task that owns all state.

mod end_signals;
mod throttle;
mod wake_sources;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use outrider_ha::{Dcs, Plan, Policy, View, decide, invariant};
use outrider_postgres::{Configuration, KeptParameters, Postgres};
use tokio::time::sleep;
use tracing::{error, info, warn};

pub(crate) use self::end_signals::EndSignals;
use self::throttle::Throttle;
use self::wake_sources::{WakeSources, Wakeup};
use crate::act::{self, StepError};
use crate::backup::CatalogCache;
use crate::config::{self, Config};
use crate::http::{self, Api};
use crate::instruments::Instruments;
use crate::jobs::Jobs;
use crate::log::{LastLogged, causes};
use crate::report::Reporter;
use crate::state::{Addresses, DcsMemory, Rules, State};
use crate::wake::waker;
use crate::{clock, heap, observe};

/// Rounds per `loop_wait` when throttled.
const THROTTLED_ROUNDS: u32 = 10;
/// Between two tries at a term file that cannot be written.
const DISK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the agent until it is told to end.
///
/// # Errors
/// What keeps it from starting: state directory, sockets, the supervisor, etcd's addresses.
pub(crate) async fn run(config: Config, mut signals: EndSignals) -> anyhow::Result<()> {
    anyhow::ensure!(
        !is_root()?,
        "the agent does not run as root, as Postgres does not: run it as the user that owns {}",
        config.postgres.data_directory.display()
    );
    let config = Arc::new(config);
    let listener = http::listen(config.rest.listen).with_context(|| {
        format!("cannot listen on {} (restapi.listen): is another agent running?", config.rest.listen)
    })?;
    let policy = config::first_policy(&config);
    // Before anybody looks at the data directory, which may be missing in the middle of a swap.
    let settled = Postgres::new(Arc::new(config.postgres.clone())).settle_rollback()?;
    let instruments = tokio::select! {
        instruments = Instruments::set_up(config.clone(), &policy) => instruments?,
        () = signals.told() => return Ok(()),
    };
    let state = first_state(&config, policy)?;
    let (waker, wakes) = waker();
    let news = instruments.postgres.supervisor().news();
    let mut wake_sources = WakeSources::new(wakes, instruments.dcs.watch(), news, signals);
    let reporter = Reporter::new(&instruments);
    let api = Api {
        reports: reporter.reports(),
        waker: waker.clone(),
        dcs: instruments.dcs.clone(),
        catalog: catalog(&instruments),
        observer: http::SharedObserver::new(instruments.postgres.observer()),
        names: http::names(&config),
        watermark: state.dcs.watermark(),
        config: config.clone(),
    };
    let catalog = api.catalog.clone();
    let _catalog = catalog.as_ref().map(|catalog| catalog.keep(reporter.reports()));
    let local = serve_local(&config, &api);
    let server = tokio::spawn(http::serve(api, listener));
    info!(
        name = %config.name,
        scope = %config.scope,
        restapi = %config.rest.listen,
        version = env!("CARGO_PKG_VERSION"),
        "the agent is running"
    );
    let heap = tokio::spawn(heap::keep_small());
    let jobs = Jobs::start(&instruments, &reporter.reports(), catalog, waker, settled);
    let mut rounds = Rounds {
        instruments,
        state,
        reporter,
        throttle: Throttle::default(),
        step_fault: LastLogged::default(),
    };
    let end = rounds.make(&mut wake_sources).await;
    jobs.end().await;
    let Rounds { instruments, state, reporter, .. } = &mut rounds;
    let last = reporter.reports().borrow().clone();
    let view = last.as_ref().map(|report| &report.view);
    match &end {
        Ok(()) => act::leave(instruments, state, view).await,
        Err(_) => act::withdraw(instruments, state, view).await,
    }
    server.abort();
    local.inspect(tokio::task::JoinHandle::abort);
    heap.abort();
    end
}

/// The REST API on the machine's own socket. Without it the agent does all but serve those who come by it.
fn serve_local(config: &Config, api: &Api) -> Option<tokio::task::JoinHandle<()>> {
    match http::listen_local(&config.postgres.state_directory) {
        Ok(listener) => Some(tokio::spawn(http::serve_local(api.clone(), listener))),
        Err(fault) => {
            let path = config::Rest::socket(&config.postgres.state_directory);
            warn!(%fault, "no REST API at {}", path.display());
            None
        }
    }
}

/// What is on disk, and the rules that were good when this member ran last; a new cluster begins with what its file says.
fn first_state(config: &Config, policy: Policy) -> anyhow::Result<State> {
    let kept = KeptParameters::read(&config.postgres)?;
    let mut configuration = Configuration::default();
    match &kept {
        Some(kept) => {
            configuration.parameters.clone_from(&kept.parameters);
            configuration.pg_hba.clone_from(&kept.pg_hba);
        }
        None => {
            let judged = config::judge(&config.bootstrap_dcs, &config.postgres, None, &configuration);
            (configuration.parameters, configuration.pg_hba) = (judged.parameters, judged.pg_hba);
        }
    }
    let maximum_lag_on_replica = config::maximum_lag_on_replica(&config.bootstrap_dcs);
    let rules = Rules::new(policy, kept, maximum_lag_on_replica);
    let addresses = Addresses::new(&config.name, &config.connect_address);
    let dcs = DcsMemory::open(&config.postgres.state_directory)?;
    Ok(State::new(dcs, rules, addresses, configuration))
}

/// What the archive holds, for the REST API and metrics.
fn catalog(instruments: &Instruments) -> Option<CatalogCache> {
    let layout = instruments.config.archive.as_ref()?.layout.clone();
    Some(CatalogCache::new(instruments.archive.as_ref()?.store(), layout))
}

/// What root writes into a data directory, Postgres cannot read.
fn is_root() -> anyhow::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let us = std::fs::metadata("/proc/self").context("cannot read the user of this process")?;
    Ok(us.uid() == 0)
}

/// All that one agent works with, and all that it remembers.
struct Rounds {
    instruments: Instruments,
    state: State,
    reporter: Reporter,
    /// How often the same was waited for.
    throttle: Throttle,
    /// The step that failed, as it was last logged.
    step_fault: LastLogged,
}

impl Rounds {
    /// Until the agent is told to end.
    ///
    /// # Errors
    /// When this member may take no part under its name.
    async fn make(&mut self, wake_sources: &mut WakeSources) -> anyhow::Result<()> {
        loop {
            wake_sources.round_begins();
            let wait = self.turn().await?;
            if wake_sources.wait(wait, &self.instruments, &mut self.state).await == Wakeup::End {
                return Ok(());
            }
        }
    }

    /// One round; how long to wait for the next.
    ///
    /// # Errors
    /// As [`Rounds::make`].
    async fn turn(&mut self) -> anyhow::Result<Duration> {
        let begun = clock::monotonic();
        let Rounds { instruments, state, .. } = self;
        instruments.keep_supervisor(&mut state.supervisor);
        let view = match observe::observe(instruments, state).await {
            Ok(view) => view,
            Err(fault) => {
                error!(fault = %causes(&fault), "no decision without the highest term seen on disk");
                sleep(DISK_INTERVAL).await;
                return Ok(Duration::ZERO);
            }
        };
        // Two that enter at one moment both see it before either acts: what is done in a round was read after the entry.
        let seen = state.cluster.snapshot();
        if let Some(words) = seen.and_then(|cluster| config::taken_slot(&instruments.config.name, cluster)) {
            error!("{words}");
            anyhow::bail!(words);
        }
        let plan = decide(&view);
        let decided = clock::monotonic();
        self.reporter.note_plan(&plan);
        let outcome = self.carry_out(&view, &plan).await;
        let entered = self.follow(&view, &plan).await;
        let Rounds { instruments, state, .. } = self;
        let loop_wait = state.rules.policy().loop_wait;
        let wait = if entered { Some(Duration::ZERO) } else { plan.look_again };
        let wait = if outcome.is_err() { loop_wait / 4 } else { wait.unwrap_or(loop_wait) };
        // What the plan waits for was counted from the decision on.
        let wait = wait.min(loop_wait).saturating_sub(decided.elapsed());
        let wait = self.throttle.wait(plan.reason.label(), wait, loop_wait / THROTTLED_ROUNDS);
        let failure = outcome.err().map(|fault| causes(&fault));
        self.reporter.post(view, plan, failure, begun.elapsed(), wait, instruments, state);
        Ok(wait)
    }

    /// A plan that breaks a rule is a defect of ours: it is not carried out, and the lease runs out by itself.
    async fn carry_out(&mut self, view: &View, plan: &Plan) -> Result<(), StepError> {
        if let Err(breach) = invariant::check(view, plan) {
            error!(
                ?breach,
                ?plan,
                "this plan violates an invariant and is not carried out; please report it with rounds.jsonl"
            );
            return Ok(());
        }
        let outcome = act::act(plan, &self.instruments, &mut self.state).await;
        if let Err(fault) = &outcome {
            if let StepError::Dcs(fault) = fault {
                self.state.counters.note_dcs_error(fault);
            }
            let text = causes(fault);
            if self.step_fault.is_news(&text) {
                warn!(reason = %plan.reason, fault = %text, "a step failed; retrying");
            }
        } else {
            self.step_fault.forget();
        }
        outcome
    }

    /// What is done in every round, whatever the plan is. Whether this member has entered the cluster by it.
    async fn follow(&mut self, view: &View, plan: &Plan) -> bool {
        let Rounds { instruments, state, .. } = self;
        let was_member = state.entry.is_member();
        let dcs_answers = matches!(view.dcs, Dcs::Seen(_));
        if dcs_answers {
            instruments.member_slots.follow(state, instruments.dcs.name());
            act::publish(view, plan, instruments, state).await;
        }
        let entered = !was_member && state.entry.is_member();
        act::configure(instruments, state).await;
        act::learn(instruments, &mut state.rules, &state.postgres);
        if let Some(archive) = &instruments.archive {
            archive.follow(state.lease.held().map(|lease| lease.term.0), state.postgres.seen());
        }
        instruments.slot.follow(state.postgres.seen(), state.cluster.snapshot());
        entered
    }
}
