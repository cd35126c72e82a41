//! Compresses and decompresses WAL files, gzip or not at all. Reads no file by itself.

use std::io::{self, Write};

use flate2::write::{GzEncoder, MultiGzDecoder};

use crate::store::{Payload, PayloadWriter};

/// How files are compressed before they leave. Gzip is what every reader of barman's archives knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// One gzip member.
    Gzip {
        /// 1 (fast) to 9 (small).
        level: u32,
    },
}

impl Compression {
    /// Gzip at the level that is used unless configured. Of WAL that pgbench made, with reading and checksums, one
    /// core did 395 MB/s at level 1 (a 5.6th is left), 280 at 2 (a 7th), 187 at 4 (a 7.3rd) and 99 at 6 (a 7.6th):
    /// beyond 2 each percent of room costs many of time.
    pub const GZIP: Compression = Compression::Gzip { level: 2 };

    /// Both, the usual one first: in this order a reader looks for a file.
    pub(crate) const ALL: [Compression; 2] = [Compression::GZIP, Compression::None];

    /// What stands at the end of the key.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip { .. } => ".gz",
        }
    }
}

/// Takes plain bytes, gives compressed ones.
pub(crate) enum Packer {
    Plain(PayloadWriter),
    Gzip(Box<GzEncoder<PayloadWriter>>),
}

impl Packer {
    pub(crate) fn new(compression: Compression) -> Self {
        let output = PayloadWriter::default();
        match compression {
            Compression::None => Packer::Plain(output),
            Compression::Gzip { level } => {
                Packer::Gzip(Box::new(GzEncoder::new(output, flate2::Compression::new(level.clamp(1, 9)))))
            }
        }
    }

    pub(crate) fn finish(self) -> io::Result<Payload> {
        match self {
            Packer::Plain(output) => Ok(output.finish()),
            Packer::Gzip(encoder) => encoder.finish().map(PayloadWriter::finish),
        }
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Packer::Plain(output) => output.write(bytes),
            Packer::Gzip(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes compressed bytes and writes plain ones to `W`. Several gzip members in a row are one file, as for gunzip.
pub(crate) enum Unpacker<W: Write> {
    Plain(W),
    Gzip(Box<MultiGzDecoder<W>>),
}

impl<W: Write> Unpacker<W> {
    pub(crate) fn new(compression: Compression, output: W) -> Self {
        match compression {
            Compression::None => Unpacker::Plain(output),
            Compression::Gzip { .. } => Unpacker::Gzip(Box::new(MultiGzDecoder::new(output))),
        }
    }

    /// Checks that the end was reached, and its checksum.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Unpacker::Plain(mut output) => output.flush().map(|()| output),
            Unpacker::Gzip(decoder) => {
                let mut output = decoder.finish()?;
                output.flush().map(|()| output)
            }
        }
    }
}

impl<W: Write> Write for Unpacker<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Unpacker::Plain(output) => output.write(bytes),
            Unpacker::Gzip(decoder) => decoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Unpacker::Plain(output) => output.flush(),
            Unpacker::Gzip(decoder) => decoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        (0..300_000u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect()
    }

    fn pack(compression: Compression) -> Vec<u8> {
        let mut packer = Packer::new(compression);
        packer.write_all(&sample()).unwrap();
        packer.finish().unwrap().pieces().concat()
    }

    fn unpack(compression: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut unpacker = Unpacker::new(compression, Vec::new());
        // Small pieces, as they come from a network.
        for piece in bytes.chunks(1000) {
            unpacker.write_all(piece)?;
        }
        unpacker.finish()
    }

    #[test]
    fn what_was_packed_is_unpacked_alike() {
        for compression in Compression::ALL {
            assert_eq!(unpack(compression, &pack(compression)).unwrap(), sample());
        }
    }

    #[test]
    fn several_members_are_one_file() {
        let twice = [pack(Compression::GZIP), pack(Compression::GZIP)].concat();
        assert_eq!(unpack(Compression::GZIP, &twice).unwrap(), [sample(), sample()].concat());
    }

    #[test]
    fn a_truncated_or_changed_file_is_an_error() {
        let packed = pack(Compression::GZIP);
        for length in [0, 1, 9, packed.len() / 2, packed.len() - 1] {
            assert!(unpack(Compression::GZIP, &packed[..length]).is_err(), "{length} of {}", packed.len());
        }
        let mut changed = packed.clone();
        let last = changed.len() - 6;
        changed[last] ^= 1;
        assert!(unpack(Compression::GZIP, &changed).is_err());
    }
}
