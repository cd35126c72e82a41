//! The content of records that a restore can stop at: ends of transactions, restore points, switches. Finds no record.

use alloc::string::String;

use super::page::{eight, four};
use super::{Ending, HEADER, Header, Notable};
use crate::TimelineId;

/// Resource managers, of `rmgrlist.h`.
const XLOG: u8 = 0;
const XACT: u8 = 1;
/// The upper half of `xl_info` is the resource manager's.
const XLOG_OPERATION: u8 = 0xF0;
const XLOG_CHECKPOINT_SHUTDOWN: u8 = 0x00;
const XLOG_SWITCH: u8 = 0x40;
const XLOG_PARAMETER_CHANGE: u8 = 0x60;
const XLOG_RESTORE_POINT: u8 = 0x70;
const XLOG_END_OF_RECOVERY: u8 = 0x90;
const XACT_OPERATION: u8 = 0x70;
const XACT_HAS_INFO: u8 = 0x80;
/// Special block numbers in a record's headers.
const MAIN_SHORT: u8 = 255;
const MAIN_LONG: u8 = 254;
const ORIGIN: u8 = 253;
const TOPLEVEL_XID: u8 = 252;
/// Bytes of the name in `xl_restore_point`.
const NAME: usize = 64;
/// 2000-01-01 in microseconds since 1970-01-01.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
/// PostgreSQL 18, where `xl_xact_stats_item` has a 64-bit number.
const MAGIC_18: u16 = 0xD118;

pub(super) fn is_notable(header: &Header) -> bool {
    match header.manager {
        XLOG => {
            matches!(header.info & XLOG_OPERATION, XLOG_SWITCH | XLOG_PARAMETER_CHANGE | XLOG_RESTORE_POINT)
        }
        XACT => ending(header.info).is_some(),
        _ => false,
    }
}

fn ending(info: u8) -> Option<Ending> {
    match info & XACT_OPERATION {
        0x00 => Some(Ending::Commit),
        0x20 => Some(Ending::Abort),
        0x30 => Some(Ending::CommitPrepared),
        0x40 => Some(Ending::AbortPrepared),
        _ => None,
    }
}

/// What a notable record says; `None` when its bytes are invalid. `bytes`: the whole record, with its header.
pub(super) fn read(header: &Header, bytes: &[u8], magic: u16) -> Option<Notable> {
    match header.manager {
        XLOG if header.info & XLOG_OPERATION == XLOG_SWITCH => Some(Notable::Switch),
        XLOG if header.info & XLOG_OPERATION == XLOG_PARAMETER_CHANGE => {
            let data = main_data(bytes)?.get(..20)?;
            Some(Notable::Parameters([0, 4, 8, 12, 16].map(|at| four(data, at))))
        }
        XLOG if header.info & XLOG_OPERATION == XLOG_RESTORE_POINT => {
            let data = main_data(bytes)?;
            let name = data.get(8..8 + NAME)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            Some(Notable::RestorePoint {
                name: String::from_utf8_lossy(name).into_owned(),
                time: time(data)?,
            })
        }
        XACT => {
            let ending = ending(header.info)?;
            let data = main_data(bytes)?;
            let xid = match ending {
                Ending::Commit | Ending::Abort => header.xid,
                Ending::CommitPrepared | Ending::AbortPrepared => {
                    prepared_xid(ending, header.info, data, magic)?
                }
            };
            Some(Notable::Transaction { ending, xid, time: time(data)? })
        }
        _ => None,
    }
}

/// When `timeline` began, in microseconds since 1970; `None` for a record that begins no timeline. A promotion writes
/// `xl_end_of_recovery`, the end of a recovery to a target a shutdown checkpoint that names another timeline as the one before,
/// whose time counts seconds (`CheckPoint` of `pg_control.h`).
pub(super) fn begun(header: &Header, bytes: &[u8], timeline: TimelineId) -> Option<i64> {
    let data = main_data(bytes)?;
    let number = |at: usize| data.get(at..at + 4).map(|bytes| TimelineId::new(four(bytes, 0)));
    match (header.manager, header.info & XLOG_OPERATION) {
        (XLOG, XLOG_END_OF_RECOVERY) => time(data).filter(|_| number(8) == Some(timeline)),
        (XLOG, XLOG_CHECKPOINT_SHUTDOWN) => {
            let seconds = eight(data.get(64..72)?, 0).cast_signed();
            let begins = number(8) == Some(timeline) && number(12) != Some(timeline);
            begins.then(|| seconds.saturating_mul(1_000_000))
        }
        _ => None,
    }
}

/// The data after the headers. The records here have no blocks, so it follows its own header.
fn main_data(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = HEADER;
    loop {
        at += match *bytes.get(at)? {
            MAIN_SHORT => return bytes.get(at + 2..),
            MAIN_LONG => return bytes.get(at + 5..),
            ORIGIN => 3,
            TOPLEVEL_XID => 5,
            _ => return None,
        };
    }
}

/// Both `xl_xact_commit` and `xl_restore_point` begin with a TimestampTz.
fn time(data: &[u8]) -> Option<i64> {
    let since_2000 = eight(data.get(..8)?, 0).cast_signed();
    Some(since_2000.saturating_add(POSTGRES_EPOCH))
}

/// The prepared transaction, which comes after arrays of any length (`ParseCommitRecord` of xactdesc.c).
fn prepared_xid(ending: Ending, info: u8, data: &[u8], magic: u16) -> Option<u32> {
    const TWOPHASE: u32 = 1 << 4;
    if info & XACT_HAS_INFO == 0 {
        return None;
    }
    let number = |at: usize| data.get(at..at.checked_add(4)?).map(|bytes| four(bytes, 0));
    let flags = number(8)?;
    let mut at: usize = 12;
    // xl_xact_dbinfo.
    if flags & 1 != 0 {
        at += 8;
    }
    let statistics = if magic >= MAGIC_18 { 16 } else { 12 };
    // Subtransactions, relations, statistics, invalidations (which an abort has none of): a count, then the items.
    let arrays = [(1 << 1, 4), (1 << 2, 12), (1 << 8, statistics), (1 << 3, 16)];
    for (flag, size) in arrays {
        if flags & flag != 0 && !(flag == 1 << 3 && ending == Ending::AbortPrepared) {
            let items = number(at)? as usize;
            at = at.checked_add(4)?.checked_add(items.checked_mul(size)?)?;
        }
    }
    if flags & TWOPHASE == 0 { None } else { number(at) }
}
