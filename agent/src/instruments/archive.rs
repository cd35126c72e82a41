//! The shipping and streaming of WAL while this member leads, the way back for recoveries, and what waits.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use outrider_archive::{
    FlushPosition, Leadership, ShipOptions, Shipper, StreamOptions, StreamStatus, Streamer,
};
use outrider_postgres::{FlushedWal, Observation, Settings};
use outrider_restore::{AheadOptions, Fetcher, Server, ServerOptions};
use outrider_store::Store;
use outrider_wal::{Lsn, SegmentSize, TimelineId, WalFileName};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use crate::{clock, config};

/// Between two counts of what the primary has finished while nothing is shipped.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// The shipping and streaming of WAL, and the door for `wal-push` and `wal-fetch`.
pub(crate) struct Archive {
    store: Arc<dyn Store>,
    shipper: Shipper,
    /// `None` when `archive.stream_interval` is 0.
    streamer: Option<Streamer>,
    /// How far WAL was flushed when the round looked last.
    looked: watch::Sender<Option<(TimelineId, Lsn)>>,
    fetcher: Fetcher,
    server: Server,
    pg_wal: PathBuf,
    /// What the primary has finished, and when that was counted.
    counted: Mutex<Option<(Instant, Finished)>>,
}

impl Archive {
    pub(super) async fn open(
        config: &config::Archive,
        member: &str,
        settings: &Arc<Settings>,
    ) -> anyhow::Result<Self> {
        let pg_wal = settings.data_directory.join("pg_wal");
        let flushed = FlushedWal::new(settings.clone());
        let (looked, _) = watch::channel(None);
        let store: Arc<dyn Store> = config.open_store()?;
        let ahead = AheadOptions {
            directory: settings.state_directory.join("wal-ahead"),
            segments: config.fetch_ahead,
        };
        let fetcher = Fetcher::reading_ahead(store.clone(), config.layout.clone(), ahead);
        let ship = ShipOptions {
            pg_wal: pg_wal.to_owned(),
            member: member.to_owned(),
            layout: config.layout.clone(),
            compression: config.compression,
            parallelism: config.parallelism,
        };
        let shipper = Shipper::start(ship, store.clone());
        let streamer = config.stream_interval.map(|interval| {
            let (pg_wal, layout) = (pg_wal.to_owned(), config.layout.clone());
            let options = StreamOptions { pg_wal, layout, interval };
            let position = Flushed { asked: flushed, looked: looked.clone() };
            Streamer::start(options, store.clone(), Arc::new(position), shipper.clone())
        });
        let options = ServerOptions { socket: config.socket.clone(), pg_wal: pg_wal.to_owned() };
        let server = Server::start(options, shipper.clone(), fetcher.clone()).await?;
        Ok(Archive { store, shipper, streamer, looked, fetcher, server, pg_wal, counted: Mutex::default() })
    }

    /// Ships while this member leads, and only then. `term`: of the lease that is held.
    pub(crate) fn follow(&self, term: Option<u64>, postgres: Option<&Observation>) {
        if let Some(seen) = postgres {
            self.fetcher.expect_system_identifier(seen.system_identifier);
        }
        let segment_size = postgres.and_then(|seen| SegmentSize::new(seen.wal_segment_size));
        match (term, postgres.filter(|seen| seen.is_primary()), segment_size) {
            (Some(term), Some(seen), Some(segment_size)) => {
                let (system_identifier, timeline) = (seen.system_identifier, seen.timeline);
                let leadership = Leadership { term, system_identifier, segment_size, timeline };
                if self.shipper.enable(leadership) {
                    // What a standby read ahead only takes bandwidth and room now.
                    self.fetcher.forget_ahead();
                }
                if let Some(streamer) = &self.streamer {
                    streamer.enable(leadership);
                }
                self.looked.send_replace(Some((timeline, seen.position())));
            }
            (None, _, _) => {
                self.shipper.disable();
                if let Some(streamer) = &self.streamer {
                    streamer.disable();
                }
            }
            // It holds the lease and Postgres is not up: what is finished is shipped on.
            (Some(_), _, _) => {}
        }
    }

    /// Whether Postgres is being stopped, which its archiver must not hold up.
    pub(crate) fn set_stopping(&self, stopping: bool) {
        self.server.set_stopping(stopping);
    }

    /// What ships.
    pub(crate) fn shipper(&self) -> Shipper {
        self.shipper.clone()
    }

    /// Where it is kept.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// What it does. A queue that is off, as while another writes to the archive, has seen nothing: then what waits is what
    /// the primary itself has marked as finished.
    pub(crate) fn status(&self, postgres: Option<&Observation>) -> outrider_archive::Status {
        let mut status = self.shipper.status().borrow().clone();
        if status.term.is_none()
            && let Some(primary) = postgres.filter(|seen| seen.is_primary())
        {
            let finished = self.finished(primary.wal_segment_size);
            (status.waiting, status.waiting_bytes, status.oldest_waiting) =
                (finished.files, finished.bytes, finished.oldest);
        }
        status
    }

    /// Counted every few seconds: a long outage leaves many.
    fn finished(&self, segment_size: u64) -> Finished {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        match &*counted {
            Some((at, finished)) if at.elapsed() < COUNT_INTERVAL => *finished,
            Some(_) | None => {
                let finished = finished(&self.pg_wal.join("archive_status"), segment_size);
                *counted = Some((clock::monotonic(), finished));
                finished
            }
        }
    }

    /// How far the unfinished segment is streamed; `None` when it is not.
    pub(crate) fn stream_status(&self) -> Option<StreamStatus> {
        self.streamer.as_ref().map(|streamer| streamer.status().borrow().clone())
    }
}

/// WAL files that PostgreSQL has finished and nobody has archived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Finished {
    files: u64,
    bytes: u64,
    oldest: Option<Duration>,
}

/// Those that are marked so. What cannot be read is not there.
fn finished(archive_status: &Path, segment_size: u64) -> Finished {
    let mut found = Finished::default();
    for entry in std::fs::read_dir(archive_status).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".ready")) else { continue };
        let Ok(name) = name.parse::<WalFileName>() else { continue };
        found.files += 1;
        found.bytes +=
            if matches!(name, WalFileName::Segment(_) | WalFileName::Partial(_)) { segment_size } else { 0 };
        let marked = entry.metadata().and_then(|it| it.modified()).ok();
        let marked = marked.and_then(|marked| Timestamp::try_from(marked).ok());
        let age =
            marked.map(|marked| Duration::try_from(clock::wall().duration_since(marked)).unwrap_or_default());
        found.oldest = found.oldest.max(age);
    }
    found
}

/// The local primary, as the streaming of WAL asks it, or as the round does.
#[derive(Debug)]
struct Flushed {
    asked: FlushedWal,
    looked: watch::Sender<Option<(TimelineId, Lsn)>>,
}

#[async_trait]
impl FlushPosition for Flushed {
    async fn flushed(&self) -> Option<(TimelineId, Lsn)> {
        let position = self.asked.position().await;
        // That Postgres does not answer is the round's to tell.
        position.inspect_err(|fault| debug!(%fault, "the flushed position is unknown")).ok().flatten()
    }

    async fn found_anyway(&self) -> (TimelineId, Lsn) {
        let mut looked = self.looked.subscribe();
        loop {
            // The sender is here, so it does not end.
            if looked.changed().await.is_ok()
                && let Some(found) = *looked.borrow_and_update()
            {
                return found;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrider_archive::Compression;
    use outrider_postgres::Role;
    use outrider_restore::{Fetched, Patience};
    use outrider_store::Location;
    use outrider_wal::SegmentName;

    use super::*;
    use crate::sample;

    const SIZE: SegmentSize = SegmentSize::new(1 << 20).expect("it is one");
    const PATIENCE: Duration = Duration::from_secs(30);

    fn segment(number: u64) -> SegmentName {
        SegmentName::numbered(TimelineId::FIRST, number, SIZE)
    }

    /// One of the server 7, with nothing in it but its header.
    fn content(segment: SegmentName) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        bytes[0..2].copy_from_slice(&0xD110u16.to_ne_bytes());
        bytes[2..4].copy_from_slice(&2u16.to_ne_bytes());
        bytes[4..8].copy_from_slice(&1u32.to_ne_bytes());
        bytes[8..16].copy_from_slice(&segment.start(SIZE).get().to_ne_bytes());
        bytes[24..32].copy_from_slice(&7u64.to_ne_bytes());
        bytes[32..36].copy_from_slice(&(1u32 << 20).to_ne_bytes());
        bytes
    }

    fn seen(role: Role) -> Observation {
        Observation { role, wal_segment_size: SIZE.bytes(), ..sample::observation() }
    }

    #[test]
    fn what_waits_is_what_postgres_has_finished() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(finished(&directory.path().join("absent"), SIZE.bytes()), Finished::default());
        for file in [
            "000000010000000000000001.ready",
            "000000010000000000000002.done",
            "000000010000000000000003.ready",
            "00000002.history.ready",
            "notes.ready",
        ] {
            std::fs::write(directory.path().join(file), "").unwrap();
        }
        let found = finished(directory.path(), SIZE.bytes());
        assert_eq!((found.files, found.bytes), (3, 2 << 20));
        assert!(found.oldest.is_some());
    }

    #[tokio::test]
    async fn what_a_queue_that_is_off_has_not_seen_is_counted_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let config = config::sample::config(None);
        let mut settings = config.postgres;
        settings.state_directory = directory.path().join("state");
        settings.data_directory = directory.path().join("data");
        let marks = settings.data_directory.join("pg_wal/archive_status");
        std::fs::create_dir_all(&marks).unwrap();
        std::fs::write(marks.join("000000010000000000000001.ready"), "").unwrap();
        let mut archive = config.archive.unwrap();
        archive.location = Location::Directory { path: directory.path().join("archive") };
        archive.socket = directory.path().join("archive.sock");
        let archive = Archive::open(&archive, "p1", &Arc::new(settings)).await.unwrap();
        let primary = seen(Role::Primary { flushed: Lsn::new(8 << 20) });
        assert_eq!(archive.status(Some(&primary)).waiting, 1);
        // A standby archives nothing; its marks are of a time when it led, and its primary's to ship.
        assert_eq!(archive.status(Some(&seen(sample::observation().role))).waiting, 0);
    }

    #[tokio::test]
    async fn a_promoted_member_throws_away_what_it_has_read_ahead() {
        let directory = tempfile::tempdir().unwrap();
        let config = config::sample::config(None);
        let mut settings = config.postgres;
        settings.state_directory = directory.path().join("state");
        let mut archive = config.archive.unwrap();
        let store = directory.path().join("archive");
        archive.location = Location::Directory { path: store.clone() };
        archive.compression = Compression::None;
        archive.socket = directory.path().join("archive.sock");
        for number in 1..=8 {
            let key = archive.layout.wal(WalFileName::Segment(segment(number)), Compression::None);
            let path = store.join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content(segment(number))).unwrap();
        }
        let archive = Archive::open(&archive, "p1", &Arc::new(settings)).await.unwrap();
        archive.follow(None, Some(&seen(sample::observation().role)));
        for number in 1..=3 {
            let name = WalFileName::Segment(segment(number));
            let to = directory.path().join("fetched");
            let fetched = archive.fetcher.fetch(name, &to, None, Patience::Standby).await.unwrap();
            assert_eq!(fetched, Fetched::Written { bytes: SIZE.bytes() });
        }
        let ahead = directory.path().join("state/wal-ahead");
        let files = || std::fs::read_dir(&ahead).unwrap().count();
        let until = async |is: fn(usize) -> bool| {
            while !is(files()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, until(|files| files > 0)).await.expect("some are read ahead");
        archive.follow(Some(1), Some(&seen(Role::Primary { flushed: Lsn::new(8 << 20) })));
        tokio::time::timeout(PATIENCE, until(|files| files == 0)).await.expect("nothing is left of them");
    }
}
