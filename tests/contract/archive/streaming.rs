//! The segment that is being written reaches the archive in chunks, and they go when it is there whole.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_archive::{FlushPosition, Layout, Shipper, StreamOptions, StreamStatus, Streamer};
use outrider_bed::{PROGRAM_LIMIT, finish};
use outrider_restore::{Fetched, Fetcher, Patience};
use outrider_store::{Metadata, Store};
use outrider_wal::{Lsn, SegmentName, TimelineId, WalFileName};
use tokio::sync::watch;
use tokio::time::timeout;

use super::PATIENCE;
use super::bench::{Bench, gunzip, keys, read, wait_until};
use super::pg_wal::{PgWal, SERVER, SIZE, leadership, segment};
use super::watched::Watched;

super::on_every_store!(
    chunks_join_without_a_hole_and_go_when_the_segment_is_archived,
    a_restart_in_the_middle_goes_on_where_it_ended,
    what_an_earlier_agent_left_goes_when_the_archive_has_its_segment,
    chunks_of_a_left_timeline_stay_until_its_partial_segment_is_archived,
    other_bytes_under_the_name_of_a_chunk_stop_the_segment_and_stay,
);

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const THIRD: &str = "000000010000000000000003";
/// Short, so that the tests are quick; no test depends on it.
const INTERVAL: Duration = Duration::from_millis(5);

/// A PostgreSQL that has flushed what the test says, and counts how often it is asked.
#[derive(Debug)]
struct Flushed {
    position: watch::Sender<Option<(TimelineId, Lsn)>>,
    asked: AtomicU64,
}

#[async_trait]
impl FlushPosition for Flushed {
    async fn flushed(&self) -> Option<(TimelineId, Lsn)> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        *self.position.borrow()
    }
}

struct Stage {
    pg_wal: PgWal,
    store: Arc<Watched>,
    position: Arc<Flushed>,
    shipper: Shipper,
    streamer: Streamer,
}

impl Stage {
    /// A member that leads and has flushed nothing yet.
    fn new(store: Arc<dyn Store>) -> Self {
        let pg_wal = PgWal::new();
        // What the shipper asks is not counted.
        let shipper = pg_wal.shipper(store.clone());
        shipper.enable(leadership(1));
        let store = Watched::new(store);
        let position = Arc::new(Flushed { position: watch::Sender::new(None), asked: AtomicU64::new(0) });
        let streamer = streamer(&pg_wal, store.clone(), position.clone(), &shipper);
        streamer.enable(leadership(1));
        Stage { pg_wal, store, position, shipper, streamer }
    }

    /// PostgreSQL writes a segment and has flushed so many bytes of it.
    fn flush(&self, name: &str, bytes: u64) {
        let segment = parsed(name);
        std::fs::write(self.pg_wal.file(name), content(name)).unwrap();
        let lsn = Lsn::new(segment.start(SIZE).get() + bytes);
        self.position.position.send_replace(Some((segment.timeline, lsn)));
    }

    async fn streamed(&self, name: &str, bytes: u64) -> StreamStatus {
        let lsn = Lsn::new(parsed(name).start(SIZE).get() + bytes);
        self.shown(&format!("{name} is streamed to {bytes}"), |status| {
            status.streamed_to == Some(lsn) && status.behind().is_zero()
        })
        .await
    }

    async fn shown(&self, what: &str, condition: impl FnMut(&StreamStatus) -> bool) -> StreamStatus {
        let mut status = self.streamer.status();
        let waited = timeout(PATIENCE, status.wait_for(condition)).await.map(|found| found.unwrap().clone());
        waited.unwrap_or_else(|_| {
            panic!("not within {PATIENCE:?}: {what}; {:?}", self.streamer.status().borrow())
        })
    }

    /// PostgreSQL has been asked so many times more.
    async fn looks(&self, count: u64) {
        let seen = self.position.asked.load(Ordering::SeqCst);
        let enough = async || self.position.asked.load(Ordering::SeqCst) >= seen + count;
        wait_until("it is asked for its position", enough).await;
    }

    /// Another agent at the same place.
    fn restart(&mut self) {
        self.streamer = streamer(&self.pg_wal, self.store.clone(), self.position.clone(), &self.shipper);
        self.shipper.enable(leadership(2));
        self.streamer.enable(leadership(2));
    }

    async fn gone(&self, name: &str) {
        wait_until("the chunks are gone", async || chunks(&*self.store, name).await.is_empty()).await;
    }
}

fn streamer(pg_wal: &PgWal, store: Arc<dyn Store>, position: Arc<Flushed>, shipper: &Shipper) -> Streamer {
    let options = StreamOptions {
        pg_wal: pg_wal.path().to_owned(),
        layout: Layout::new(SERVER).unwrap(),
        interval: INTERVAL,
    };
    Streamer::start(options, store, position, shipper.clone())
}

fn parsed(name: &str) -> SegmentName {
    let WalFileName::Segment(segment) = name.parse().unwrap() else { panic!("{name}") };
    segment
}

/// A segment of which no piece is like another.
fn content(name: &str) -> Vec<u8> {
    let mut bytes = segment(name, 0);
    let seed = parsed(name).number(SIZE) as u32;
    for (at, byte) in bytes.iter_mut().enumerate().skip(40) {
        *byte = ((at as u32 ^ seed).wrapping_mul(2_654_435_761) >> 16) as u8;
    }
    bytes
}

async fn chunks(store: &dyn Store, name: &str) -> Vec<String> {
    let prefix = format!("{SERVER}/outrider/stream/{name}/");
    keys(store).await.into_iter().filter(|key| key.starts_with(&prefix)).collect()
}

/// A PostgreSQL that answers nobody but who looks at it anyway.
#[derive(Debug)]
struct Looked(watch::Sender<Option<(TimelineId, Lsn)>>);

#[async_trait]
impl FlushPosition for Looked {
    async fn flushed(&self) -> Option<(TimelineId, Lsn)> {
        None
    }

    async fn found_anyway(&self) -> (TimelineId, Lsn) {
        let mut looked = self.0.subscribe();
        looked.changed().await.unwrap();
        looked.borrow().unwrap()
    }
}

#[tokio::test]
async fn what_others_find_is_streamed_without_asking_again() {
    let bench = Bench::directory();
    let (pg_wal, store) = (PgWal::new(), bench.store());
    let shipper = pg_wal.shipper(store.clone());
    shipper.enable(leadership(1));
    let looked = watch::Sender::new(None);
    let options = StreamOptions {
        pg_wal: pg_wal.path().to_owned(),
        layout: Layout::new(SERVER).unwrap(),
        interval: INTERVAL,
    };
    let streamer = Streamer::start(options, store.clone(), Arc::new(Looked(looked.clone())), shipper.clone());
    streamer.enable(leadership(1));
    std::fs::write(pg_wal.file(FIRST), content(FIRST)).unwrap();
    let segment = parsed(FIRST);
    for bytes in [200, 700, 9000] {
        let lsn = Lsn::new(segment.start(SIZE).get() + bytes);
        wait_until("it is streamed", async || {
            looked.send_replace(Some((segment.timeline, lsn)));
            streamer.status().borrow().streamed_to == Some(lsn)
        })
        .await;
    }
    assert!(joined(&*store, FIRST).await == content(FIRST)[..9000]);
}

/// What a restore would make of the chunks: their bytes from the start of the segment to the first hole.
async fn joined(store: &dyn Store, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for key in chunks(store, name).await {
        let (_, range) = key.trim_end_matches(".gz").rsplit_once('/').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|offset| usize::from_str_radix(offset, 16).unwrap());
        let chunk = gunzip(&read(store, &key).await.unwrap());
        assert_eq!(chunk.len(), to - from, "{key}");
        if from > bytes.len() {
            break;
        }
        let known = bytes.len() - from;
        assert!(bytes[from..] == chunk[..known.min(chunk.len())], "{key} differs from what it overlaps");
        bytes.extend(chunk.iter().skip(known));
    }
    bytes
}

async fn put_chunk(store: &dyn Store, name: &str, to: usize, bytes: &[u8]) {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    let key = format!("{SERVER}/outrider/stream/{name}/00000000-{to:08X}.gz");
    let body = Bytes::from(encoder.finish().unwrap()).into();
    store.put_if_absent(&key, body, &Metadata::new()).await.unwrap();
}

async fn chunks_join_without_a_hole_and_go_when_the_segment_is_archived(bench: &Bench) {
    let stage = Stage::new(bench.store());
    for bytes in [100, 101, 5000, 300_000] {
        stage.flush(FIRST, bytes);
        stage.streamed(FIRST, bytes).await;
    }
    assert_eq!(chunks(&*stage.store, FIRST).await.len(), 4);
    assert!(joined(&*stage.store, FIRST).await == content(FIRST)[..300_000]);

    // PostgreSQL goes on to the next but one, and has finished the two.
    stage.flush(SECOND, 0);
    stage.flush(THIRD, 700);
    let behind = stage.shown("the rest of finished segments counts", |status| {
        status.segment == Some(parsed(THIRD)) && status.counters.chunks == 5
    });
    let behind = behind.await;
    assert_eq!(behind.streamed_to, Some(Lsn::new(parsed(FIRST).start(SIZE).get() + 300_000)));
    assert!(behind.behind() > Duration::ZERO && behind.behind_bytes() > SIZE.bytes());
    for name in [FIRST, SECOND] {
        stage.pg_wal.add(name, &content(name));
    }
    stage.streamed(THIRD, 700).await;
    stage.gone(FIRST).await;
    assert!(joined(&*stage.store, THIRD).await == content(THIRD)[..700]);
    let whole = read(&*stage.store, &format!("{SERVER}/wals/0000000100000000/{FIRST}.gz")).await.unwrap();
    assert!(gunzip(&whole) == content(FIRST));
}

async fn a_restart_in_the_middle_goes_on_where_it_ended(bench: &Bench) {
    let mut stage = Stage::new(bench.store());
    for bytes in [100, 5000] {
        stage.flush(FIRST, bytes);
        stage.streamed(FIRST, bytes).await;
    }
    stage.restart();
    stage.flush(FIRST, 9000);
    stage.streamed(FIRST, 9000).await;
    let names: Vec<String> = chunks(&*stage.store, FIRST).await;
    assert!(names[2].ends_with("/00001388-00002328.gz"), "{names:?}");
    assert!(joined(&*stage.store, FIRST).await == content(FIRST)[..9000]);
}

async fn what_an_earlier_agent_left_goes_when_the_archive_has_its_segment(bench: &Bench) {
    let store = bench.store();
    for name in [FIRST, SECOND] {
        put_chunk(&*store, name, 600, &content(name)[..600]).await;
    }
    let whole = format!("{SERVER}/wals/0000000100000000/{FIRST}.zst");
    store.put_if_absent(&whole, Bytes::from_static(b"any").into(), &Metadata::new()).await.unwrap();
    // Where a base backup began is not the segment.
    let began = format!("{SERVER}/wals/0000000100000000/{SECOND}.00000028.backup.gz");
    store.put_if_absent(&began, Bytes::from_static(b"any").into(), &Metadata::new()).await.unwrap();

    let stage = Stage::new(store);
    stage.flush(THIRD, 10);
    stage.streamed(THIRD, 10).await;
    stage.gone(FIRST).await;
    assert_eq!(chunks(&*stage.store, SECOND).await.len(), 1);
    stage.pg_wal.add(SECOND, &content(SECOND));
    stage.gone(SECOND).await;
    assert_eq!(chunks(&*stage.store, THIRD).await.len(), 1);
}

async fn chunks_of_a_left_timeline_stay_until_its_partial_segment_is_archived(bench: &Bench) {
    let stage = Stage::new(bench.store());
    stage.flush(FIRST, 400);
    stage.streamed(FIRST, 400).await;
    let promoted = "000000020000000000000001";
    stage.flush(promoted, 900);
    stage.streamed(promoted, 900).await;
    stage.looks(3).await;
    assert_eq!(chunks(&*stage.store, FIRST).await.len(), 1);
    stage.pg_wal.add(&format!("{FIRST}.partial"), &content(FIRST));
    stage.gone(FIRST).await;
    assert!(joined(&*stage.store, promoted).await == content(promoted)[..900]);
}

async fn other_bytes_under_the_name_of_a_chunk_stop_the_segment_and_stay(bench: &Bench) {
    let store = bench.store();
    put_chunk(&*store, FIRST, 600, &[7; 600]).await;
    let stage = Stage::new(store);
    stage.flush(FIRST, 900);
    let status = stage.shown("the conflict", |status| status.conflict.is_some()).await;
    assert!(status.conflict.unwrap().contains("has other content"));
    stage.looks(3).await;
    assert_eq!(joined(&*stage.store, FIRST).await, [7; 600]);

    // More in the archive than was flushed here cannot be of this server either.
    put_chunk(&*stage.store, SECOND, 600, &content(SECOND)[..600]).await;
    let mut stage = stage;
    stage.flush(SECOND, 500);
    stage.restart();
    stage.shown("the other conflict", |status| status.conflict.is_some()).await;
    stage.flush(THIRD, 50);
    let status = stage.shown("the next segment", |status| status.segment == Some(parsed(THIRD))).await;
    assert_eq!(status.conflict, None);
    wait_until("it is streamed", async || joined(&*stage.store, THIRD).await.len() == 50).await;
}

/// What a fetch makes of a segment that was streamed up to 3000, where the server has this file of it.
async fn fetched_over(own: &[u8]) -> (Fetched, PgWal) {
    let bench = Bench::directory();
    let store = bench.store();
    let whole = content(SECOND);
    put_chunk(&*store, SECOND, 3000, &whole[..3000]).await;
    let pg_wal = PgWal::new();
    std::fs::write(pg_wal.file(SECOND), own).unwrap();
    let fetcher = Fetcher::new(store, Layout::new(SERVER).unwrap());
    let (name, target) = (SECOND.parse().unwrap(), pg_wal.file("RECOVERYXLOG"));
    let fetched = fetcher.fetch(name, &target, None, Patience::Standby).await.unwrap();
    (fetched, pg_wal)
}

#[tokio::test]
async fn what_was_streamed_never_takes_the_place_of_more_that_a_standby_has() {
    let mut own = content(SECOND);
    own[5000..].fill(0);
    let (fetched, pg_wal) = fetched_over(&own).await;
    assert_eq!(fetched, Fetched::Absent, "PostgreSQL would put it over what only this standby has");
    assert!(!pg_wal.file("RECOVERYXLOG").exists() && std::fs::read(pg_wal.file(SECOND)).unwrap() == own);
    // As much is enough: nothing is won.
    own[3000..].fill(0);
    assert_eq!(fetched_over(&own).await.0, Fetched::Absent);
}

#[tokio::test]
async fn what_was_streamed_serves_a_standby_that_has_less_or_an_older_file_of_that_name() {
    let mut less = content(SECOND);
    less[2999..].fill(0);
    for own in [less, content(THIRD), Vec::new()] {
        let (fetched, pg_wal) = fetched_over(&own).await;
        assert_eq!(fetched, Fetched::Written { bytes: SIZE.bytes() });
        assert!(std::fs::read(pg_wal.file("RECOVERYXLOG")).unwrap()[..3000] == content(SECOND)[..3000]);
    }
}

#[tokio::test]
async fn an_idle_server_costs_no_request() {
    let stage = Stage::new(Bench::directory().store());
    stage.flush(FIRST, 100);
    stage.streamed(FIRST, 100).await;
    stage.looks(2).await;
    let before = stage.store.requests();
    stage.looks(50).await;
    assert_eq!(stage.store.requests(), before);
    // Four: the survey, the list of the segment, the chunk.
    assert!(before <= 4, "{before} requests");
    assert_eq!(stage.streamer.status().borrow().counters.requests, before);
}

#[tokio::test]
async fn what_was_flushed_while_the_store_was_down_leaves_later_in_one_piece() {
    let bench = Bench::directory();
    let stage = Stage::new(bench.store());
    stage.flush(FIRST, 100);
    stage.streamed(FIRST, 100).await;
    stage.store.set_down(true);
    stage.flush(FIRST, 200);
    stage.shown("the failure", |status| status.store_failing && status.behind() > Duration::ZERO).await;
    stage.flush(FIRST, 90_000);
    stage.store.set_down(false);
    let status = stage.streamed(FIRST, 90_000).await;
    assert!(!status.store_failing && status.conflict.is_none());
    assert!(joined(&*stage.store, FIRST).await == content(FIRST)[..90_000]);
    assert!(chunks(&*stage.store, FIRST).await.len() <= 3);
}

#[tokio::test]
async fn a_chunk_whose_answer_was_lost_is_found_to_be_ours() {
    let bench = Bench::directory();
    let stage = Stage::new(bench.store());
    stage.store.set_loses_answers(true);
    stage.flush(FIRST, 200);
    stage.shown("the failure", |status| status.store_failing).await;
    assert_eq!(chunks(&*stage.store, FIRST).await.len(), 1);
    stage.flush(FIRST, 300);
    stage.store.set_loses_answers(false);
    let status = stage.streamed(FIRST, 300).await;
    assert_eq!((status.conflict, status.counters.chunks), (None, 2));
    assert!(joined(&*stage.store, FIRST).await == content(FIRST)[..300]);
}

#[tokio::test]
async fn many_small_chunks_become_one() {
    let bench = Bench::directory();
    let stage = Stage::new(bench.store());
    for count in 1..=64 {
        stage.flush(FIRST, 50 * count);
        stage.streamed(FIRST, 50 * count).await;
    }
    wait_until("one is left", async || chunks(&*stage.store, FIRST).await.len() == 1).await;
    assert!(joined(&*stage.store, FIRST).await == content(FIRST)[..3200]);
    stage.flush(FIRST, 4000);
    stage.streamed(FIRST, 4000).await;
    assert!(joined(&*stage.store, FIRST).await == content(FIRST)[..4000]);
}

#[tokio::test]
async fn nothing_is_streamed_of_another_server_or_without_the_lease() {
    let bench = Bench::directory();
    let stage = Stage::new(bench.store());
    let mut other = content(FIRST);
    other[24] ^= 1;
    stage.flush(FIRST, 200);
    std::fs::write(stage.pg_wal.file(FIRST), other).unwrap();
    // The right bytes may have left before they were replaced: those of the second cannot.
    stage.streamer.disable();
    stage.shown("it ended", |status| status.term.is_none()).await;
    let before = stage.store.requests();
    stage.flush(SECOND, 300);
    assert_eq!(stage.store.requests(), before);
    let mut other = content(SECOND);
    other[24] ^= 1;
    std::fs::write(stage.pg_wal.file(SECOND), other).unwrap();
    stage.shipper.enable(leadership(2));
    stage.streamer.enable(leadership(2));
    let status = stage.shown("the fault", |status| status.last_failure.is_some()).await;
    assert!(status.last_failure.unwrap().0.contains("system identifier"));
    assert!(chunks(&*stage.store, SECOND).await.is_empty());
}

#[tokio::test]
async fn nothing_is_asked_of_an_archive_that_is_not_claimed_for_this_term() {
    let bench = Bench::directory();
    let mut stage = Stage::new(bench.store());
    stage.flush(FIRST, 200);
    stage.streamed(FIRST, 200).await;
    stage.shipper.disable();
    stage.streamer = streamer(&stage.pg_wal, stage.store.clone(), stage.position.clone(), &stage.shipper);
    let mut shipping = stage.shipper.status();
    timeout(PATIENCE, shipping.wait_for(|status| !status.claimed)).await.unwrap().unwrap();
    stage.streamer.enable(leadership(2));
    stage.shown("it streams", |status| status.term == Some(2)).await;
    let before = stage.store.requests();
    stage.flush(FIRST, 700);
    stage.looks(5).await;
    assert_eq!(stage.store.requests(), before);
    stage.shipper.enable(leadership(2));
    stage.streamed(FIRST, 700).await;
}

mod after_the_loss_of_everything {
    use super::*;
    use crate::archive::postgres::Postgres;
    use crate::archive::processes::archive_command;
    use outrider_archive::{Compression, Leadership, ShipOptions};
    use outrider_restore::{Fetcher, Server, ServerOptions};
    use outrider_wal::SegmentSize;
    use std::num::NonZeroUsize;
    use tokio_postgres::Client;

    struct Asked(Client);

    impl std::fmt::Debug for Asked {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a session")
        }
    }

    #[async_trait]
    impl FlushPosition for Asked {
        async fn flushed(&self) -> Option<(TimelineId, Lsn)> {
            flushed(&self.0).await.map(|lsn| (TimelineId::FIRST, lsn))
        }
    }

    async fn flushed(client: &Client) -> Option<Lsn> {
        let row = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.ok()?;
        row.get::<_, &str>(0).parse().ok()
    }

    /// Everything that the archive has, as files that `cp` can fetch; chunks joined and filled up with zeros.
    async fn download(store: &dyn Store, to: &Path) {
        for key in keys(store).await {
            let name = key.rsplit('/').next().unwrap();
            if key.contains("/wals/") {
                std::fs::write(
                    to.join(name.trim_end_matches(".gz")),
                    gunzip(&read(store, &key).await.unwrap()),
                )
                .unwrap();
            }
        }
        let streamed = keys(store).await;
        for name in streamed.iter().filter_map(|key| key.split("/stream/").nth(1)?.split('/').next()) {
            let mut bytes = joined(store, name).await;
            bytes.resize(SegmentSize::DEFAULT.bytes() as usize, 0);
            if !to.join(name).exists() {
                std::fs::write(to.join(name), bytes).unwrap();
            }
        }
    }

    /// The copy, once it has recovered from the files in this directory.
    async fn recovered(copy: &mut Postgres, restored: &Path) -> Client {
        let mut chmod = std::process::Command::new("chmod");
        finish(chmod.args(["-R", "a+rX"]).arg(restored), PROGRAM_LIMIT).unwrap();
        copy.configure(&format!("archive_mode = off\nrestore_command = 'cp {}/%f %p'", restored.display()));
        std::fs::write(copy.data().join("recovery.signal"), "").unwrap();
        copy.start();
        let client = copy.connect().await;
        wait_until("recovery has ended", async || {
            let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap();
            !row.get::<_, bool>(0)
        })
        .await;
        client
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_row_up_to_the_last_chunk_is_restored() {
        let bench = Bench::embedded();
        let store = bench.store();
        let nowhere = Postgres::nowhere();
        let socket = nowhere.socket();
        let mut primary = Postgres::nowhere();
        primary.initdb();
        let command = archive_command(&socket);
        primary.configure(&format!("archive_mode = on\narchive_command = '{command}'"));
        primary.start();
        let client = primary.connect().await;
        client.batch_execute("CREATE TABLE t (i int PRIMARY KEY, x text)").await.unwrap();
        let row = client.query_one("SELECT system_identifier FROM pg_control_system()", &[]).await.unwrap();
        let leadership = Leadership {
            term: 1,
            system_identifier: row.get::<_, i64>(0) as u64,
            segment_size: SegmentSize::DEFAULT,
            timeline: TimelineId::FIRST,
        };

        let layout = Layout::new(SERVER).unwrap();
        let ship = ShipOptions {
            pg_wal: primary.pg_wal(),
            member: "m1".to_owned(),
            layout: layout.clone(),
            compression: Compression::GZIP,
            parallelism: NonZeroUsize::new(2).unwrap(),
        };
        let shipper = Shipper::start(ship, store.clone());
        shipper.enable(leadership);
        let fetcher = Fetcher::new(store.clone(), layout.clone());
        let options = ServerOptions { socket, pg_wal: primary.pg_wal() };
        let server = Server::start(options, shipper.clone(), fetcher).await.unwrap();
        let mut copy = Postgres::nowhere();
        tokio::task::block_in_place(|| copy.clone_of(&primary));

        let options =
            StreamOptions { pg_wal: primary.pg_wal(), layout, interval: Duration::from_millis(100) };
        let position = Arc::new(Asked(primary.connect().await));
        let streamer = Streamer::start(options, store.clone(), position, shipper.clone());
        streamer.enable(leadership);
        // Enough for two segments and a part of the third.
        for row in 0..400 {
            let sql = format!(
                "INSERT INTO t SELECT {row} * 1000 + i, repeat(md5(i::text), 3) FROM generate_series(1, 600) i"
            );
            client.batch_execute(&sql).await.unwrap();
        }
        let committed = flushed(&client).await.unwrap();
        let mut status = streamer.status();
        let safe = status.wait_for(|status| status.streamed_to >= Some(committed));
        timeout(PATIENCE, safe).await.unwrap().unwrap();
        // These may be lost.
        client
            .batch_execute("INSERT INTO t SELECT -i, 'late' FROM generate_series(1, 10000) i")
            .await
            .unwrap();
        drop((streamer, shipper, server, client));
        primary.kill();

        let restored = tempfile::tempdir().unwrap();
        download(&*store, restored.path()).await;
        drop(primary);
        let client = recovered(&mut copy, restored.path()).await;
        let row = client.query_one("SELECT count(*) FROM t WHERE i > 0", &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 400 * 600, "{}", copy.log_tail());
    }
}
