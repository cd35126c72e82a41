//! One chunk of a segment: read, checked, compressed, named, and compared with what the archive has. Chooses no range.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::write::{GzDecoder, GzEncoder};
use outrider_wal::{SegmentName, WalFileName};

use crate::content::{Expected, HEADER, check_header};
use crate::{ContentError, Layout};
use outrider_store::{self as store, Metadata, Payload, PayloadWriter, Store, Stored, causes};

/// Bytes read at once.
const PIECE: usize = 64 * 1024;
/// Chunks are small or must be quick: at the fastest level WAL of pgbench still shrinks to less than a fifth.
const LEVEL: u32 = 1;

/// The bytes `from..to` of a segment, as offsets in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Why a chunk is not in the archive.
#[derive(Debug)]
pub(super) enum ChunkError {
    /// The store: the same again later.
    Store(store::Error),
    /// The file.
    Content(ContentError),
    /// The archive has other bytes under this key, or more of them than this server has flushed.
    Conflict(String),
    /// The program itself is stopping or broken.
    Task(String),
}

/// A chunk that the archive has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) bytes_out: u64,
    /// Requests to the store that it took.
    pub(super) requests: u64,
}

/// One segment of one server, to be sent in pieces.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) store: Arc<dyn Store>,
    pub(super) layout: Layout,
    pub(super) pg_wal: PathBuf,
    pub(super) segment: SegmentName,
    pub(super) expected: Expected,
}

impl Source {
    /// Puts a chunk, once; the very same bytes there already are as good.
    pub(super) async fn send(&self, range: Range) -> Result<Sent, ChunkError> {
        let body = self.blocking(move |source| source.pack(range)).await?;
        let bytes_out = body.length();
        let key = self.key(range);
        let put = self.store.put_if_absent(&key, body, &Metadata::new()).await.map_err(ChunkError::Store)?;
        match put {
            Stored::Created => Ok(Sent { bytes_out, requests: 1 }),
            Stored::AlreadyThere => self.compare(range).await.map(|()| Sent { bytes_out, requests: 2 }),
        }
    }

    /// Asks the archive whether the chunk that it has holds what this server has.
    pub(super) async fn compare(&self, range: Range) -> Result<(), ChunkError> {
        let key = self.key(range);
        let object = || format!("{}/{key}", self.store.url());
        let Some(mut download) = self.store.get(&key).await.map_err(ChunkError::Store)? else {
            return Err(ChunkError::Store(store::Error::Unreachable {
                act: "compare",
                url: object(),
                cause: "the chunk has disappeared".to_owned(),
            }));
        };
        let ours = self.blocking(move |source| source.plain(range)).await?;
        let mut decoder = GzDecoder::new(Comparison { ours, same: true, at: 0 });
        let mut broken = false;
        while let Some(piece) = download.body.next().await.map_err(ChunkError::Store)? {
            broken = broken || decoder.write_all(&piece).is_err();
        }
        match decoder.finish() {
            Ok(comparison) if !broken && comparison.is_equal() => Ok(()),
            Ok(_) | Err(_) => Err(ChunkError::Conflict(format!(
                "{} has other content than our {}; nothing was overwritten",
                object(),
                self.segment
            ))),
        }
    }

    pub(super) fn key(&self, range: Range) -> String {
        self.layout.stream_chunk(self.segment, range.from, range.to)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Source) -> Result<T, ContentError> + Send + 'static,
    ) -> Result<T, ChunkError> {
        let source = self.clone();
        let working = tokio::task::spawn_blocking(move || work(&source));
        let done = working.await.map_err(|panicked| ChunkError::Task(panicked.to_string()))?;
        done.map_err(ChunkError::Content)
    }

    /// One gzip member of the bytes. Blocks.
    fn pack(&self, range: Range) -> Result<Payload, ContentError> {
        let mut encoder = GzEncoder::new(PayloadWriter::default(), flate2::Compression::new(LEVEL));
        self.read(range, &mut |piece| encoder.write_all(piece))?;
        encoder.finish().map(PayloadWriter::finish).map_err(|source| self.unreadable(source))
    }

    /// The bytes. Blocks.
    fn plain(&self, range: Range) -> Result<Vec<u8>, ContentError> {
        let mut bytes = Vec::new();
        self.read(range, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn read(&self, range: Range, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), ContentError> {
        let name = WalFileName::Segment(self.segment);
        let failed = |source| self.unreadable(source);
        let mut file = File::open(self.path()).map_err(failed)?;
        let mut header = [0; HEADER];
        file.read_exact(&mut header).map_err(failed)?;
        check_header(name, self.segment, &header, self.expected)?;
        file.seek(SeekFrom::Start(range.from)).map_err(failed)?;
        let mut left = range.to.saturating_sub(range.from);
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            file.read_exact(&mut piece[..length]).map_err(failed)?;
            each(&piece[..length]).map_err(failed)?;
            left -= length as u64;
        }
        // A program that was stopped for long may read a file that PostgreSQL has recycled since. It is written anew
        // from its start.
        let mut again = [0; HEADER];
        file.rewind().and_then(|()| file.read_exact(&mut again)).map_err(failed)?;
        if again == header { Ok(()) } else { Err(ContentError::Changed { name }) }
    }

    fn path(&self) -> PathBuf {
        self.pg_wal.join(self.segment.to_string())
    }

    fn unreadable(&self, source: io::Error) -> ContentError {
        match source.kind() {
            ErrorKind::NotFound => ContentError::Missing { path: self.path() },
            _ => ContentError::Read { path: self.path(), source },
        }
    }
}

/// Compares what is written to it.
struct Comparison {
    ours: Vec<u8>,
    same: bool,
    at: usize,
}

impl Comparison {
    fn is_equal(&self) -> bool {
        self.same && self.at == self.ours.len()
    }
}

impl Write for Comparison {
    fn write(&mut self, theirs: &[u8]) -> io::Result<usize> {
        let end = self.at.saturating_add(theirs.len());
        self.same = self.same && self.ours.get(self.at..end) == Some(theirs);
        self.at = end;
        Ok(theirs.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ChunkError {
    /// The error and its causes in one line.
    pub(super) fn text(&self) -> String {
        match self {
            ChunkError::Store(error) => causes(error),
            ChunkError::Content(fault) => causes(fault),
            ChunkError::Conflict(text) | ChunkError::Task(text) => text.clone(),
        }
    }
}
