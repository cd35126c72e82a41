//! Debian's barman-cloud tools and this program on one archive in a real MinIO: each reads what the other wrote.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use outrider_archive::catalog::{Catalog, Keep, mark};
use outrider_archive::{
    BackupId, BackupInfo, BackupOptions, BackupStatus, Layout, Tablespace, prove_by_hand,
};
use outrider_bed::{PROGRAM_LIMIT, finish};
use outrider_restore::verify::{self, VerifyOptions};
use outrider_restore::{Fetched, Fetcher, Patience};
use outrider_restore::{Goal, RestoreOptions, Restorer, Target};
use outrider_store::Store;
use outrider_wal::{Lsn, SegmentName, SegmentSize, TimelineId};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::backups::Primary;
use super::bench::wait_until;
use super::minio::Minio;
use super::postgres::Postgres;
use super::s3::{BUCKET, KEY, SECRET, open, options};

const SERVER: &str = "homepage";

/// The tools, on the archive of a MinIO.
struct Barman {
    minio: Minio,
    home: TempDir,
}

impl Barman {
    /// `None`, said aloud, when they or MinIO are not on this machine; where everything must be there that is a failure.
    async fn start() -> Option<Self> {
        if finish(Command::new("barman-cloud-backup-list").arg("--version"), PROGRAM_LIMIT).is_err() {
            assert!(
                std::env::var_os("CI").is_none(),
                "install barman-cli-cloud, python3-boto3 and python3-snappy"
            );
            println!(
                "skipped: no barman-cloud tools (apt-get install barman-cli-cloud python3-boto3 python3-snappy)"
            );
            return None;
        }
        let minio = Minio::start(None).await?;
        Some(Barman { minio, home: tempfile::tempdir().unwrap() })
    }

    fn store(&self) -> Arc<dyn Store> {
        open(&options(&self.minio.endpoint()))
    }

    async fn catalog(&self) -> Catalog {
        Catalog::read(&*self.store(), &layout()).await.unwrap()
    }

    /// `barman-cloud-<tool> --endpoint-url … <options> <archive> <server> <arguments>`.
    fn output(&self, tool: &str, options: &[&str], arguments: &[&str]) -> Output {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(format!("barman-cloud-{tool}"));
        command.args(["--endpoint-url", &self.minio.endpoint()]).args(options);
        command.arg(format!("s3://{BUCKET}/some/path")).arg(SERVER).args(arguments);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("PYTHONPATH", python_path());
        command.env("HOME", self.home.path()).env("TZ", "UTC");
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.env("AWS_DEFAULT_REGION", "us-east-1").env("AWS_EC2_METADATA_DISABLED", "true");
        finish(&mut command, PROGRAM_LIMIT).unwrap()
    }

    /// The same in one line for PostgreSQL, with the keys, which are known to everybody.
    fn command_line(&self, tool: &str, arguments: &str) -> String {
        format!(
            "AWS_ACCESS_KEY_ID={KEY} AWS_SECRET_ACCESS_KEY={SECRET} AWS_DEFAULT_REGION=us-east-1 \
             barman-cloud-{tool} --endpoint-url {} s3://{BUCKET}/some/path {SERVER} {arguments}",
            self.minio.endpoint()
        )
    }

    fn run(&self, tool: &str, options: &[&str], arguments: &[&str]) -> String {
        let output = self.output(tool, options, arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "barman-cloud-{tool} {options:?} {arguments:?}: {out}\n{err}");
        out.into_owned()
    }
}

fn layout() -> Layout {
    Layout::new(SERVER).unwrap()
}

/// A server that keeps its WAL and takes it for archived.
async fn server() -> (Postgres, Client) {
    let mut postgres = Postgres::nowhere();
    postgres.initdb();
    postgres.configure("archive_mode = on\narchive_command = 'true'");
    postgres.start();
    let client = postgres.connect().await;
    client.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    (postgres, client)
}

async fn insert_and_switch(client: &Client, postgres: &Postgres) {
    client.batch_execute("INSERT INTO t SELECT generate_series(1, 1000)").await.unwrap();
    client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
    wait_until("all is taken for archived", async || postgres.marked("ready").is_empty()).await;
}

fn directory(postgres: &Postgres) -> String {
    postgres.data().parent().unwrap().to_str().unwrap().to_owned()
}

/// Where `make snappy` puts python-snappy when the system's own does not compress.
fn python_path() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python")
}

/// What the tools compress with; where everything must be there, that is all they know.
fn compressions() -> Vec<Vec<&'static str>> {
    let mut snappy = Command::new("/usr/bin/python3");
    snappy.args(["-c", "import snappy; snappy.StreamCompressor().add_chunk(b'x')"]);
    let snappy = finish(snappy.env("PYTHONPATH", python_path()), PROGRAM_LIMIT).unwrap();
    let mut compressions = vec![vec![], vec!["-z"], vec!["-j"]];
    if snappy.status.success() {
        compressions.push(vec!["--snappy"]);
    } else {
        assert!(std::env::var_os("CI").is_none(), "no snappy that compresses: make snappy; {snappy:?}");
        println!("without --snappy: no python3-snappy that compresses (make snappy)");
    }
    compressions
}

/// Ships what is finished with barman's tool, each file with the next compression.
fn archive_with_barman(barman: &Barman, postgres: &Postgres, shipped: &mut Vec<String>) {
    let mut names = postgres.marked("done");
    names.sort();
    names.retain(|name| !shipped.contains(name));
    let compressions = compressions();
    for name in names {
        let path = postgres.pg_wal().join(&name);
        let compression = compressions[shipped.len() % compressions.len()].as_slice();
        barman.run("wal-archive", compression, &[path.to_str().unwrap()]);
        shipped.push(name);
    }
}

async fn sound(barman: &Barman) -> verify::Verification {
    let (store, layout) = (barman.store(), layout());
    let catalog = barman.catalog().await;
    let now = "2026-11-24T00:00:00Z".parse().unwrap();
    let options = VerifyOptions { backup: None, full: true };
    let found = verify::verify(&*store, &layout, &catalog, &options, now, &|_| {}).await.unwrap();
    assert!(found.is_sound(), "{found:?}");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_barman_wrote_is_known_and_whole() {
    let Some(barman) = Barman::start().await else { return };
    let (postgres, client) = server().await;
    client.batch_execute("CREATE TABLE u AS SELECT generate_series(1, 1000)").await.unwrap();
    barman_writes_and_we_read(&barman, &postgres, &client, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_barman_wrote_of_a_tablespace_is_known_and_whole() {
    let Some(barman) = Barman::start().await else { return };
    let (postgres, client) = server().await;
    let elsewhere = Postgres::nowhere();
    let location = directory(&elsewhere);
    client.batch_execute(&format!("CREATE TABLESPACE \"it's\" LOCATION '{location}'")).await.unwrap();
    client
        .batch_execute("CREATE TABLE u TABLESPACE \"it's\" AS SELECT generate_series(1, 1000)")
        .await
        .unwrap();
    barman_writes_and_we_read(&barman, &postgres, &client, Some(&location)).await;
}

/// A backup and WAL of barman's with each compression, of a server whose one tablespace, if any, is called `it's`.
async fn barman_writes_and_we_read(
    barman: &Barman,
    postgres: &Postgres,
    client: &Client,
    tablespace: Option<&str>,
) {
    let mut shipped = Vec::new();
    let (host, immediately) = (directory(postgres), "--immediate-checkpoint");
    let compressions = compressions();
    for compression in &compressions {
        let mut options = vec!["-h", &host, "-U", "postgres", immediately];
        options.extend(compression);
        tokio::task::block_in_place(|| barman.run("backup", &options, &[]));
        for _ in 0..4 {
            insert_and_switch(client, postgres).await;
        }
        tokio::task::block_in_place(|| archive_with_barman(barman, postgres, &mut shipped));
    }

    let written = barman.store().list(&layout().backups(), None, 500).await.unwrap();
    for suffix in [".tar", ".tar.gz", ".tar.bz2", ".tar.snappy"].iter().take(compressions.len()) {
        assert!(written.objects.iter().any(|object| object.key.ends_with(suffix)), "{suffix}: {written:?}");
    }
    let catalog = barman.catalog().await;
    assert_eq!(catalog.backups.len(), compressions.len());
    for backup in &catalog.backups {
        let info = backup.good().unwrap_or_else(|| panic!("{backup:?}"));
        let found: Vec<(&str, &str)> = info
            .tablespaces
            .iter()
            .map(|Tablespace { name, location, .. }| (name.as_str(), location.as_str()))
            .collect();
        assert_eq!(found, Vec::from_iter(tablespace.map(|location| ("it's", location))));
        assert!(info.backup_label.as_ref().unwrap().contains("\nLABEL: "), "{info:?}");
        assert_eq!(backup.notes, [] as [String; 0]);
    }
    let window = catalog.window().unwrap();
    assert_eq!(window.chain.gaps, []);
    let last = shipped.iter().filter(|name| name.len() == 24).max().unwrap();
    assert_eq!(window.chain.last.unwrap().to_string(), *last);
    let found = sound(barman).await;
    // Of each backup the data and the tablespace; of the WAL all but the segment before the first backup.
    let tars = compressions.len() as u64 * if tablespace.is_some() { 2 } else { 1 };
    assert!(found.objects_read + 1 >= tars + shipped.len() as u64, "{found:?}");

    let wal = fetch_all(barman, postgres, &shipped).await;
    let rows: i64 = one(client, "SELECT count(*) FROM t").await;
    for backup in &catalog.backups {
        let (_restored, restored_client) = restore_ours(barman, &backup.id, &wal, tablespace).await;
        assert_eq!(one::<i64>(&restored_client, "SELECT count(*) FROM t").await, rows);
        assert_eq!(one::<i64>(&restored_client, "SELECT count(*) FROM u").await, 1000);
    }
}

/// Fetches every file that barman shipped, by this program, and compares it.
async fn fetch_all(barman: &Barman, postgres: &Postgres, names: &[String]) -> TempDir {
    let wal = tempfile::tempdir().unwrap();
    std::fs::set_permissions(wal.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let fetcher = Fetcher::new(barman.store(), layout());
    for name in names {
        let target = wal.path().join(name);
        let fetched = fetcher.fetch(name.parse().unwrap(), &target, None, Patience::Recovery).await.unwrap();
        assert_ne!(fetched, Fetched::Absent, "{name}");
        // PostgreSQL removes backup histories when there are later ones.
        if let Ok(original) = std::fs::read(postgres.pg_wal().join(name)) {
            assert!(std::fs::read(&target).unwrap() == original, "{name}");
        } else {
            assert!(name.ends_with(".backup"), "{name}");
        }
        // Another user's Postgres copies it.
        std::fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    }
    wal
}

/// Restores a backup with this program, its tablespace elsewhere, and recovers to the end.
async fn restore_ours(
    barman: &Barman,
    id: &BackupId,
    wal: &TempDir,
    tablespace: Option<&str>,
) -> (Postgres, Client) {
    let mut postgres = Postgres::nowhere();
    let moved = postgres.data().with_file_name("moved");
    let options = RestoreOptions {
        tablespaces: tablespace.map(|location| (location.to_owned(), moved)).into_iter().collect(),
        restore_command: format!("cp {}/%f %p", wal.path().display()),
        ..RestoreOptions::default()
    };
    let restorer = Restorer::new(barman.store(), layout());
    let plan = restorer.plan(&Goal::to(Target::Latest), Some(id)).await.unwrap();
    let (progress, cancel) = (watch::Sender::default(), CancellationToken::new());
    restorer.run(&plan, &postgres.data(), &options, &progress, &cancel).await.unwrap();
    postgres.configure("archive_mode = off");
    postgres.start();
    let client = postgres.connect().await;
    wait_until("recovery ends", async || !one::<bool>(&client, "SELECT pg_is_in_recovery()").await).await;
    (postgres, client)
}

/// Barman reads the file and writes it again.
#[tokio::test]
async fn our_backup_info_is_byte_for_byte_barmans() {
    let Some(barman) = Barman::start().await else { return };
    let id: BackupId = "20260101T101112".parse().unwrap();
    let wal = |number| Some(SegmentName::numbered(TimelineId::new(2), number, SegmentSize::DEFAULT));
    let full = BackupInfo {
        name: Some("before the move".to_owned()),
        status: BackupStatus::Done,
        begin_time: Some("2026-01-01T10:11:12.123456Z".parse().unwrap()),
        end_time: Some("2026-01-01T10:12:12Z".parse().unwrap()),
        begin_wal: wal(2),
        begin_lsn: Some(Lsn::new(0x0200_0028)),
        end_wal: wal(3),
        end_lsn: Some(Lsn::new(0x0300_0100)),
        timeline: Some(TimelineId::new(2)),
        system_identifier: Some(7_300_000_000_000_000_000),
        version: Some(150_018),
        data_checksums: true,
        cluster_size: Some(12345),
        pgdata: Some("/srv/homepage/member 1/data".to_owned()),
        backup_label: Some("START WAL LOCATION: 0/2000028\nLABEL: it's \"größer\"\u{2028}\\\t\n".to_owned()),
        tablespaces: vec![
            Tablespace { name: "tb's".into(), oid: 16400, location: "/srv/t\"b".into() },
            Tablespace { name: "ü".into(), oid: 4_294_967_295, location: "/srv/'\"\\".into() },
        ],
        ..BackupInfo::new(id.clone())
    };
    for info in [full, BackupInfo::new(id)] {
        let path = barman.home.path().join("backup.info");
        std::fs::write(&path, info.print()).unwrap();
        let ours: Vec<String> =
            info.print().lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        assert_eq!(saved_by_barman(&path).lines().collect::<Vec<_>>(), ours);
    }
}

fn saved_by_barman(path: &Path) -> String {
    let program = "import sys; from barman.infofile import BackupInfo; info = BackupInfo('20260101T101112'); \
                   info.load(filename=sys.argv[1]); info.save(file_object=sys.stdout.buffer)";
    let mut python = Command::new("/usr/bin/python3");
    let output = finish(python.args(["-c", program]).arg(path), PROGRAM_LIMIT).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Restores with barman's tools alone, WAL and all, and starts the server.
async fn restore_with_barman(barman: &Barman, id: &str, tablespace: Option<&str>) -> (Postgres, Client) {
    let mut postgres = Postgres::nowhere();
    let data = postgres.data();
    let moved = postgres.socket().with_file_name("moved");
    let mapping = tablespace.map(|name| format!("{name}:{}", moved.display()));
    let options: Vec<&str> = mapping.iter().flat_map(|mapping| ["--tablespace", mapping.as_str()]).collect();
    tokio::task::block_in_place(|| barman.run("restore", &options, &[id, data.to_str().unwrap()]));
    // The tool ran as whoever tests, the server does not.
    let mut chown = Command::new("chown");
    chown.arg("-R").arg(format!("--reference={}", directory(&postgres))).arg(&data);
    chown.args(tablespace.map(|_| &moved));
    assert!(finish(&mut chown, PROGRAM_LIMIT).unwrap().status.success());
    let restore = barman.command_line("wal-restore", "%f %p");
    postgres.configure(&format!("restore_command = '{restore}'\narchive_mode = off"));
    std::fs::write(data.join("recovery.signal"), "").unwrap();
    postgres.start();
    let client = postgres.connect().await;
    wait_until("recovery ends", async || !one::<bool>(&client, "SELECT pg_is_in_recovery()").await).await;
    (postgres, client)
}

async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(client: &Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn barman_lists_restores_and_deletes_what_we_wrote() {
    let Some(barman) = Barman::start().await else { return };
    tokio::task::block_in_place(|| barman.run("check-wal-archive", &[], &[]));
    let primary = Primary::start(barman.store()).await;
    let client = &primary.client;
    client.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 1000) i").await.unwrap();
    let first = primary.backup(BackupOptions::new(layout())).await.unwrap().info;
    client.batch_execute("INSERT INTO t SELECT generate_series(1, 11)").await.unwrap();
    primary.all_archived().await;
    // Before there is a tablespace in the WAL: its replay would take the directory of the server that goes on.
    let (restored, restored_client) = restore_with_barman(&barman, &first.id.to_string(), None).await;
    assert_eq!(one::<i64>(&restored_client, "SELECT count(*) FROM t").await, 1011);
    drop((restored_client, restored));

    let location = primary.postgres.beside("space");
    let create = format!("CREATE TABLESPACE space LOCATION '{}'", location.display());
    client.batch_execute(&create).await.unwrap();
    client
        .batch_execute("CREATE TABLE u TABLESPACE space AS SELECT generate_series(1, 500) i")
        .await
        .unwrap();
    let nightly = BackupOptions { name: Some("nightly".to_owned()), ..BackupOptions::new(layout()) };
    let second = primary.backup(nightly).await.unwrap().info;
    client.batch_execute("INSERT INTO u SELECT generate_series(1, 234)").await.unwrap();
    primary.all_archived().await;
    tokio::task::block_in_place(|| {
        lists(&barman, &first, &second);
        restores_wal(&barman, &primary.postgres, &second);
        let refused = barman.output("check-wal-archive", &[], &[]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    });
    let (_restored, restored_client) =
        restore_with_barman(&barman, &second.id.to_string(), Some("space")).await;
    assert_eq!(one::<i64>(&restored_client, "SELECT count(*) FROM t").await, 1011);
    assert_eq!(one::<i64>(&restored_client, "SELECT count(*) FROM u").await, 734);
    drop(restored_client);

    let keep = |option: &str| {
        tokio::task::block_in_place(|| barman.run("backup-keep", &[option], &[&second.id.to_string()]))
    };
    keep("--target=standalone");
    assert_eq!(barman.catalog().await.backups[1].keep, Some(Keep::Standalone));
    keep("--release");
    assert_eq!(barman.catalog().await.backups[1].keep, None);
    let owned = prove_by_hand(&*barman.store(), &layout(), second.system_identifier, None).await.unwrap();
    mark(&*barman.store(), &layout(), owned, &second.id, Some(Keep::Full)).await.unwrap();
    let first_id = first.id.to_string();
    tokio::task::block_in_place(|| barman.run("backup-delete", &["--backup-id", &first_id], &[]));
    let catalog = barman.catalog().await;
    let good: Vec<&BackupId> = catalog.backups.iter().filter_map(|backup| Some(&backup.good()?.id)).collect();
    assert_eq!(good, [&second.id]);
    assert_eq!(catalog.window().unwrap().chain.gaps, []);
    let second_id = second.id.to_string();
    let marked =
        tokio::task::block_in_place(|| barman.output("backup-delete", &["--backup-id", &second_id], &[]));
    assert_ne!(marked.status.code(), Some(0), "it is marked to be kept: {marked:?}");
    sound(&barman).await;
}

fn lists(barman: &Barman, first: &BackupInfo, second: &BackupInfo) {
    let (first_id, second_id) = (first.id.to_string(), second.id.to_string());
    let table = barman.run("backup-list", &[], &[]);
    assert!(table.contains(&first_id) && table.contains(&second_id) && table.contains("nightly"), "{table}");
    let list: Value = serde_json::from_str(&barman.run("backup-list", &["--format", "json"], &[])).unwrap();
    let list = list["backups_list"].as_array().unwrap();
    let ids: Vec<&str> = list.iter().map(|backup| backup["backup_id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&first_id, &second_id]);
    let last = &list[1];
    assert_eq!(last["status"], "DONE");
    assert_eq!(last["begin_wal"], second.begin_wal.unwrap().to_string());
    assert_eq!(last["end_xlog"], second.end_lsn.unwrap().to_string());
    assert_eq!(last["systemid"], second.system_identifier.unwrap().to_string());
    let shown = barman.run("backup-show", &["--format", "json"], &[&second_id]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    // CloudNativePG looks there.
    assert_eq!(shown["cloud"]["backup_id"], second_id, "{shown}");
}

fn restores_wal(barman: &Barman, postgres: &Postgres, backup: &BackupInfo) {
    let target = barman.home.path().join("target");
    let name = backup.begin_wal.unwrap().to_string();
    barman.run("wal-restore", &[], &[&name, target.to_str().unwrap()]);
    assert!(
        std::fs::read(&target).unwrap() == std::fs::read(postgres.pg_wal().join(&name)).unwrap(),
        "{name}"
    );
    let absent = barman.output("wal-restore", &[], &["0000000100000000000000F0", target.to_str().unwrap()]);
    assert_eq!(absent.status.code(), Some(1), "{absent:?}");
}
