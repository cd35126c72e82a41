//! Reads every object of the WAL that a recovery may need, and checks that it is what its name says.

use std::io::Read;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use outrider_wal::{SegmentSize, WalFileName};
use sha2::{Digest as _, Sha256};

use super::{Meter, Verification};
use outrider_archive::Layout;
use outrider_archive::compression::{split_suffix, unpacked};
use outrider_archive::content::{self, Expected, HEADER};
use outrider_store::{self as store, Listed, Store, read_on_a_thread};

/// Objects in one page of a listing.
const PAGE: usize = 1000;
/// Objects read at one time.
const PARALLEL: usize = 4;
/// SHA-256 of the plain bytes in hexadecimal digits, as the shipper writes it beside each object.
const SHA256: &str = "outrider-sha256";
/// Bytes of a history that are kept for its check: all of it.
const TEXT_MAX: usize = 1 << 20;

/// What is to be checked.
pub(super) struct Wanted {
    /// Segments from this number on, of every timeline.
    pub(super) from: u64,
    pub(super) size: SegmentSize,
    pub(super) system_identifier: Option<u64>,
}

/// Reads them, a few at one time.
pub(super) async fn check(
    store: &dyn Store,
    layout: &Layout,
    wanted: &Wanted,
    found: &mut Verification,
    meter: &mut Meter<'_>,
) -> Result<(), store::Error> {
    let prefix = layout.wals();
    let mut after: Option<String> = None;
    loop {
        let page = store.list(&prefix, after.as_deref(), PAGE).await?;
        let last = page.objects.last().map(|object| object.key.clone());
        let objects = page.objects.into_iter().filter_map(|object| Some((name_of(&object, wanted)?, object)));
        let checks = objects.map(|(name, object)| check_object(store, name, object, wanted));
        let mut checked = stream::iter(checks).buffer_unordered(PARALLEL);
        while let Some((bytes, fault)) = checked.try_next().await? {
            found.objects_read += 1;
            found.bytes_read += bytes;
            meter.add(bytes);
            if let Some(fault) = fault {
                found.fault(fault);
            }
        }
        if !page.more || last.is_none() {
            return Ok(());
        }
        after = last;
    }
}

/// `None` when it is no WAL, or older than what is wanted. Objects of no bytes are faults already.
fn name_of(object: &Listed, wanted: &Wanted) -> Option<WalFileName> {
    let file = object.key.rsplit('/').next()?;
    let name = split_suffix(file).0.parse().ok()?;
    let needed = match name {
        WalFileName::History(_) => true,
        WalFileName::Segment(segment)
        | WalFileName::Partial(segment)
        | WalFileName::BackupHistory { segment, .. } => segment.number(wanted.size) >= wanted.from,
    };
    (needed && object.size > 0).then_some(name)
}

/// The bytes that were read, and what is wrong.
async fn check_object(
    store: &dyn Store,
    name: WalFileName,
    object: Listed,
    wanted: &Wanted,
) -> Result<(u64, Option<String>), store::Error> {
    let key = object.key;
    let Some(download) = store.get(&key).await? else {
        // Removed since the listing: by a retention that ran meanwhile.
        return Ok((0, None));
    };
    let stated = download.info.metadata.get(SHA256).cloned();
    let expected = Expected { system_identifier: wanted.system_identifier, segment_size: wanted.size };
    let of = key.clone();
    let (checked, bytes) = read_on_a_thread(download, move |reader| {
        let plain = unpacked(&of, reader).map_err(|fault| fault.to_string())?;
        check_content(name, plain, expected, stated.as_deref())
    })
    .await?;
    Ok((bytes, checked.err().map(|fault| format!("{key}: {fault}"))))
}

fn check_content(
    name: WalFileName,
    mut plain: impl Read,
    expected: Expected,
    stated: Option<&str>,
) -> Result<(), String> {
    let keep = match name {
        WalFileName::Segment(_) | WalFileName::Partial(_) => HEADER,
        WalFileName::History(_) | WalFileName::BackupHistory { .. } => TEXT_MAX,
    };
    let (mut head, mut length, mut sum) = (Vec::new(), 0u64, Sha256::new());
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = plain.read(&mut piece).map_err(|fault| format!("it cannot be unpacked: {fault}"))?;
        if read == 0 {
            break;
        }
        let kept = read.min(keep.saturating_sub(head.len()));
        head.extend_from_slice(&piece[..kept]);
        sum.update(&piece[..read]);
        length += read as u64;
        if length > expected.segment_size.bytes().max(TEXT_MAX as u64) {
            return Err(format!("it has more than {length} bytes"));
        }
    }
    let sum = format!("{:x}", sum.finalize());
    if let Some(stated) = stated.filter(|stated| *stated != sum) {
        return Err(format!("its content has the SHA-256 {sum}, when it was shipped it had {stated}"));
    }
    match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
            let size = expected.segment_size.bytes();
            match head.first_chunk::<HEADER>() {
                Some(header) if length == size => {
                    content::check_header(name, segment, header, expected).map_err(|fault| fault.to_string())
                }
                Some(_) | None => Err(format!("it has {length} bytes, a segment has {size}")),
            }
        }
        WalFileName::History(_) | WalFileName::BackupHistory { .. } => {
            content::check_text(name, &head).map_err(|fault| fault.to_string())
        }
    }
}
