//! The cases by name. What each does is in its own file.

mod archive_backup;
mod archive_ship;
mod archive_stream;
mod crash;
mod doors;
mod freeze;
mod hang;
mod idle;
mod node;
mod switchover;
mod wal_push;

use clap::ValueEnum;

use crate::figures::Outcome;

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// A planned switchover
    Switchover,
    /// The same while ten long reports run on the candidate
    SwitchoverReports,
    /// SIGKILL to the primary's postmaster
    Crash,
    /// SIGKILL to everything of the leader
    Node,
    /// The leader's agent stands still, in synchronous mode
    FreezeOn,
    /// The leader's agent stands still, in asynchronous mode
    FreezeOff,
    /// Every process of the primary's Postgres stands still
    FreezePostgres,
    /// The primary's postmaster alone stands still
    FreezePostmaster,
    /// Nobody writes
    Idle,
    /// Health checks while 2,000 others hold the REST API
    Doors,
    /// `archive_command` for a segment that is shipped already
    WalPush,
    /// WAL into the archive and out of it, over TLS
    ArchiveShip,
    /// Commits into the archive while their segment is being written, over TLS
    ArchiveStream,
    /// A base backup and its restore, over TLS
    ArchiveBackup,
}

impl Case {
    /// In the order of the table.
    pub(crate) const ALL: [Case; 14] = [
        Case::Switchover,
        Case::SwitchoverReports,
        Case::Crash,
        Case::Node,
        Case::FreezeOn,
        Case::FreezeOff,
        Case::FreezePostgres,
        Case::FreezePostmaster,
        Case::Idle,
        Case::Doors,
        Case::WalPush,
        Case::ArchiveShip,
        Case::ArchiveStream,
        Case::ArchiveBackup,
    ];

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::Switchover => "switchover",
            Case::SwitchoverReports => "switchover-reports",
            Case::Crash => "crash",
            Case::Node => "node",
            Case::FreezeOn => "freeze-on",
            Case::FreezeOff => "freeze-off",
            Case::FreezePostgres => "freeze-postgres",
            Case::FreezePostmaster => "freeze-postmaster",
            Case::Idle => "idle",
            Case::Doors => "doors",
            Case::WalPush => "wal-push",
            Case::ArchiveShip => "archive-ship",
            Case::ArchiveStream => "archive-stream",
            Case::ArchiveBackup => "archive-backup",
        }
    }

    /// Measures it.
    ///
    /// # Errors
    /// When it cannot even begin.
    pub(crate) async fn run(self, runs: u32) -> anyhow::Result<Outcome> {
        match self {
            Case::Switchover => switchover::run(runs).await,
            Case::SwitchoverReports => switchover::run_among_reports(runs).await,
            Case::Crash => crash::run(runs).await,
            Case::Node => node::run(runs).await,
            Case::FreezeOn => freeze::run_synchronous(runs).await,
            Case::FreezeOff => freeze::run_asynchronous(runs).await,
            Case::FreezePostgres => hang::run_all(runs).await,
            Case::FreezePostmaster => hang::run_postmaster(runs).await,
            Case::Idle => idle::run().await,
            Case::Doors => doors::run().await,
            Case::WalPush => wal_push::run().await,
            Case::ArchiveShip => archive_ship::run(runs).await,
            Case::ArchiveStream => archive_stream::run().await,
            Case::ArchiveBackup => archive_backup::run(runs).await,
        }
    }
}
