//! `wal-fetch` on a disk that is full to the last byte: no torn file, a reason, an exit status that stops a recovery instead of
//! ending it, and it goes on when there is room again. These tests mount a small disk, which root alone may do: anybody else
//! sees them fail.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use outrider_archive::{Layout, Shipper};
use outrider_restore::client::{self, Exit, Reader};
use outrider_restore::{AheadOptions, Fetcher, Server, ServerOptions};
use outrider_store::{Metadata, Store};
use outrider_wal::{SegmentSize, WalFileName};
use tempfile::TempDir;

use super::bench::{Bench, names, wait_until};
use super::embedded::{Embedded, Obedience};
use super::pg_wal::{SERVER, SIZE, SYSTEM_IDENTIFIER, segment, ship_options};
use super::postgres::Postgres;
use super::processes::{AgentProcess, archive_command, recovery_command};
use super::restoring::gzip;
use super::shipping::{all_archived, fill, one, primary};
use super::small_disk::SmallDisk;

/// Whole segments of the archive, a MiB each; of the one behind them half was streamed.
const SEGMENTS: u32 = 12;
/// MiB: for all of them, and for what is read ahead.
const ROOM: u32 = 18;

fn name(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

fn content(number: u32) -> Vec<u8> {
    let mut whole = segment(&name(number), number as u8);
    if number > SEGMENTS {
        whole[SIZE.bytes() as usize / 2..].fill(0);
    }
    whole
}

/// An agent's socket beside a small disk.
struct Scene {
    _bench: Bench,
    store: Arc<dyn Store>,
    pg_wal: PathBuf,
    ahead: PathBuf,
    _server: Server,
    disk: SmallDisk,
    elsewhere: TempDir,
}

impl Scene {
    /// `pg_wal` and what is read ahead lie on the small disk or elsewhere.
    async fn new(pg_wal_is_small: bool, ahead_is_small: bool) -> Self {
        let (bench, elsewhere) = (Bench::directory(), tempfile::tempdir().unwrap());
        let store = bench.store();
        let layout = Layout::new(SERVER).unwrap();
        for number in 1..=SEGMENTS {
            let key = format!("{SERVER}/wals/0000000100000000/{}.gz", name(number));
            put(&*store, &key, gzip(&content(number))).await;
        }
        let Ok(WalFileName::Segment(last)) = name(SEGMENTS + 1).parse() else { panic!() };
        let half = SIZE.bytes() / 2;
        let chunk = layout.stream_chunk(last, 0, half);
        put(&*store, &chunk, gzip(&content(SEGMENTS + 1)[..half as usize])).await;

        let disk = SmallDisk::mount(&elsewhere.path().join("disk"), ROOM);
        let place = |is_small: bool, name: &str| {
            let place = if is_small { disk.path() } else { elsewhere.path() }.join(name);
            std::fs::create_dir(&place).unwrap();
            place
        };
        let (pg_wal, ahead) = (place(pg_wal_is_small, "pg_wal"), place(ahead_is_small, "ahead"));
        std::fs::create_dir(pg_wal.join("archive_status")).unwrap();
        let reading = AheadOptions { directory: ahead.clone(), segments: 4 };
        let fetcher = Fetcher::reading_ahead(store.clone(), layout, reading);
        fetcher.expect_system_identifier(SYSTEM_IDENTIFIER);
        let shipper = Shipper::start(ship_options(&pg_wal), store.clone());
        let socket = elsewhere.path().join("agent.sock");
        let server = ServerOptions { socket, pg_wal: pg_wal.clone() };
        let server = Server::start(server, shipper, fetcher).await.unwrap();
        Scene { _bench: bench, store, disk, elsewhere, pg_wal, ahead, _server: server }
    }

    fn target(&self) -> PathBuf {
        self.pg_wal.join("RECOVERYXLOG")
    }

    async fn fetch(&self, number: u32, reader: Reader) -> Exit {
        let (socket, target) = (self.elsewhere.path().join("agent.sock"), self.target());
        let fetch = move || client::fetch(&socket, &name(number), &target, reader);
        tokio::task::spawn_blocking(fetch).await.unwrap()
    }

    /// It came whole; PostgreSQL keeps it under its own name, so the room is not free again.
    fn keep(&self, number: u32) {
        assert!(std::fs::read(self.target()).unwrap() == content(number), "{number}");
        std::fs::rename(self.target(), self.pg_wal.join(name(number))).unwrap();
    }

    /// Fetches up to this one.
    async fn recover(&self, from: u32, to: u32) {
        for number in from..=to {
            assert_eq!(
                self.fetch(number, Reader::Recovery).await,
                Exit { code: 0, message: None },
                "{number}"
            );
            self.keep(number);
        }
    }

    async fn something_is_ahead(&self) {
        wait_until("something is read ahead", async || {
            names(&self.ahead).iter().any(|name| {
                let length = std::fs::metadata(self.ahead.join(name)).map(|found| found.len());
                length.is_ok_and(|length| length == SIZE.bytes())
            })
        })
        .await;
    }

    /// A recovery stops, a standby tries again; both say why, and nothing half is there, not even beside.
    async fn is_refused(&self, number: u32) {
        for (reader, code) in [(Reader::Recovery, 254), (Reader::Standby, 1)] {
            let exit = self.fetch(number, reader).await;
            self.judge(number, &exit, code).await;
        }
        let fetcher = Fetcher::new(self.store.clone(), Layout::new(SERVER).unwrap());
        let exit =
            client::fetch_without_agent(&fetcher, &name(number), &self.target(), Reader::Recovery).await;
        self.judge(number, &exit, 254).await;
    }

    async fn judge(&self, number: u32, exit: &Exit, code: u8) {
        let message = exit.message.clone().unwrap_or_default();
        assert_eq!(exit.code, code, "{number}: {message}");
        assert!(message.contains(&name(number)) && message.contains("No space left on device"), "{message}");
        wait_until("nothing half is left", async || {
            let left = names(&self.pg_wal).into_iter().chain(names(&self.ahead));
            !left.into_iter().any(|name| name.ends_with(".tmp") || name.starts_with("RECOVERY"))
        })
        .await;
    }
}

async fn put(store: &dyn Store, key: &str, bytes: Vec<u8>) {
    store.put_if_absent(key, Bytes::from(bytes).into(), &Metadata::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_a_recovery_that_reads_ahead_until_there_is_room() {
    let scene = Scene::new(true, true).await;
    scene.recover(1, 4).await;
    scene.something_is_ahead().await;
    scene.disk.fill();
    // What is here already only has to be renamed.
    let mut number = 5;
    loop {
        let exit = scene.fetch(number, Reader::Recovery).await;
        if exit.code != 0 {
            scene.judge(number, &exit, 254).await;
            break;
        }
        scene.keep(number);
        number += 1;
        assert!(number <= 9, "the disk is not full");
    }
    assert!(number > 5, "what was read ahead is of no use");
    // What went away for the one that did not come made room for as much at the most.
    scene.disk.empty();
    scene.disk.fill();
    scene.is_refused(number).await;
    scene.disk.empty();
    scene.recover(number, SEGMENTS).await;
    scene.disk.fill();
    scene.is_refused(SEGMENTS + 1).await;
    scene.disk.empty();
    scene.recover(SEGMENTS + 1, SEGMENTS + 1).await;
    assert_eq!(scene.fetch(SEGMENTS + 2, Reader::Recovery).await, Exit { code: 1, message: None });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_ahead_gives_way_to_what_is_asked_for() {
    let scene = Scene::new(true, true).await;
    scene.recover(1, 4).await;
    scene.something_is_ahead().await;
    scene.disk.fill();
    scene.recover(SEGMENTS, SEGMENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_ahead_on_another_disk_is_copied_whole_or_not_at_all() {
    let scene = Scene::new(true, false).await;
    scene.recover(1, 4).await;
    scene.something_is_ahead().await;
    // Some goes in, so that a copy would be torn.
    scene.disk.fill_but(SIZE.bytes() / 2);
    scene.is_refused(5).await;
    scene.disk.empty();
    scene.recover(5, SEGMENTS + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_room_to_read_ahead_stops_nothing() {
    let scene = Scene::new(false, true).await;
    scene.recover(1, 2).await;
    scene.disk.fill_but(SIZE.bytes() / 2);
    scene.recover(3, SEGMENTS + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_recovery_on_a_full_disk_stops_and_goes_on_to_its_end_when_there_is_room() {
    let embedded = Embedded::start(Obedience::Full);
    let nowhere = Postgres::nowhere();
    let socket = nowhere.socket();
    let (mut primary, client, identifier) = primary(&archive_command(&socket)).await;
    let size = SegmentSize::DEFAULT;
    let agent = AgentProcess::start(&embedded.endpoint(), &primary.pg_wal(), &socket, identifier, size);
    let around = tempfile::tempdir().unwrap();
    open_to_everybody(around.path());
    let disk = SmallDisk::mount(&around.path().join("disk"), 200);
    let mut copy = Postgres::nowhere();
    std::os::unix::fs::symlink(disk.path(), copy.data()).unwrap();
    tokio::task::block_in_place(|| copy.clone_of(&primary));
    fill(&client, 4).await;
    all_archived(&primary, &client).await;
    let rows: i64 = one(&client, "SELECT count(*) FROM t").await;
    drop((client, agent));
    primary.stop().await;

    copy.configure(&format!("archive_mode = off\nrestore_command = '{}'", recovery_command(&socket)));
    std::fs::write(copy.data().join("recovery.signal"), "").unwrap();
    let _agent = AgentProcess::start(&embedded.endpoint(), &copy.pg_wal(), &socket, identifier, size);
    // For the first segment, and not for another.
    disk.fill_but(size.bytes() * 3 / 2);
    copy.start();
    let log = copy.ended().await;
    assert!(log.contains("No space left on device") && log.contains("exit code 254"), "{log}");
    assert!(copy.data().join("recovery.signal").exists(), "it was opened at the wrong place: {log}");
    disk.empty();
    copy.start();
    let opened = copy.connect().await;
    wait_until("it is opened", async || !one::<bool>(&opened, "SELECT pg_is_in_recovery()").await).await;
    assert_eq!(one::<i64>(&opened, "SELECT count(*) FROM t").await, rows);
    drop(opened);
    copy.stop().await;
}

fn open_to_everybody(directory: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory, mode).unwrap();
}
