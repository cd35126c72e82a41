//! Errors of a Postgres, its files, its programs and its supervisor: one variant per operation.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use outrider_supervisor::protocol::{Exit, Refusal, RefusalCode};

/// A failed operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket.
    #[error("cannot reach the supervisor at {socket}: is `outrider supervise` running there?")]
    NoSupervisor {
        /// Its socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was asked and did not answer: the operation may have happened.
    #[error("the supervisor at {socket} did not answer when asked to {act}; it may have been done")]
    SupervisorSilent {
        /// Its socket.
        socket: PathBuf,
        /// What was asked.
        act: &'static str,
    },
    /// It refused: nothing was done.
    #[error("the supervisor refused to {act}: {}", refusal.message)]
    SupervisorRefused {
        /// What was asked.
        act: &'static str,
        /// Its reason.
        refusal: Refusal,
    },
    /// It could not be started.
    #[error("cannot start the supervisor with {program}")]
    SpawnSupervisor {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file could not be written, moved or removed.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The old data could not be moved aside to make room for a clone.
    #[error("cannot move {path} aside to {aside}")]
    MoveAside {
        /// The data directory.
        path: PathBuf,
        /// Where it was to go.
        aside: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no room for new data, or the place is not ours; nothing was touched.
    #[error("cannot make room for new data: {problem}")]
    Room {
        /// What is in the way.
        problem: String,
    },
    /// The unix socket accepts no connection.
    #[error("cannot connect to Postgres at {place}")]
    Connect {
        /// The socket.
        place: String,
        /// Why not.
        source: tokio_postgres::Error,
    },
    /// No encrypted connection can be made at all.
    #[error("cannot set up TLS")]
    Tls {
        /// Why not.
        source: rustls::Error,
    },
    /// The Postgres of another member accepts no connection.
    #[error("cannot reach Postgres at {place}")]
    Reach {
        /// Host and port.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// A statement failed.
    #[error("Postgres refused to {act}")]
    Statement {
        /// Its purpose.
        act: &'static str,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// Postgres did not answer in time.
    #[error("Postgres did not {act} within {limit:?}")]
    TooSlow {
        /// What it was asked to do.
        act: &'static str,
        /// The deadline.
        limit: Duration,
    },
    /// One of Postgres' programs failed.
    #[error("{tool} ended with {exit}: {}", tail.join(" | "))]
    Tool {
        /// Which.
        tool: &'static str,
        /// How it ended.
        exit: Exit,
        /// Its last lines.
        tail: Vec<String>,
    },
    /// Events about one of Postgres' programs were missed, or the supervisor went away: its outcome is not known.
    #[error(
        "it is not known how {tool} ended: the supervisor went away, or sent more events than could be read"
    )]
    ToolUnknown {
        /// Which.
        tool: &'static str,
    },
    /// The `backup_label` from `pg_backup_stop` lacks a line.
    #[error("the backup label lacks {what:?}; it was: {label}")]
    BackupLabel {
        /// The line's beginning.
        what: &'static str,
        /// All of it.
        label: String,
    },
    /// The output of `pg_controldata` lacks a line.
    #[error("pg_controldata's output lacks {what:?}; it was: {output}")]
    ControlData {
        /// The line's beginning.
        what: &'static str,
        /// All of it.
        output: String,
    },
    /// A new cluster was to be made in a directory with data.
    #[error("{path} already holds data; no new cluster is created there")]
    NotEmpty {
        /// The data directory.
        path: PathBuf,
    },
    /// The recovery from the archive ended without a usable primary.
    #[error("the recovery in {path} did not finish; the log above says how far it got")]
    NotRecovered {
        /// The data directory.
        path: PathBuf,
    },
    /// A backup of another cluster.
    #[error("the backup belongs to system identifier {found}, this cluster is {expected}")]
    ForeignBackup {
        /// Its system identifier.
        found: u64,
        /// That of the cluster.
        expected: u64,
    },
    /// The data cannot be rolled back in its place.
    #[error("cannot roll back: {problem}")]
    Rollback {
        /// Why not.
        problem: String,
    },
    /// The files could not be fetched from the archive.
    #[error("cannot restore from the archive: {problem}")]
    Archive {
        /// Why not, with all causes.
        problem: String,
    },
}

impl Error {
    /// The supervisor's reason, when it refused.
    #[must_use]
    pub fn refusal(&self) -> Option<RefusalCode> {
        match self {
            Error::SupervisorRefused { refusal, .. } => Some(refusal.code),
            Error::NoSupervisor { .. }
            | Error::SupervisorSilent { .. }
            | Error::SpawnSupervisor { .. }
            | Error::Read { .. }
            | Error::Write { .. }
            | Error::MoveAside { .. }
            | Error::Room { .. }
            | Error::Connect { .. }
            | Error::Tls { .. }
            | Error::Reach { .. }
            | Error::Statement { .. }
            | Error::TooSlow { .. }
            | Error::Tool { .. }
            | Error::ToolUnknown { .. }
            | Error::ControlData { .. }
            | Error::NotEmpty { .. }
            | Error::NotRecovered { .. }
            | Error::ForeignBackup { .. }
            | Error::BackupLabel { .. }
            | Error::Rollback { .. }
            | Error::Archive { .. } => None,
        }
    }

    /// Whether Postgres itself says that it accepts no connections: it is starting, recovering or shutting down.
    #[must_use]
    pub fn is_not_yet_up(&self) -> bool {
        self.sql_state() == Some(&tokio_postgres::error::SqlState::CANNOT_CONNECT_NOW)
    }

    /// The SQLSTATE, when Postgres itself refused.
    #[must_use]
    pub(crate) fn sql_state(&self) -> Option<&tokio_postgres::error::SqlState> {
        match self {
            Error::Connect { source, .. } | Error::Statement { source, .. } => source.code(),
            Error::NoSupervisor { .. }
            | Error::SupervisorSilent { .. }
            | Error::SupervisorRefused { .. }
            | Error::SpawnSupervisor { .. }
            | Error::Read { .. }
            | Error::Write { .. }
            | Error::MoveAside { .. }
            | Error::Room { .. }
            | Error::Tls { .. }
            | Error::Reach { .. }
            | Error::TooSlow { .. }
            | Error::Tool { .. }
            | Error::ToolUnknown { .. }
            | Error::ControlData { .. }
            | Error::NotEmpty { .. }
            | Error::NotRecovered { .. }
            | Error::ForeignBackup { .. }
            | Error::BackupLabel { .. }
            | Error::Rollback { .. }
            | Error::Archive { .. } => None,
        }
    }
}
