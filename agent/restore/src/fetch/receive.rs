//! Brings one object of the archive into a file of this machine: decompressed, whole and checked. Chooses no object.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use outrider_wal::{SegmentSize, WalFileName};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::error::FetchError;
use outrider_archive::ContentError;
use outrider_archive::compression::{Format, gunzip_whole, reader};
use outrider_archive::content::{self, Expected, HEADER};
use outrider_store::causes;
use outrider_store::random;
use outrider_store::{self as store, Download, ObjectReader};

/// No file of the WAL is larger.
const FILE_MAX: u64 = 1 << 30;
/// Bytes decompressed at once.
const BLOCK: usize = 64 * 1024;
/// Kept of the beginning, for the check.
const HEAD: usize = 64 * 1024;
/// The largest compressed object that is held in memory as a whole, to be unpacked at once.
const COLLECTED_MAX: u64 = 32 << 20;
/// What all of these may take together, in KiB.
const COLLECTED_KIB: usize = 64 << 10;
/// How nice the threads are that unpack what is read ahead: a third of the share of others, where all processors are busy.
const AHEAD_NICE: i32 = 5;
/// Files unpacked at once at one time, each up to [`outrider_archive::compression::WHOLE_MAX`].
const UNPACKING: usize = 2;

/// The memory that all fetches of one [`super::Fetcher`] share.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    collected: Arc<Semaphore>,
    unpacking: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            collected: Arc::new(Semaphore::new(COLLECTED_KIB)),
            unpacking: Arc::new(Semaphore::new(UNPACKING)),
        }
    }
}

/// Whether somebody waits for the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// PostgreSQL does.
    Now,
    /// It is read ahead.
    Ahead,
}

/// What to receive, and what it must be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: WalFileName,
    /// The object, for messages.
    pub(super) key: String,
    pub(super) format: Format,
    /// Where the file belongs; it is written beside.
    pub(super) beside: PathBuf,
    pub(super) system_identifier: Option<u64>,
}

/// A whole and checked file that is not in its place yet, and goes away unless it is put there.
#[derive(Debug)]
pub(super) struct Received {
    temporary: Temporary,
    pub(super) bytes: u64,
    /// With which it was checked.
    pub(super) system_identifier: Option<u64>,
}

impl Received {
    pub(super) fn new(temporary: Temporary, bytes: u64, system_identifier: Option<u64>) -> Self {
        Received { temporary, bytes, system_identifier }
    }

    /// Moves it to `destination`, atomically; `owner` (user and group) gets it. Returns its bytes.
    pub(super) fn put(self, destination: &Path, owner: Option<(u32, u32)>) -> io::Result<u64> {
        if let Some((user, group)) = owner {
            std::os::unix::fs::fchown(&self.temporary.file, Some(user), Some(group))?;
        }
        // PostgreSQL makes it durable itself when it keeps it (xlogarchive.c), so there is no fsync here.
        match fs::rename(&self.temporary.path, destination) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let mut copy = Temporary::create(destination)?;
                io::copy(&mut File::open(&self.temporary.path)?, &mut copy.file)?;
                Received::new(copy, self.bytes, self.system_identifier).put(destination, owner)
            }
            renamed => renamed.map(|()| self.bytes),
        }
    }
}

/// Receives one object.
pub(super) async fn receive(
    download: Download,
    budget: &Budget,
    wanted: Wanted,
    urgency: Urgency,
) -> Result<Received, FetchError> {
    let (name, path) = (wanted.name, wanted.beside.clone());
    let no_thread = |source| Err(FetchError::Write { path, source });
    let store_error = |source| FetchError::Store { name, source };
    if wanted.format == Format::Gzip && download.info.size <= COLLECTED_MAX {
        let _place = place(budget, download.info.size).await;
        let packed = collect(download).await.map_err(store_error)?;
        let _unpacking = budget.unpacking.acquire().await;
        let written = beside(urgency, move || write(&wanted, Source::Whole(packed))).await;
        return written.unwrap_or_else(no_thread);
    }
    // Both at one time, with a few pieces between them; whichever fails hangs up, and so ends the other.
    let (sender, source) = ObjectReader::channel();
    let writing = beside(urgency, move || write(&wanted, Source::Coming(source)));
    let (written, sent) = tokio::join!(writing, sender.send_all(download));
    sent.map_err(store_error)?;
    written.unwrap_or_else(no_thread)
}

/// Runs on a thread that may block. What nobody waits for yet lets what somebody waits for go before it: the thread that
/// replays, and whoever brings it the next segment.
async fn beside<T: Send + 'static>(
    urgency: Urgency,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if urgency == Urgency::Now {
        return tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
    }
    // Of its own: no thread gets its priority back.
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new().name("wal-ahead".to_owned()).spawn(move || {
        // Where that is refused it is as urgent as the rest.
        let _ = rustix::process::nice(AHEAD_NICE);
        // Nobody takes it when the recovery ended meanwhile.
        let _ = sender.send(work());
    })?;
    receiver.await.map_err(io::Error::other)
}

/// A place in memory for an object of that size, when one is free. `None` never comes: nobody closes the semaphore.
pub(super) async fn place(budget: &Budget, size: u64) -> Option<SemaphorePermit<'_>> {
    let kib = u32::try_from(size.min(COLLECTED_MAX) / 1024 + 1).unwrap_or(1);
    budget.collected.acquire_many(kib).await.ok()
}

/// The bytes of an object as they are, of which [`Download::info`] told that they are not too many.
pub(super) async fn collect(mut download: Download) -> Result<Vec<u8>, store::Error> {
    let size = download.info.size.min(COLLECTED_MAX);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    while let Some(piece) = download.body.next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > size {
            return Err(store::Error::Unreachable {
                act: "read",
                url: String::from("an object"),
                cause: format!("it has more than the {size} bytes that the store told"),
            });
        }
    }
    Ok(bytes)
}

enum Source {
    Whole(Vec<u8>),
    Coming(ObjectReader),
}

fn write(wanted: &Wanted, source: Source) -> Result<Received, FetchError> {
    let cannot_write = |source| FetchError::Write { path: wanted.beside.clone(), source };
    let temporary = Temporary::create(&wanted.beside).map_err(cannot_write)?;
    let file = temporary.file.try_clone().map_err(cannot_write)?;
    let mut checked = Checked { file, bytes: 0, head: Vec::new() };
    let copied = match source {
        Source::Whole(packed) => match gunzip_whole(&packed) {
            Some(plain) => checked.write_all(&plain).map_err(Broken::Sink),
            None => copy(wanted.format, packed.as_slice(), &mut checked),
        },
        Source::Coming(packed) => copy(wanted.format, packed, &mut checked),
    };
    copied.map_err(|broken| match broken {
        Broken::Sink(error) if error.raw_os_error().is_some() => cannot_write(error),
        // Not the system's refusal but that of `Checked`.
        Broken::Sink(error) => FetchError::Damaged { key: wanted.key.clone(), fault: error.to_string() },
        Broken::Object(fault) => FetchError::Damaged { key: wanted.key.clone(), fault },
    })?;
    let fault = |source| FetchError::Content { key: wanted.key.clone(), source };
    check(wanted.name, wanted.system_identifier, &checked.head, checked.bytes).map_err(fault)?;
    Ok(Received::new(temporary, checked.bytes, wanted.system_identifier))
}

/// Which side of a copy failed.
enum Broken {
    Object(String),
    Sink(io::Error),
}

fn copy(format: Format, source: impl Read, sink: &mut impl Write) -> Result<(), Broken> {
    let object = |error: io::Error| Broken::Object(causes(&error));
    let mut plain = reader(format, source).map_err(object)?;
    let mut block = vec![0; BLOCK];
    loop {
        match plain.read(&mut block) {
            Ok(0) => return sink.flush().map_err(Broken::Sink),
            Ok(read) => sink.write_all(&block[..read]).map_err(Broken::Sink)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(object(error)),
        }
    }
}

/// Whether a file of so many bytes that begins with `head` is what its name says.
pub(super) fn check(
    name: WalFileName,
    system_identifier: Option<u64>,
    head: &[u8],
    bytes: u64,
) -> Result<(), ContentError> {
    match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
            let header = head.first_chunk::<HEADER>();
            let stated = header.and_then(content::stated_size).unwrap_or(SegmentSize::DEFAULT);
            let (Some(header), true) = (header, bytes == stated.bytes()) else {
                return Err(ContentError::Length { name, found: bytes, expected: stated.bytes() });
            };
            let expected = Expected { system_identifier, segment_size: stated };
            content::check_header(name, segment, header, expected)
        }
        WalFileName::History(_) | WalFileName::BackupHistory { .. } => content::check_text(name, head),
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
            let fault = format!("it is longer than {FILE_MAX} bytes");
            return Err(io::Error::new(ErrorKind::FileTooLarge, fault));
        }
        let written = self.file.write(bytes)?;
        let room = HEAD.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..written.min(room)]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file beside the destination that goes away unless it was renamed.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    pub(super) file: File,
}

impl Temporary {
    pub(super) fn create(destination: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut name = destination.as_os_str().to_owned();
        name.push(format!(".outrider-{:016x}.tmp", random()));
        let path = PathBuf::from(name);
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Temporary { path, file })
    }

    /// Whether a file with this name is one that a process before this one left.
    pub(super) fn is_one(name: &str) -> bool {
        name.contains(".outrider-") && name.ends_with(".tmp")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed already, as a rule; a leftover would only take room.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How nice this thread is: with 0 Linux names the thread that asks.
    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[tokio::test]
    async fn what_nobody_waits_for_makes_room_for_the_rest() {
        let usual = niceness();
        assert_eq!(beside(Urgency::Ahead, niceness).await.unwrap(), usual + AHEAD_NICE);
        assert_eq!(beside(Urgency::Now, niceness).await.unwrap(), usual);
        for urgency in [Urgency::Ahead, Urgency::Now] {
            assert!(beside(urgency, || -> () { panic!("on purpose") }).await.is_err());
        }
    }
}
