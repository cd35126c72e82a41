//! The same work done by pgBackRest and barman-cloud on the same MinIO, where they are installed. Measures what they do as
//! whole processes, which is how PostgreSQL calls them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use outrider_bed::{PASSWORD, PROGRAM_LIMIT, finish};
use tokio::time::{Instant, sleep};

use crate::depot::{BENCH_LIMIT, Depot, text};
use crate::figures::{Measure, Row, Target};

/// What a replay does between two files.
pub(crate) const REPLAY: Duration = Duration::from_millis(30);
/// Segments for barman, which takes most of a second for each.
const FEW: usize = 6;
/// Questions for a file that is not there.
const ABSENT: usize = 5;
/// A name that no archive has.
const ABSENT_NAME: &str = "000000090000000000000001";

/// One of them, ready to work on the depot's archive.
pub(crate) struct Other<'depot> {
    depot: &'depot Depot,
    endpoint: String,
    authority: PathBuf,
    /// Of pgBackRest.
    config: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    PgBackRest,
    Barman,
}

const fn milliseconds(name: &'static str) -> Measure {
    Measure { name, unit: "ms", digits: 1, target: Target::None }
}

const fn seconds(name: &'static str) -> Measure {
    Measure { name, unit: "s", digits: 2, target: Target::None }
}

/// The WAL rows of each that is installed: these segments of the depot, one at a time,
/// all at once from where they wait (a data directory), and back again.
pub(crate) async fn wal(depot: &Depot, segments: &[String], waiting: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if let Some(pgbackrest) = Other::open(depot, Kind::PgBackRest)? {
        rows.extend(pgbackrest.wal_of_pgbackrest(segments, waiting).await?);
    }
    if let Some(barman) = Other::open(depot, Kind::Barman)? {
        rows.extend(barman.wal_of_barman(segments).await?);
    }
    Ok(rows)
}

/// The base backup rows of each that is installed. `rounds`: of pgBackRest; barman takes minutes and has one.
pub(crate) fn base_backup(depot: &Depot, rounds: u32) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if let Some(pgbackrest) = Other::open(depot, Kind::PgBackRest)? {
        rows.extend(pgbackrest.backup_of_pgbackrest(rounds)?);
    }
    if let Some(barman) = Other::open(depot, Kind::Barman)? {
        rows.extend(barman.backup_of_barman()?);
    }
    Ok(rows)
}

impl<'depot> Other<'depot> {
    /// `None`, with a word, when it is not installed.
    fn open(depot: &'depot Depot, kind: Kind) -> anyhow::Result<Option<Self>> {
        let (program, package) = match kind {
            Kind::PgBackRest => ("pgbackrest", "pgbackrest"),
            Kind::Barman => ("barman-cloud-backup", "barman-cli-cloud"),
        };
        if finish(Command::new(program).arg("--help"), PROGRAM_LIMIT).is_err() {
            println!("  no {program} to compare with (apt-get install {package})");
            return Ok(None);
        }
        let store = depot.cluster.store.as_ref().context("the cluster has no object store")?;
        let authority = store.ca_file().context("the object store has no TLS")?;
        let config = depot.scratch("pgbackrest.conf");
        let other = Other { depot, endpoint: store.endpoint(), authority, config };
        if kind == Kind::PgBackRest {
            other.write_config()?;
            other.pgbackrest(&["stanza-create"], true)?;
        }
        Ok(Some(other))
    }

    fn write_config(&self) -> anyhow::Result<()> {
        let member = self.depot.member();
        let port = self.endpoint.rsplit(':').next().context("an endpoint without a port")?;
        let directory = self.depot.scratch("pgbackrest");
        std::fs::create_dir_all(&directory)?;
        self.depot.own(&directory)?;
        let (directory, authority) = (directory.display(), self.authority.display());
        let config = format!(
            "[global]\nrepo1-type=s3\nrepo1-path=/pgbackrest\nrepo1-s3-bucket={}\nrepo1-s3-endpoint=localhost\n\
             repo1-storage-port={port}\nrepo1-s3-region=us-east-1\nrepo1-s3-uri-style=path\nrepo1-s3-key={}\n\
             repo1-s3-key-secret={}\nrepo1-storage-ca-file={authority}\nrepo1-retention-full=9\n\
             lock-path={directory}/lock\nlog-path={directory}/log\nspool-path={directory}/spool\n\
             log-level-file=off\nprocess-max=2\nstart-fast=y\narchive-check=n\narchive-mode-check=n\n\
             [bench]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user=postgres\n",
            outrider_bed::BUCKET,
            outrider_bed::ACCESS_KEY,
            outrider_bed::SECRET_KEY,
            member.data_directory().display(),
            member.port(),
            member.directory().join("run").display(),
        );
        std::fs::write(&self.config, config).context("cannot write pgBackRest's configuration")
    }

    fn pgbackrest(&self, arguments: &[&str], must: bool) -> anyhow::Result<Output> {
        let guard = &self.depot.cluster.guard;
        let mut command = guard.command(Path::new("pgbackrest"), guard.directory());
        command.arg("--config").arg(&self.config).arg("--stanza=bench").args(arguments);
        command.env("PGPASSWORD", PASSWORD);
        run(command, must)
    }

    /// `barman-cloud-<tool>`.
    fn barman(&self, tool: &str, options: &[&str], arguments: &[&str], must: bool) -> anyhow::Result<Output> {
        let guard = &self.depot.cluster.guard;
        let mut command = guard.command(Path::new(&format!("barman-cloud-{tool}")), guard.directory());
        command.args(["--endpoint-url", &self.endpoint]).args(options);
        command.arg(format!("s3://{}/barman", outrider_bed::BUCKET)).arg("bench").args(arguments);
        command.env("AWS_ACCESS_KEY_ID", outrider_bed::ACCESS_KEY);
        command.env("AWS_SECRET_ACCESS_KEY", outrider_bed::SECRET_KEY);
        command.env("AWS_DEFAULT_REGION", "us-east-1").env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_CA_BUNDLE", &self.authority).env("PGPASSWORD", PASSWORD);
        run(command, must)
    }

    async fn wal_of_pgbackrest(&self, segments: &[String], waiting: &Path) -> anyhow::Result<Vec<Row>> {
        let mut push = Row::new(milliseconds("archive, pgBackRest gz 1, archive-push"));
        let mut drain = Row::new(seconds("archive, pgBackRest zst 1 asynchronous, drain of 24"));
        let mut fetch = Row::new(milliseconds("archive, pgBackRest asynchronous, archive-get in order"));
        let mut absent = Row::new(milliseconds("archive, pgBackRest, archive-get of an absent file"));
        let gzip = ["--compress-type=gz", "--compress-level=1"];
        let pg_wal = waiting.join("pg_wal");
        for segment in segments.iter().take(FEW) {
            let path = self.depot.pg_wal().join(segment);
            let begun = Instant::now();
            self.pgbackrest(&[&gzip[..], &["archive-push", text(&path)?]].concat(), true)?;
            push.figures.push(milliseconds_since(begun));
        }
        // A repository of its own, so that all of them are new to it.
        let directory = format!("--pg1-path={}", text(waiting)?);
        let zstd = ["--compress-type=zst", "--compress-level=1"];
        let own = ["--repo1-path=/pgbackrest-drain", &directory, "--archive-async"];
        self.pgbackrest(&[own[0], "stanza-create"], true)?;
        let begun = Instant::now();
        for segment in segments {
            let path = pg_wal.join(segment);
            self.pgbackrest(&[&own[..], &zstd, &["archive-push", text(&path)?]].concat(), true)?;
        }
        drain.figures.push(begun.elapsed().as_secs_f64());
        let fetched = self.depot.scratch("fetched-by-pgbackrest");
        for segment in segments {
            let begun = Instant::now();
            self.pgbackrest(&[&own[..], &["archive-get", segment, text(&fetched)?]].concat(), true)?;
            fetch.figures.push(milliseconds_since(begun));
            ensure!(
                std::fs::read(&fetched)? == std::fs::read(pg_wal.join(segment))?,
                "{segment} came back different"
            );
            std::fs::remove_file(&fetched)?;
            sleep(REPLAY).await;
        }
        for _ in 0..ABSENT {
            let begun = Instant::now();
            let output = self.pgbackrest(&["archive-get", ABSENT_NAME, text(&fetched)?], false)?;
            absent.figures.push(milliseconds_since(begun));
            ensure!(output.status.code() == Some(1), "an absent file ended with {output:?}");
        }
        Ok(vec![push, drain, fetch, absent])
    }

    async fn wal_of_barman(&self, segments: &[String]) -> anyhow::Result<Vec<Row>> {
        let mut push = Row::new(milliseconds("archive, barman-cloud-wal-archive, gzip"));
        let mut fetch = Row::new(milliseconds("archive, barman-cloud-wal-restore in order"));
        let mut absent = Row::new(milliseconds("archive, barman-cloud-wal-restore of an absent file"));
        let fetched = self.depot.scratch("fetched-by-barman");
        for segment in segments.iter().take(FEW) {
            let path = self.depot.pg_wal().join(segment);
            let begun = Instant::now();
            self.barman("wal-archive", &["--gzip"], &[text(&path)?], true)?;
            push.figures.push(milliseconds_since(begun));
        }
        for segment in segments.iter().take(FEW) {
            let begun = Instant::now();
            self.barman("wal-restore", &[], &[segment, text(&fetched)?], true)?;
            fetch.figures.push(milliseconds_since(begun));
            std::fs::remove_file(&fetched)?;
            sleep(REPLAY).await;
        }
        for _ in 0..ABSENT {
            let begun = Instant::now();
            let output = self.barman("wal-restore", &[], &[ABSENT_NAME, text(&fetched)?], false)?;
            absent.figures.push(milliseconds_since(begun));
            ensure!(output.status.code() == Some(1), "an absent file ended with {output:?}");
        }
        Ok(vec![push, fetch, absent])
    }

    fn backup_of_pgbackrest(&self, rounds: u32) -> anyhow::Result<Vec<Row>> {
        let mut backup = Row::new(seconds("base backup, pgBackRest zst 1, two processes"));
        let mut restore = Row::new(seconds("restore of it, pgBackRest, two processes"));
        let zstd = ["--compress-type=zst", "--compress-level=1", "--type=full", "backup"];
        for round in 0..rounds {
            let begun = Instant::now();
            self.pgbackrest(&zstd, true)?;
            backup.figures.push(begun.elapsed().as_secs_f64());
            let directory = self.depot.scratch(&format!("restored-by-pgbackrest-{round}"));
            let took = self.depot.time_restore(&directory, || {
                std::fs::create_dir_all(&directory)?;
                self.depot.own(&directory)?;
                self.pgbackrest(&[&format!("--pg1-path={}", text(&directory)?), "restore"], true).map(drop)
            })?;
            restore.figures.push(took);
        }
        Ok(vec![backup, restore])
    }

    fn backup_of_barman(&self) -> anyhow::Result<Vec<Row>> {
        let mut backup = Row::new(seconds("base backup, barman-cloud-backup, gzip"));
        let mut restore = Row::new(seconds("restore of it, barman-cloud-restore"));
        let port = self.depot.member().port().to_string();
        let options = ["--gzip", "--immediate-checkpoint", "-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
        let begun = Instant::now();
        self.barman("backup", &options, &[], true)?;
        backup.figures.push(begun.elapsed().as_secs_f64());
        let listed = self.barman("backup-list", &["--format", "json"], &[], true)?;
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).context("barman's list")?;
        let id = listed["backups_list"][0]["backup_id"].as_str().context("barman lists no backup")?;
        let directory = self.depot.scratch("restored-by-barman");
        let took = self.depot.time_restore(&directory, || {
            self.barman("restore", &[], &[id, text(&directory)?], true).map(drop)
        })?;
        restore.figures.push(took);
        Ok(vec![backup, restore])
    }
}

fn milliseconds_since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

fn run(mut command: Command, must: bool) -> anyhow::Result<Output> {
    let output = finish(&mut command, BENCH_LIMIT)?;
    let (said, more) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    ensure!(
        output.status.success() || !must,
        "{:?} failed: {} {}",
        command.get_program(),
        more.trim(),
        said.trim()
    );
    Ok(output)
}
