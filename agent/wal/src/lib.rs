//! The vocabulary of the write-ahead log: positions, file names, timelines. Pure, `no_std`, depends on nothing.
//!
//! Everyone uses these words; this crate uses no one.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod file_name;
mod lsn;
mod record;
mod timeline;

pub use file_name::{BadFileName, SegmentName, SegmentSize, WalFileName};
pub use lsn::{BadLsn, Lsn};
pub use record::{
    Carried, Crc32c, Ending, NotWal, Notable, PiecewiseScan, Record, Scanned, Stopped, scan_records,
    stated_segment_size, timeline_start,
};
pub use timeline::{BadHistory, TimelineHistory, TimelineId, TimelineStarts, TimelineSwitch};
