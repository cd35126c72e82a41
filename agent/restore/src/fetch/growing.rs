//! The file of a segment that is put together of streamed chunks: it grows with each look, as long as PostgreSQL asks for it.
//! Reads no store.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use outrider_wal::WalFileName;

use super::error::FetchError;
use super::find::Chunk;
use super::receive::{self, Received, Temporary};
use outrider_archive::compression::{Format, WHOLE_MAX, gunzip_whole, reader};
use outrider_archive::content::{self, HEADER};

/// Bytes that are compared at one time.
const COMPARED: usize = 64 << 10;

/// The file of the segment, which is good up to `end`.
#[derive(Debug)]
pub(super) struct Growing {
    temporary: Temporary,
    pub(super) end: u64,
    /// The keys of the chunks in it.
    known: Vec<String>,
    /// It lies where it can stay for the next time, and PostgreSQL gets a copy.
    pub(super) stays: bool,
}

impl Growing {
    /// An empty one in `lasting`, where it can stay for the next time, or else beside where the segment belongs.
    pub(super) fn begin(lasting: Option<&Path>, beside: &Path) -> io::Result<Self> {
        let place = lasting.and_then(|lasting| Temporary::create(lasting).ok());
        let stays = place.is_some();
        let temporary = match place {
            Some(temporary) => temporary,
            None => Temporary::create(beside)?,
        };
        Ok(Growing { temporary, end: 0, known: Vec::new(), stays })
    }

    /// How many of the chunks that there are now are in it already. A chunk is written once, so the same key is the same
    /// bytes; from the first other one on all come anew, and are compared where they overlap.
    pub(super) fn resume(&mut self, chunks: &[Chunk]) -> usize {
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
    pub(super) fn add(
        mut self,
        chunk: Chunk,
        packed: &[u8],
        path: &Path,
    ) -> Result<(Self, bool), FetchError> {
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
    pub(super) fn is_beginning_of(&self, own: &Path) -> io::Result<bool> {
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
    pub(super) fn finish(
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
            .map_err(|source| FetchError::Content { key, source })?;
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
