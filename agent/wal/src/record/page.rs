//! The pages of a WAL segment: their headers, and a walk over a record's bytes across them. Knows no record.

use core::fmt;

use crate::{Lsn, SegmentSize};

/// Bytes of `XLogLongPageHeaderData`, which starts a segment's first page, and of `XLogPageHeaderData`.
const LONG: usize = 40;
const SHORT: usize = 24;
/// Flags in `xlp_info`.
const FIRST_IS_CONTINUED: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;
const FIRST_IS_OVERWRITTEN: u16 = 0x0008;
/// `XLOG_PAGE_MAGIC` grows with each version: 0xD110 in 15, 0xD113 in 16, 0xD116 in 17, 0xD118 in 18.
const MAGICS: core::ops::RangeInclusive<u16> = 0xD061..=0xD2FF;

/// The bytes do not start like a WAL segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWal;

impl fmt::Display for NotWal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes do not begin with the header of a WAL segment")
    }
}

impl core::error::Error for NotWal {}

/// A segment, or a part of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages<'bytes> {
    bytes: &'bytes [u8],
    /// Where in the segment the bytes begin.
    base: usize,
    start: u64,
    page: usize,
    pub(super) magic: u16,
    pub(super) segment_size: SegmentSize,
}

/// A page's header, as far as it is needed.
#[derive(Clone, Copy)]
pub(super) struct PageHeader {
    pub(super) length: usize,
    /// Bytes left of a record that began before this page; 0 when there is none.
    pub(super) continued: usize,
    overwritten: bool,
}

/// Why a walk stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes given end here.
    NoMore,
    /// This is not WAL.
    Invalid,
    /// The record ended unfinished with the previous page; the next one begins on the page at this position.
    Overwritten(usize),
}

impl<'bytes> Pages<'bytes> {
    pub(super) fn open(bytes: &'bytes [u8]) -> Result<Self, NotWal> {
        if bytes.len() < LONG || two(bytes, 2) & LONG_HEADER == 0 || !MAGICS.contains(&two(bytes, 0)) {
            return Err(NotWal);
        }
        let segment_size = SegmentSize::new(u64::from(four(bytes, 32))).ok_or(NotWal)?;
        let (start, page) = (eight(bytes, 8), four(bytes, 36) as usize);
        // What `configure --with-wal-blocksize` allows.
        let possible = page.is_power_of_two() && (1 << 10..=1 << 16).contains(&page);
        let end = start.checked_add(segment_size.bytes());
        if !possible || !start.is_multiple_of(segment_size.bytes()) || end.is_none() {
            return Err(NotWal);
        }
        let bytes = &bytes[..bytes.len().min(segment_size.bytes() as usize)];
        Ok(Pages { bytes, base: 0, start, page, magic: two(bytes, 0), segment_size })
    }

    /// The same segment without its bytes.
    pub(super) fn without_bytes(self) -> Pages<'static> {
        let Pages { start, page, magic, segment_size, .. } = self;
        Pages { bytes: &[], base: 0, start, page, magic, segment_size }
    }

    /// The same segment with these bytes, starting at `base`.
    pub(super) fn with_bytes<'other>(&self, base: usize, bytes: &'other [u8]) -> Pages<'other> {
        let room = (self.segment_size.bytes() as usize).saturating_sub(base);
        Pages { bytes: &bytes[..bytes.len().min(room)], base, ..self.without_bytes() }
    }

    /// The WAL position of a position in the segment.
    pub(super) fn lsn(&self, at: usize) -> Lsn {
        Lsn::new(self.start + at as u64)
    }

    /// Exactly these bytes, which are on one page.
    pub(super) fn bytes(&self, at: usize, length: usize) -> Result<&'bytes [u8], Stop> {
        let at = at.checked_sub(self.base).ok_or(Stop::NoMore)?;
        self.bytes.get(at..at + length).ok_or(Stop::NoMore)
    }

    /// The header of the page that begins at `at`.
    pub(super) fn header(&self, at: usize) -> Result<PageHeader, Stop> {
        let bytes = self.bytes(at, SHORT)?;
        let (magic, info) = (two(bytes, 0), two(bytes, 2));
        let long = info & LONG_HEADER != 0;
        // A recycled segment holds pages of older WAL, whose addresses differ.
        if magic != self.magic || eight(bytes, 8) != self.start + at as u64 || long != (at == 0) {
            return Err(Stop::Invalid);
        }
        let continued = if info & FIRST_IS_CONTINUED != 0 { four(bytes, 16) as usize } else { 0 };
        let length = if long { LONG } else { SHORT };
        Ok(PageHeader { length, continued, overwritten: info & FIRST_IS_OVERWRITTEN != 0 })
    }

    /// Where a record due at `at` begins: after the header if a page starts there.
    pub(super) fn enter(&self, at: usize) -> Result<usize, Stop> {
        if !at.is_multiple_of(self.page) {
            return Ok(at);
        }
        let header = self.header(at)?;
        // The rest of a record without a beginning.
        if header.continued > 0 { Err(Stop::Invalid) } else { Ok(at + header.length) }
    }
}

/// A position in a record.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    /// Bytes from the start of the segment.
    pub(super) at: usize,
    /// Bytes of the record from here on.
    pub(super) left: usize,
}

impl Walk {
    /// Advances `count` bytes, at most to the end of the record; `each` sees them without the page headers between.
    pub(super) fn each_piece(
        &mut self,
        pages: &Pages<'_>,
        count: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Stop> {
        let mut count = count.min(self.left);
        while count > 0 {
            if self.at.is_multiple_of(pages.page) {
                self.turn(pages)?;
            }
            let on_page = (pages.page - self.at % pages.page).min(count);
            let from = self.at.saturating_sub(pages.base);
            let there = pages.bytes.len().saturating_sub(from).min(on_page);
            each(pages.bytes.get(from..from + there).unwrap_or_default());
            self.at += there;
            self.left -= there;
            count -= there;
            if there < on_page {
                return Err(Stop::NoMore);
            }
        }
        Ok(())
    }

    /// Enters the next page, which must continue this record.
    fn turn(&mut self, pages: &Pages<'_>) -> Result<(), Stop> {
        let header = pages.header(self.at)?;
        if header.overwritten {
            return Err(Stop::Overwritten(self.at));
        }
        if header.continued != self.left {
            return Err(Stop::Invalid);
        }
        self.at += header.length;
        Ok(())
    }
}

pub(super) fn two(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn four(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn eight(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(number)
}
