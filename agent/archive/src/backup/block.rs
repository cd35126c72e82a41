//! One block of a tar: reads its pieces, checks pages, sums up and compresses. Does not know where it will lie.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use flate2::{Compress, FlushCompress};
use outrider_wal::Lsn;
use tokio::sync::OwnedSemaphorePermit;

use super::BackupError;
use super::exclude::Relation;
use super::page;

/// An empty last block, in the fixed code (RFC 1951): it ends a stream of deflate that was cut between two blocks.
pub(super) const LAST_BLOCK: [u8; 2] = [0x03, 0x00];
/// Bytes of a tar that are compressed together. Larger ones gain nothing in size, smaller ones lose.
pub(crate) const BLOCK: usize = 1 << 20;
/// Files in a block at most: each is held open until the block is read.
pub(crate) const FILES: usize = 32;
/// Checksum failures that are named for a block; the others are counted.
const NAMED: usize = 8;

/// A file whose header is in the tar already.
#[derive(Debug)]
pub(crate) struct TarFile {
    /// In the tar.
    pub(crate) path: PathBuf,
    /// Where it is.
    pub(crate) source: PathBuf,
    /// As the header says.
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) modified: i64,
    pub(crate) relation: Option<Relation>,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    File(File),
    /// Made or read beforehand.
    Bytes(Vec<u8>),
}

/// A part of a block.
#[derive(Debug)]
pub(crate) enum Span {
    /// A header or padding.
    Tar(Vec<u8>),
    /// Bytes of a file.
    File { file: Arc<TarFile>, offset: u64, length: usize },
}

/// Which tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TarName {
    pub(crate) tablespace: Option<u32>,
    /// 0 for the first.
    pub(crate) number: u32,
}

/// A block to be made.
#[derive(Debug)]
pub(crate) struct Job {
    /// Counts through all tars.
    pub(crate) sequence: u64,
    pub(crate) tar: TarName,
    /// Whether the tar ends with it.
    pub(crate) is_last: bool,
    pub(crate) spans: Vec<Span>,
    /// Given back when the block is on its way to the store.
    pub(crate) room: OwnedSemaphorePermit,
}

/// A block that was made.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) sequence: u64,
    pub(crate) tar: TarName,
    pub(crate) is_last: bool,
    /// Bytes before compression.
    pub(crate) plain: u64,
    /// Raw deflate that ends on a byte and refers to nothing before.
    pub(crate) deflated: Vec<u8>,
    /// Of the plain bytes.
    pub(crate) crc32: crc32fast::Hasher,
    /// The pieces of files in it, in order.
    pub(crate) pieces: Vec<Piece>,
    /// Bytes of files in it.
    pub(crate) file_bytes: u64,
    pub(crate) failures: Failures,
    pub(crate) room: OwnedSemaphorePermit,
}

/// A piece of a file.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) file: Arc<TarFile>,
    pub(crate) offset: u64,
    pub(crate) length: usize,
    pub(crate) crc32c: u32,
    /// Whether the block begins with it.
    pub(crate) is_first: bool,
}

/// Pages with wrong checksums.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    /// Some of them, such as `base/5/1259, page 3`.
    pub(crate) named: Vec<String>,
}

impl Failures {
    fn add(&mut self, file: &TarFile, block: u32) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("{}, page {block}", file.source.display()));
        }
    }
}

/// How pages are to be checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages {
    /// Bytes of one.
    pub(crate) size: usize,
    pub(crate) per_file: u32,
    /// Younger pages are written anew by replay.
    pub(crate) start: Lsn,
}

/// Makes blocks until there are no more. Blocks: one thread each.
pub(crate) fn work(
    jobs: &Mutex<mpsc::Receiver<Job>>,
    blocks: &tokio::sync::mpsc::Sender<Result<Block, BackupError>>,
    level: u32,
    pages: Option<Pages>,
) {
    let mut worker =
        Worker { pages, plain: Vec::new(), deflate: Compress::new(flate2::Compression::new(level), false) };
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let block = worker.make(job);
        let broken = block.is_err();
        if blocks.blocking_send(block).is_err() || broken {
            return;
        }
    }
}

struct Worker {
    pages: Option<Pages>,
    plain: Vec<u8>,
    deflate: Compress,
}

impl Worker {
    fn make(&mut self, job: Job) -> Result<Block, BackupError> {
        self.plain.clear();
        let (mut pieces, mut failures, mut file_bytes) = (Vec::new(), Failures::default(), 0);
        for span in &job.spans {
            let begin = self.plain.len();
            match span {
                Span::Tar(bytes) => self.plain.extend_from_slice(bytes),
                Span::File { file, offset, length } => {
                    self.plain.resize(begin + length, 0);
                    let bytes = &mut self.plain[begin..];
                    read(file, bytes, *offset, self.pages, &mut failures)
                        .map_err(|source| BackupError::Read { path: file.source.clone(), source })?;
                    let crc32c = crc32c::crc32c(bytes);
                    file_bytes += *length as u64;
                    let is_first = begin == 0;
                    pieces.push(Piece {
                        file: file.clone(),
                        offset: *offset,
                        length: *length,
                        crc32c,
                        is_first,
                    });
                }
            }
        }
        let mut crc32 = crc32fast::Hasher::new();
        crc32.update(&self.plain);
        let deflated =
            deflate(&mut self.deflate, &self.plain).map_err(|source| BackupError::Compress { source })?;
        let Job { sequence, tar, is_last, room, .. } = job;
        let plain = self.plain.len() as u64;
        Ok(Block { sequence, tar, is_last, plain, deflated, crc32, pieces, file_bytes, failures, room })
    }
}

/// Reads a piece of a file. What the file does not have any more is filled with zeros: replay cuts or writes it.
fn read(
    file: &TarFile,
    bytes: &mut [u8],
    offset: u64,
    pages: Option<Pages>,
    failures: &mut Failures,
) -> io::Result<()> {
    let source = match &file.content {
        Content::File(source) => source,
        Content::Bytes(content) => {
            let from = usize::try_from(offset).expect("these are small");
            bytes.copy_from_slice(&content[from..from + bytes.len()]);
            return Ok(());
        }
    };
    let length = read_full(source, bytes, offset)?;
    let (Some(pages), Some(relation)) = (pages, file.relation) else { return Ok(()) };
    let whole = &mut bytes[..length - length % pages.size];
    for (number, page) in whole.chunks_exact_mut(pages.size).enumerate() {
        let place = offset / pages.size as u64 + number as u64;
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        let block = relation.segment.wrapping_mul(pages.per_file).wrapping_add(number);
        if page::is_sound(page, block, pages.start) {
            continue;
        }
        // It may have been read in the middle of a write: then it is newer the second time (basebackup.c).
        if read_full(source, page, place * pages.size as u64)? == pages.size
            && !page::is_sound(page, block, pages.start)
        {
            failures.add(file, block);
        }
    }
    Ok(())
}

/// Bytes read; fewer than asked for at the end of the file. The rest of `bytes` is zero.
fn read_full(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes[length..].fill(0);
    Ok(length)
}

/// Deflates without a window from before, up to a byte.
fn deflate(deflate: &mut Compress, plain: &[u8]) -> io::Result<Vec<u8>> {
    deflate.reset();
    let mut output = Vec::with_capacity(plain.len() / 4 + 1024);
    loop {
        let taken = usize::try_from(deflate.total_in()).expect("a block fits into memory");
        deflate.compress_vec(&plain[taken..], &mut output, FlushCompress::Sync).map_err(io::Error::other)?;
        // Room that is left says that the flush is complete (zlib.h, deflate).
        if deflate.total_in() == plain.len() as u64 && output.len() < output.capacity() {
            output.shrink_to_fit();
            return Ok(output);
        }
        output.reserve(plain.len() / 8 + 1024);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn blocks_in_a_row_are_one_stream_and_each_is_read_by_itself() {
        let mut state = Compress::new(flate2::Compression::new(1), false);
        let noise: Vec<u8> =
            (0..200_000u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
        let plain = [b"alike ".repeat(50_000), noise, Vec::new(), b"alike ".repeat(3)];
        let blocks: Vec<Vec<u8>> = plain.iter().map(|plain| deflate(&mut state, plain).unwrap()).collect();
        for (plain, block) in plain.iter().zip(&blocks) {
            assert_eq!(inflate(block), *plain);
        }
        assert_eq!(inflate(&blocks.concat()), plain.concat());
    }

    fn inflate(blocks: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let whole = [blocks, &LAST_BLOCK].concat();
        flate2::read::DeflateDecoder::new(&whole[..]).read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn a_file_that_shrank_is_filled_with_zeros() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"short", 0).unwrap();
        let mut bytes = [9; 8];
        assert_eq!(read_full(&file, &mut bytes, 2).unwrap(), 3);
        assert_eq!(&bytes, b"ort\0\0\0\0\0");
    }
}
