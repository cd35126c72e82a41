//! What a base backup needs of the server whose files it copies, and of its WAL. Knows no SQL.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_wal::{Lsn, SegmentName, SegmentSize, TimelineId};
use tokio::time::sleep;

use crate::Layout;
use crate::backup_info::Tablespace;
use crate::clock;
use outrider_store::{self as store, Store};

/// Anything that went wrong with the server, in its words.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// The server whose files are copied, in a session that lasts as long as the backup. Dropping it ends the backup.
#[async_trait]
pub trait Source: Send {
    /// Begins: `pg_backup_start` with a fast checkpoint.
    ///
    /// # Errors
    /// When the server does not. Each call has a deadline of its own.
    async fn begin(&mut self, label: &str) -> Result<Begun, SourceError>;

    /// Ends: `pg_backup_stop`, after the last file was read. Does not wait for the archive.
    ///
    /// # Errors
    /// When the session was lost, the standby promoted, or anything else that voids the backup.
    async fn end(&mut self) -> Result<Ended, SourceError>;

    /// Whether the session is there. When it is gone the backup is void.
    fn is_alive(&self) -> bool;
}

/// The server as it was when the backup began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Replay begins here.
    pub start: Lsn,
    /// Where its files are.
    pub data_directory: PathBuf,
    /// Its tablespaces. One whose location is not absolute lies in the data directory and needs no tar of its own.
    pub tablespaces: Vec<Tablespace>,
    /// The directory of this version in each tablespace, such as `PG_15_202209061`.
    pub version_directory: String,
    /// `server_version_num`.
    pub version: u32,
    /// Of the server.
    pub system_identifier: u64,
    /// Of the server.
    pub segment_size: SegmentSize,
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages in a file of a relation; further ones are in the file with the next number.
    pub pages_per_file: u32,
    /// Whether pages have checksums.
    pub data_checksums: bool,
}

/// The server's last word on the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The copy is consistent from here on.
    pub stop: Lsn,
    /// On which replay begins.
    pub start_timeline: TimelineId,
    /// On which it becomes consistent.
    pub stop_timeline: TimelineId,
    /// The content of `backup_label`.
    pub label: String,
}

/// Tells when WAL is in the archive.
#[async_trait]
pub trait WalArchived: Send + Sync {
    /// Returns once the archive has every segment from `first` to `last`, which are of one timeline.
    ///
    /// # Errors
    /// When it has not within the time that this is given, or never will: names the first that is missing.
    async fn wait(&self, first: SegmentName, last: SegmentName, size: SegmentSize) -> Result<(), WalMissing>;
}

/// WAL that the backup needs did not come into the archive.
#[derive(Debug, thiserror::Error)]
pub enum WalMissing {
    /// It may still come.
    #[error("{missing} is not in the archive after {waited:?}{}", because(.last))]
    Late {
        /// The first segment that is not there.
        missing: SegmentName,
        /// How long it was waited for.
        waited: Duration,
        /// Why the store could not be asked the last time.
        last: Option<String>,
    },
    /// It never will: a failover ended the timeline of the backup at the moment when it began.
    #[error(
        "{segment} will never be complete: its timeline ended within it, and the archive has what there is of it"
    )]
    TimelineLeft {
        /// Of which the archive has the `.partial`.
        segment: SegmentName,
    },
    /// It does not come: the primary archives nothing.
    #[error("the WAL of the backup does not reach the archive: {why}")]
    NotArchived {
        /// Why not.
        why: String,
    },
}

fn because(last: &Option<String>) -> String {
    last.as_ref().map(|last| format!("; {last}")).unwrap_or_default()
}

/// Asks the store itself.
#[derive(Clone, Debug)]
pub struct StoredWal {
    /// The archive.
    pub store: Arc<dyn Store>,
    /// The server's keys in it.
    pub layout: Layout,
    /// How long to wait.
    pub limit: Duration,
}

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// What may stand behind the name of a segment in the archive, whoever wrote it (reference of barman, 1.1).
const SUFFIXES: [&str; 7] = ["", ".gz", ".zst", ".lz4", ".bz2", ".xz", ".snappy"];

/// What stands behind the name of a segment that a timeline ended within.
const PARTIAL: &str = ".partial";

#[async_trait]
impl WalArchived for StoredWal {
    async fn wait(&self, first: SegmentName, last: SegmentName, size: SegmentSize) -> Result<(), WalMissing> {
        let begun = clock::monotonic();
        let mut next = first;
        loop {
            let outcome = self.first_missing(next, last, size).await;
            let failure = match outcome {
                Ok(None) => return Ok(()),
                Ok(Some(Missing { segment, is_partial: true })) => {
                    return Err(WalMissing::TimelineLeft { segment });
                }
                Ok(Some(Missing { segment, is_partial: false })) => {
                    next = segment;
                    None
                }
                Err(error) => Some(store::causes(&error)),
            };
            if begun.elapsed() >= self.limit {
                return Err(WalMissing::Late { missing: next, waited: self.limit, last: failure });
            }
            sleep(INTERVAL).await;
        }
    }
}

/// A segment that the archive does not have.
struct Missing {
    segment: SegmentName,
    /// It has the part of it that a timeline ended with.
    is_partial: bool,
}

impl StoredWal {
    /// One listing for each folder of the archive (256 segments of 16 MiB).
    async fn first_missing(
        &self,
        first: SegmentName,
        last: SegmentName,
        size: SegmentSize,
    ) -> Result<Option<Missing>, store::Error> {
        let mut next = first;
        while next.number(size) <= last.number(size) {
            let folder = next.folder();
            let present = self.folder(&folder).await?;
            while next.folder() == folder && next.number(size) <= last.number(size) {
                let name = next.to_string();
                if !present.contains(&name) {
                    let is_partial = present.contains(&format!("{name}{PARTIAL}"));
                    return Ok(Some(Missing { segment: next, is_partial }));
                }
                next = next.next(size);
            }
        }
        Ok(None)
    }

    /// The names of the segments in a folder, without what tells the compression; about as many as there are in 4 GiB.
    async fn folder(&self, folder: &str) -> Result<BTreeSet<String>, store::Error> {
        let prefix = format!("{}{folder}/", self.layout.wals());
        let mut present = BTreeSet::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.list(&prefix, after.as_deref(), 1000).await?;
            for object in &page.objects {
                let name = object.key.strip_prefix(&prefix).unwrap_or_default();
                let Some((segment, suffix)) = name.split_at_checked(24) else { continue };
                match suffix.strip_prefix(PARTIAL) {
                    None if SUFFIXES.contains(&suffix) => present.insert(segment.to_owned()),
                    Some(rest) if SUFFIXES.contains(&rest) => present.insert(format!("{segment}{PARTIAL}")),
                    None | Some(_) => false,
                };
            }
            after = page.objects.last().map(|object| object.key.clone());
            if !page.more || after.is_none() {
                return Ok(present);
            }
        }
    }
}
