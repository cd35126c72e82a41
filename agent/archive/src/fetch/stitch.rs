//! Joins what was streamed of a segment before it was finished: the last second before everything was lost. A standby
//! asks for it again every few seconds; then only what was streamed since comes from the store.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use outrider_wal::{SegmentName, WalFileName};
use tracing::{info, warn};

use super::FetchError;
use super::ahead::Ahead;
use super::find::{Archive, lock};
use super::receive::{self, Received, Temporary};
use crate::compression::{Format, WHOLE_MAX, gunzip_whole, reader};
use crate::content::{self, HEADER};
use outrider_store::{Error, Listed};

/// Chunks on their way at one time.
const AT_ONCE: usize = 8;
/// Bytes that are compared at one time.
const COMPARED: usize = 64 << 10;

/// One object with a part of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) from: u64,
    pub(super) to: u64,
    key: String,
}

impl Chunk {
    /// `file`: the last part of its key, such as `00000000-00002000.gz`.
    pub(super) fn of(file: &str, object: &Listed) -> Option<Self> {
        let (from, to) = file.strip_suffix(".gz")?.split_once('-')?;
        let offset = |digits: &str| {
            let all = digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            all.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let (from, to) = (offset(from)?, offset(to)?);
        (from < to).then(|| Chunk { from, to, key: object.key.clone() })
    }
}

/// What came of joining.
pub(super) enum Joined {
    /// The segment, with zeros where nothing was streamed yet: to PostgreSQL the WAL ends there.
    Segment(Received),
    /// The beginning is missing, so none of it is of use.
    Nothing,
    /// The server itself has all of it, and perhaps more.
    Known,
    /// A chunk went away meanwhile: the segment was finished, as a rule. It is to be looked for anew.
    Changed,
}

/// Joins the chunks, sorted by their place, as far as there is no gap between them.
pub(super) async fn join(
    archive: &Archive,
    ahead: Option<&Arc<Ahead>>,
    segment: SegmentName,
    chunks: Vec<Chunk>,
    beside: &Path,
) -> Result<Joined, FetchError> {
    let name = WalFileName::Segment(segment);
    let listed = chunks.len();
    let mut chunks = contiguous(chunks);
    if chunks.len() < listed {
        warn!(%segment, used = chunks.len(), listed, "there is a gap in what was streamed of a segment");
    }
    let Some(first) = chunks.first().map(|chunk| chunk.key.clone()) else { return Ok(Joined::Nothing) };
    let cannot_write = |source| FetchError::Write { path: beside.to_owned(), source };
    let mut growing = match ahead.and_then(|ahead| ahead.kept(segment)) {
        Some(kept) => kept,
        None => Growing::begin(ahead, segment, beside).map_err(cannot_write)?,
    };
    chunks.drain(..growing.resume(&chunks));
    let coming = futures_util::stream::iter(chunks).map(|chunk| load(archive, chunk)).buffered(AT_ONCE);
    let mut coming = std::pin::pin!(coming);
    let mut differs = false;
    while let Some((chunk, packed)) =
        coming.try_next().await.map_err(|source| FetchError::Store { name, source })?
    {
        let Some(packed) = packed else { return Ok(Joined::Changed) };
        let path = beside.to_owned();
        let adding = tokio::task::spawn_blocking(move || growing.add(chunk, &packed, &path)).await;
        let (grown, same) =
            adding.unwrap_or_else(|panicked| Err(cannot_write(io::Error::other(panicked))))?;
        growing = grown;
        if !same {
            warn!(%segment, end = growing.end, "two streams of a segment differ, what is before that is used");
            differs = true;
            break;
        }
    }
    let end = growing.end;
    let system_identifier = archive.system_identifier();
    let path = beside.to_owned();
    let (same, growing) = {
        let own = beside.with_file_name(segment.to_string());
        let comparing =
            tokio::task::spawn_blocking(move || growing.is_beginning_of(&own).map(|same| (same, growing)));
        let compared = comparing.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        compared.map_err(cannot_write)?
    };
    if same {
        if let (Some(ahead), true, false) = (ahead, growing.stays, differs) {
            ahead.keep(segment, growing);
        }
        return Ok(Joined::Known);
    }
    let ending = tokio::task::spawn_blocking(move || growing.finish(name, first, system_identifier, &path));
    let (received, kept) = match ending.await {
        Ok(finished) => match finished? {
            Some(finished) => finished,
            None => return Ok(Joined::Nothing),
        },
        Err(panicked) => return Err(cannot_write(io::Error::other(panicked))),
    };
    if let (Some(ahead), Some(kept), false) = (ahead, kept, differs) {
        ahead.keep(segment, kept);
    }
    if lock(&archive.joined).replace(segment) != Some(segment) {
        info!(%segment, bytes = end, "a segment that was never finished was joined of what was streamed of it");
    }
    Ok(Joined::Segment(received))
}

/// The chunks from the beginning to the first gap.
fn contiguous(chunks: Vec<Chunk>) -> Vec<Chunk> {
    let mut end = 0;
    let follows = |chunk: &Chunk| {
        let follows = chunk.from <= end;
        end = end.max(chunk.to);
        follows
    };
    chunks.into_iter().take_while(follows).collect()
}

/// `None` when the object is gone.
async fn load(archive: &Archive, chunk: Chunk) -> Result<(Chunk, Option<Vec<u8>>), Error> {
    // Held until the bytes are here; how many wait after that is bounded by `AT_ONCE`.
    let _place = receive::place(&archive.room, chunk.to - chunk.from).await;
    let packed = match archive.store.get(&chunk.key).await? {
        Some(download) => Some(receive::collect(download).await?),
        None => None,
    };
    Ok((chunk, packed))
}

/// The file of the segment, which is good up to `end`.
#[derive(Debug)]
pub(super) struct Growing {
    temporary: Temporary,
    end: u64,
    /// The keys of the chunks in it.
    known: Vec<String>,
    /// It lies where it can stay for the next time, and PostgreSQL gets a copy.
    stays: bool,
}

impl Growing {
    fn begin(ahead: Option<&Arc<Ahead>>, segment: SegmentName, beside: &Path) -> io::Result<Self> {
        let place = ahead.and_then(|ahead| Temporary::create(&ahead.place(segment)).ok());
        let stays = place.is_some();
        let temporary = match place {
            Some(temporary) => temporary,
            None => Temporary::create(beside)?,
        };
        Ok(Growing { temporary, end: 0, known: Vec::new(), stays })
    }

    /// How many of the chunks that there are now are in it already. A chunk is written once, so the same key is the same
    /// bytes; from the first other one on all come anew, and are compared where they overlap.
    fn resume(&mut self, chunks: &[Chunk]) -> usize {
        let again = chunks.iter().take_while(|chunk| self.known.contains(&chunk.key));
        let (mut count, mut end) = (0, 0);
        for chunk in again {
            (count, end) = (count + 1, end.max(chunk.to));
        }
        self.known = chunks[..count].iter().map(|chunk| chunk.key.clone()).collect();
        self.end = end;
        count
    }

    /// Adds a chunk that begins at the end or before it. False when it says something else than what is there.
    fn add(mut self, chunk: Chunk, packed: &[u8], path: &Path) -> Result<(Self, bool), FetchError> {
        let cannot_write = |source| FetchError::Write { path: path.to_owned(), source };
        let plain =
            unpack(&chunk, packed).map_err(|fault| FetchError::Damaged { key: chunk.key.clone(), fault })?;
        let overlap = usize::try_from(self.end - chunk.from).unwrap_or(usize::MAX).min(plain.len());
        let mut before = vec![0; overlap];
        let file: &File = &self.temporary.file;
        file.read_exact_at(&mut before, chunk.from).map_err(cannot_write)?;
        if let Some(differs) = before.iter().zip(&plain).position(|(ours, theirs)| ours != theirs) {
            self.end = chunk.from + differs as u64;
            return Ok((self, false));
        }
        file.write_all_at(&plain[overlap..], chunk.from + overlap as u64).map_err(cannot_write)?;
        self.end = self.end.max(chunk.to);
        self.known.push(chunk.key);
        Ok((self, true))
    }

    /// Whether a file that the server has is the same up to the end of what was streamed. A standby may have received more of
    /// it than was streamed, and PostgreSQL would put ours in the place of its own (xlogarchive.c,
    /// KeepFileRestoredFromArchive): commits that nobody else has would be gone.
    fn is_beginning_of(&self, own: &Path) -> io::Result<bool> {
        let own = match File::open(own) {
            Ok(own) => own,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(fault) => return Err(fault),
        };
        let (mut ours, mut theirs) = (vec![0; COMPARED], vec![0; COMPARED]);
        let mut at = 0;
        while at < self.end {
            let length = usize::try_from(self.end - at).unwrap_or(COMPARED).min(COMPARED);
            let (ours, theirs) = (&mut ours[..length], &mut theirs[..length]);
            self.temporary.file.read_exact_at(ours, at)?;
            match own.read_exact_at(theirs, at) {
                Ok(()) if ours == theirs => at += length as u64,
                Ok(()) => return Ok(false),
                Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(fault) => return Err(fault),
            }
        }
        Ok(self.end > 0)
    }

    /// Fills the rest with zeros and checks. `None` when there is not even a header. Comes back when it stays.
    fn finish(
        self,
        name: WalFileName,
        key: String,
        system_identifier: Option<u64>,
        path: &Path,
    ) -> Result<Option<(Received, Option<Self>)>, FetchError> {
        let cannot_write = |source| FetchError::Write { path: path.to_owned(), source };
        if self.end < HEADER as u64 {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        self.temporary.file.read_exact_at(&mut header, 0).map_err(cannot_write)?;
        let size = content::stated_size(&header).map_or(0, |size| size.bytes());
        let end = self.end;
        receive::check(name, system_identifier, &header, size.max(end))
            .map_err(|source| FetchError::Fault { key, source })?;
        let (temporary, kept) = if self.stays {
            (self.copy(path).map_err(cannot_write)?, Some(self))
        } else {
            (self.temporary, None)
        };
        fill(&temporary.file, end, size).map_err(cannot_write)?;
        Ok(Some((Received::new(temporary, size, system_identifier), kept)))
    }

    /// What is good of it, in a file beside the destination.
    fn copy(&self, destination: &Path) -> io::Result<Temporary> {
        let copy = Temporary::create(destination)?;
        let mut from = &self.temporary.file;
        from.rewind()?;
        let copied = io::copy(&mut from.take(self.end), &mut &copy.file)?;
        if copied == self.end { Ok(copy) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Real zeros, since PostgreSQL uses the file again and must not run out of room within it.
fn fill(mut file: &File, from: u64, to: u64) -> io::Result<()> {
    file.set_len(from)?;
    file.seek(SeekFrom::Start(from))?;
    io::copy(&mut io::repeat(0).take(to - from), &mut file)?;
    file.flush()
}

fn unpack(chunk: &Chunk, packed: &[u8]) -> Result<Vec<u8>, String> {
    let length = chunk.to - chunk.from;
    if length > WHOLE_MAX {
        return Err(format!("a chunk of {length} bytes is larger than any that is written"));
    }
    let plain = match gunzip_whole(packed) {
        Some(plain) => plain,
        None => {
            let mut plain = Vec::new();
            let limited = reader(Format::Gzip, packed).map(|reader| reader.take(length + 1));
            let read = limited.and_then(|mut limited| limited.read_to_end(&mut plain));
            read.map_err(|error| error.to_string())?;
            plain
        }
    };
    if plain.len() as u64 != length {
        return Err(format!("it has {} bytes, by its name it must have {length}", plain.len()));
    }
    Ok(plain)
}
