//! Why a server is not restored: what the archive lacks, what is in the way, what broke. Decides nothing.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use outrider_wal::{Lsn, SegmentName, TimelineId};

use crate::fetch::FetchError;
use crate::target::Target;
use outrider_archive::BackupId;
use outrider_archive::catalog::Gap;
use outrider_store as store;

/// Why there is no plan, or why it was not carried out. Unless a variant says otherwise nothing was touched.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it, the fields are their parts")]
pub enum RestoreError {
    #[error("cannot read the archive")]
    Store(#[source] store::Error),
    #[error("cannot read the WAL of the archive")]
    Wal(#[source] FetchError),
    #[error("{url} has no base backup of {server} that can be restored{}", because(.lacking))]
    NoBackup { url: String, server: String, lacking: Vec<String> },
    #[error(
        "{url} has base backups of several servers (system identifiers), and nothing says whose archive it is: name one with --backup"
    )]
    Disputed { url: String },
    #[error("there is no base backup {id}{}; there are {}", .fault.as_ref().map(|fault| format!(" to restore: {fault}")).unwrap_or_default(), .there)]
    NotThisBackup { id: BackupId, fault: Option<String>, there: String },
    #[error(
        "no base backup was consistent before {target}: the first point that can be restored is {first}, with --lsn {} or --immediate", .first.lsn
    )]
    TooEarly { target: Target, first: Point },
    #[error(
        "no base backup lies on timeline {timeline}: {there}; choose another with --timeline or --backup"
    )]
    NotOnTimeline { timeline: TimelineId, there: String },
    #[error("the archive has no history of timeline {timeline}; the newest it knows is {newest}")]
    NoTimeline { timeline: TimelineId, newest: TimelineId },
    #[error("the object {key} is not a timeline history: {fault}")]
    BadHistory { key: String, fault: String },
    #[error(
        "WAL is missing before {target}: {}; without it the last point that can be restored is {last}", list(.gaps)
    )]
    Gap { target: Target, gaps: Vec<Gap>, last: Point },
    #[error("the archive ends before {target}: the last point that can be restored is {last}{hint}")]
    Beyond { target: Target, last: Point, hint: &'static str },
    #[error("{target} is not in the WAL since {since}: the last point that can be restored is {last}")]
    NotFound { target: Target, since: String, last: Point },
    #[error("the base backup {id} is not consistent before {end}, and the archive has its WAL only up to {reached}{}", lacking(.gaps))]
    Incomplete { id: BackupId, end: Lsn, reached: Lsn, gaps: Vec<Gap> },
    #[error("the base backup {id} lacks {object}")]
    Lacks { id: BackupId, object: String },
    #[error("{path} {fault}")]
    InTheWay { path: PathBuf, fault: String },
    #[error("the {object} of the base backup is damaged: {fault}")]
    Damaged { object: String, fault: String },
    #[error("no room is left for {path}; what was written is {}", after(*.removed))]
    DiskFull { path: PathBuf, removed: bool },
    #[error("cannot {act} {path}")]
    File {
        act: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the restore was cancelled; what was written is {}", after(*.removed))]
    Cancelled { removed: bool },
    #[error("cannot use {segment}: {fault}")]
    Segment { segment: SegmentName, fault: String },
    #[error("{what} did not finish: {fault}")]
    Drill { what: &'static str, fault: String },
}

/// A place in the history of a server, and when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The first byte that is not replayed any more.
    pub lsn: Lsn,
    /// When the last transaction before it ended; `None` when there is none.
    pub time: Option<Timestamp>,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.time {
            Some(time) => write!(f, "{time} (LSN {})", self.lsn),
            None => write!(f, "LSN {}", self.lsn),
        }
    }
}

impl RestoreError {
    /// Whether what was written is of no use to anybody, not even for finding out what is wrong with the backup.
    pub(super) fn leaves_nothing_worth_keeping(&self) -> bool {
        !matches!(self, RestoreError::Damaged { .. } | RestoreError::Drill { .. })
    }
}

impl From<String> for RestoreError {
    /// What is wrong with a tar whose name who unpacks it adds.
    fn from(fault: String) -> Self {
        RestoreError::Damaged { object: String::new(), fault }
    }
}

fn list(gaps: &[Gap]) -> String {
    gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn lacking(gaps: &[Gap]) -> String {
    if gaps.is_empty() { String::new() } else { format!("; missing: {}", list(gaps)) }
}

fn because(lacking: &[String]) -> String {
    if lacking.is_empty() { String::new() } else { format!(": {}", lacking.join("; ")) }
}

fn after(removed: bool) -> &'static str {
    if removed { "removed" } else { "marked as unfinished, and neither Postgres nor the agent starts it" }
}
