//! A `pg_wal` made by hand: segments with true headers and any content, marked as ready.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrider_archive::{Compression, Layout, Leadership, ShipOptions, Shipper, Status};
use outrider_store::Store;
use outrider_wal::{SegmentSize, TimelineId, WalFileName};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use super::PATIENCE;

/// The smallest that PostgreSQL allows, so that the tests are quick.
pub(crate) const SIZE: SegmentSize = SegmentSize::new(1 << 20).unwrap();
pub(crate) const SYSTEM_IDENTIFIER: u64 = 7_300_000_000_000_000_001;
pub(crate) const MEMBER: &str = "a";
pub(crate) const SERVER: &str = "homepage";

pub(crate) struct PgWal {
    directory: TempDir,
}

impl PgWal {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("archive_status")).unwrap();
        PgWal { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes the file as a standby does that received it: marked as done, whatever the archive has.
    pub(crate) fn add_done(&self, name: &str, content: &[u8]) {
        std::fs::write(self.file(name), content).unwrap();
        std::fs::write(self.path().join("archive_status").join(format!("{name}.done")), "").unwrap();
    }

    /// Writes the file and marks it as PostgreSQL does: the file first.
    pub(crate) fn add(&self, name: &str, content: &[u8]) {
        std::fs::write(self.file(name), content).unwrap();
        std::fs::write(self.path().join("archive_status").join(format!("{name}.ready")), "").unwrap();
    }

    pub(crate) fn shipper(&self, store: Arc<dyn Store>) -> Shipper {
        self.shipper_of(MEMBER, store)
    }

    pub(crate) fn shipper_of(&self, member: &str, store: Arc<dyn Store>) -> Shipper {
        let options = ShipOptions { member: member.to_owned(), ..ship_options(self.path()) };
        Shipper::start(options, store)
    }
}

pub(crate) fn ship_options(pg_wal: &Path) -> ShipOptions {
    ShipOptions {
        pg_wal: pg_wal.to_owned(),
        member: MEMBER.to_owned(),
        layout: Layout::new(SERVER).unwrap(),
        compression: Compression::GZIP,
        parallelism: NonZeroUsize::new(3).unwrap(),
    }
}

/// A segment with this name whose rest is made of `fill`.
///
/// Its last page is where it belongs.
pub(crate) fn segment(name: &str, fill: u8) -> Vec<u8> {
    let (WalFileName::Segment(segment) | WalFileName::Partial(segment)) = name.parse().unwrap() else {
        panic!("{name} is no segment");
    };
    let mut bytes = vec![fill; SIZE.bytes() as usize];
    // XLogLongPageHeaderData of PostgreSQL 15.
    bytes[0..2].copy_from_slice(&0xD110u16.to_ne_bytes());
    bytes[2..4].copy_from_slice(&2u16.to_ne_bytes());
    bytes[4..8].copy_from_slice(&segment.timeline.get().to_ne_bytes());
    bytes[8..16].copy_from_slice(&segment.start(SIZE).get().to_ne_bytes());
    bytes[16..24].fill(0);
    bytes[24..32].copy_from_slice(&SYSTEM_IDENTIFIER.to_ne_bytes());
    bytes[32..36].copy_from_slice(&(SIZE.bytes() as u32).to_ne_bytes());
    bytes[36..40].copy_from_slice(&8192u32.to_ne_bytes());
    let last = bytes.len() - 8192;
    let address = segment.start(SIZE).get() + last as u64;
    bytes[last + 8..last + 16].copy_from_slice(&address.to_ne_bytes());
    bytes
}

pub(crate) fn leadership(term: u64) -> Leadership {
    Leadership { term, system_identifier: SYSTEM_IDENTIFIER, segment_size: SIZE, timeline: TimelineId::FIRST }
}

/// Waits until the shipper shows this.
pub(crate) async fn shown(
    status: &mut watch::Receiver<Status>,
    what: &str,
    condition: impl FnMut(&Status) -> bool,
) -> Status {
    let waited = timeout(PATIENCE, status.wait_for(condition)).await.map(|found| found.unwrap().clone());
    waited.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}; the status is {:?}", status.borrow()))
}
