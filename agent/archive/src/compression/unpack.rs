//! Decompresses: every format that barman-cloud writes. What is cut off or damaged is an error, as far as the format
//! has checksums; the caller checks the length and the content.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read};

use super::lz4::Frames;
use super::{Format, WHOLE_MAX, buffer};

/// Bytes read at once.
const PIECE: usize = 64 * 1024;
/// The largest window of zstd, as a power of two: what zstd itself allows unless told otherwise (128 MiB). Memory is
/// only taken for the window that a file states; at level 19 that is 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// The most memory for xz: its level 9 needs 65 MiB.
const XZ_MEMORY_MAX: u64 = 128 << 20;
/// `LZMA_CONCATENATED` (lzma/container.h): several streams are one file.
const XZ_CONCATENATED: u32 = 0x08;

/// The plain bytes of `source`, which ends with an error unless it is whole.
///
/// # Errors
/// When not even the decoder can be made, or there is nothing to read.
pub fn reader<'a>(format: Format, source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    if format == Format::Plain {
        return Ok(Box::new(source));
    }
    let mut source = BufReader::with_capacity(PIECE, source);
    // Some decoders take nothing for an empty file.
    if source.fill_buf()?.is_empty() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "it is empty"));
    }
    Ok(match format {
        Format::Plain => Box::new(source),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        Format::Snappy => Box::new(snap::read::FrameDecoder::new(source)),
        Format::Lz4 => Box::new(Frames::new(source)),
        Format::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, XZ_CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream))
        }
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

/// The plain bytes of one gzip member of up to [`WHOLE_MAX`] by libdeflate, which takes half the time of zlib-rs
/// (11 ms a segment, not 20; as measured for [`super::Compression`]). `None` for all else, and for what is damaged:
/// then [`reader`] has the last word.
pub fn gunzip_whole(packed: &[u8]) -> Option<Vec<u8>> {
    // The member states its length at its end, modulo 2^32. There is nothing behind it, or this is no length of it.
    let length = u32::from_le_bytes(*packed.last_chunk::<4>()?);
    if u64::from(length) > WHOLE_MAX || has_second_member(packed) {
        return None;
    }
    let length = usize::try_from(length).ok()?;
    let mut plain = buffer(length);
    match libdeflater::Decompressor::new().gzip_decompress(packed, &mut plain) {
        Ok(found) if found == length => Some(plain),
        Ok(_) | Err(_) => None,
    }
}

/// Whether another member may begin somewhere: libdeflate would pass over it without a word. In one member of 3 MB
/// these four bytes come by chance in about one case of 50, which then only takes longer.
fn has_second_member(packed: &[u8]) -> bool {
    let mut rest = packed.get(1..).unwrap_or_default();
    while let Some(at) = rest.iter().position(|byte| *byte == 0x1F) {
        rest = &rest[at..];
        // Magic number, deflate, no reserved flags (RFC 1952).
        if let [0x1F, 0x8B, 8, flags, ..] = rest
            && flags & 0xE0 == 0
        {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::Compression;
    use crate::compression::{Packer, pack_whole, packs_whole};

    /// What compresses well, then what does not.
    fn sample() -> Vec<u8> {
        let repetitive = (0..10_000u32).flat_map(|number| (number / 7).to_le_bytes());
        let odd = (0..12_000u32).flat_map(|number| number.wrapping_mul(number ^ 0x9E37_79B9).to_le_bytes());
        repetitive.chain(odd).collect()
    }

    fn stream(compression: Compression, plain: &[u8]) -> Vec<u8> {
        let mut packer = Packer::new(compression, plain.len() as u64).unwrap();
        plain.chunks(10_000).for_each(|piece| packer.write_all(piece).unwrap());
        packer.finish().unwrap().pieces().concat()
    }

    /// As a foreign program would write it.
    fn foreign(format: Format, plain: &[u8]) -> Vec<u8> {
        match format {
            Format::Plain => plain.to_vec(),
            Format::Gzip => stream(Compression::GZIP, plain),
            Format::Zstd => stream(Compression::ZSTD, plain),
            Format::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Format::Lz4 => {
                // As Python's lz4.frame, with which barman writes.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .content_checksum(true);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Format::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Format::Snappy => {
                let mut encoder = snap::write::FrameEncoder::new(Vec::new());
                encoder.write_all(plain).unwrap();
                encoder.into_inner().unwrap()
            }
        }
    }

    /// Gives a few bytes at a time, as a network may.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.0.len()).min(777);
            bytes[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn unpack(format: Format, packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        reader(format, Drops(packed))?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn every_format_is_read_back_also_several_in_a_row() {
        for format in Format::ALL {
            let packed = foreign(format, &sample());
            assert!(unpack(format, &packed).unwrap() == sample(), "{format:?}");
            let twice = [packed.as_slice(), packed.as_slice()].concat();
            assert!(unpack(format, &twice).unwrap() == [sample(), sample()].concat(), "{format:?}");
        }
    }

    #[test]
    fn every_level_is_read_back() {
        let gzip = (1..=9).map(|level| Compression::Gzip { level });
        for compression in gzip.chain([1, 3, 19].map(|level| Compression::Zstd { level })) {
            let packed = stream(compression, &sample());
            assert!(unpack(compression.format(), &packed).unwrap() == sample(), "{compression:?}");
            if packs_whole(compression, sample().len() as u64) {
                let whole = pack_whole(&sample(), compression).unwrap().pieces().concat();
                assert!(unpack(compression.format(), &whole).unwrap() == sample(), "{compression:?}");
                assert!(gunzip_whole(&whole).unwrap() == sample(), "{compression:?}");
            }
        }
    }

    #[test]
    fn a_file_that_is_cut_off_is_an_error() {
        let plain = sample();
        for format in [Format::Gzip, Format::Zstd, Format::Bzip2, Format::Lz4, Format::Xz] {
            let packed = foreign(format, &plain);
            let ends = (0..64).chain((packed.len() - 64)..packed.len());
            for length in ends.chain((64..packed.len() - 64).step_by(1997)) {
                assert!(
                    unpack(format, &packed[..length]).is_err(),
                    "{format:?}: {length} of {}",
                    packed.len()
                );
            }
        }
        // Snappy has no end: cut off between two blocks it is only shorter, which the length of a segment tells.
        let packed = foreign(Format::Snappy, &plain);
        for length in (0..packed.len()).step_by(613) {
            let found = unpack(Format::Snappy, &packed[..length]);
            assert!(found.is_err() || found.unwrap().len() < plain.len(), "{length}");
        }
    }

    #[test]
    fn an_lz4_file_cut_off_between_two_blocks_is_an_error() {
        let packed = foreign(Format::Lz4, &sample());
        // Magic number, flags, descriptor, header checksum; then the size of the first block.
        let size = u32::from_le_bytes(*packed[7..].first_chunk().unwrap()) & 0x7FFF_FFFF;
        let end = 7 + 4 + size as usize;
        let mut plain = Vec::new();
        lz4_flex::frame::FrameDecoder::new(&packed[..end]).read_to_end(&mut plain).unwrap();
        assert!(plain.len() < sample().len(), "the decoder alone is content with it");
        assert!(unpack(Format::Lz4, &packed[..end]).is_err());
    }

    #[test]
    fn a_changed_byte_is_an_error_or_changes_nothing() {
        let plain = sample();
        for format in Format::ALL.into_iter().filter(|format| *format != Format::Plain) {
            let packed = foreign(format, &plain);
            for at in (0..packed.len()).step_by(611).chain(0..32) {
                let mut changed = packed.clone();
                changed[at] ^= 0x10;
                // Snappy: a changed kind of block may be one to skip.
                if let Ok(found) = unpack(format, &changed) {
                    assert!(found == plain || found.len() < plain.len(), "{format:?}: {at}");
                }
                if format == Format::Gzip {
                    assert!(gunzip_whole(&changed).is_none_or(|found| found == plain), "{at}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_such_file_is_an_error() {
        for format in Format::ALL.into_iter().filter(|format| *format != Format::Plain) {
            for bytes in [&b""[..], b"no such file at all, only words that say so", &[0; 5000]] {
                assert!(unpack(format, bytes).is_err(), "{format:?}: {} bytes", bytes.len());
            }
        }
    }

    #[test]
    fn libdeflate_is_not_asked_for_several_members() {
        let member = foreign(Format::Gzip, &sample());
        assert!(gunzip_whole(&member).unwrap() == sample());
        // The same twice has the same length at its end.
        let twice = [member.as_slice(), member.as_slice()].concat();
        assert_eq!(gunzip_whole(&twice), None);
        for length in [0, 3, 10, member.len() - 1] {
            assert_eq!(gunzip_whole(&member[..length]), None, "{length}");
        }
        let mut bomb = member.clone();
        let end = bomb.len() - 4;
        bomb[end..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(gunzip_whole(&bomb), None);
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_its_window() {
        let plain = vec![0; 8 << 20];
        let packed = stream(Compression::ZSTD, &plain);
        let mut limited = reader(Format::Zstd, packed.as_slice()).unwrap().take(1 << 20);
        assert_eq!(io::copy(&mut limited, &mut io::sink()).unwrap(), 1 << 20);
        // A frame that states a window of 2 GiB: magic number, descriptor without a size, window 2^31.
        let bomb = [0x28, 0xB5, 0x2F, 0xFD, 0x00, (31 - 10) << 3, 0x01, 0x00, 0x00];
        assert!(unpack(Format::Zstd, &bomb).is_err());
    }
}
