//! Takes base backups: the files of a server, read in parallel between `pg_backup_start` and `pg_backup_stop`, straight
//! into the archive. Knows no SQL and no lease; restores nothing.

mod block;
mod claim;
mod control_file;
mod copy;
pub mod exclude;
mod feed;
mod index;
mod info;
mod join;
mod manifest;
mod object;
pub mod page;
mod progress;
mod source;
mod sweep;
mod walk;

use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{BackupId, BackupInfo, Layout, Owned, clock};
use claim::{CLAIM, Claim};
use join::Joiner;
use outrider_store::{self as store, Store};
use sweep::INFO;

pub use index::{BackupIndex, INDEX, Inside, MANIFEST, Point, TarIndex};
pub use progress::{BackupProgress, Phase};
pub use source::{Begun, Ended, Source, SourceError, StoredWal, WalArchived, WalMissing};
pub(crate) use sweep::claimed_by;
pub use sweep::sweep_abandoned;

/// Bytes of a tar between two points of the index, and how many points there are at most.
const STEP: u64 = 8 << 20;
const POINTS_MAX: u64 = 16_384;
/// For removing what is left of a failed backup, beside the deadlines of the store's requests.
const CLEANUP_LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

/// How to take a backup.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// Where it will lie.
    pub layout: Layout,
    /// A name that a person gives it.
    pub name: Option<String>,
    /// Gzip's level, 1 (fast) to 9 (small).
    pub level: u32,
    /// Threads that read and compress; as many as there are cores when absent.
    pub threads: Option<NonZeroUsize>,
    /// Bytes of files in a second at most.
    pub rate_limit: Option<NonZeroU64>,
    /// Keep the backup in spite of pages whose checksums are wrong.
    pub allow_checksum_failures: bool,
    /// After as many bytes a tar is continued in another. An object of S3 has at most 10000 parts, 78 GiB of ours.
    pub tar_max: u64,
}

impl BackupOptions {
    /// The usual ones.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        BackupOptions {
            layout,
            name: None,
            level: 1,
            threads: None,
            rate_limit: None,
            allow_checksum_failures: false,
            tar_max: 64 << 30,
        }
    }
}

/// A backup that can be restored.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// What its `backup.info` says.
    pub info: BackupInfo,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Bytes of its objects.
    pub stored: u64,
    /// Pages whose checksums were wrong; 0 unless that was allowed.
    pub checksum_failures: u64,
    /// Some of them, with file and page.
    pub bad_pages: Vec<String>,
}

/// Why there is no backup. Nothing of it is left, or a warning says what; but for [`BackupError::Unknown`].
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it, the fields are their parts")]
pub enum BackupError {
    #[error("cannot take a base backup")]
    Store {
        #[from]
        source: store::Error,
    },
    #[error("the archive has a base backup {newest}, which is later than this machine's clock")]
    Newer { newest: BackupId },
    #[error(
        "the server has the system identifier {found}, and the archive is another cluster's: no base backup goes there"
    )]
    Foreign { found: u64 },
    #[error("PostgreSQL did not {act}")]
    Source {
        act: &'static str,
        #[source]
        source: SourceError,
    },
    #[error("the session with PostgreSQL in which the base backup began is gone, so it is void")]
    SessionLost,
    #[error(
        "the server went from timeline {from} to {to} during the base backup; take it again after the next checkpoint"
    )]
    TimelineChanged { from: u32, to: u32 },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot compress")]
    Compress {
        #[source]
        source: io::Error,
    },
    #[error("{count} pages have wrong checksums, the base backup was not kept: {}", named.join("; "))]
    Checksums { count: u64, named: Vec<String> },
    #[error("the WAL that the base backup needs did not reach the archive")]
    WalMissing(#[from] WalMissing),
    #[error("someone else removed base backup {id} as abandoned while it was running")]
    Swept { id: BackupId },
    #[error("nobody knows whether the archive took {id}/backup.info, so the base backup was left as it is")]
    Unknown {
        id: BackupId,
        #[source]
        source: store::Error,
    },
    #[error("the base backup was cancelled")]
    Cancelled,
    #[error("a thread of the base backup panicked")]
    Thread {
        #[source]
        source: tokio::task::JoinError,
    },
}

/// Takes a base backup. Whoever calls holds the cluster's right to do so; there is one at a time. `owned`: the proof that the
/// archive is that of the server whose files are copied.
///
/// `backup.info`, which makes it one, is written last: after every object is durable and the WAL up to its end is in the
/// archive. When it fails or is cancelled, what was written is removed.
///
/// # Errors
/// When there is no backup.
pub async fn take_backup(
    store: Arc<dyn Store>,
    source: Box<dyn Source>,
    wal: &dyn WalArchived,
    (options, owned): (&BackupOptions, Owned),
    progress: &watch::Sender<BackupProgress>,
    cancel: &CancellationToken,
) -> Result<BackupReport, BackupError> {
    progress.send_replace(BackupProgress::default());
    store.probe(&options.layout.probe()).await?;
    let claim = Claim::make(&*store, &options.layout, owned).await?;
    let run = BackupRun { store: &store, wal, options, owned, progress, cancel, claim: &claim };
    let outcome = run.take(source).await;
    if let Err(error) = &outcome
        && !matches!(error, BackupError::Unknown { .. })
    {
        let removing = sweep::remove(&*store, &options.layout, &claim.id);
        let left = match timeout(CLEANUP_LIMIT, removing).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(store::causes(&error)),
            Err(_) => Some(format!("not done within {CLEANUP_LIMIT:?}")),
        };
        if let Some(cause) = left {
            warn!(id = %claim.id, %error, %cause, "remains of a failed base backup stay in the archive until they are swept");
        }
    }
    outcome
}

struct BackupRun<'a> {
    store: &'a Arc<dyn Store>,
    wal: &'a dyn WalArchived,
    options: &'a BackupOptions,
    owned: Owned,
    progress: &'a watch::Sender<BackupProgress>,
    cancel: &'a CancellationToken,
    claim: &'a Claim,
}

impl BackupRun<'_> {
    async fn take(&self, mut source: Box<dyn Source>) -> Result<BackupReport, BackupError> {
        let (layout, id) = (&self.options.layout, &self.claim.id);
        self.phase(Phase::Starting);
        let label = format!("Outrider backup {id}");
        let begun = self.unless_cancelled(source.begin(&label)).await?;
        let begun = begun.map_err(|source| BackupError::Source { act: "begin the backup", source })?;
        if !self.owned.is_of(begun.system_identifier) {
            return Err(BackupError::Foreign { found: begun.system_identifier });
        }
        let begin_time = now();
        let total = {
            let begun = begun.clone();
            move || copy::measure(&begun)
        };
        let total = self.unless_cancelled(tokio::task::spawn_blocking(total)).await?;
        let total = total.map_err(|source| BackupError::Thread { source })??;
        self.progress.send_modify(|progress| progress.total = total);

        self.phase(Phase::Copying);
        let step = STEP.max(total / POINTS_MAX);
        let mut joiner = Joiner::new(self.store.clone(), layout, id, self.progress, step);
        let ended = copy::copy(&mut *source, &begun, self.options, &mut joiner, self.cancel).await?;
        drop(source);
        if joiner.failures.count > 0 && !self.options.allow_checksum_failures {
            let (count, named) = (joiner.failures.count, std::mem::take(&mut joiner.failures.named));
            return Err(BackupError::Checksums { count, named });
        }

        self.phase(Phase::Finishing);
        let mut info = info::of(self.claim, self.options, &begun, &ended, begin_time);
        info.cluster_size = Some(joiner.file_bytes);
        let index_bytes = self.finish(&mut joiner, &begun, &ended).await?;
        self.phase(Phase::WaitingForWal);
        let (first, last) = (info.begin_wal, info.end_wal);
        if let (Some(first), Some(last)) = (first, last) {
            self.unless_cancelled(self.wal.wait(first, last, info.segment_size)).await??;
        }
        info.end_time = Some(now());
        self.publish(&info).await?;
        self.phase(Phase::Done);
        Ok(BackupReport {
            info,
            files: joiner.files,
            file_bytes: joiner.file_bytes,
            stored: joiner.stored + index_bytes,
            checksum_failures: joiner.failures.count,
            bad_pages: joiner.failures.named,
        })
    }

    /// Manifest and index. Returns the size of the index.
    async fn finish(
        &self,
        joiner: &mut Joiner<'_>,
        begun: &Begun,
        ended: &Ended,
    ) -> Result<u64, BackupError> {
        let (layout, id) = (&self.options.layout, &self.claim.id);
        let manifest = std::mem::take(&mut joiner.manifest);
        let manifest = manifest.end(ended.start_timeline, begun.start, ended.stop);
        joiner.finish_manifest(&manifest.text).await?;
        let index = BackupIndex {
            version: BackupIndex::VERSION,
            backup: id.to_string(),
            tars: std::mem::take(&mut joiner.tars),
            manifest_bytes: manifest.bytes,
            manifest_checksum: manifest.checksum,
            files: joiner.files,
            file_bytes: joiner.file_bytes,
            checksum_failures: joiner.failures.count,
        };
        let index = serde_json::to_vec(&index).expect("numbers and strings are JSON");
        let length = index.len() as u64;
        object::put(&**self.store, &layout.backup(id, INDEX), Bytes::from(index)).await?;
        Ok(length)
    }

    /// Makes it a backup.
    async fn publish(&self, info: &BackupInfo) -> Result<(), BackupError> {
        let (store, layout, id) = (&**self.store, &self.options.layout, &self.claim.id);
        if self.cancel.is_cancelled() {
            return Err(BackupError::Cancelled);
        }
        if !self.claim.holds(store, layout).await? {
            return Err(BackupError::Swept { id: id.clone() });
        }
        // Once it was asked for, it may come to be whatever the answer: everything that belongs to it stays.
        let unknown = |source| BackupError::Unknown { id: id.clone(), source };
        object::put(store, &layout.backup(id, INFO), Bytes::from(info.print())).await.map_err(unknown)?;
        if let Err(error) = store.delete(&layout.backup(id, CLAIM)).await {
            warn!(%id, %error, "the claim of a base backup that is done was not removed; it does no harm");
        }
        Ok(())
    }

    fn phase(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, BackupError> {
        self.cancel.run_until_cancelled(work).await.ok_or(BackupError::Cancelled)
    }
}

fn now() -> Timestamp {
    Timestamp::try_from(clock::wall()).unwrap_or_default()
}
