//! The record that begins a timeline. Reads no more of a segment than that needs.

use alloc::vec::Vec;

use super::page::{Pages, four};
use super::{HEADER, Scan, notable};
use crate::{Lsn, TimelineId};

/// At most a change of `full_page_writes` and the mark of an unfinished record after a crash come before it.
const RECORDS_MAX: usize = 8;

/// When `timeline` began at `switch`, in microseconds since 1970-01-01 UTC. `head`: the first page of the segment of `timeline`
/// that holds `switch`; `bytes`: the segment from position `base` on, which starts a page before `switch`. `None` when the
/// bytes do not tell.
#[must_use]
pub fn timeline_start(
    head: &[u8],
    (base, bytes): (usize, &[u8]),
    switch: Lsn,
    timeline: TimelineId,
) -> Option<i64> {
    let pages = Pages::open(head).ok()?.with_bytes(base, bytes);
    let each = &mut |_| ();
    let mut scan =
        Scan { pages, end: 0, previous: None, carried: None, checksum: None, bytes: Vec::new(), each };
    let mut at = usize::try_from(switch.get().checked_sub(pages.lsn(0).get())?).ok()?;
    for _ in 0..RECORDS_MAX {
        at = pages.enter(at).ok()?;
        let length = four(pages.bytes(at, 4).ok()?, 0) as usize;
        if length < HEADER {
            return None;
        }
        let (header, end) = scan.pass(at, length).ok()?;
        scan.keep(at, length).ok()?;
        if let Some(start) = notable::begun(&header, &scan.bytes, timeline) {
            return Some(start);
        }
        at = end;
    }
    None
}
