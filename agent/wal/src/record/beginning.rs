//! The record with which a timeline begins. Reads no more of a segment than that takes.

use alloc::vec::Vec;

use super::page::{Pages, four};
use super::{HEADER, Scan, notable};
use crate::{Lsn, TimelineId};

/// Before it stand at most a change of `full_page_writes` and the mark of a record that a crash left without its rest.
const RECORDS_MAX: usize = 8;

/// When `timeline` was begun at `switch`, in microseconds since 1970-01-01 UTC. `head`: the first page of the segment of
/// `timeline` that holds `switch`; `bytes`: the segment from the place `base` on, which begins a page and lies before `switch`.
/// `None` when the bytes do not tell.
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
