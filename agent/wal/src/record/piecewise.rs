//! The records of a segment that arrives piece by piece, so that it is never all in memory. Without checksums.

use alloc::vec::Vec;

use super::page::{Pages, Stop};
use super::{NotWal, Record, Scan};
use crate::Lsn;

/// A scan that continues with each piece. It finds what [`super::scan_records`] finds in the whole, without `carried`.
#[derive(Debug)]
pub struct PiecewiseScan {
    pages: Pages<'static>,
    /// Position in the segment where the bytes of the next step begin.
    base: usize,
    /// The end of the last complete record. 0 until the record that began in the previous segment has been skipped.
    end: usize,
    previous: Option<Lsn>,
    ended: bool,
}

impl PiecewiseScan {
    /// Prepares the scan of the segment that starts with these bytes; reads no record yet.
    ///
    /// # Errors
    /// When they do not start like a segment.
    pub fn begin(segment: &[u8]) -> Result<Self, NotWal> {
        let pages = Pages::open(segment)?.without_bytes();
        Ok(PiecewiseScan { pages, base: 0, end: 0, previous: None, ended: false })
    }

    /// Reads the records that are complete in `bytes`; passes each notable one to `each`, in order. Returns how many bytes
    /// are finished: the next step needs the others again, with more after them. The others never exceed one record and the
    /// rest of a page.
    pub fn step(&mut self, bytes: &[u8], each: &mut dyn FnMut(Record)) -> usize {
        if self.ended {
            return bytes.len();
        }
        let pages = self.pages.with_bytes(self.base, bytes);
        let (end, previous) = (self.end, self.previous);
        let mut scan = Scan { pages, end, previous, carried: None, checksum: None, bytes: Vec::new(), each };
        let stopped = if end == 0 { scan.all(None) } else { scan.from(end) };
        self.ended = stopped != Err(Stop::NoMore);
        if self.ended {
            return bytes.len();
        }
        (self.end, self.previous) = (scan.end, scan.previous);
        let done = self.end.saturating_sub(self.base).min(bytes.len());
        self.base += done;
        done
    }
}
