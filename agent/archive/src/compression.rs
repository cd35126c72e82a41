//! The ways in which WAL is compressed, to write and to read, and their suffixes. Reads no file by itself.

mod buffer;
mod lz4;
mod pack;
mod suffix;
mod unpack;

pub(crate) use buffer::buffer;
pub use pack::WHOLE_MAX;
pub(crate) use pack::{Packer, pack_whole, packs_whole};
pub(crate) use suffix::unpack_small;
pub use suffix::{split_suffix, unpacked};
pub use unpack::{gunzip_whole, reader};

/// How files are compressed before they leave. Gzip is what every reader of barman's archives knows.
///
/// Measured on WAL of pgbench (PostgreSQL 15, scale 50, 8 clients, 5 segments of 16 MiB three times) on a busy machine:
/// the quickest by the time of the thread on the CPU; reading is not in it, nor the SHA-256 of the plain bytes, which
/// takes 11 ms (1.5 GB/s: sha2 uses the CPU's own instructions, and so does zlib-rs with `runtime_detection` of flate2):
///
/// | | ms a segment | what is left | | ms a segment | what is left |
/// |---|---|---|---|---|---|
/// | zlib-rs 1 | 23 | 1/6.86 | libdeflate 1 | 54 | 1/8.85 |
/// | zlib-rs 2 | 39 | 1/8.62 | libdeflate 2 | 67 | 1/9.14 |
/// | zlib-rs 4 | 76 | 1/8.94 | libdeflate 3 | 65 | 1/9.20 |
/// | zlib-rs 6 | 98 | 1/9.20 | libdeflate 5 | 77 | 1/9.48 |
///
/// So level 1 of gzip is zlib-rs, and the others are libdeflate, one level lower than their number: each is smaller
/// than zlib-rs with that number, and from 4 on faster. ISA-L takes 13 ms and leaves 1/8.60; it is left out for what it
/// takes to build (ARCHITECTURE.md). Zstd at level 1 took 26 ms for other WAL and left 1/7.47 of it, of which zlib-rs 1
/// left 1/5.26; level 3 took 50 and left 1/7.60.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// One gzip member.
    Gzip {
        /// 1 (fast) to 9 (small).
        level: u32,
    },
    /// One zstd frame with a checksum. Faster and smaller than gzip, and fewer programs read it.
    Zstd {
        /// 1 (fast) to 19 (small).
        level: u32,
    },
}

impl Compression {
    /// Gzip at the level that is used unless configured: the one that is done soonest, since a segment that waits for
    /// the compressor is not in the archive yet.
    pub const GZIP: Compression = Compression::Gzip { level: 1 };

    /// Zstd at the level that is used unless configured. Level 3 takes twice the time for a 50th less.
    pub const ZSTD: Compression = Compression::Zstd { level: 1 };

    /// What stands at the end of the key.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        self.format().suffix()
    }

    /// What a reader must know.
    #[must_use]
    pub const fn format(self) -> Format {
        match self {
            Compression::None => Format::Plain,
            Compression::Gzip { .. } => Format::Gzip,
            Compression::Zstd { .. } => Format::Zstd,
        }
    }
}

/// What an object of the archive is compressed with: every one that barman-cloud writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.gz`: one or several members.
    Gzip,
    /// `.zst`: one or several frames.
    Zstd,
    /// `.bz2`: one or several streams.
    Bzip2,
    /// `.lz4`: one or several frames.
    Lz4,
    /// `.xz`: one or several streams.
    Xz,
    /// `.snappy`: the framing format.
    Snappy,
    /// Not at all.
    Plain,
}

impl Format {
    /// All, in the order in which they are preferred when an archive has a file several times.
    pub const ALL: [Format; 7] =
        [Format::Gzip, Format::Zstd, Format::Lz4, Format::Bzip2, Format::Xz, Format::Snappy, Format::Plain];

    /// What stands at the end of the key (barman's xlog.py and cloud.py).
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Format::Gzip => ".gz",
            Format::Zstd => ".zst",
            Format::Bzip2 => ".bz2",
            Format::Lz4 => ".lz4",
            Format::Xz => ".xz",
            Format::Snappy => ".snappy",
            Format::Plain => "",
        }
    }
}
