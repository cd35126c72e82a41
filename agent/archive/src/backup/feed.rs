//! Lays out the tars: which bytes of which files are in which block. Reads no file's content.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::BackupError;
use super::block::{BLOCK, Content, FILES, Job, Span, TarFile, TarName};
use super::walk::{Entry, Visitor};
use crate::clock;

/// Tars are made of records of this size.
const RECORD: u64 = 512;

/// Lays out one tar after the other and hands out blocks. Blocks the thread while there is no room for more.
pub(crate) struct Feed {
    pub(crate) jobs: mpsc::SyncSender<Job>,
    /// One permit for each block under way.
    pub(crate) room: Arc<Semaphore>,
    /// All permits.
    pub(crate) room_size: u32,
    pub(crate) runtime: Handle,
    pub(crate) stop: CancellationToken,
    /// Pieces of files end at multiples of this.
    pub(crate) page_size: u64,
    /// A tar with as many bytes is continued in another, between two files.
    pub(crate) tar_max: u64,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) sequence: u64,
    pub(crate) tar: TarName,
    /// Bytes of this tar so far.
    pub(crate) tar_bytes: u64,
    pub(crate) spans: Vec<Span>,
    pub(crate) files: usize,
    /// Bytes in `spans`.
    pub(crate) length: usize,
}

/// So many bytes in a second.
pub(crate) struct RateLimit {
    bytes: NonZeroU64,
    next: Instant,
}

impl RateLimit {
    pub(crate) fn new(bytes: NonZeroU64) -> Self {
        RateLimit { bytes, next: clock::monotonic() }
    }

    /// When a block of this length may be handed out.
    fn next_at(&mut self, length: usize) -> Instant {
        let next_at = self.next.max(clock::monotonic());
        self.next = next_at + Duration::from_secs_f64(length as f64 / self.bytes.get() as f64);
        next_at
    }
}

impl Visitor for Feed {
    fn visit(&mut self, entry: Entry) -> Result<(), BackupError> {
        let Entry { path, source, metadata, relation } = entry;
        if metadata.is_dir() {
            return self.header(&path, &Header::of(&metadata, tar::EntryType::Directory));
        }
        let opened = File::open(&source).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = match opened {
            Ok(opened) => opened,
            // Dropped since: replay drops it too.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(BackupError::Read { path: source, source: error }),
        };
        let header = Header::of(&metadata, tar::EntryType::Regular);
        self.file(
            header,
            TarFile {
                path,
                source,
                size: header.size,
                modified: header.modified,
                relation,
                content: Content::File(file),
            },
        )
    }
}

impl Feed {
    /// Begins the tar of a tablespace, or of the data directory.
    pub(crate) fn begin(&mut self, tablespace: Option<u32>) {
        self.tar = TarName { tablespace, number: 0 };
        self.tar_bytes = 0;
    }

    /// Adds a file whose content is known, with the owner of the data directory.
    pub(crate) fn content(&mut self, path: &str, content: Vec<u8>, like: &Header) -> Result<(), BackupError> {
        let path = PathBuf::from(path);
        let header =
            Header { size: content.len() as u64, kind: tar::EntryType::Regular, mode: 0o600, ..*like };
        self.file(
            header,
            TarFile {
                source: path.clone(),
                path,
                size: header.size,
                modified: header.modified,
                relation: None,
                content: Content::Bytes(content),
            },
        )
    }

    /// Ends the tar: two records of zeros.
    pub(crate) fn end(&mut self) -> Result<(), BackupError> {
        self.tar_piece(vec![0; 2 * 512]);
        self.flush(true)
    }

    /// Hands out what there is and waits until every byte of it was read.
    pub(crate) fn drain(&mut self) -> Result<(), BackupError> {
        if self.length > 0 {
            self.flush(false)?;
        }
        drop(self.permits(self.room_size)?);
        Ok(())
    }

    fn file(&mut self, header: Header, file: TarFile) -> Result<(), BackupError> {
        if self.tar_bytes > self.tar_max {
            self.end()?;
            let number = self.tar.number + 1;
            self.tar = TarName { number, ..self.tar };
            self.tar_bytes = 0;
        }
        if self.files >= FILES {
            self.flush(false)?;
        }
        self.header(&file.path, &header)?;
        let (file, mut offset) = (Arc::new(file), 0);
        self.files += 1;
        loop {
            let rest = file.size - offset;
            let room = BLOCK.saturating_sub(self.length) as u64;
            let length = if rest <= room { rest } else { room - room % self.page_size };
            let length = usize::try_from(length).expect("not larger than a block");
            if length > 0 || file.size == 0 {
                self.length += length;
                self.tar_bytes += length as u64;
                self.spans.push(Span::File { file: file.clone(), offset, length });
            }
            offset += length as u64;
            if offset == file.size {
                break;
            }
            self.flush(false)?;
            self.files = 1;
        }
        self.tar_piece(vec![0; usize::try_from((RECORD - file.size % RECORD) % RECORD).expect("small")]);
        Ok(())
    }

    fn header(&mut self, path: &Path, header: &Header) -> Result<(), BackupError> {
        let bytes =
            header.bytes(path).map_err(|source| BackupError::Read { path: path.to_owned(), source })?;
        if self.length + bytes.len() > BLOCK {
            self.flush(false)?;
        }
        self.tar_piece(bytes);
        Ok(())
    }

    fn tar_piece(&mut self, bytes: Vec<u8>) {
        self.length += bytes.len();
        self.tar_bytes += bytes.len() as u64;
        match self.spans.last_mut() {
            Some(Span::Tar(last)) => last.extend_from_slice(&bytes),
            Some(Span::File { .. }) | None if bytes.is_empty() => {}
            Some(Span::File { .. }) | None => self.spans.push(Span::Tar(bytes)),
        }
    }

    fn flush(&mut self, is_last: bool) -> Result<(), BackupError> {
        if let Some(rate_limit) = &mut self.rate_limit {
            let next_at = rate_limit.next_at(self.length);
            let _ = self.runtime.block_on(self.stop.run_until_cancelled(sleep_until(next_at)));
        }
        let room = self.permits(1)?;
        let spans = std::mem::take(&mut self.spans);
        let job = Job { sequence: self.sequence, tar: self.tar.clone(), is_last, spans, room };
        (self.sequence, self.length, self.files) = (self.sequence + 1, 0, 0);
        self.jobs.send(job).map_err(|_| BackupError::Cancelled)
    }

    fn permits(&self, count: u32) -> Result<OwnedSemaphorePermit, BackupError> {
        let acquire = self.room.clone().acquire_many_owned(count);
        let acquired = self.runtime.block_on(self.stop.run_until_cancelled(acquire));
        acquired.and_then(Result::ok).ok_or(BackupError::Cancelled)
    }
}

/// What a tar says of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) size: u64,
    pub(crate) modified: i64,
    pub(crate) mode: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) kind: tar::EntryType,
}

impl Header {
    pub(crate) fn of(metadata: &std::fs::Metadata, kind: tar::EntryType) -> Self {
        Header {
            size: if metadata.is_dir() { 0 } else { metadata.len() },
            modified: metadata.mtime(),
            mode: metadata.mode() & 0o7777,
            user: metadata.uid(),
            group: metadata.gid(),
            kind,
        }
    }

    /// The record, or the records when the path is long (GNU's way, which Python's tarfile reads).
    fn bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut header = tar::Header::new_ustar();
        header.set_size(self.size);
        header.set_mtime(u64::try_from(self.modified).unwrap_or_default());
        header.set_mode(self.mode);
        header.set_uid(u64::from(self.user));
        header.set_gid(u64::from(self.group));
        header.set_entry_type(self.kind);
        let path = if path.as_os_str().is_empty() { Path::new("./") } else { path };
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, path, io::empty())?;
        let mut bytes = builder.into_inner()?;
        // The builder ends its tar; this one goes on.
        bytes.truncate(bytes.len() - 1024);
        Ok(bytes)
    }
}
