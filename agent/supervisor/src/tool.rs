//! The one tool that runs beside or instead of Postgres: initdb, pg_basebackup, pg_rewind and the like. Does not decide
//! whether it may run now, and does not kill it.

use std::path::{Path, PathBuf};

use crate::child::{self, Child};
use crate::descendants::ToolMarks;
use crate::output::{Output, Tail};
use crate::protocol::{Exit, Refusal, Tool, ToolStatus};
use crate::system::{self, Identity};

/// Lines of its output that its end reports.
const TAIL_LINES: usize = 40;

/// A tool, from its start until all it started is gone.
pub(crate) struct RunningTool {
    pub(crate) pid: i32,
    pub(crate) tool: Tool,
    pub(crate) started_ns: u64,
    pub(crate) cancelled: bool,
    /// It was reaped; processes it started may still be there.
    pub(crate) exit: Option<Exit>,
    pub(crate) output: Output,
    pub(crate) tail: Tail,
    pub(crate) marks: ToolMarks,
}

impl RunningTool {
    /// Starts it, as the same user as Postgres.
    pub(crate) fn start(
        tool: Tool,
        directories: (&Path, &Path),
        arguments: &[String],
        environment: &[(String, String)],
        identity: Option<Identity>,
    ) -> Result<Self, Refusal> {
        let (bin_directory, data_directory) = directories;
        let mut all = match tool {
            Tool::PostgresSingleUser => single_user(data_directory),
            Tool::PostgresRecovery => single_user(&rollback_directory(data_directory)),
            Tool::Initdb
            | Tool::PgBasebackup
            | Tool::PgRewind
            | Tool::PgControldata
            | Tool::PgChecksums
            | Tool::PgWaldump => Vec::new(),
        };
        all.extend_from_slice(arguments);
        let program = bin_directory.join(tool.program());
        let Child { pid, output } = child::spawn(&program, &all, environment, identity, libc::SIGKILL)?;
        Ok(Self {
            pid,
            tool,
            started_ns: system::boottime_ns(),
            cancelled: false,
            exit: None,
            output,
            tail: Tail::new(TAIL_LINES),
            marks: ToolMarks { pid: Some(pid), ..ToolMarks::default() },
        })
    }

    /// Whether its remaining processes must be killed: it was cancelled, or it ended.
    pub(crate) fn is_ending(&self) -> bool {
        self.cancelled || self.exit.is_some()
    }

    /// For the status.
    pub(crate) fn status(&self) -> ToolStatus {
        let Self { pid, tool, started_ns, cancelled, .. } = *self;
        ToolStatus { pid, tool, started_ns, cancelled }
    }
}

/// Where a rollback prepares the data that will replace the data directory: beside it, on the same disk.
#[must_use]
pub fn rollback_directory(data_directory: &Path) -> PathBuf {
    let mut name = data_directory.file_name().unwrap_or_default().to_owned();
    name.push(".rollback");
    data_directory.with_file_name(name)
}

fn single_user(directory: &Path) -> Vec<String> {
    vec!["--single".to_owned(), "-D".to_owned(), directory.display().to_string()]
}

/// Whether it changes the data directory, so that Postgres must not run in it meanwhile. A base backup goes into an empty
/// directory, but Postgres must not start there before it is complete.
pub(crate) fn keeps_postgres_from_starting(tool: Tool) -> bool {
    match tool {
        Tool::Initdb | Tool::PgRewind | Tool::PgChecksums | Tool::PostgresSingleUser | Tool::PgBasebackup => {
            true
        }
        Tool::PgControldata | Tool::PgWaldump | Tool::PostgresRecovery => false,
    }
}

/// Whether it works only for its own sake, and ends when Postgres needs another one.
pub(crate) fn gives_way(tool: Tool) -> bool {
    tool == Tool::PostgresRecovery
}

/// Whether it must not run while Postgres does.
pub(crate) fn needs_postgres_stopped(tool: Tool) -> bool {
    match tool {
        Tool::Initdb | Tool::PgRewind | Tool::PgChecksums | Tool::PostgresSingleUser => true,
        Tool::PgBasebackup | Tool::PgControldata | Tool::PgWaldump | Tool::PostgresRecovery => false,
    }
}

impl Tool {
    /// Its name in the directory of programs.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Tool::Initdb => "initdb",
            Tool::PgBasebackup => "pg_basebackup",
            Tool::PgRewind => "pg_rewind",
            Tool::PgControldata => "pg_controldata",
            Tool::PgChecksums => "pg_checksums",
            Tool::PgWaldump => "pg_waldump",
            Tool::PostgresSingleUser | Tool::PostgresRecovery => "postgres",
        }
    }
}
