//! What `wal-push` and `wal-fetch` say to the agent over its socket: one JSON line there, one back. Sends nothing.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest line, with room for the longest paths.
pub(crate) const LINE_MAX: usize = 16 * 1024;

/// How long the agent waits until a file is durable. PostgreSQL's archiver naps for a minute after three failures,
/// so waiting is better than failing; but it must not look hung for ever.
pub(crate) const PUSH_LIMIT: Duration = Duration::from_secs(30);
/// What a client waits beyond the agent's own limits, for an agent that is slow or frozen.
pub(crate) const CLIENT_EXTRA: Duration = Duration::from_secs(3);

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Is this file of pg_wal durable in the archive? Answered when it is.
    Push { path: PathBuf },
    /// Bring this file from the archive.
    Fetch { name: String, destination: PathBuf, standby: bool },
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// It is durable.
    Durable,
    /// It is not, or not yet.
    NotDurable { message: String },
    /// It is not yet, and PostgreSQL is being stopped.
    Stopping { message: String },
    /// It is at its destination.
    Fetched,
    /// The store confirmed that there is no such file.
    Absent { message: String },
    /// Nobody knows whether there is such a file, or it is there and unusable.
    Trouble { message: String },
    /// The question makes no sense.
    Bad { message: String },
}
