//! What is known of one base backup: barman-cloud's `backup.info`. Touches no store.
//!
//! How the file is read and written is in the rooms below.

mod literal;
mod print;
mod read;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use outrider_wal::{Lsn, SegmentName, SegmentSize, TimelineId};

pub use read::{BadBackupInfo, ReadBackupInfo};

/// The name of a base backup: the time of its beginning in UTC, such as `20261124T031500`. Barman sorts by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

/// The text is no [`BackupId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a base backup: expected a time such as 20261124T031500")]
pub struct BadBackupId(String);

impl BackupId {
    /// The name of a backup that begins at this time.
    #[must_use]
    pub fn beginning_at(time: Timestamp) -> Self {
        BackupId(time.strftime("%Y%m%dT%H%M%S").to_string())
    }

    /// When the backup began by its name, to the second. Barman takes the local time of its machine for the name, so of
    /// its backups this is a guess. `None` when the name is no time, such as the 32nd of a month.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", &self.0).ok()?;
        jiff::tz::TimeZone::UTC.to_timestamp(time).ok()
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BackupId {
    type Err = BadBackupId;

    fn from_str(text: &str) -> Result<Self, BadBackupId> {
        let bytes = text.as_bytes();
        let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
        if bytes.len() == 15 && digits(&bytes[..8]) && bytes[8] == b'T' && digits(&bytes[9..]) {
            Ok(BackupId(text.to_owned()))
        } else {
            Err(BadBackupId(text.to_owned()))
        }
    }
}

impl fmt::Display for BackupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackupStatus::Empty => "EMPTY",
            BackupStatus::Started => "STARTED",
            BackupStatus::Failed => "FAILED",
            BackupStatus::WaitingForWals => "WAITING_FOR_WALS",
            BackupStatus::Done => "DONE",
            BackupStatus::Syncing => "SYNCING",
        })
    }
}

/// Barman's word for how far a base backup is. Only `Done` can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupStatus {
    /// Nothing is there yet.
    Empty,
    /// It is under way, or whoever took it died.
    Started,
    /// It broke off.
    Failed,
    /// Its files are there, its WAL not yet.
    WaitingForWals,
    /// It can be restored.
    Done,
    /// A copy is under way (barman's server only).
    Syncing,
}

/// A directory outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its name.
    pub name: String,
    /// Its OID, by which its tar and its link are named.
    pub oid: u32,
    /// Where it was.
    pub location: String,
}

/// One base backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    /// Its name; not in the file but in its key.
    pub id: BackupId,
    /// A name that a person gave it.
    pub name: Option<String>,
    /// How far it is.
    pub status: BackupStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// When it began.
    pub begin_time: Option<Timestamp>,
    /// When the last of it was durable.
    pub end_time: Option<Timestamp>,
    /// Replay begins in this segment.
    pub begin_wal: Option<SegmentName>,
    /// Replay begins here: the redo position of its checkpoint.
    pub begin_lsn: Option<Lsn>,
    /// It is consistent at the end of this segment.
    pub end_wal: Option<SegmentName>,
    /// It is consistent from here on.
    pub end_lsn: Option<Lsn>,
    /// Of the server when it began.
    pub timeline: Option<TimelineId>,
    /// Of the server.
    pub system_identifier: Option<u64>,
    /// `server_version_num`, such as 150018.
    pub version: Option<u32>,
    /// Of the server.
    pub segment_size: SegmentSize,
    /// Whether the server writes page checksums.
    pub data_checksums: bool,
    /// Bytes of the files before compression.
    pub cluster_size: Option<u64>,
    /// The data directory that was copied.
    pub pgdata: Option<String>,
    /// What `pg_backup_stop` gave for the file `backup_label`.
    pub backup_label: Option<String>,
    /// The tablespaces.
    pub tablespaces: Vec<Tablespace>,
}
