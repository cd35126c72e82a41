//! The round: observe, decide, act, report, and wait for the next thing that happens. The one task that owns all state.

mod archive_slot;
mod dcs_memory;
mod instruments;
mod member_slots;
mod memory;
mod patience;
mod term;
mod wake;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use outrider_ha::{Dcs, Plan, View, decide, invariant};
use outrider_postgres::{Configuration, KeptParameters, Postgres};
use tokio::time::sleep;
use tracing::{error, info, warn};

pub(crate) use dcs_memory::{DcsMemory, DcsRecord};
pub(crate) use instruments::{Archive, Instruments};
pub(crate) use memory::{Failed, Learning, Memory, Promotion, Rules, Trying};
pub(crate) use term::TermError;
pub(crate) use wake::{Alarm, Waker};

use self::wake::Wakened;
use crate::act::{self, Fault};
use crate::backup::{ArchiveTaker, Driller, Keeper, Pace};
use crate::config::{self, Config};
use crate::http::{self, Visitors};
use crate::observe::addresses::Addresses;
use crate::report::{Reporter, causes};
use crate::{clock, heap, observe, rollback};

/// So many rounds a `loop_wait` has when something that should take moments takes longer.
const PATIENT_ROUNDS: u32 = 10;
/// Between two tries at a term file that cannot be written.
const DISK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the agent until it is told to end.
///
/// # Errors
/// What keeps it from starting: state directory, sockets, the supervisor, etcd's addresses.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
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
    let instruments = Instruments::set_up(config.clone(), &policy).await?;
    let (rules, configuration) = first_rules(&config)?;
    let addresses = Addresses::new(&config.name, &config.connect_address);
    let dcs = DcsMemory::open(&config.postgres.state_directory)?;
    let mut memory = Memory::new(dcs, policy, addresses, rules, configuration);
    let mut alarm = Alarm::new(instruments.dcs.watch(), instruments.postgres.supervisor().news())?;
    let mut reporter = Reporter::new(&instruments);
    let visitors = Visitors {
        board: reporter.board(),
        waker: alarm.waker(),
        dcs: instruments.dcs.clone(),
        shelf: instruments.archive.as_ref().map(Archive::shelf),
        looks: http::Looks::new(instruments.postgres.observer()),
        names: http::names(&config),
        watermark: memory.dcs.watermark(),
        config: config.clone(),
    };
    let shelf = visitors.shelf.clone();
    let _shelf = visitors.shelf.as_ref().map(|shelf| shelf.keep(reporter.board()));
    let local = serve_local(&config, &visitors);
    let server = tokio::spawn(http::serve(visitors, listener));
    info!(
        name = %config.name,
        scope = %config.scope,
        restapi = %config.rest.listen,
        version = env!("CARGO_PKG_VERSION"),
        "the agent makes its rounds"
    );
    let heap = tokio::spawn(heap::keep_small());
    let keeper = keep_backups(&instruments, &reporter);
    let driller = shelf.and_then(|shelf| Driller::start(&config, shelf, reporter.board()));
    let rollbacks = rollback::Keeper::start(&instruments, reporter.board(), alarm.waker(), settled);
    let end = make_rounds(&instruments, &mut memory, &mut reporter, &mut alarm).await;
    tokio::join!(
        async {
            if let Some(keeper) = keeper {
                keeper.end().await;
            }
        },
        async {
            if let Some(driller) = driller {
                driller.end().await;
            }
        },
        rollbacks.end(),
    );
    let last = reporter.board().borrow().clone();
    let view = last.as_ref().map(|report| &report.view);
    match &end {
        Ok(()) => act::leave(&instruments, &mut memory, view).await,
        Err(_) => act::withdraw(&instruments, &mut memory, view).await,
    }
    server.abort();
    local.inspect(tokio::task::JoinHandle::abort);
    heap.abort();
    end
}

/// Until the agent is told to end.
///
/// # Errors
/// When this member may take no part under its name.
async fn make_rounds(
    instruments: &Instruments,
    memory: &mut Memory,
    reporter: &mut Reporter,
    alarm: &mut Alarm,
) -> anyhow::Result<()> {
    loop {
        alarm.round_begins();
        let wait = turn(instruments, memory, reporter).await?;
        if alarm.wait(wait, instruments, memory).await == Wakened::End {
            return Ok(());
        }
    }
}

/// The REST API on the machine's own socket. Without it the agent does all but serve those who come by it.
fn serve_local(config: &Config, visitors: &Visitors) -> Option<tokio::task::JoinHandle<()>> {
    match http::listen_local(&config.postgres.state_directory) {
        Ok(listener) => Some(tokio::spawn(http::serve_local(visitors.clone(), listener))),
        Err(fault) => {
            let path = config::Rest::socket(&config.postgres.state_directory);
            warn!(%fault, "no REST API at {}", path.display());
            None
        }
    }
}

/// What was good when this member ran last; a new cluster begins with what its file says.
fn first_rules(config: &Config) -> anyhow::Result<(Rules, Configuration)> {
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
    Ok((Rules { maximum_lag_on_replica, ..Rules::of(kept) }, configuration))
}

/// Where there is an archive, base backups go into it.
fn keep_backups(instruments: &Instruments, reporter: &Reporter) -> Option<Keeper> {
    let archive = instruments.config.archive.as_ref()?;
    let (config, postgres) = (instruments.config.clone(), instruments.postgres.clone());
    let taker = Arc::new(ArchiveTaker::new(config, postgres, reporter.board()));
    let (dcs, schedule) = (instruments.dcs.clone(), archive.schedule.clone());
    Some(Keeper::start(dcs, reporter.board(), schedule, taker, Pace::USUAL))
}

/// What root writes into a data directory, Postgres cannot read.
fn is_root() -> anyhow::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let us = std::fs::metadata("/proc/self").context("cannot find out who runs this")?;
    Ok(us.uid() == 0)
}

/// One round; how long to wait for the next.
///
/// # Errors
/// As [`make_rounds`].
async fn turn(
    instruments: &Instruments,
    memory: &mut Memory,
    reporter: &mut Reporter,
) -> anyhow::Result<Duration> {
    let begun = clock::monotonic();
    instruments.keep_supervisor(memory);
    let view = match observe::observe(instruments, memory).await {
        Ok(view) => view,
        Err(fault) => {
            error!(fault = %causes(&fault), "no decision without the highest term seen on disk");
            sleep(DISK_INTERVAL).await;
            return Ok(Duration::ZERO);
        }
    };
    // Two that enter at one moment both see it before either acts: what is done in a round was read after the entry.
    let seen = memory.snapshot.as_ref();
    if let Some(words) = seen.and_then(|cluster| config::taken_slot(&instruments.config.name, cluster)) {
        error!("{words}");
        anyhow::bail!(words);
    }
    let plan = decide(&view);
    let decided = clock::monotonic();
    reporter.note_plan(&plan);
    let outcome = carry_out(&view, &plan, instruments, memory).await;
    let failed = outcome.is_err();
    let entered = !memory.is_member;
    let dcs_answers = matches!(view.dcs, Dcs::Seen(_));
    if dcs_answers {
        instruments.member_slots.follow(memory, instruments.dcs.name());
        act::publish(&view, &plan, instruments, memory).await;
    }
    let entered = entered && memory.is_member;
    act::configure(instruments, memory).await;
    act::learn(instruments, memory);
    if let Some(archive) = &instruments.archive {
        archive.follow(memory.lease.map(|lease| lease.term.0), memory.seen.as_ref());
    }
    instruments.slot.follow(memory.seen.as_ref(), memory.snapshot.as_ref());
    let wait = if entered { Some(Duration::ZERO) } else { plan.look_again };
    let wait = if failed { memory.policy.loop_wait / 4 } else { wait.unwrap_or(memory.policy.loop_wait) };
    // What the plan waits for was counted from the decision on.
    let wait = wait.min(memory.policy.loop_wait).saturating_sub(decided.elapsed());
    let wait = memory.patience.at_least(plan.reason.label(), wait, memory.policy.loop_wait / PATIENT_ROUNDS);
    reporter.post(view, plan, outcome.err(), begun.elapsed(), wait, instruments, memory);
    Ok(wait)
}

/// A plan that breaks a rule is a defect of ours: it is not carried out, and the lease runs out by itself.
async fn carry_out(
    view: &View,
    plan: &Plan,
    instruments: &Instruments,
    memory: &mut Memory,
) -> Result<(), Fault> {
    if let Err(breach) = invariant::check(view, plan) {
        error!(
            ?breach,
            ?plan,
            "this plan breaks a rule and is not carried out; please report it with rounds.jsonl"
        );
        return Ok(());
    }
    let outcome = act::act(plan, instruments, memory).await;
    if let Err(fault) = &outcome {
        if let Fault::Dcs(fault) = fault {
            memory.count_dcs_error(fault);
        }
        let text = causes(fault);
        if memory.step_fault.is_news(&text) {
            warn!(reason = %plan.reason, fault = %text, "a step failed; trying again");
        }
    } else {
        memory.step_fault.forget();
    }
    outcome
}
