//! What the agent and the supervisor say to each other: one JSON object a line over a unix socket.
//! Only the words and their shapes; it opens no socket and decides nothing.
//!
//! The agent sends [`Request`]s and gets one [`Reply`] for each, in order. [`Event`]s come unasked to every connection that
//! said [`Command::Hello`]. Times are nanoseconds of `CLOCK_BOOTTIME`, which counts sleep. Unknown fields are ignored.

mod status;

use serde::{Deserialize, Serialize};

pub use status::{FuseStatus, LastExit, PostmasterStatus, Status, ToolStatus};

/// The version of this protocol. A supervisor that speaks another refuses [`Command::Hello`].
pub const VERSION: u32 = 1;

/// The longest line in bytes, its newline included. A connection that sends more is closed.
pub const LINE_LIMIT: usize = 64 * 1024;

/// What the agent asks, with a number of its own choosing that comes back in the [`Reply`].
/// On the wire: `{"id":7,"command":"start","writable":false,"arguments":[]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the agent; 0 is left for lines whose number could not be read.
    pub id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub command: Command,
}

/// What can be asked of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Must come first on a connection; events flow from then on. Answered with [`Answer::Hello`].
    Hello {
        /// The [`VERSION`] that the agent speaks.
        version: u32,
    },
    /// How things are. Answered with [`Answer::Status`].
    Status,
    /// Sets the fuse: the moment at which a writable Postgres is killed, later or sooner. Answered with [`Answer::Armed`].
    ArmFuse {
        /// Absolute, nanoseconds of `CLOCK_BOOTTIME`. Refused when it is past.
        deadline_ns: u64,
        /// The term of the leader lease that this deadline comes from. Refused when a higher one was seen.
        term: u64,
    },
    /// Starts the postmaster. Answered with [`Answer::Started`] long before it accepts connections.
    Start {
        /// False: `standby.signal` must be there. True: it must not be there, and the fuse must be live.
        writable: bool,
        /// Arguments that follow `-D <data directory>`; none may name a data directory or another mode of the program.
        arguments: Vec<String>,
    },
    /// Stops the postmaster. Answered with [`Answer::Done`] when the signal is sent; the end is an event.
    Stop {
        /// How.
        mode: StopMode,
    },
    /// Promotes a running standby, as `pg_ctl promote` does. Needs a live fuse. Answered with [`Answer::Done`] at once.
    Promote,
    /// Makes the postmaster read its configuration again (SIGHUP). Answered with [`Answer::Done`].
    Reload,
    /// Sends SIGTERM to one child of the postmaster, to cut off a walsender. Answered with [`Answer::Done`].
    TerminateProcess {
        /// A child of the postmaster.
        pid: i32,
    },
    /// Runs one of PostgreSQL's programs, one at a time. Answered with [`Answer::Started`]; output and end are events.
    RunTool {
        /// Which.
        tool: Tool,
        /// Its arguments, without its name.
        arguments: Vec<String>,
        /// Added to the supervisor's environment, for instance `PGPASSFILE`. Never logged.
        #[serde(default)]
        environment: Vec<(String, String)>,
    },
    /// Kills the running tool and all it started. Answered with [`Answer::Done`]; the end is an event.
    CancelTool,
    /// A command of another version; always refused.
    #[serde(other)]
    Unknown,
}

/// How to stop the postmaster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// SIGINT: ends the sessions, writes a shutdown checkpoint, waits for connected standbys.
    Fast,
    /// SIGQUIT: no checkpoint; the next start recovers.
    Immediate,
    /// SIGKILL to the postmaster and every descendant.
    Kill,
}

/// The programs that the supervisor runs next to the data directory, all from the same directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tool {
    /// `initdb`. Refused while Postgres runs.
    Initdb,
    /// `pg_basebackup`.
    PgBasebackup,
    /// `pg_rewind`. Refused while Postgres runs.
    PgRewind,
    /// `pg_controldata`.
    PgControldata,
    /// `pg_checksums`. Refused while Postgres runs.
    PgChecksums,
    /// `pg_waldump`.
    PgWaldump,
    /// `postgres --single` with nothing to read: recovers from a crash and ends. Refused while Postgres runs.
    PostgresSingleUser,
    /// The same in [`crate::rollback_directory`], beside a Postgres that runs: killed when another tool is asked for.
    PostgresRecovery,
}

/// A line from the supervisor: an answer to a request, or news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// Told by its `id`.
    Reply(Reply),
    /// Told by its `event`.
    Event(Event),
}

/// The answer to one request: exactly one of `ok` and `error` is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number, or 0 when it could not be read.
    pub id: u64,
    /// Done, with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Answer>,
    /// Refused: nothing was done, but for [`RefusalCode::SignalFailed`], which may have done half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Refusal>,
}

impl Reply {
    /// The reply to request `id`.
    pub fn new(id: u64, outcome: Result<Answer, Refusal>) -> Self {
        match outcome {
            Ok(answer) => Self { id, ok: Some(answer), error: None },
            Err(refusal) => Self { id, ok: None, error: Some(refusal) },
        }
    }

    /// The answer or the refusal; `None` when the line had neither, which no supervisor of this version sends.
    pub fn outcome(self) -> Option<Result<Answer, Refusal>> {
        self.error.map(Err).or(self.ok.map(Ok))
    }
}

/// What a granted request brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Command::Hello`].
    Hello {
        /// The version that the supervisor speaks.
        version: u32,
        /// Its process; another one than before means that it was started anew and holds no fuse.
        supervisor_pid: i32,
    },
    /// To [`Command::Status`].
    Status(Box<Status>),
    /// To [`Command::ArmFuse`].
    Armed {
        /// The deadline that now holds.
        deadline_ns: u64,
        /// Its term.
        term: u64,
    },
    /// To [`Command::Start`] and [`Command::RunTool`].
    Started {
        /// The new process.
        pid: i32,
    },
    /// To the rest.
    Done,
}

/// Why a request was not done. The code is for the agent, the message for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What the agent chooses by.
    pub code: RefusalCode,
    /// What was refused, and why.
    pub message: String,
}

/// The reasons for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The line is not a request: malformed, or a field is missing or wrong.
    BadRequest,
    /// The line is a request, but for a command that this version does not have.
    UnknownCommand,
    /// The agent speaks another version. The connection is closed.
    Version,
    /// The first command on a connection must be [`Command::Hello`].
    HelloFirst,
    /// The fuse was never armed, and this needs it.
    FuseNotArmed,
    /// The fuse has expired, and the writable Postgres it fences is not gone, or this needs a live one.
    FuseExpired,
    /// The deadline is already past.
    DeadlinePast,
    /// The deadline is further away than any lease, as one from another clock would be.
    DeadlineTooFar,
    /// A higher term was seen.
    TermWentBack,
    /// A postmaster runs.
    AlreadyRunning,
    /// No postmaster runs.
    NotRunning,
    /// The postmaster is already writable.
    AlreadyWritable,
    /// The postmaster is being stopped or fenced.
    Stopping,
    /// The supervisor itself was told to end.
    Terminating,
    /// A start as standby needs `standby.signal`.
    NoStandbySignal,
    /// A writable start must not have `standby.signal`.
    StandbySignalPresent,
    /// Processes of an earlier postmaster are still there.
    DescendantsRemain,
    /// A Postgres that this supervisor did not start runs on the data directory.
    ForeignPostgres,
    /// The process is not a child of the postmaster.
    NotAChild,
    /// A tool runs.
    ToolRunning,
    /// No tool runs.
    NoTool,
    /// An argument is not allowed.
    BadArgument,
    /// The program could not be started.
    SpawnFailed,
    /// The signal, or the file that goes with it, could not be delivered.
    SignalFailed,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// News, sent to every connection that said hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The postmaster itself is gone. Its descendants may live for some milliseconds more.
    PostmasterDied {
        /// Which.
        pid: i32,
        /// How it ended.
        exit: Exit,
        /// True when it was being stopped, by the agent, the fuse or the supervisor's own end.
        expected: bool,
        /// When the supervisor reaped it.
        at_ns: u64,
    },
    /// The postmaster and every descendant are gone: nothing of it can write or answer any more.
    PostmasterExited {
        /// Which.
        pid: i32,
        /// How it ended.
        exit: Exit,
        /// As in [`Event::PostmasterDied`].
        expected: bool,
        /// When the last descendant was gone.
        at_ns: u64,
        /// Milliseconds from the postmaster's death to this.
        took_ms: u64,
    },
    /// The fuse blew, and nothing of the Postgres that it guarded is left. Follows its `PostmasterExited`.
    Fenced {
        /// The term of the fuse.
        term: u64,
        /// The deadline that passed.
        deadline_ns: u64,
        /// When the last descendant was gone.
        at_ns: u64,
        /// Milliseconds from the first signal to this. From the deadline it is `at_ns - deadline_ns`.
        took_ms: u64,
    },
    /// A line that the tool wrote to its output or error output.
    ToolOutput {
        /// The tool's process.
        pid: i32,
        /// Without its newline; cut when very long.
        line: String,
    },
    /// The tool and all it started are gone.
    ToolExited {
        /// The tool's process.
        pid: i32,
        /// How it ended.
        exit: Exit,
        /// Its last lines, at most 40.
        tail: Vec<String>,
    },
    /// The supervisor was told to end. After `handover_ms` it stops Postgres, and before `grace_ms` all is gone.
    Terminating {
        /// Milliseconds that the agent has for a switchover.
        handover_ms: u64,
        /// Milliseconds until the end at the latest.
        grace_ms: u64,
    },
}

#[cfg(test)]
mod tests;
