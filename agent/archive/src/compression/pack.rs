//! Compresses. Whole segments by libdeflate, which needs all bytes at once; whatever is larger, piece by piece.

use std::io::{self, Write};

use flate2::write::GzEncoder;

use super::{Compression, buffer};
use outrider_store::{Payload, PayloadWriter};

/// The largest file that is held in memory as a whole. Segments have 16 MiB unless the server was made with others.
pub const WHOLE_MAX: u64 = 64 << 20;

/// Whether [`pack_whole`] is for this, rather than [`Packer`].
pub(crate) const fn packs_whole(compression: Compression, length: u64) -> bool {
    length <= WHOLE_MAX && matches!(compression, Compression::Gzip { level: 2.. })
}

/// One gzip member by libdeflate, one level lower than the number says; see [`Compression`] for why.
pub(crate) fn pack_whole(plain: &[u8], compression: Compression) -> io::Result<Payload> {
    let level = match compression {
        Compression::Gzip { level } => i32::try_from(level.clamp(2, 9) - 1).unwrap_or(1),
        Compression::None | Compression::Zstd { .. } => 1,
    };
    let level = libdeflater::CompressionLvl::new(level).expect("1 to 8 are levels of libdeflate");
    let mut compressor = libdeflater::Compressor::new(level);
    let mut packed = buffer(compressor.gzip_compress_bound(plain.len()));
    let length = compressor
        .gzip_compress(plain, &mut packed)
        .map_err(|error| io::Error::other(format!("libdeflate: {error}")))?;
    let mut output = PayloadWriter::default();
    output.write_all(&packed[..length])?;
    Ok(output.finish())
}

/// Takes plain bytes, gives compressed ones.
pub(crate) enum Packer {
    Plain(PayloadWriter),
    Gzip(Box<GzEncoder<PayloadWriter>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, PayloadWriter>>),
}

impl Packer {
    /// `length`: how many bytes will come.
    pub(crate) fn new(compression: Compression, length: u64) -> io::Result<Self> {
        let output = PayloadWriter::default();
        match compression {
            Compression::None => Ok(Packer::Plain(output)),
            Compression::Gzip { level } => {
                let level = flate2::Compression::new(level.clamp(1, 9));
                Ok(Packer::Gzip(Box::new(GzEncoder::new(output, level))))
            }
            Compression::Zstd { level } => {
                let level = i32::try_from(level.clamp(1, 19)).unwrap_or(1);
                let mut encoder = zstd::stream::write::Encoder::new(output, level)?;
                encoder.include_checksum(true)?;
                // Some readers want to know the size before they begin.
                encoder.set_pledged_src_size(Some(length))?;
                Ok(Packer::Zstd(Box::new(encoder)))
            }
        }
    }

    /// Fails for zstd when other than `length` bytes came.
    pub(crate) fn finish(self) -> io::Result<Payload> {
        match self {
            Packer::Plain(output) => Ok(output.finish()),
            Packer::Gzip(encoder) => encoder.finish().map(PayloadWriter::finish),
            Packer::Zstd(encoder) => encoder.finish().map(PayloadWriter::finish),
        }
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Packer::Plain(output) => output.write(bytes),
            Packer::Gzip(encoder) => encoder.write(bytes),
            Packer::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
