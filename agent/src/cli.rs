//! The command line: the commands and their help. What each does is in its own file.

mod agent;
mod backup;
mod backups;
mod check_config;
mod cluster_job;
mod confirm;
mod dcs;
mod exit;
mod format;
mod list;
mod member;
mod progress;
mod replay;
mod restart;
mod restore;
mod rollback;
mod show;
mod supervise;
mod switchover;
mod target;
mod this_cluster;
mod verify;
mod wal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use outrider_store::Location;

use self::exit::{Refusal, USAGE};

/// High availability for PostgreSQL, as a sidecar beside each server.
///
/// Exit status: 0 done, 1 refused or failed with a reason, 64 wrong usage or configuration.
#[derive(Parser)]
#[command(name = "outrider", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent of this member: it keeps the leader lease, promotes, clones, rewinds and serves the REST API
    Agent(File),
    /// Run the supervisor of this member: it owns the postmaster and kills a writable Postgres whose lease ran out
    Supervise(Supervise),
    /// Show the members of the cluster: role, state, lag, and what each of them is doing and why
    List(list::List),
    /// Switch over to another member; shows the write gap
    Switchover(switchover::Switchover),
    /// Make a member the leader when there is no healthy leader
    Failover(switchover::Failover),
    /// Restart Postgres on the members, one at a time: standbys first, then a switchover instead of restarting the primary
    Restart(restart::Restart),
    /// Take a base backup of the cluster into its archive, and show progress
    Backup(backup::Backup),
    /// Restore a server from the archive into a fresh directory, to any point the archive covers
    Restore(restore::Restore),
    /// Roll the running cluster back to a point in time, in place; the old data is kept
    Rollback(rollback::Rollback),
    /// Rewrite the cluster's keys after the DCS was wiped or restored from an old copy
    Dcs(dcs::DcsCommand),
    /// Show which member became the leader, and when
    History(show::History),
    /// Show the rules of the cluster, which are in the DCS
    ShowConfig(show::ShowConfig),
    /// Check a configuration file: print every error at once, or the configuration in effect without secrets
    CheckConfig(File),
    /// Show the base backups in the archive and the recovery window; keep, delete or prune backups
    Backups(backups::Backups),
    /// Check the archive: that its WAL has no gaps and its backups are complete
    Verify(verify::Verify),
    /// Archive one WAL file, for archive_command; succeeds only when the archive has confirmed it
    WalPush(WalPush),
    /// Fetch one WAL file from the archive, for restore_command
    WalFetch(WalFetch),
    /// Show what a member saw and decided, and why, from its flight recorder; checks that this version decides the same
    Replay(replay::Replay),
    /// Print the version
    Version,
}

/// A configuration file by its path.
#[derive(Args)]
struct File {
    /// The member's YAML file
    #[arg(value_name = "FILE", env = "OUTRIDER_CONFIG")]
    file: PathBuf,
}

#[derive(Args)]
struct Supervise {
    /// The data directory of the one Postgres to guard; its parent must exist
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: PathBuf,
    /// Where postgres, initdb and the other programs are
    #[arg(long, value_name = "DIRECTORY")]
    bin_dir: PathBuf,
    /// The unix socket on which the supervisor listens [default: supervisor.sock in the state directory beside the data directory]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How long after SIGTERM the agent may hand over, such as 5s
    #[arg(long, value_name = "TIME", value_parser = exit::duration)]
    handover_timeout: Option<std::time::Duration>,
    /// After SIGTERM everything stops within this time, such as 30s
    #[arg(long, value_name = "TIME", value_parser = exit::duration)]
    grace_period: Option<std::time::Duration>,
}

#[derive(Args)]
struct WalPush {
    /// The agent's socket for WAL [default: archive.sock in the state directory beside the current one, which is the data
    /// directory where Postgres starts this]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The file: the %p of archive_command
    path: PathBuf,
}

#[derive(Args)]
struct WalFetch {
    /// The agent's socket for WAL [default: that of FILE, else as for wal-push]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The member's YAML file: if no agent answers, its archive is read directly
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Another server's part of the archive in FILE; does not ask the agent
    #[arg(long, value_name = "NAME", requires = "config")]
    from_server: Option<String>,
    /// Another archive, with the credentials of FILE; does not ask the agent
    #[arg(long, value_name = "URL", requires = "config")]
    archive: Option<Location>,
    /// The file's name: the %f of restore_command
    name: String,
    /// Where to write it: the %p of restore_command
    path: PathBuf,
}

/// Runs the command given on the command line.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version are not errors, and go to standard output. If that is closed there is nobody to tell.
            let _ = usage.print();
            return if usage.use_stderr() { wrong_usage() } else { ExitCode::SUCCESS };
        }
    };
    run(cli.command).unwrap_or_else(|refusal| refusal.report())
}

/// A recovery would take the [`USAGE`] of a mistyped `restore_command` for the end of all WAL, and become a primary there.
fn wrong_usage() -> ExitCode {
    let fetches = std::env::args_os().nth(1).is_some_and(|command| command == "wal-fetch");
    if fetches { wal::unusable() } else { ExitCode::from(USAGE) }
}

fn run(command: Command) -> Result<ExitCode, Refusal> {
    match command {
        Command::Agent(file) => agent::run(&file.file),
        Command::Supervise(options) => supervise::run(options),
        Command::List(options) => list::run(options),
        Command::Switchover(options) => switchover::switchover(options),
        Command::Failover(options) => switchover::failover(options),
        Command::Restart(options) => restart::run(options),
        Command::Backup(options) => backup::run(options),
        Command::Restore(options) => restore::run(options),
        Command::Rollback(options) => rollback::run(options),
        Command::Dcs(command) => dcs::run(command),
        Command::History(options) => show::history(options),
        Command::ShowConfig(options) => show::config(options),
        Command::Replay(options) => replay::run(&options),
        Command::Backups(options) => backups::run(options),
        Command::Verify(options) => verify::run(options),
        Command::CheckConfig(file) => check_config::run(&file.file),
        Command::WalPush(push) => Ok(wal::push(push.socket.as_deref(), &push.path)),
        Command::WalFetch(fetch) => Ok(wal::fetch(&fetch)),
        Command::Version => exit::print(&format!("outrider {}\n", env!("CARGO_PKG_VERSION"))),
    }
}
