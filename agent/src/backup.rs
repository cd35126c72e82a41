//! Base backups in the life of a cluster: when one is due, how this member takes one, what the archive holds of them. How one is made
//! is the archive's matter; who takes it, and what becomes of it, is in `jobs`.

mod catalog_cache;
mod take;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use catalog_cache::{CatalogCache, CatalogError, CatalogSnapshot, Drills};
pub(crate) use take::ArchiveTaker;

/// Takes one base backup, from the beginning to its place in the archive.
#[async_trait]
pub(crate) trait Taker: Send + Sync {
    /// Takes it and tells how far it is. When `cancel` is called it comes back soon, and nothing of it is left.
    async fn take(
        &self,
        order: BackupOrder,
        progress: watch::Sender<BackupProgress>,
        cancel: CancellationToken,
    ) -> Result<FinishedBackup, TakeError>;
}

/// What there is to know for whoever takes a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupOrder {
    /// Whether the local Postgres is a standby.
    pub(crate) on_standby: bool,
    /// Names the backup for people: the id of the request.
    pub(crate) label: String,
}

/// How far a backup is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BackupProgress {
    /// Its name in the archive, once it has one.
    pub(crate) backup: Option<String>,
    /// What is being done.
    pub(crate) phase: String,
    /// Bytes of the data directory that were read.
    pub(crate) bytes_done: u64,
    /// Bytes of the data directory in all; 0 while it is not known.
    pub(crate) bytes_total: u64,
    /// Bytes that the store has.
    pub(crate) bytes_stored: u64,
    /// Bytes read in a second.
    pub(crate) rate: u64,
    /// Estimated.
    pub(crate) seconds_left: Option<u64>,
}

/// A backup that is in the archive, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FinishedBackup {
    /// Its name there.
    pub(crate) backup: String,
    /// Bytes of the data directory.
    pub(crate) bytes: u64,
    /// Bytes that the store has.
    pub(crate) bytes_stored: u64,
}

/// Why there is none. Nothing of it is listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TakeError {
    /// It was told to stop.
    #[error("it was cancelled")]
    Cancelled,
    /// This member's Postgres did not do its part, and another's may.
    #[error("{0}")]
    Here(String),
    /// Nobody could.
    #[error("{0}")]
    Failed(String),
}
