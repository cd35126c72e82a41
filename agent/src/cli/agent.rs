//! `outrider agent`: reads the configuration, opens the log and makes rounds until it is told to end.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tracing::warn;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::exit::{self, Refusal};
use crate::config::{self, Log, LogFormat};
use crate::heap;
use crate::round::{self, EndSignals};

pub(super) fn run(file: &Path) -> Result<ExitCode, Refusal> {
    heap::share();
    let config = exit::load(file)?;
    start_log(config.log);
    // One thread is enough: the round mostly waits for others, and an idle agent should stay small.
    let runtime = exit::runtime()?;
    let mut signals =
        runtime.block_on(async { EndSignals::listen() }).context("cannot listen for signals")?;
    let trial = runtime.block_on(async {
        tokio::select! {
            trial = config::try_file(&config) => Some(trial),
            () = signals.told() => None,
        }
    });
    let Some(trial) = trial else { return Ok(ExitCode::SUCCESS) };
    for warning in &trial.warnings {
        warn!("{warning}");
    }
    if let Some(words) = &trial.start {
        warn!("a server would not start with the parameters of this file: {words}");
    }
    if !trial.faults.is_empty() {
        return Err(exit::faults(file, &trial.faults));
    }
    // As a task: a future that the runtime itself waits for is woken through the kernel each time.
    let rounds = runtime.block_on(async { tokio::spawn(round::run(config, signals)).await });
    rounds.context("the agent stopped unexpectedly")?.context("the agent ends")?;
    Ok(ExitCode::SUCCESS)
}

/// The program's own messages at the configured level; only warnings and errors of libraries.
fn start_log(log: Log) {
    let libraries = log.level.min(LevelFilter::WARN);
    let filter = Targets::new().with_default(libraries).with_target("outrider", log.level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = match log.format {
        LogFormat::Plain => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
