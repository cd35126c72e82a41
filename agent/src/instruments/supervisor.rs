//! Starts the supervisor where nobody else does, and waits for its first answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use outrider_postgres::Supervisor;
use tokio::time::sleep;
use tracing::{error, info};

use crate::config::{self, Config};
use crate::{clock, state};

/// A log of Postgres that is larger is put aside when a supervisor starts.
const LOG_MAX: u64 = 64 << 20;
/// For one that was just started to open its socket.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Between two tries to reach it.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks the supervisor for a sign of life. When nobody listens and this agent is to start it, does so.
pub(super) async fn reach(config: &Config, supervisor: &Supervisor) -> anyhow::Result<()> {
    if let Ok(status) = supervisor.status().await {
        return match config::foreign(config, &status.data_directory) {
            Some(why) => Err(anyhow::anyhow!("{why}")),
            None => Ok(()),
        };
    }
    if config.supervisor.start {
        start(config)?;
    }
    let begun = clock::monotonic();
    loop {
        match supervisor.status().await {
            Ok(status) => {
                info!(pid = status.supervisor_pid, "the supervisor answers");
                return Ok(());
            }
            Err(fault) if begun.elapsed() > ANSWER_LIMIT => {
                let log = log_path(config);
                let shown = std::fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<&str> = shown.lines().rev().take(5).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                return Err(anyhow::Error::new(fault).context(format!(
                    "the supervisor does not come up; the end of {}: {}",
                    log.display(),
                    tail.join(" | ")
                )));
            }
            Err(_) => sleep(INTERVAL).await,
        }
    }
}

/// Starts it again when it is gone and this agent is the one who starts it.
pub(super) fn keep(config: &Config, known: &mut state::Supervisor) {
    if !config.supervisor.start || !known.is_to_be_started(ANSWER_LIMIT) {
        return;
    }
    known.was_started();
    if let Err(fault) = start(config) {
        error!("{fault:#}");
    }
}

/// Starts the supervisor so that it outlives this agent.
fn start(config: &Config) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let settings = &config.postgres;
    let text = |path: &Path| path.display().to_string();
    let arguments = [
        "supervise".to_owned(),
        "--data-dir".to_owned(),
        text(&settings.data_directory),
        "--bin-dir".to_owned(),
        text(&settings.bin_directory),
        "--socket".to_owned(),
        text(&config.supervisor.socket),
        "--handover-timeout".to_owned(),
        format!("{}ms", config.supervisor.handover_timeout.as_millis()),
        "--grace-period".to_owned(),
        format!("{}ms", config.supervisor.grace_period.as_millis()),
    ];
    info!(socket = %config.supervisor.socket.display(), "starting the supervisor, which outlives this agent");
    let log = log_path(config);
    if std::fs::metadata(&log).is_ok_and(|log| log.len() > LOG_MAX) {
        let aside = log.with_extension("log.1");
        std::fs::rename(&log, &aside).with_context(|| format!("cannot rename {}", log.display()))?;
    }
    Supervisor::spawn_detached(&program, &arguments, &log)?;
    Ok(())
}

/// What the supervisor and Postgres write when the agent has started them.
fn log_path(config: &Config) -> PathBuf {
    config.postgres.state_directory.join("postgres.log")
}
