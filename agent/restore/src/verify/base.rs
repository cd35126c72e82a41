//! Reads the tars of one base backup and compares each file with `backup_manifest`. Writes no file.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use outrider_wal::Lsn;

use super::{Meter, Verification};
use crate::manifest::Manifest;
use outrider_archive::backup::{exclude, page};
use outrider_archive::catalog::Backup;
use outrider_archive::compression::{split_suffix, unpacked};
use outrider_archive::{BackupInfo, Layout, MANIFEST};
use outrider_store::{self as store, Store, read_on_a_thread, read_small};

/// A manifest has about 200 bytes for each file.
const MANIFEST_MAX: u64 = 512 << 20;
/// PostgreSQL's page, unless it was built otherwise.
const PAGE: usize = 8192;
/// Pages in a file of a relation (RELSEG_SIZE).
const PAGES: u32 = 131_072;
/// Faults of one backup's pages that are named.
const BAD_PAGES_MAX: u64 = 20;
/// Files without which no server starts.
const MUST: [&[u8]; 3] = [b"PG_VERSION", b"global/pg_control", b"backup_label"];

/// What the tars of one backup have shown so far.
#[derive(Default)]
struct Seen {
    paths: HashSet<Vec<u8>>,
    bad_pages: u64,
    faults: Vec<String>,
}

/// Reads all tars of the backup, one after the other.
pub(super) async fn check(
    store: &dyn Store,
    layout: &Layout,
    backup: &Backup,
    info: &BackupInfo,
    found: &mut Verification,
    meter: &mut Meter<'_>,
) -> Result<(), store::Error> {
    let id = &backup.id;
    let manifest = match read_manifest(store, layout, backup).await? {
        Ok(manifest) => manifest.map(Arc::new),
        Err(fault) => {
            found.fault(format!("backup {id}: {MANIFEST}: {fault}"));
            None
        }
    };
    if manifest.is_none() {
        found.notes.push(format!("backup {id} has no manifest: its files were read and not compared"));
    }
    let mut seen = Seen::default();
    // Pages that were written since the backup began may be torn: replay writes them anew.
    let pages = info.begin_lsn.filter(|_| info.data_checksums);
    for object in &backup.objects {
        let Some(place) = place_of(&object.name, info) else { continue };
        let key = layout.backup(id, &object.name);
        let Some(download) = store.get(&key).await? else {
            found.fault(format!("backup {id}: {} is gone", object.name));
            continue;
        };
        let (of, manifest) = (key, manifest.clone());
        let work = move |reader| {
            let read = unpacked(&of, reader)
                .and_then(|plain| read_tar(plain, &place, manifest.as_deref(), pages, &mut seen));
            (seen, read)
        };
        let ((given_back, read), bytes) = read_on_a_thread(download, work).await?;
        seen = given_back;
        if let Err(fault) = read {
            found.fault(format!("backup {id}: {}: {fault}", object.name));
        }
        found.objects_read += 1;
        found.bytes_read += bytes;
        meter.add(bytes);
    }
    for fault in &seen.faults {
        found.fault(format!("backup {id}: {fault}"));
    }
    if seen.bad_pages > BAD_PAGES_MAX {
        found.fault(format!("backup {id}: {} pages in all have wrong checksums", seen.bad_pages));
    }
    let lacking = |path: &[u8]| format!("backup {id}: {} is in no tar", String::from_utf8_lossy(path));
    for path in MUST.iter().filter(|path| !seen.paths.contains(**path)) {
        found.fault(lacking(path));
    }
    if let Some(manifest) = manifest {
        for path in manifest.paths().filter(|path| !seen.paths.contains(*path) && !MUST.contains(path)) {
            found.fault(lacking(path));
        }
    }
    Ok(())
}

/// `None` inside when there is none, as in barman's own backups.
async fn read_manifest(
    store: &dyn Store,
    layout: &Layout,
    backup: &Backup,
) -> Result<Result<Option<Manifest>, String>, store::Error> {
    if !backup.objects.iter().any(|object| object.name == MANIFEST) {
        return Ok(Ok(None));
    }
    let read = read_small(store, &layout.backup(&backup.id, MANIFEST), MANIFEST_MAX).await?;
    Ok(match read {
        None => Err("it is gone".to_owned()),
        Some(Err(fault)) => Err(fault),
        Some(Ok(bytes)) => Manifest::read(&bytes).map(Some),
    })
}

/// Where the files of a tar belong, relative to the data directory and with a slash; `None` for what is no tar.
fn place_of(name: &str, info: &BackupInfo) -> Option<String> {
    let stem = split_suffix(name).0.strip_suffix(".tar")?;
    // Barman numbers further parts: data_0001.tar.
    let stem = stem.split_once('_').map_or(stem, |(stem, _)| stem);
    if stem == "data" {
        return Some(String::new());
    }
    let oid: u32 = stem.parse().ok()?;
    info.tablespaces.iter().any(|tablespace| tablespace.oid == oid).then(|| format!("pg_tblspc/{oid}/"))
}

fn read_tar(
    plain: impl Read,
    place: &str,
    manifest: Option<&Manifest>,
    pages: Option<Lsn>,
    seen: &mut Seen,
) -> io::Result<()> {
    let mut archive = tar::Archive::new(plain);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?;
        let inside = path.as_os_str().as_bytes();
        let inside = inside.strip_prefix(b"./").unwrap_or(inside);
        let path = [place.as_bytes(), inside].concat();
        let mut check = pages.and_then(|start| PageCheck::of(&path, inside, start));
        let (length, sum) = sum_up(&mut entry, &path, check.as_mut(), seen)?;
        if let Some(stated) = manifest.and_then(|manifest| manifest.get(&path)) {
            let shown = String::from_utf8_lossy(&path);
            if stated.size != length {
                seen.faults.push(format!("{shown} has {length} bytes, by the manifest {}", stated.size));
            } else if stated.crc32c.is_some_and(|crc32c| crc32c != sum) {
                seen.faults.push(format!("{shown} is not what the manifest says: its CRC-32C differs"));
            }
        }
        seen.paths.insert(path);
    }
    // What follows the last entry belongs to the checksum of the compressed file.
    let mut plain = archive.into_inner();
    io::copy(&mut plain, &mut io::sink())?;
    Ok(())
}

/// The length and CRC-32C of what is left of an entry; its pages are checked on the way.
fn sum_up(
    entry: &mut impl Read,
    path: &[u8],
    mut check: Option<&mut PageCheck>,
    seen: &mut Seen,
) -> io::Result<(u64, u32)> {
    let (mut length, mut sum) = (0, 0);
    let mut piece = vec![0; 32 * PAGE];
    loop {
        let read = fill(entry, &mut piece)?;
        if read == 0 {
            return Ok((length, sum));
        }
        sum = crc32c::crc32c_append(sum, &piece[..read]);
        length += read as u64;
        let Some(check) = check.as_deref_mut() else { continue };
        for bad in check.bad_pages(&piece[..read]) {
            seen.bad_pages += 1;
            if seen.bad_pages <= BAD_PAGES_MAX {
                seen.faults
                    .push(format!("page {bad} of {} has a wrong checksum", String::from_utf8_lossy(path)));
            }
        }
    }
}

/// Reads until the buffer is full or the entry ends, so that every piece begins with a page.
fn fill(entry: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match entry.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// The checksums of one relation's pages.
struct PageCheck {
    start: Lsn,
    next: u32,
}

impl PageCheck {
    /// `None` when it is no file of a relation. `inside` is its path in the tar.
    fn of(path: &[u8], inside: &[u8], start: Lsn) -> Option<Self> {
        let slash = inside.iter().rposition(|byte| *byte == b'/')?;
        let in_tablespace = path.starts_with(b"pg_tblspc/");
        let holds = exclude::holds_relations(&inside[..slash]);
        let relation = exclude::relation(&inside[slash + 1..]).filter(|_| holds || in_tablespace)?;
        Some(PageCheck { start, next: relation.segment.checked_mul(PAGES)? })
    }

    /// The numbers of the pages that are not sound. A part of a page at the end of a file is none.
    fn bad_pages(&mut self, bytes: &[u8]) -> Vec<u32> {
        let (pages, _) = bytes.as_chunks::<PAGE>();
        let first = self.next;
        self.next = first.saturating_add(u32::try_from(pages.len()).unwrap_or(u32::MAX));
        (first..)
            .zip(pages)
            .filter(|(block, page)| !page::is_sound(*page, *block, self.start))
            .map(|(block, _)| block)
            .collect()
    }
}
