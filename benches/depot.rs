//! One member that archives into a MinIO with TLS, and WAL as pgbench makes it. Measures nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use outrider_bed::{Archive, Builder, Cluster, Connection, Endpoint, Member, PASSWORD, finish, wait_until};
use outrider_wal::{Lsn, SegmentSize};
use serde_json::json;
use tokio::time::Instant;

/// For a segment to reach the store.
const SHIP_LIMIT: Duration = Duration::from_secs(60);
/// For a program that does what is measured.
pub(crate) const BENCH_LIMIT: Duration = Duration::from_secs(1800);
/// Of a segment, when pgbench has written enough and the rest is left empty: as good as full.
const NEARLY_FULL: u64 = 15 << 20;
/// Transactions of pgbench at first.
const BATCH: u64 = 500;

/// The cluster and what is in it.
pub(crate) struct Depot {
    pub(crate) cluster: Cluster,
}

impl Depot {
    /// One member with pgbench's tables at this scale (16 MB each).
    ///
    /// # Errors
    /// When MinIO is missing (`make minio`), or something does not come up.
    pub(crate) async fn open(scale: u32, archive: serde_json::Value) -> anyhow::Result<Self> {
        let parameters =
            json!({"max_wal_size": "4GB", "wal_keep_size": "2GB", "checkpoint_timeout": "30min"});
        let settings = json!({"postgresql": {"parameters": parameters}, "archive": archive});
        let builder = Builder::new().members(1).archive(Archive::MinioWithTls).settings(settings);
        let depot = Depot { cluster: builder.dcs(json!({"synchronous_mode": false})).start().await? };
        depot.pgbench(&["-i", "-q", "-s", &scale.to_string()])?;
        Ok(depot)
    }

    pub(crate) fn member(&self) -> &Member {
        &self.cluster.members[0]
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.member().directory().join("run/archive.sock")
    }

    pub(crate) fn pg_wal(&self) -> PathBuf {
        self.member().data_directory().join("pg_wal")
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let mut endpoints: Vec<Endpoint> = self.cluster.endpoints();
        endpoints.pop().context("the cluster has no member")?.connect_to_primary().await
    }

    /// Runs a program of PostgreSQL's as the bed's user against the member.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn postgres_program(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let guard = &self.cluster.guard;
        let mut command = guard.command(&guard.programs().postgres.join(name), guard.directory());
        command.env("PGPASSWORD", PASSWORD).env("PGUSER", "postgres").env("PGHOST", "127.0.0.1");
        command.env("PGPORT", self.member().port().to_string()).env("PGDATABASE", "postgres");
        command.env("PGOPTIONS", "-c synchronous_commit=off");
        let output = finish(command.args(arguments), BENCH_LIMIT)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name} failed: {}", said.trim());
        Ok(())
    }

    /// pgbench that waits for no disk: it is here to write WAL.
    pub(crate) fn pgbench(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.postgres_program("pgbench", arguments)
    }

    /// Lets pgbench nearly fill the current segment after a checkpoint, so that it holds pages and records as on a server
    /// that works, and finishes it. Returns its name when PostgreSQL has switched.
    ///
    /// # Errors
    /// When pgbench fails or Postgres does not answer.
    pub(crate) async fn fill_segment(&self, connection: &Connection) -> anyhow::Result<String> {
        // How much a transaction writes depends on how many pages it is the first to touch: so by what the last ones did.
        connection.run("CHECKPOINT").await?;
        let mut transactions = BATCH;
        let mut before = position(connection).await?;
        while before % SegmentSize::DEFAULT.bytes() < NEARLY_FULL {
            self.pgbench(&["-n", "-t", &transactions.to_string()])?;
            let now = position(connection).await?;
            let each = (now - before).div_ceil(transactions).max(1);
            let left = NEARLY_FULL.saturating_sub(now % SegmentSize::DEFAULT.bytes());
            transactions = (left / each).clamp(BATCH / 10, BATCH * 20);
            before = now;
        }
        connection.text("SELECT pg_walfile_name(pg_switch_wal())").await
    }

    /// Waits until PostgreSQL was told that this segment, and so each before it, is in the archive.
    ///
    /// # Errors
    /// When it is not in time.
    pub(crate) async fn archived(&self, connection: &Connection, segment: &str) -> anyhow::Result<()> {
        let question = format!("SELECT (last_archived_wal >= '{segment}')::text FROM pg_stat_archiver");
        let archived =
            async || connection.text(&question).await.is_ok_and(|answer| answer == "true").then_some(());
        wait_until(format!("{segment} is archived"), SHIP_LIMIT, archived).await
    }

    /// `outrider` with these arguments, which must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn outrider(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = self.member().outrider(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "outrider {} failed: {}", arguments.join(" "), said.trim());
        Ok(())
    }

    /// Removes a directory, and waits until the disk has forgotten it: else what is measured next pays for that.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn remove(&self, directory: &Path) -> anyhow::Result<()> {
        std::fs::remove_dir_all(directory)?;
        ensure!(finish(&mut Command::new("sync"), BENCH_LIMIT)?.status.success(), "sync failed");
        Ok(())
    }

    /// How many seconds a restore into this directory takes when the store was read once before: the first time pays for what
    /// the machine has written away.
    ///
    /// # Errors
    /// When the restore fails, or the system refuses.
    pub(crate) fn time_restore(
        &self,
        directory: &Path,
        restore: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<f64> {
        restore()?;
        self.remove(directory)?;
        let begun = Instant::now();
        restore()?;
        let took = begun.elapsed().as_secs_f64();
        self.remove(directory)?;
        Ok(took)
    }

    /// Makes a file the bed's user's.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn own(&self, path: &Path) -> anyhow::Result<()> {
        self.cluster.guard.account().own(path)
    }

    /// A path for what the bed's user makes there; nothing is there yet.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.member().directory().join(name)
    }
}

/// Where the WAL ends, in bytes.
async fn position(connection: &Connection) -> anyhow::Result<u64> {
    let end: Lsn = connection.text("SELECT pg_current_wal_insert_lsn()::text").await?.parse()?;
    Ok(end.get())
}

/// A path as an argument.
///
/// # Errors
/// When it is not UTF-8.
pub(crate) fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
