//! Brings a file of the WAL from the archive to where PostgreSQL wants it: whole, checked, or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use outrider_wal::{SegmentSize, WalFileName};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::{Backoff, random};
use crate::compression::Unpacker;
use crate::content::{self, Expected, HEADER};
use crate::protocol::{RECOVERY_LIMIT, STANDBY_LIMIT};
use crate::store::{self, Download, Store, causes};
use crate::{Compression, Fault, Layout};

/// No file of the WAL is larger.
const FILE_MAX: u64 = 1 << 30;
/// Pieces between the network and the disk.
const PIECES: usize = 4;
/// How long a store that gave no answer is not asked again on behalf of a standby: its replay and its promotion
/// would stand still for [`STANDBY_LIMIT`] with each file that it asks for.
const SILENCE: Duration = Duration::from_secs(10);

/// How long to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Once and briefly: a standby can stream instead.
    Standby,
    /// Again and again, for half a minute: a recovery has no other source.
    Recovery,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is at its destination.
    Written {
        /// Its bytes.
        bytes: u64,
    },
    /// The store confirmed that it has no such file.
    Absent,
}

/// Nobody knows whether the archive has the file, or it has and the file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The store gave no answer or a refusal.
    #[error("cannot fetch {name} from the archive")]
    Store {
        /// The file.
        name: WalFileName,
        /// What the store said.
        #[source]
        source: store::Error,
    },
    /// The time is up.
    #[error("cannot fetch {name} from the archive within {limit:?}{}", after(.last))]
    Late {
        /// The file.
        name: WalFileName,
        /// The time.
        limit: Duration,
        /// The last failure before.
        last: Option<Box<FetchError>>,
    },
    /// The store was silent a moment ago and was not asked.
    #[error("the archive {url} gave no answer a moment ago, {name} was not asked for")]
    Silent {
        /// The store.
        url: String,
        /// The file.
        name: WalFileName,
    },
    /// The destination cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The object cannot be decompressed, or is longer than any file of the WAL.
    #[error("the object {key} is damaged: {fault}")]
    Damaged {
        /// Its key.
        key: String,
        /// In which way.
        fault: String,
    },
    /// The object is not what its name says.
    #[error("the object {key} is not usable")]
    Fault {
        /// Its key.
        key: String,
        /// In which way.
        #[source]
        source: Fault,
    },
}

fn after(last: &Option<Box<FetchError>>) -> String {
    last.as_ref().map(|last| format!(": {}", causes(last.as_ref()))).unwrap_or_default()
}

/// Reads one server's WAL from its archive. Clones share what is known.
#[derive(Clone, Debug)]
pub struct Fetcher {
    store: Arc<dyn Store>,
    layout: Layout,
    /// 0: not known.
    system_identifier: Arc<AtomicU64>,
    silent_until: Arc<watch::Sender<Option<Instant>>>,
}

impl Fetcher {
    /// Reads what lies at `layout` in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, layout: Layout) -> Self {
        let (silent_until, _) = watch::channel(None);
        let system_identifier = Arc::new(AtomicU64::new(0));
        Fetcher { store, layout, system_identifier, silent_until: Arc::new(silent_until) }
    }

    /// From now on only segments of this server are good.
    pub fn expect_system_identifier(&self, system_identifier: u64) {
        self.system_identifier.store(system_identifier, Ordering::Relaxed);
    }

    /// Brings `name` to `destination`, which appears whole or not at all; `owner` (user and group) gets it.
    ///
    /// # Errors
    /// Only [`Fetched::Absent`] says that there is no such file; after an error nobody knows.
    pub async fn fetch(
        &self,
        name: WalFileName,
        destination: &Path,
        owner: Option<(u32, u32)>,
        patience: Patience,
    ) -> Result<Fetched, FetchError> {
        let limit = match patience {
            Patience::Standby => STANDBY_LIMIT,
            Patience::Recovery => RECOVERY_LIMIT,
        };
        if patience == Patience::Standby
            && self.silent_until.borrow().is_some_and(|until| Instant::now() < until)
        {
            return Err(FetchError::Silent { url: self.store.url().to_owned(), name });
        }
        let end = Instant::now() + limit;
        let mut backoff = Backoff::default();
        let mut last = None;
        loop {
            let attempt = timeout(end - Instant::now(), self.attempt(name, destination, owner)).await;
            let failure = match attempt {
                Ok(Ok(fetched)) => {
                    self.silent_until.send_replace(None);
                    return Ok(fetched);
                }
                Ok(Err(failure)) => failure,
                Err(_) => {
                    self.silent_until.send_replace(Some(Instant::now() + SILENCE));
                    return Err(FetchError::Late { name, limit, last });
                }
            };
            let FetchError::Store { source, .. } = &failure else { return Err(failure) };
            if source.is_silence() {
                self.silent_until.send_replace(Some(Instant::now() + SILENCE));
            }
            let wait = backoff.next();
            if patience == Patience::Standby || Instant::now() + wait >= end {
                return Err(failure);
            }
            last = Some(Box::new(failure));
            sleep(wait).await;
        }
    }

    async fn attempt(
        &self,
        name: WalFileName,
        destination: &Path,
        owner: Option<(u32, u32)>,
    ) -> Result<Fetched, FetchError> {
        for compression in Compression::ALL {
            let key = self.layout.wal(name, compression);
            let found = self.store.get(&key).await.map_err(|source| FetchError::Store { name, source })?;
            let Some(download) = found else { continue };
            let system_identifier = match self.system_identifier.load(Ordering::Relaxed) {
                0 => None,
                known => Some(known),
            };
            let target = Target { name, key, destination: destination.to_owned(), owner, system_identifier };
            let bytes = receive(download, compression, target).await?;
            return Ok(Fetched::Written { bytes });
        }
        Ok(Fetched::Absent)
    }
}

/// What goes from the network to the thread that writes.
enum Piece {
    Bytes(Bytes),
    /// The object ended as it should; without this the file is thrown away.
    End,
}

struct Target {
    name: WalFileName,
    key: String,
    destination: PathBuf,
    owner: Option<(u32, u32)>,
    system_identifier: Option<u64>,
}

/// Pumps the object to a thread that decompresses, writes, checks and renames.
async fn receive(
    mut download: Download,
    compression: Compression,
    target: Target,
) -> Result<u64, FetchError> {
    let name = target.name;
    let path = target.destination.clone();
    let (pieces, received) = mpsc::channel(PIECES);
    let writing = tokio::task::spawn_blocking(move || write(received, compression, &target));
    loop {
        let piece = match download.body.next().await {
            Ok(Some(bytes)) => Piece::Bytes(bytes),
            Ok(None) => Piece::End,
            Err(source) => return Err(FetchError::Store { name, source }),
        };
        let last = matches!(piece, Piece::End);
        // The thread hangs up when it cannot write; its own answer says why.
        if pieces.send(piece).await.is_err() || last {
            break;
        }
    }
    drop(pieces);
    writing
        .await
        .unwrap_or_else(|panicked| Err(FetchError::Write { path, source: io::Error::other(panicked) }))
}

fn write(
    mut pieces: mpsc::Receiver<Piece>,
    compression: Compression,
    target: &Target,
) -> Result<u64, FetchError> {
    let cannot_write = |source| FetchError::Write { path: target.destination.clone(), source };
    let temporary = Temporary::create(&target.destination).map_err(cannot_write)?;
    let file = temporary.file.try_clone().map_err(cannot_write)?;
    let mut unpacker = Unpacker::new(compression, Checked { file, bytes: 0, head: Vec::new() });
    let damaged = |fault: String| FetchError::Damaged { key: target.key.clone(), fault };
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Bytes(bytes)) => {
                unpacker.write_all(&bytes).map_err(|error| match error.raw_os_error() {
                    Some(_) => cannot_write(error),
                    None => damaged(error.to_string()),
                })?
            }
            Some(Piece::End) => break,
            None => return Err(damaged("it broke off".to_owned())),
        }
    }
    let written = unpacker.finish().map_err(|error| damaged(error.to_string()))?;
    check(target, &written)?;
    if let Some((user, group)) = target.owner {
        std::os::unix::fs::fchown(&temporary.file, Some(user), Some(group)).map_err(cannot_write)?;
    }
    // PostgreSQL makes it durable itself when it keeps it (xlogarchive.c), so there is no fsync here.
    fs::rename(&temporary.path, &target.destination).map_err(cannot_write)?;
    Ok(written.bytes)
}

fn check(target: &Target, written: &Checked) -> Result<(), FetchError> {
    let fault = |source| FetchError::Fault { key: target.key.clone(), source };
    let name = target.name;
    match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
            let header = written.head.first_chunk::<HEADER>();
            let stated = header.and_then(content::stated_size).unwrap_or(SegmentSize::DEFAULT);
            let (Some(header), true) = (header, written.bytes == stated.bytes()) else {
                return Err(fault(Fault::Length { name, found: written.bytes, expected: stated.bytes() }));
            };
            let expected = Expected { system_identifier: target.system_identifier, segment_size: stated };
            content::check_header(name, segment, header, expected).map_err(fault)
        }
        WalFileName::History(_) | WalFileName::BackupHistory { .. } => {
            content::check_text(name, &written.head).map_err(fault)
        }
    }
}

/// Writes to a file, and keeps the beginning for the check.
struct Checked {
    file: File,
    bytes: u64,
    head: Vec<u8>,
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes + bytes.len() as u64 > FILE_MAX {
            return Err(io::Error::other(format!("it is longer than {FILE_MAX} bytes")));
        }
        let written = self.file.write(bytes)?;
        let room = (64 * 1024usize).saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..written.min(room)]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file beside the destination that goes away unless it was renamed.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(destination: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut name = destination.as_os_str().to_owned();
        name.push(format!(".outrider-{:016x}.tmp", random()));
        let path = PathBuf::from(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Temporary { path, file })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed already, as a rule; a leftover would only take room.
        let _ = fs::remove_file(&self.path);
    }
}
