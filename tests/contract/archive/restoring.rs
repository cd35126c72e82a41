//! A real PostgreSQL brought back from its archive: to every kind of target, or refused before anything is touched. The
//! backups here are plain tars without an index, as other programs leave them.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use outrider_archive::{BackupId, BackupInfo, BackupStatus, Compression, Layout};
use outrider_restore::{
    DrillOptions, Goal, Plan, RestoreError, RestoreOptions, RestoreProgress, Restored, Restorer, Target,
    drill,
};
use outrider_restore::{Fetcher, Server, ServerOptions};
use outrider_store::{Metadata, Store};
use outrider_wal::{Lsn, TimelineId, WalFileName};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::bench::{Bench, names, wait_until, with_a_bit_changed};
use super::pg_wal::{PgWal, SERVER};
use super::postgres::Postgres;
use super::processes::recovery_command;
use super::small_disk::SmallDisk;

super::on_every_store!(the_latest_point_and_a_time_are_reached);

const ID: &str = "20261124T150000";
/// What a restored directory that must not be started holds.
pub(crate) const MARK: &str = "outrider.restoring";

/// An archive with one backup and some commits behind it, and what is known of them.
pub(crate) struct Scene {
    pub(crate) store: Arc<dyn Store>,
    /// Between the first and the second commit, on the server's clock.
    between: Timestamp,
    /// Of the third commit.
    xid: u32,
    /// After the fourth.
    lsn: Lsn,
    last_segment: String,
    /// The server that was backed up, still running.
    primary: Postgres,
    /// The same WAL as plain files.
    archive: TempDir,
}

/// Plans and does it.
pub(crate) async fn restore(
    store: Arc<dyn Store>,
    target: Target,
    into: &Path,
    options: RestoreOptions,
) -> Result<Restored, RestoreError> {
    let restorer = Restorer::new(store, layout());
    let plan = restorer.plan(&Goal::to(target), None).await?;
    let (progress, cancel) = (watch::Sender::new(RestoreProgress::default()), CancellationToken::new());
    restorer.run(&plan, into, &options, &progress, &cancel).await
}

fn layout() -> Layout {
    Layout::new(SERVER).unwrap()
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn put(store: &dyn Store, key: &str, bytes: Vec<u8>) {
    store.put_if_absent(key, Bytes::from(bytes).into(), &Metadata::new()).await.unwrap();
}

impl Scene {
    async fn new(store: Arc<dyn Store>) -> Self {
        let archive = tempfile::tempdir().unwrap();
        std::fs::set_permissions(archive.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        let mut primary = Postgres::nowhere();
        primary.initdb();
        let copy = format!("cp %p {}/%f", archive.path().display());
        primary.configure(&format!("archive_mode = on\narchive_command = '{copy}'"));
        primary.start();
        let client = primary.connect().await;
        client.batch_execute("CREATE TABLE t (i int)").await.unwrap();
        let tars = primary.base_backup();
        put_backup(&*store, &client, &primary, archive.path(), &tars).await;

        client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        let between = text(
            &client,
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.USZ')",
        );
        let between = between.await.parse().unwrap();
        client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
        let xid = text(&client, "INSERT INTO t VALUES (3) RETURNING pg_current_xact_id()::text").await;
        client.batch_execute("INSERT INTO t VALUES (4)").await.unwrap();
        let lsn = text(&client, "SELECT pg_current_wal_insert_lsn()::text").await;
        client.batch_execute("INSERT INTO t VALUES (5)").await.unwrap();
        client.batch_execute("SELECT pg_create_restore_point('five')").await.unwrap();
        client.batch_execute("SELECT pg_switch_wal(); INSERT INTO t VALUES (6)").await.unwrap();
        let last = text(&client, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())").await;
        client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        wait_until("all is archived", async || {
            archive.path().join(&last).exists() && primary.marked("ready").is_empty()
        })
        .await;
        for name in names(archive.path()) {
            let bytes = std::fs::read(archive.path().join(&name)).unwrap();
            put(&*store, &layout().wal(name.parse().unwrap(), Compression::GZIP), gzip(&bytes)).await;
        }
        let (xid, lsn) = (xid.parse().unwrap(), lsn.parse().unwrap());
        Scene { store, between, xid, lsn, last_segment: last, primary, archive }
    }

    pub(crate) async fn in_a_directory() -> (Self, Bench) {
        let bench = Bench::directory();
        (Scene::new(bench.store()).await, bench)
    }

    fn restorer(&self) -> Restorer {
        Restorer::new(self.store.clone(), layout())
    }

    async fn plan(&self, target: Target) -> Result<Plan, RestoreError> {
        self.restorer().plan(&Goal::to(target), None).await
    }

    async fn restore(
        &self,
        target: Target,
        into: &Path,
        options: RestoreOptions,
    ) -> Result<Restored, RestoreError> {
        restore(self.store.clone(), target, into, options).await
    }

    /// The rows of a server that was restored to this target, and is a primary now.
    async fn rows_at(&self, target: Target) -> Vec<i32> {
        let mut copy = Postgres::nowhere();
        let restore_command = recovery_command(&copy.socket());
        let options = RestoreOptions { restore_command, ..RestoreOptions::default() };
        let restored = self.restore(target, &copy.data(), options).await.unwrap();
        assert!(restored.verified && restored.files > 500, "{restored:?}");
        let wal = PgWal::new();
        let options = ServerOptions { socket: copy.socket(), pg_wal: copy.pg_wal() };
        let fetcher = Fetcher::new(self.store.clone(), layout());
        let _server = Server::start(options, wal.shipper(self.store.clone()), fetcher).await.unwrap();
        copy.configure("archive_mode = off");
        copy.start();
        let client = copy.connect().await;
        wait_until("it is a primary", async || {
            text(&client, "SELECT pg_is_in_recovery()::text").await == "false"
        })
        .await;
        let rows = client.query("SELECT i FROM t ORDER BY i", &[]).await.unwrap();
        copy.stop().await;
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Its backup, as if the clock of the member that took it had been so many hours wrong.
    async fn taken_with_a_clock(&self, hours: i64) {
        let key = layout().backup(&ID.parse().unwrap(), "backup.info");
        let text = String::from_utf8(super::bench::read(&*self.store, &key).await.unwrap()).unwrap();
        let mut info = BackupInfo::read(ID.parse().unwrap(), &text).unwrap().info;
        let wrong = |time: Option<Timestamp>| time.map(|time| time + jiff::SignedDuration::from_hours(hours));
        (info.begin_time, info.end_time) = (wrong(info.begin_time), wrong(info.end_time));
        let changed = Bytes::from(info.print());
        self.store.put(&key, changed.into(), &Metadata::new()).await.unwrap();
    }

    /// The key of a segment that lies in the middle of what a recovery to the end needs.
    async fn remove_segment_before_the_last(&self) -> String {
        let WalFileName::Segment(last) = self.last_segment.parse().unwrap() else { panic!() };
        let size = outrider_wal::SegmentSize::DEFAULT;
        let before = outrider_wal::SegmentName::numbered(last.timeline, last.number(size) - 1, size);
        self.store.delete(&layout().wal(WalFileName::Segment(before), Compression::GZIP)).await.unwrap();
        before.to_string()
    }
}

/// Puts what `pg_basebackup` made where barman-cloud would have put it.
async fn put_backup(store: &dyn Store, client: &Client, primary: &Postgres, archive: &Path, tars: &Path) {
    client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
    let mut history = None;
    wait_until("the backup's history is archived", async || {
        history = names(archive).into_iter().find(|name| name.ends_with(".backup"));
        history.is_some() && primary.marked("ready").is_empty()
    })
    .await;
    let history = std::fs::read_to_string(archive.join(history.unwrap())).unwrap();
    let field = |name: &str| {
        let rest = history.split_once(&format!("{name} WAL LOCATION: ")).unwrap().1;
        let (lsn, rest) = rest.split_once(" (file ").unwrap();
        let WalFileName::Segment(segment) = rest[..24].parse().unwrap() else { panic!("{rest}") };
        (lsn.parse::<Lsn>().unwrap(), segment)
    };
    let ((begin_lsn, begin_wal), (end_lsn, end_wal)) = (field("START"), field("STOP"));
    let now =
        text(client, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.USZ')")
            .await;
    let now: Timestamp = now.parse().unwrap();
    let info = BackupInfo {
        status: BackupStatus::Done,
        begin_time: Some(now),
        end_time: Some(now),
        begin_wal: Some(begin_wal),
        begin_lsn: Some(begin_lsn),
        end_wal: Some(end_wal),
        end_lsn: Some(end_lsn),
        timeline: Some(TimelineId::FIRST),
        version: Some(150_000),
        ..BackupInfo::new(id())
    };
    let key = |name: &str| layout().backup(&id(), name);
    put(store, &key("data.tar.gz"), gzip(&std::fs::read(tars.join("base.tar")).unwrap())).await;
    put(store, &key("backup_manifest"), std::fs::read(tars.join("backup_manifest")).unwrap()).await;
    put(store, &key("backup.info"), info.print().into_bytes()).await;
}

fn id() -> BackupId {
    ID.parse().unwrap()
}

async fn the_latest_point_and_a_time_are_reached(bench: &Bench) {
    let scene = Scene::new(bench.store()).await;
    assert_eq!(scene.rows_at(Target::Latest).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(scene.rows_at(Target::Time(scene.between)).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_target_is_reached() {
    let (scene, _bench) = Scene::in_a_directory().await;
    assert_eq!(scene.rows_at(Target::Xid(scene.xid)).await, [1, 2, 3]);
    // The record that begins there is the fifth row's, which has its commit behind it.
    assert_eq!(scene.rows_at(Target::Lsn(scene.lsn)).await, [1, 2, 3, 4]);
    assert_eq!(scene.rows_at(Target::name("five").unwrap()).await, [1, 2, 3, 4, 5]);
    assert_eq!(scene.rows_at(Target::Immediate).await, Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_not_covered_is_refused_before_anything_is_touched() {
    let (scene, _bench) = Scene::in_a_directory().await;
    let nowhere = Postgres::nowhere();
    let refusal = async |target: Target| {
        let fault = scene.restore(target, &nowhere.data(), RestoreOptions::default()).await.unwrap_err();
        assert!(!nowhere.data().exists());
        fault
    };
    let future = Timestamp::from_second(4_000_000_000).unwrap();
    let fault = refusal(Target::Time(future)).await;
    assert!(matches!(&fault, RestoreError::Beyond { last, .. } if last.time.is_some()), "{fault}");
    let fault = refusal(Target::Lsn(Lsn::new(1 << 40))).await;
    assert!(matches!(fault, RestoreError::Beyond { .. }), "{fault}");
    let fault = refusal(Target::Xid(4_000_000)).await;
    assert!(matches!(fault, RestoreError::NotFound { .. }), "{fault}");
    let fault = refusal(Target::name("never made").unwrap()).await;
    assert!(matches!(fault, RestoreError::NotFound { .. }), "{fault}");
    let fault = refusal(Target::Time(Timestamp::from_second(1_000_000_000).unwrap())).await;
    assert!(matches!(fault, RestoreError::TooEarly { .. }), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_segment_in_the_middle_is_named_and_what_lies_behind_it_refused() {
    let (scene, _bench) = Scene::in_a_directory().await;
    let missing = scene.remove_segment_before_the_last().await;
    for target in [Target::Latest, Target::Time(scene.between), Target::name("five").unwrap()] {
        let fault = scene.plan(target).await.unwrap_err();
        assert!(matches!(fault, RestoreError::Gap { .. }), "{fault}");
        assert!(fault.to_string().contains(&missing), "{fault}");
    }
    let plan = scene.plan(Target::Immediate).await.unwrap();
    assert_eq!(plan.gaps.iter().map(ToString::to_string).collect::<Vec<_>>(), [missing]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_tar_leaves_a_directory_that_nothing_starts() {
    let (scene, _bench) = Scene::in_a_directory().await;
    let key = layout().backup(&id(), "data.tar.gz");
    let good = super::bench::read(&*scene.store, &key).await.unwrap();
    for bad in [with_a_bit_changed(&good), good[..good.len() / 2].to_vec(), good[..good.len() - 8].to_vec()] {
        let nowhere = Postgres::nowhere();
        scene.store.put(&key, Bytes::from(bad).into(), &Metadata::new()).await.unwrap();
        let restore = async |options| scene.restore(Target::Latest, &nowhere.data(), options).await;
        let fault = restore(RestoreOptions::default()).await.unwrap_err();
        assert!(matches!(fault, RestoreError::Damaged { .. }), "{fault}");
        assert!(nowhere.data().join(MARK).exists() && !nowhere.data().join("global/pg_control").exists());
        // The second one is refused, until the first may be thrown away.
        scene.store.put(&key, Bytes::from(good.clone()).into(), &Metadata::new()).await.unwrap();
        let fault = restore(RestoreOptions::default()).await.unwrap_err();
        assert!(matches!(fault, RestoreError::InTheWay { .. }), "{fault}");
        restore(RestoreOptions { overwrite_half: true, ..RestoreOptions::default() }).await.unwrap();
        assert!(!nowhere.data().join(MARK).exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_is_not_restored_over() {
    let (scene, _bench) = Scene::in_a_directory().await;
    for overwrite_half in [false, true] {
        let options = RestoreOptions { overwrite_half, ..RestoreOptions::default() };
        let fault = scene.restore(Target::Latest, &scene.primary.data(), options).await.unwrap_err();
        assert!(matches!(fault, RestoreError::InTheWay { .. }), "{fault}");
    }
    assert_eq!(text(&scene.primary.connect().await, "SELECT count(*)::text FROM t").await, "6");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_restore_leaves_nothing() {
    let (scene, _bench) = Scene::in_a_directory().await;
    let nowhere = Postgres::nowhere();
    let restorer = scene.restorer();
    let plan = scene.plan(Target::Latest).await.unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let progress = watch::Sender::new(RestoreProgress::default());
    let options = RestoreOptions::default();
    let fault = restorer.run(&plan, &nowhere.data(), &options, &progress, &cancel).await.unwrap_err();
    assert!(matches!(fault, RestoreError::Cancelled { removed: true }), "{fault}");
    assert!(!nowhere.data().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_and_what_was_written_is_removed() {
    let (scene, _bench) = Scene::in_a_directory().await;
    let nowhere = Postgres::nowhere();
    let disk = nowhere.data().with_file_name("disk");
    let disk = SmallDisk::mount(&disk, 8);
    let into = disk.path().join("data");
    let owner =
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(nowhere.data().parent().unwrap()).unwrap());
    let options = RestoreOptions { owner: Some((owner, owner)), ..RestoreOptions::default() };
    let fault = scene.restore(Target::Latest, &into, options).await.unwrap_err();
    assert!(matches!(fault, RestoreError::DiskFull { removed: true, .. }), "{fault}");
    assert_eq!(names(disk.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_brings_the_server_up_and_leaves_nothing() {
    let (scene, _bench) = Scene::in_a_directory().await;
    let place = Postgres::nowhere();
    let scratch = place.data().with_file_name("drill");
    let options = DrillOptions {
        scratch: scratch.clone(),
        bin_dir: super::postgres::binaries(),
        owner: None,
        restore_command: format!("cp {}/%f %p", scene.archive.path().display()),
        user: "postgres".to_owned(),
        session_options: "-c statement_timeout=0".to_owned(),
        goal: Goal::to(Target::Latest),
        backup: None,
        recovery_limit: super::PATIENCE,
    };
    let progress = watch::Sender::new(RestoreProgress::default());
    let report =
        drill(scene.store.clone(), layout(), &options, &progress, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.backup, id());
    assert!(report.databases >= 2 && report.relations > 500, "{report:?}");
    assert!(report.reached_lsn.is_some() && report.reached_time.is_some(), "{report:?}");
    assert!(!scratch.exists());
}

/// A recovery that begins with a backup in which the target lies would end behind the target.
#[tokio::test]
async fn the_clock_of_the_member_that_took_a_backup_decides_nothing() {
    let (scene, _bench) = Scene::in_a_directory().await;
    let hours = jiff::SignedDuration::from_hours;
    for slow in [2, 48] {
        scene.taken_with_a_clock(-slow).await;
        // By that clock the backup had ended, and by its WAL it had not begun.
        let refused = scene.plan(Target::Time(scene.between - hours(slow / 2))).await.unwrap_err();
        assert!(matches!(refused, RestoreError::TooEarly { .. }), "{refused}");
        assert!(refused.to_string().contains("--lsn"), "{refused}");
        let plan = scene.plan(Target::Time(scene.between)).await.unwrap();
        assert!(plan.clock_skew.is_some_and(|skew| skew.contains("slow") && skew.contains(ID)));
        assert!(
            plan.first_point
                .time
                .is_some_and(|first| first < scene.between && scene.between - first < hours(1))
        );
        scene.taken_with_a_clock(slow).await;
    }
    assert_eq!(scene.plan(Target::Latest).await.unwrap().clock_skew, None);
    scene.taken_with_a_clock(24).await;
    let plan = scene.plan(Target::Time(scene.between)).await.unwrap();
    assert!(plan.clock_skew.is_some_and(|skew| skew.contains("fast")));
    assert_eq!(scene.rows_at(Target::Time(scene.between)).await, [1]);
}
