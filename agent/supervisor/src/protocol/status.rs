//! What the supervisor says of itself, its postmaster and its fuse when it is asked for its status.

use serde::{Deserialize, Serialize};

use super::{Exit, Tool};

/// How things are with the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The protocol's [`super::VERSION`].
    pub version: u32,
    /// The supervisor's process.
    pub supervisor_pid: i32,
    /// The data directory it guards.
    pub data_directory: String,
    /// The postmaster, until its last descendant is gone.
    pub postmaster: Option<PostmasterStatus>,
    /// The deadline last armed, past ones too.
    pub fuse: Option<FuseStatus>,
    /// How the last postmaster ended.
    pub last_exit: Option<LastExit>,
    /// The running tool.
    pub tool: Option<ToolStatus>,
    /// True after SIGTERM.
    pub terminating: bool,
    /// The time of this answer.
    pub now_ns: u64,
    /// The last lines that the postmaster wrote, at most 50, the oldest first; none while one runs, since every round asks.
    pub log_tail: Vec<String>,
}

/// The postmaster in a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostmasterStatus {
    /// Its process.
    pub pid: i32,
    /// True when it was started writable or told to promote: the fuse guards it.
    pub writable: bool,
    /// When it was started.
    pub started_ns: u64,
    /// True when it was told to stop.
    pub stopping: bool,
    /// True when the postmaster itself is gone and its descendants are being waited for.
    pub died: bool,
    /// Since when a signal (SIGSTOP) has suspended it: it accepts no connection and sees no stop. Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_ns: Option<u64>,
}

/// The fuse in a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FuseStatus {
    /// The deadline.
    pub deadline_ns: u64,
    /// Its term.
    pub term: u64,
    /// True when the deadline is past.
    pub expired: bool,
}

/// How the last postmaster ended, in a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// Its process.
    pub pid: i32,
    /// How it ended.
    pub exit: Exit,
    /// As in [`super::Event::PostmasterDied`].
    pub expected: bool,
    /// True when the fuse ended it.
    pub fenced: bool,
    /// When the last descendant was gone.
    pub at_ns: u64,
}

/// The running tool in a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolStatus {
    /// Its process.
    pub pid: i32,
    /// Which.
    pub tool: Tool,
    /// When it was started.
    pub started_ns: u64,
    /// True when it is being cancelled.
    pub cancelled: bool,
}
