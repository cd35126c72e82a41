//! Base backups of a real PostgreSQL: restored with nothing but tar, checked by PostgreSQL's own tools, and what is left
//! when they are broken off.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_archive::{
    BackupError, BackupIndex, BackupOptions, BackupProgress, BackupReport, Begun, Ended, INDEX, Layout,
    Leadership, NotOwned, Owned, Shipper, Source, SourceError, StoredWal, Tablespace, WalArchived,
    WalMissing, prove_by_hand, sweep_abandoned, take_backup,
};
use outrider_bed::{PROGRAM_LIMIT, finish};
use outrider_postgres::BackupSession;
use outrider_restore::{Goal, RestoreError, RestoreOptions, Restorer, Target};
use outrider_store::{Metadata, Store};
use outrider_wal::{SegmentName, SegmentSize, TimelineId};
use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::PATIENCE;
use super::bench::{Bench, gunzip, keys, read, wait_until, with_a_bit_changed};
use super::embedded::{Embedded, Obedience};
use super::pg_wal::{SERVER, ship_options};
use super::postgres::Postgres;
use super::s3::{open, options};

super::on_every_store!(
    a_backup_under_load_is_restored_by_tar_with_every_row,
    a_cancelled_backup_leaves_nothing,
    a_segment_within_which_its_timeline_ended_is_not_waited_for,
);

/// A session with a real server, as the program connects it.
struct Session {
    session: BackupSession,
    data_directory: PathBuf,
}

impl Session {
    async fn open(postgres: &Postgres) -> Box<Self> {
        let session = BackupSession::open(&postgres.settings()).await.unwrap();
        Box::new(Session { session, data_directory: postgres.data() })
    }
}

#[async_trait]
impl Source for Session {
    async fn begin(&mut self, label: &str) -> Result<Begun, SourceError> {
        let begun = self.session.begin(label).await?;
        let version_directory = begun.version_directory();
        let tablespaces = begun.tablespaces.into_iter();
        Ok(Begun {
            start: begun.start,
            data_directory: self.data_directory.clone(),
            tablespaces: tablespaces
                .map(|found| Tablespace { name: found.name, oid: found.oid, location: found.location })
                .collect(),
            version_directory,
            version: begun.version,
            system_identifier: begun.system_identifier,
            segment_size: begun.segment_size,
            page_size: begun.page_size,
            pages_per_file: begun.pages_per_file,
            data_checksums: begun.data_checksums,
        })
    }

    async fn end(&mut self) -> Result<Ended, SourceError> {
        let ended = self.session.end().await?;
        Ok(Ended {
            stop: ended.stop,
            start_timeline: ended.start_timeline,
            stop_timeline: ended.stop_timeline,
            label: ended.label,
        })
    }

    fn is_alive(&self) -> bool {
        self.session.is_alive()
    }
}

/// A server whose WAL goes into the archive.
pub(crate) struct Primary {
    pub(crate) postgres: Postgres,
    pub(crate) client: Client,
    identifier: u64,
    shipper: Shipper,
    store: Arc<dyn Store>,
}

impl Primary {
    pub(crate) async fn start(store: Arc<dyn Store>) -> Self {
        let mut postgres = Postgres::nowhere();
        postgres.initdb_with(&["--data-checksums"]);
        // What is finished stays marked as ready, and the shipper takes it from there.
        postgres.configure("archive_mode = on\narchive_command = 'false'\nautovacuum = off");
        postgres.start();
        let client = postgres.connect().await;
        let identifier: i64 = one(&client, "SELECT system_identifier FROM pg_control_system()").await;
        let shipper = Shipper::start(ship_options(&postgres.pg_wal()), store.clone());
        shipper.enable(Leadership {
            term: 1,
            system_identifier: identifier as u64,
            segment_size: SegmentSize::DEFAULT,
            timeline: TimelineId::FIRST,
        });
        Primary { postgres, client, identifier: identifier as u64, shipper, store }
    }

    pub(crate) async fn backup(&self, options: BackupOptions) -> Result<BackupReport, BackupError> {
        self.backup_of(&self.postgres, options, &watch::Sender::default(), &CancellationToken::new()).await
    }

    async fn backup_of(
        &self,
        postgres: &Postgres,
        options: BackupOptions,
        progress: &watch::Sender<BackupProgress>,
        cancel: &CancellationToken,
    ) -> Result<BackupReport, BackupError> {
        let source = Session::open(postgres).await;
        let wal = StoredWal { store: self.store.clone(), layout: layout(), limit: PATIENCE };
        let owned = self.owned().await?;
        take_backup(self.store.clone(), source, &wal, (&options, owned), progress, cancel).await
    }

    /// Nothing is known against it, whether the shipper has claimed it yet or not.
    async fn owned(&self) -> Result<Owned, BackupError> {
        match prove_by_hand(&*self.store, &layout(), Some(self.identifier), None).await {
            Err(NotOwned::Store(source)) => Err(BackupError::Store { source }),
            proven => Ok(proven.unwrap()),
        }
    }

    /// One that streams.
    fn standby(&self) -> Postgres {
        let mut standby = Postgres::nowhere();
        let host = self.postgres.settings().socket_directory;
        // With its WAL: without, pg_basebackup would wait for an archive_command that succeeds.
        let (data, from) = (standby.data(), host.to_str().unwrap());
        let clone =
            ["--checkpoint=fast", "--wal-method=stream", "--username=postgres", "--host", from, "--pgdata"];
        standby.run("pg_basebackup", &[&clone[..], &[data.to_str().unwrap()]].concat());
        let from = format!("primary_conninfo = 'host={} user=postgres'\nhot_standby = on", host.display());
        standby.configure(&from);
        std::fs::write(standby.data().join("standby.signal"), "").unwrap();
        standby.start();
        standby
    }

    /// Finishes the segment that a backup waits for: a standby cannot.
    async fn finish_segment_of(&self, mut progress: watch::Receiver<BackupProgress>) {
        progress.wait_for(|seen| seen.phase == outrider_archive::Phase::WaitingForWal).await.unwrap();
        self.all_archived().await;
    }

    async fn backup_keys(&self) -> Vec<String> {
        let all = keys(&*self.store).await;
        let prefix = layout().backups();
        all.into_iter().filter_map(|key| key.strip_prefix(&prefix).map(str::to_owned)).collect()
    }

    /// Everything that was committed so far is in the archive.
    pub(crate) async fn all_archived(&self) {
        let name: String = one(&self.client, "SELECT pg_walfile_name(pg_switch_wal())").await;
        let segment = match name.parse().unwrap() {
            outrider_wal::WalFileName::Segment(segment) => segment,
            other => panic!("{other}"),
        };
        let wal = StoredWal { store: self.store.clone(), layout: layout(), limit: PATIENCE };
        WalArchived::wait(&wal, segment, segment, SegmentSize::DEFAULT).await.unwrap();
    }
}

fn layout() -> Layout {
    Layout::new(SERVER).unwrap()
}

fn plain_options() -> BackupOptions {
    BackupOptions::new(layout())
}

/// As slow as it must be for something to happen in the middle: a fresh cluster has 30 MB.
fn slow_options() -> BackupOptions {
    BackupOptions { rate_limit: NonZeroU64::new(4 << 20), ..plain_options() }
}

async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(client: &Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A backup brought back by `tar` as anybody would, with the WAL of the archive in a directory beside it.
struct Restored {
    postgres: Postgres,
    files: BTreeMap<String, Vec<u8>>,
}

impl Restored {
    async fn new(store: &dyn Store, report: &BackupReport) -> Self {
        let postgres = Postgres::nowhere();
        let (data, wal) = (postgres.beside("data"), postgres.beside("wal"));
        let mut files = BTreeMap::new();
        for key in keys(store).await {
            let bytes = read(store, &key).await.unwrap();
            let name = key.rsplit('/').next().unwrap().to_owned();
            if key.starts_with(&layout().wals()) {
                std::fs::write(wal.join(name.trim_end_matches(".gz")), gunzip(&bytes)).unwrap();
            } else if key.starts_with(&layout().backup(&report.info.id, "")) {
                files.insert(name, bytes);
            }
        }
        extract_all(&files, "data", &data);
        for tablespace in &report.info.tablespaces {
            let oid = tablespace.oid.to_string();
            let location = postgres.beside(&format!("tablespace{oid}"));
            extract_all(&files, &oid, &location);
            std::os::unix::fs::symlink(location, data.join("pg_tblspc").join(oid)).unwrap();
        }
        std::fs::write(data.join("backup_manifest"), &files["backup_manifest"]).unwrap();
        // PostgreSQL refuses a directory that others can read.
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        Restored { postgres, files }
    }

    fn verify(&self) {
        self.postgres.run("pg_verifybackup", &["--no-parse-wal", self.postgres.data().to_str().unwrap()]);
    }

    /// Replays all of the archive and is promoted.
    async fn recover(&mut self) -> Client {
        let wal = self.postgres.data().parent().unwrap().join("wal");
        let restore = format!("restore_command = 'cp {}/%f %p'\narchive_mode = off", wal.display());
        self.postgres.configure(&restore);
        std::fs::write(self.postgres.data().join("recovery.signal"), "").unwrap();
        self.postgres.start();
        let client = self.postgres.connect().await;
        wait_until("recovery ends", async || !one::<bool>(&client, "SELECT pg_is_in_recovery()").await).await;
        client
    }
}

/// The tar of this name and its continuations.
fn extract_all(files: &BTreeMap<String, Vec<u8>>, stem: &str, directory: &Path) {
    extract(&files[&format!("{stem}.tar.gz")], directory);
    let is_next = |name: &str| name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('_'));
    for (_, bytes) in files.iter().filter(|(name, _)| is_next(name)) {
        extract(bytes, directory);
    }
}

/// `gzip -t`, and `tar` as root or as whoever tests.
fn extract(tar: &[u8], directory: &Path) {
    let file = tempfile::NamedTempFile::with_suffix(".tar.gz").unwrap();
    std::fs::write(file.path(), tar).unwrap();
    for (program, arguments) in
        [("gzip", &["-t"][..]), ("tar", &["-C", directory.to_str().unwrap(), "-xpzf"])]
    {
        let mut command = Command::new(program);
        let output = finish(command.args(arguments).arg(file.path()), PROGRAM_LIMIT).unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Each stretch between two points of the index yields its part of the tar by itself.
fn check_index(files: &BTreeMap<String, Vec<u8>>) -> BackupIndex {
    let index: BackupIndex = serde_json::from_slice(&files[INDEX]).unwrap();
    for tar in &index.tars {
        let (object, plain) = (&files[&tar.name], gunzip(&files[&tar.name]));
        assert_eq!((object.len() as u64, plain.len() as u64), (tar.stored, tar.plain));
        assert_eq!(tar.points[0].plain, 0);
        let ends = tar.points.iter().skip(1).map(|next| (next.stored, next.plain));
        for (point, end) in tar.points.iter().zip(ends.chain([(tar.stored_end, tar.plain)])) {
            let mut part = object[point.stored as usize..end.0 as usize].to_vec();
            part.extend([3, 0]);
            let mut found = Vec::new();
            flate2::read::DeflateDecoder::new(&part[..]).read_to_end(&mut found).unwrap();
            assert!(found == plain[point.plain as usize..end.1 as usize], "{point:?} of {}", tar.name);
            if point.inside.is_none() {
                assert_eq!(&found[257..262], b"ustar", "{point:?} of {}", tar.name);
            }
        }
    }
    index
}

async fn a_backup_under_load_is_restored_by_tar_with_every_row(bench: &Bench) {
    let primary = Primary::start(bench.store()).await;
    let location = primary.postgres.beside("space");
    let client = &primary.client;
    client
        .batch_execute(&format!("CREATE TABLESPACE space LOCATION '{}'", location.display()))
        .await
        .unwrap();
    let setup = "CREATE TABLE t (i serial, x text); CREATE TABLE s (i int, x text) TABLESPACE space; \
        CREATE UNLOGGED TABLE u AS SELECT generate_series(1, 1000) i; \
        CREATE TEMP TABLE temporary AS SELECT generate_series(1, 1000) i; \
        INSERT INTO s SELECT i, repeat(md5(i::text), 3) FROM generate_series(1, 150000) i";
    client.batch_execute(setup).await.unwrap();
    let unlogged: String = one(client, "SELECT pg_relation_filepath('u')").await;

    let stop = Arc::new(AtomicBool::new(false));
    let (writer, stopping) = (primary.postgres.connect().await, stop.clone());
    let load = tokio::spawn(async move {
        while !stopping.load(Ordering::Relaxed) {
            writer
                .batch_execute("INSERT INTO t (x) SELECT md5(i::text) FROM generate_series(1, 200) i")
                .await
                .unwrap();
            writer
                .batch_execute("UPDATE s SET x = 'new' WHERE i % 1000 = (random() * 999)::int")
                .await
                .unwrap();
        }
    });
    // A tar for every few files, and several points in the index.
    let options = BackupOptions { tar_max: 12 << 20, name: Some("nightly".into()), ..plain_options() };
    let report = primary.backup(options).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    primary.all_archived().await;
    let rows: i64 = one(client, "SELECT count(*) FROM t").await;
    let sum: String = one(client, "SELECT md5(string_agg(x, ',' ORDER BY i)) FROM s").await;

    assert_eq!((report.checksum_failures, report.info.tablespaces.len()), (0, 1));
    assert!(primary.backup_keys().await.iter().all(|key| !key.ends_with("outrider.claim")));
    let mut restored = Restored::new(&*primary.store, &report).await;
    let text = String::from_utf8(restored.files["backup.info"].clone()).unwrap();
    for line in ["status=DONE\n", "server_name=cloud\n", "backup_name=nightly\n"] {
        assert!(text.contains(line), "{text}");
    }
    let index = check_index(&restored.files);
    assert!(index.tars.iter().any(|tar| tar.name == "data_0001.tar.gz"), "{:?}", restored.files.keys());
    restored.verify();
    let data = restored.postgres.data();
    assert!(!data.join(&unlogged).exists() && data.join(format!("{unlogged}_init")).exists());
    for name in ["postmaster.pid", "tablespace_map"] {
        assert!(!data.join(name).exists(), "{name}");
    }
    assert!(data.join("pg_wal").join("archive_status").is_dir() && data.join("backup_label").exists());
    let database = data.join(Path::new(&unlogged).parent().unwrap());
    assert!(super::bench::names(&database).iter().all(|name| !name.starts_with('t')));

    let client = restored.recover().await;
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t").await, rows);
    assert_eq!(one::<String>(&client, "SELECT md5(string_agg(x, ',' ORDER BY i)) FROM s").await, sum);
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM u").await, 0);
    drop(client);
    let wal = restored.postgres.data().with_file_name("wal");
    come_back_by_the_index(&primary, &report, &wal, &rows, &sum).await;
    a_changed_byte_is_noticed(&primary, &report).await;
    drop(primary.shipper);
}

/// Several threads for each tar, the tablespace elsewhere; and the same rows, with the WAL in the directory `wal`.
async fn come_back_by_the_index(primary: &Primary, report: &BackupReport, wal: &Path, rows: &i64, sum: &str) {
    let mut postgres = Postgres::nowhere();
    let space = postgres.data().with_file_name("mapped");
    let options = RestoreOptions {
        tablespaces: vec![(report.info.tablespaces[0].location.clone(), space.clone())],
        restore_command: format!("cp {}/%f %p", wal.display()),
        ..RestoreOptions::default()
    };
    let progress = watch::Sender::default();
    let restored = restore(primary, &postgres.data(), options, &progress).await.unwrap();
    assert!(restored.verified && restored.files == report.files, "{restored:?} of {report:?}");
    let told = *progress.borrow();
    assert!(told.bytes == told.bytes_total && told.bytes > report.file_bytes, "{told:?}");
    let link = postgres.data().join("pg_tblspc").join(report.info.tablespaces[0].oid.to_string());
    assert_eq!(std::fs::read_link(link).unwrap(), space);
    postgres.run("pg_verifybackup", &["--no-parse-wal", postgres.data().to_str().unwrap()]);
    postgres.configure("archive_mode = off");
    postgres.start();
    let client = postgres.connect().await;
    wait_until("recovery ends", async || !one::<bool>(&client, "SELECT pg_is_in_recovery()").await).await;
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t").await, *rows);
    assert_eq!(one::<String>(&client, "SELECT md5(string_agg(x, ',' ORDER BY i)) FROM s").await, sum);
}

async fn a_changed_byte_is_noticed(primary: &Primary, report: &BackupReport) {
    for name in ["data.tar.gz", "backup_manifest"] {
        let key = layout().backup(&report.info.id, name);
        let good = read(&*primary.store, &key).await.unwrap();
        let changed = with_a_bit_changed(&good);
        primary.store.put(&key, Bytes::from(changed).into(), &Metadata::new()).await.unwrap();
        let postgres = Postgres::nowhere();
        let options = RestoreOptions {
            tablespaces: vec![(
                report.info.tablespaces[0].location.clone(),
                postgres.data().with_file_name("mapped"),
            )],
            ..RestoreOptions::default()
        };
        let fault = restore(primary, &postgres.data(), options, &watch::Sender::default()).await.unwrap_err();
        assert!(matches!(fault, RestoreError::Damaged { .. }), "{name}: {fault}");
        assert!(!postgres.data().join("global/pg_control").exists());
        primary.store.put(&key, Bytes::from(good).into(), &Metadata::new()).await.unwrap();
    }
}

async fn restore(
    primary: &Primary,
    into: &Path,
    options: RestoreOptions,
    progress: &watch::Sender<outrider_restore::RestoreProgress>,
) -> Result<outrider_restore::Restored, RestoreError> {
    let restorer = Restorer::new(primary.store.clone(), layout());
    let plan = restorer.plan(&Goal::to(Target::Latest), None).await?;
    restorer.run(&plan, into, &options, progress, &CancellationToken::new()).await
}

async fn a_cancelled_backup_leaves_nothing(bench: &Bench) {
    let primary = Primary::start(bench.store()).await;
    let (progress, mut seen) = watch::channel(BackupProgress::default());
    let cancel = CancellationToken::new();
    let canceller = {
        let cancel = cancel.clone();
        tokio::spawn(async move {
            seen.wait_for(|progress| progress.done > 2 << 20).await.unwrap();
            cancel.cancel();
        })
    };
    let outcome = primary.backup_of(&primary.postgres, slow_options(), &progress, &cancel).await;
    assert!(matches!(outcome, Err(BackupError::Cancelled)), "{outcome:?}");
    canceller.await.unwrap();
    assert_eq!(primary.backup_keys().await, Vec::<String>::new());
    assert_eq!(primary.store.sweep_uploads("").await.unwrap(), 0);
    // Nothing is in its way.
    primary.backup(plain_options()).await.unwrap();
}

/// A failover at the moment when the backup began: the segment comes only as the part that the timeline has of it.
async fn a_segment_within_which_its_timeline_ended_is_not_waited_for(bench: &Bench) {
    let store = bench.store();
    let put = async |name: &str| {
        let key = format!("{}{}/{name}", layout().wals(), &name[..16]);
        store.put_if_absent(&key, Bytes::from_static(b"x").into(), &Metadata::new()).await.unwrap();
    };
    let segment = |number| SegmentName::numbered(TimelineId::FIRST, number, SegmentSize::DEFAULT);
    let wal = StoredWal { store: store.clone(), layout: layout(), limit: Duration::ZERO };
    let wait = async |last| WalArchived::wait(&wal, segment(4), segment(last), SegmentSize::DEFAULT).await;
    put("000000010000000000000004.gz").await;
    wait(4).await.unwrap();
    let late = wait(5).await.unwrap_err();
    assert!(matches!(&late, WalMissing::Late { missing, .. } if *missing == segment(5)), "{late}");
    put("000000010000000000000005.partial.gz").await;
    let left = wait(5).await.unwrap_err();
    assert!(matches!(&left, WalMissing::TimelineLeft { segment: found } if *found == segment(5)), "{left}");
    put("000000010000000000000005.zst").await;
    wait(5).await.unwrap();
}

#[tokio::test]
async fn a_standby_gives_a_backup_and_one_that_is_promoted_meanwhile_does_not() {
    let bench = Bench::directory();
    let primary = Primary::start(bench.store()).await;
    primary.client.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 1000) i").await.unwrap();
    let standby = primary.standby();
    let on_standby = standby.connect().await;
    primary.client.batch_execute("INSERT INTO t SELECT generate_series(1, 1000); CHECKPOINT").await.unwrap();
    wait_until("the standby has it", async || {
        one::<i64>(&on_standby, "SELECT count(*) FROM t").await == 2000
    })
    .await;

    let (progress, cancel) = (watch::Sender::<BackupProgress>::default(), CancellationToken::new());
    let switching = primary.finish_segment_of(progress.subscribe());
    let backup = primary.backup_of(&standby, plain_options(), &progress, &cancel);
    let (report, ()) = tokio::try_join!(backup, async {
        switching.await;
        Ok::<(), BackupError>(())
    })
    .unwrap();
    assert!(report.info.backup_label.as_ref().unwrap().contains("BACKUP FROM: standby"));
    let mut restored = Restored::new(&*primary.store, &report).await;
    restored.verify();
    assert!(!restored.postgres.data().join("standby.signal").exists());
    let client = restored.recover().await;
    assert_eq!(one::<i64>(&client, "SELECT count(*) FROM t").await, 2000);

    let promoting = {
        let mut seen = progress.subscribe();
        let on_standby = &on_standby;
        async move {
            seen.wait_for(|progress| progress.done > 1 << 20 && progress.rate < 20 << 20).await.unwrap();
            assert!(one::<bool>(on_standby, "SELECT pg_promote()").await);
        }
    };
    progress.send_replace(BackupProgress::default());
    let backup = primary.backup_of(&standby, slow_options(), &progress, &cancel);
    let outcome = tokio::try_join!(backup, async {
        promoting.await;
        Ok::<(), BackupError>(())
    });
    let Err(BackupError::Source { source, .. }) = outcome else { panic!("{outcome:?}") };
    let text = format!("{source} {:?}", source.source());
    assert!(text.contains("promoted during online backup"), "{text}");
    assert_eq!(primary.backup_keys().await.len(), 4, "only the first backup's objects");
}

/// The copy is consistent from the end of a segment on whose last record is the switch: replay stands there after it.
#[tokio::test]
async fn a_backup_of_a_standby_that_rests_at_a_switch_can_be_restored() {
    let bench = Bench::directory();
    let primary = Primary::start(bench.store()).await;
    primary.client.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    let standby = primary.standby();
    let on_standby = standby.connect().await;
    // Pages that the standby writes when its backup begins, which notes how far it has replayed.
    let rows = "CHECKPOINT; INSERT INTO t SELECT generate_series(1, 1000)";
    primary.client.batch_execute(rows).await.unwrap();
    let end: String = one(&primary.client, "SELECT (pg_switch_wal() + 24)::text").await;
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn");
    wait_until("the standby has the switch", async || one(&on_standby, &replayed).await).await;

    let (progress, cancel) = (watch::Sender::<BackupProgress>::default(), CancellationToken::new());
    let backup = primary.backup_of(&standby, plain_options(), &progress, &cancel);
    let (report, ()) = tokio::join!(backup, primary.finish_segment_of(progress.subscribe()));
    report.unwrap();
    let restorer = Restorer::new(bench.store(), layout());
    restorer.plan(&Goal::to(Target::Latest), None).await.unwrap();
}

#[tokio::test]
async fn a_damaged_page_is_named_and_the_backup_is_not_kept_unless_allowed() {
    let bench = Bench::directory();
    let mut primary = Primary::start(bench.store()).await;
    primary.client.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 5000) i").await.unwrap();
    let path: String = one(&primary.client, "SELECT pg_relation_filepath('t')").await;
    primary.client.batch_execute("CHECKPOINT").await.unwrap();
    let file = primary.postgres.data().join(&path);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[3 * 8192 + 5000] ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let outcome = primary.backup(plain_options()).await;
    let Err(BackupError::Checksums { count: 1, named }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(named, [format!("{}, page 3", file.display())]);
    assert_eq!(primary.backup_keys().await, Vec::<String>::new());

    let allowed = BackupOptions { allow_checksum_failures: true, ..plain_options() };
    let report = primary.backup(allowed).await.unwrap();
    assert_eq!((report.checksum_failures, report.bad_pages.len()), (1, 1));
    primary.postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_goes_away_ends_the_backup_and_what_is_left_is_swept() {
    let mut embedded = Embedded::start(Obedience::Full);
    let store = open(&options(&embedded.endpoint()));
    let primary = Primary::start(store.clone()).await;
    // What does not shrink, so that a part leaves before the end.
    let noise = "CREATE TABLE t AS SELECT sha512(i::text::bytea) x FROM generate_series(1, 300000) i";
    primary.client.batch_execute(noise).await.unwrap();
    // Someone else's, without a backup.info so far.
    let foreign = layout().backup(&"20200101T000000".parse().unwrap(), "data.tar.gz");
    store.put_if_absent(&foreign, bytes::Bytes::from_static(b"x").into(), &Metadata::new()).await.unwrap();

    let (progress, mut seen) = watch::channel(BackupProgress::default());
    let cancel = CancellationToken::new();
    let options = BackupOptions { rate_limit: NonZeroU64::new(12 << 20), ..plain_options() };
    let backup = primary.backup_of(&primary.postgres, options, &progress, &cancel);
    let stopping = async {
        seen.wait_for(|progress| progress.stored > 9 << 20).await.unwrap();
        embedded.stop();
    };
    let (outcome, ()) = tokio::join!(backup, stopping);
    assert!(matches!(outcome, Err(BackupError::Store { .. })), "{outcome:?}");

    embedded.start_again();
    let left = primary.backup_keys().await;
    assert!(left.iter().any(|key| key.ends_with("/outrider.claim")), "{left:?}");
    let id = left.last().unwrap().split('/').next().unwrap().parse().unwrap();
    let day = Duration::from_secs(86_400);
    let owned = primary.owned().await.unwrap();
    assert_eq!(sweep_abandoned(&*store, &layout(), owned, None, day).await.unwrap(), []);
    assert_eq!(sweep_abandoned(&*store, &layout(), owned, Some(&id), Duration::ZERO).await.unwrap(), []);
    assert_eq!(sweep_abandoned(&*store, &layout(), owned, None, Duration::ZERO).await.unwrap(), [id]);
    assert_eq!(primary.backup_keys().await, ["20200101T000000/data.tar.gz"]);
    primary.backup(plain_options()).await.unwrap();
    assert_eq!(sweep_abandoned(&*store, &layout(), owned, None, Duration::ZERO).await.unwrap(), []);
}
