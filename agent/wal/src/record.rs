//! The records in a WAL segment: where valid WAL ends, and the ones that a restore can stop at. Replays nothing.
//!
//! The layouts are those of PostgreSQL's `xlogrecord.h`, `xlog_internal.h` and `xact.h`, the same in 15 to 18 except for
//! what `notable.rs` says. Numbers are in the byte order of the server, which is this machine's.

mod beginning;
mod notable;
mod page;
mod piecewise;

use alloc::string::String;
use alloc::vec::Vec;

use crate::{Lsn, SegmentSize};
pub use beginning::timeline_start;
pub use page::NotWal;
use page::{Pages, Stop, Walk, eight, four};
pub use piecewise::PiecewiseScan;

/// Bytes of `XLogRecord`, the header that each record begins with.
const HEADER: usize = 24;
/// Its bytes before the CRC, which the CRC covers after the rest of the record.
const SUMMED: usize = 20;
/// Each record begins at a multiple of this (MAXALIGN).
const ALIGNMENT: usize = 8;
/// Most bytes of a record continuing in the next segment that are carried there. A commit has tens of bytes, and 16 more
/// for each invalidation.
const CARRIED_MAX: usize = 1 << 20;
/// Resource managers that do not exist: `rmgrlist.h` has 22 in PostgreSQL 15 to 18, and those of extensions begin at 128.
const NOBODYS: core::ops::Range<u8> = 32..128;

/// Continues a CRC-32C from that of the bytes before. Such as `crc32c::crc32c_append`.
pub type Crc32c = fn(u32, &[u8]) -> u32;

/// A record that a restore can stop at, or that ends a segment early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its first byte, as `pg_waldump` prints it.
    pub start: Lsn,
    /// The first byte after it, before which the next record cannot begin: PostgreSQL's `EndRecPtr`.
    pub end: Lsn,
    /// Its content.
    pub what: Notable,
}

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notable {
    /// A transaction ended.
    Transaction {
        /// How.
        ending: Ending,
        /// Its number; for a prepared transaction, the number of the one prepared. 0 when it had none.
        xid: u32,
        /// When, in microseconds since 1970-01-01 UTC.
        time: i64,
    },
    /// `pg_create_restore_point` was called.
    RestorePoint {
        /// Its name.
        name: String,
        /// When, in microseconds since 1970-01-01 UTC.
        time: i64,
    },
    /// The server was started with other settings: those that a standby must not have lower, in the order of
    /// `xl_parameter_change`: `max_connections`, `max_worker_processes`, `max_wal_senders`, `max_prepared_transactions`,
    /// `max_locks_per_transaction`.
    Parameters([u32; 5]),
    /// The rest of the segment is void (`pg_switch_wal`).
    Switch,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`, or an error.
    Abort,
    /// `COMMIT PREPARED`.
    CommitPrepared,
    /// `ROLLBACK PREPARED`.
    AbortPrepared,
}

/// What a scan found besides the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The end of the last complete record, so that all before it is valid WAL; the end of the segment after a switch.
    /// The start of the segment when no record ends in it.
    pub end: Lsn,
    /// Why the scan stopped.
    pub stopped: Stopped,
    /// The record that continues beyond the bytes given, for the scan of the next segment. Also `None` when a restore
    /// certainly cannot stop at it.
    pub carried: Option<Carried>,
}

/// Why a scan stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// There are no more bytes.
    AtTheEnd,
    /// The rest of the segment is void.
    AtASwitch,
    /// No valid record follows: PostgreSQL wrote no further, or something is damaged.
    AtNoRecord,
}

/// The first part of a record whose rest is in the next segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    start: u64,
    bytes: Vec<u8>,
}

/// Reads the records in `segment`: a whole one or any leading part of it, with page headers. Passes each notable one to
/// `each`, in order. A record that began in the previous segment is seen only with what that scan had `carried`. With
/// `checksum` the CRC of each record is checked, except of one that began earlier and was not carried; without it only
/// lengths, links and pages are.
///
/// Never panics, whatever the bytes, and needs no more memory than they take.
///
/// # Errors
/// When the bytes do not start like a segment.
pub fn scan_records(
    segment: &[u8],
    carried: Option<Carried>,
    checksum: Option<Crc32c>,
    each: &mut dyn FnMut(Record),
) -> Result<Scanned, NotWal> {
    let pages = Pages::open(segment)?;
    let mut scan = Scan { pages, end: 0, previous: None, carried: None, checksum, bytes: Vec::new(), each };
    let stopped = match scan.all(carried) {
        Ok(()) => Stopped::AtASwitch,
        Err(Stop::NoMore) => Stopped::AtTheEnd,
        Err(Stop::Invalid | Stop::Overwritten(_)) => Stopped::AtNoRecord,
    };
    Ok(Scanned { end: pages.lsn(scan.end), stopped, carried: scan.carried })
}

/// The size of the segment that begins with these bytes, as its own header states it.
///
/// # Errors
/// When the bytes do not start like a segment.
pub fn stated_segment_size(segment: &[u8]) -> Result<SegmentSize, NotWal> {
    Pages::open(segment).map(|pages| pages.segment_size)
}

struct Scan<'bytes, 'each> {
    pages: Pages<'bytes>,
    /// Bytes from the start of the segment to the end of the last complete record.
    end: usize,
    /// Where the previous record began, if known.
    previous: Option<Lsn>,
    carried: Option<Carried>,
    checksum: Option<Crc32c>,
    /// The bytes of a notable record, without page headers.
    bytes: Vec<u8>,
    each: &'each mut dyn FnMut(Record),
}

/// A record's own header.
#[derive(Clone, Copy)]
struct Header {
    length: usize,
    xid: u32,
    previous: Lsn,
    info: u8,
    manager: u8,
    crc: u32,
}

impl Scan<'_, '_> {
    /// Reads all records up to a switch, which is the only good end before the end of the bytes.
    fn all(&mut self, carried: Option<Carried>) -> Result<(), Stop> {
        let at = self.begin(carried)?;
        self.from(at)
    }

    /// Reads all records from position `at` on, where one begins.
    fn from(&mut self, mut at: usize) -> Result<(), Stop> {
        loop {
            at = match self.pages.enter(at).and_then(|at| self.record(at)) {
                Ok(false) => self.end,
                Ok(true) => return Ok(()),
                // A crash left a record unfinished, and PostgreSQL continued on the next page: it never existed.
                Err(Stop::Overwritten(page)) => page,
                Err(stop) => return Err(stop),
            };
        }
    }

    /// Skips or completes the record that began in the previous segment. Returns where the next one begins.
    fn begin(&mut self, carried: Option<Carried>) -> Result<usize, Stop> {
        let first = self.pages.header(0)?;
        let rest = first.continued;
        let mut walk = Walk { at: first.length, left: rest };
        let Some(carried) = carried.filter(|_| rest > 0) else {
            walk.each_piece(&self.pages, rest, |_| ())?;
            self.end = if rest > 0 { aligned(walk.at) } else { 0 };
            return Ok(aligned(walk.at));
        };
        let start = Lsn::new(carried.start);
        self.bytes = carried.bytes;
        let known = self.bytes.len();
        let taken = walk.each_piece(&self.pages, rest, |piece| self.bytes.extend_from_slice(piece));
        if let Err(stop) = taken {
            self.carry(start, &stop);
            return Err(stop);
        }
        let header = Header::read(&self.bytes).ok_or(Stop::Invalid)?;
        if header.length != known.saturating_add(rest) || NOBODYS.contains(&header.manager) {
            return Err(Stop::Invalid);
        }
        let sum = self.checksum.map(|sum| sum(sum(0, &self.bytes[HEADER..]), &self.bytes[..SUMMED]));
        if sum.is_some_and(|sum| sum != header.crc) {
            return Err(Stop::Invalid);
        }
        self.end = aligned(walk.at);
        self.tell(start, header);
        Ok(self.end)
    }

    /// Reads the record at `at`. Returns whether it is a switch.
    fn record(&mut self, at: usize) -> Result<bool, Stop> {
        let start = self.pages.lsn(at);
        // The length is never split between pages; the rest of the header may be.
        let length = four(self.pages.bytes(at, 4)?, 0) as usize;
        if length < HEADER {
            return Err(Stop::Invalid);
        }
        let taken = self.pass(at, length);
        match taken {
            Ok((header, end)) => {
                self.end = end;
                if notable::is_notable(&header) {
                    self.keep(at, length)?;
                    return Ok(self.tell(start, header));
                }
                self.previous = Some(start);
                Ok(false)
            }
            Err((header, stop)) => {
                if header.is_none_or(|header| notable::is_notable(&header)) {
                    // Limited to what is there.
                    let _ = self.keep(at, length);
                    self.carry(start, &stop);
                }
                Err(stop)
            }
        }
    }

    /// Checks the record at `at` and finds its end. An error carries the header, once that is known.
    fn pass(&self, at: usize, length: usize) -> Result<(Header, usize), (Option<Header>, Stop)> {
        let start = self.pages.lsn(at);
        let mut walk = Walk { at, left: length };
        let (mut joined, mut filled) = ([0; HEADER], 0);
        let copied = walk.each_piece(&self.pages, HEADER, |piece| {
            joined[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        });
        copied.map_err(|stop| (None, stop))?;
        let header = Header::read(&joined).ok_or((None, Stop::Invalid))?;
        let linked = self.previous.map_or(header.previous < start, |previous| header.previous == previous);
        if !linked || NOBODYS.contains(&header.manager) {
            return Err((Some(header), Stop::Invalid));
        }
        let rest = walk.left;
        let Some(checksum) = self.checksum else {
            walk.each_piece(&self.pages, rest, |_| ()).map_err(|stop| (Some(header), stop))?;
            return Ok((header, aligned(walk.at)));
        };
        let mut sum = 0;
        let summed = walk.each_piece(&self.pages, rest, |piece| sum = checksum(sum, piece));
        summed.map_err(|stop| (Some(header), stop))?;
        if checksum(sum, &joined[..SUMMED]) != header.crc {
            return Err((Some(header), Stop::Invalid));
        }
        Ok((header, aligned(walk.at)))
    }

    /// Collects the bytes of the record at `at`.
    fn keep(&mut self, at: usize, length: usize) -> Result<(), Stop> {
        self.bytes.clear();
        let bytes = &mut self.bytes;
        Walk { at, left: length }.each_piece(&self.pages, length, |piece| bytes.extend_from_slice(piece))
    }

    /// Keeps the collected bytes for the scan of the next segment.
    fn carry(&mut self, start: Lsn, stop: &Stop) {
        if matches!(stop, Stop::NoMore) && self.bytes.len() <= CARRIED_MAX {
            self.carried = Some(Carried { start: start.get(), bytes: core::mem::take(&mut self.bytes) });
        }
    }

    /// Reports the record whose bytes were collected and which ends at `self.end`. Returns whether it is a switch.
    fn tell(&mut self, start: Lsn, header: Header) -> bool {
        self.previous = Some(start);
        let Some(what) = notable::read(&header, &self.bytes, self.pages.magic) else { return false };
        let switch = what == Notable::Switch;
        if switch {
            self.end = self.pages.segment_size.bytes() as usize;
        }
        (self.each)(Record { start, end: self.pages.lsn(self.end), what });
        switch
    }
}

impl Header {
    /// `XLogRecord`.
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER {
            return None;
        }
        Some(Header {
            length: four(bytes, 0) as usize,
            xid: four(bytes, 4),
            previous: Lsn::new(eight(bytes, 8)),
            info: bytes[16],
            manager: bytes[17],
            crc: four(bytes, SUMMED),
        })
    }
}

fn aligned(at: usize) -> usize {
    at.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests;
