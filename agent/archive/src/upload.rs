//! Puts one file into the archive, once: what is there already is compared, never replaced. Chooses no file.

mod suffix;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrider_wal::{TimelineId, WalFileName};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::clock;
use crate::compression::reader;
use crate::content::{self, Expected, Packed};
use crate::metadata;
use crate::status::Conflict;
use crate::{Compression, ContentError, Format, Layout};
use outrider_store::{self as store, Store, Stored, causes, read_on_a_thread};

pub(crate) use suffix::Suffixes;

/// What is needed to put any file of one server into its archive.
#[derive(Clone, Debug)]
pub(crate) struct Uploader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) layout: Layout,
    /// The one that is configured; a timeline that was begun with another keeps that.
    pub(crate) compression: Compression,
    pub(crate) suffixes: Suffixes,
    pub(crate) pg_wal: PathBuf,
    /// How many files are read and compressed at one time.
    pub(crate) packers: Arc<Semaphore>,
}

/// A file that is in the archive now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uploaded {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) compressing: Duration,
}

/// Why a file is not in the archive.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// The store: the same again later.
    Store(store::Error),
    /// The file.
    Content(ContentError),
    /// The archive has another file of this name.
    Conflict(Conflict),
    /// The program itself is stopping or broken.
    Task(String),
}

impl Uploader {
    /// Reads, checks, compresses and puts `name`; returns when the store has it for good.
    pub(crate) async fn upload(
        &self,
        name: WalFileName,
        expected: Expected,
    ) -> Result<Uploaded, UploadError> {
        let (timeline, wanted) = (timeline_of(name), self.compression);
        let decided = self.suffixes.decided(&*self.store, &self.layout, timeline, wanted).await;
        let compression = decided.map_err(UploadError::Store)?;
        let permit = self.packers.clone().acquire_owned().await;
        let permit = permit.map_err(|closed| UploadError::Task(closed.to_string()))?;
        let started = clock::monotonic();
        let pg_wal = self.pg_wal.clone();
        let packing = tokio::task::spawn_blocking(move || {
            let packed = content::pack(&pg_wal, name, expected, compression);
            drop(permit);
            packed
        });
        let packed = packing.await.map_err(|error| UploadError::Task(error.to_string()))?;
        let Packed { body, sha256, bytes_in, commits } = packed.map_err(UploadError::Content)?;
        let uploaded = Uploaded { bytes_in, bytes_out: body.length(), compressing: started.elapsed() };
        let beside = metadata::of(&sha256, commits);

        let key = self.layout.wal(name, compression);
        match self.store.put_if_absent(&key, body, &beside).await.map_err(UploadError::Store)? {
            Stored::Created => Ok(uploaded),
            Stored::AlreadyThere => {
                let theirs = self.sha256_of(&key, compression.format()).await?;
                if theirs == sha256 {
                    return Ok(uploaded);
                }
                let object = format!("{}/{key}", self.store.url());
                Err(UploadError::Conflict(Conflict { name, ours: sha256, object, theirs }))
            }
        }
    }

    /// The SHA-256 of what the object holds, from its metadata or, when someone else wrote it, from its bytes.
    async fn sha256_of(&self, key: &str, format: Format) -> Result<String, UploadError> {
        let gone = || {
            UploadError::Store(store::Error::Unreachable {
                act: "compare",
                url: format!("{}/{key}", self.store.url()),
                cause: "the object has disappeared".to_owned(),
            })
        };
        let info = self.store.head(key).await.map_err(UploadError::Store)?.ok_or_else(gone)?;
        if let Some(sha256) = metadata::sha256(&info.metadata) {
            return Ok(sha256.to_owned());
        }
        let download = self.store.get(key).await.map_err(UploadError::Store)?.ok_or_else(gone)?;
        let sum = read_on_a_thread(download, move |packed| sha256_of(format, packed));
        let (sum, _) = sum.await.map_err(UploadError::Store)?;
        Ok(sum.unwrap_or_else(|_| "unreadable".to_owned()))
    }
}

fn timeline_of(name: WalFileName) -> TimelineId {
    match name {
        WalFileName::History(timeline) => timeline,
        WalFileName::Segment(segment)
        | WalFileName::Partial(segment)
        | WalFileName::BackupHistory { segment, .. } => segment.timeline,
    }
}

/// Of the plain bytes.
fn sha256_of(format: Format, packed: impl Read) -> io::Result<String> {
    let mut sum = Sum(Sha256::new());
    io::copy(&mut reader(format, packed)?, &mut sum)?;
    Ok(format!("{:x}", sum.0.finalize()))
}

struct Sum(Sha256);

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl UploadError {
    /// The error and its causes in one line.
    pub(crate) fn text(&self) -> String {
        match self {
            UploadError::Store(error) => causes(error),
            UploadError::Content(fault) => causes(fault),
            UploadError::Conflict(Conflict { name, ours, object, theirs }) => format!(
                "{object} exists with other content than our {name} (SHA-256 {theirs} there, {ours} here); nothing was overwritten"
            ),
            UploadError::Task(text) => text.clone(),
        }
    }
}
