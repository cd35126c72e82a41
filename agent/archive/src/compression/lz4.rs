//! Reads lz4 files to their end: all frames, and the last of them whole. The frames themselves are lz4_flex's.

use std::io::{self, ErrorKind, Read};

use lz4_flex::frame::FrameDecoder;

const MAGIC: [u8; 4] = 0x184D_2204u32.to_le_bytes();

/// Decompresses all frames of a file, one after the other; lz4_flex ends after the first.
pub(super) struct Frames<R: Read>(FrameDecoder<WholeFrames<R>>);

impl<R: Read> Frames<R> {
    pub(super) fn new(source: R) -> Self {
        Frames(FrameDecoder::new(WholeFrames::new(source)))
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.0.read(bytes)?;
            if read > 0 || bytes.is_empty() || self.0.get_ref().ended {
                return Ok(read);
            }
        }
    }
}

/// Passes an lz4 file on, and fails when it ends within a frame: the decoder takes an end between two blocks for the
/// end of the file, so a file that was cut off there would be taken for whole. (Frames of the LZ4 frame format 1.6.)
struct WholeFrames<R> {
    source: R,
    /// What is collected now, and how much of it is there.
    field: [u8; 4],
    have: usize,
    /// Bytes to pass on unseen.
    skip: u64,
    expect: Expect,
    block_checksums: bool,
    content_checksum: bool,
    /// The source has no more.
    ended: bool,
}

#[derive(Clone, Copy)]
enum Expect {
    Magic,
    Flags,
    Block,
}

impl<R> WholeFrames<R> {
    fn new(source: R) -> Self {
        WholeFrames {
            source,
            field: [0; 4],
            have: 0,
            skip: 0,
            expect: Expect::Magic,
            block_checksums: false,
            content_checksum: false,
            ended: false,
        }
    }

    fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                self.skip -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.field[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            let length = if matches!(self.expect, Expect::Flags) { 1 } else { 4 };
            if self.have == length {
                self.have = 0;
                self.next_field()?;
            }
        }
        Ok(())
    }

    fn next_field(&mut self) -> io::Result<()> {
        match self.expect {
            Expect::Magic if self.field == MAGIC => self.expect = Expect::Flags,
            Expect::Magic => return Err(io::Error::new(ErrorKind::InvalidData, "it is not an lz4 frame")),
            Expect::Flags => {
                let flags = self.field[0];
                self.block_checksums = flags & 0x10 != 0;
                self.content_checksum = flags & 0x04 != 0;
                // Block descriptor and header checksum, and between them what the flags tell.
                self.skip = 2 + if flags & 0x08 != 0 { 8 } else { 0 } + if flags & 0x01 != 0 { 4 } else { 0 };
                self.expect = Expect::Block;
            }
            Expect::Block => match u32::from_le_bytes(self.field) {
                0 => {
                    self.skip = if self.content_checksum { 4 } else { 0 };
                    self.expect = Expect::Magic;
                }
                size => {
                    // The highest bit says that the block is not compressed.
                    self.skip = u64::from(size & 0x7FFF_FFFF) + if self.block_checksums { 4 } else { 0 };
                }
            },
        }
        Ok(())
    }
}

impl<R: Read> Read for WholeFrames<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(bytes)?;
        if read == 0 && !bytes.is_empty() {
            self.ended = true;
            if !matches!(self.expect, Expect::Magic) || self.have > 0 || self.skip > 0 {
                // Not as UnexpectedEof: that is what the decoder forgives.
                return Err(io::Error::new(ErrorKind::InvalidData, "it ends within a frame"));
            }
        }
        self.follow(&bytes[..read])?;
        Ok(read)
    }
}
