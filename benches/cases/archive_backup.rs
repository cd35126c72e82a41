//! A base backup of 1.6 GB and its restore, beside PostgreSQL's own tools and a plain copy of the same files.

use outrider_bed::finish;
use serde_json::json;
use tokio::time::Instant;

use crate::depot::{BENCH_LIMIT, Depot, text};
use crate::figures::{Measure, Outcome, Row, Target};
use crate::others;

/// Of pgbench's tables: 100 makes 1.6 GB with its indexes.
const SCALE: u32 = 100;

const fn seconds(name: &'static str, target: Target) -> Measure {
    Measure { name, unit: "s", digits: 2, target }
}

const BACKUP: Measure = seconds("base backup, 1.6 GB", Target::Ranks(2.3, 2.3));
const LZ4: Measure = seconds("base backup, pg_basebackup -Ft, server lz4", Target::None);
const GZIP: Measure = seconds("base backup, pg_basebackup -Ft, server gzip 1", Target::None);
const COPY: Measure = seconds("base backup, cp -r and sync", Target::None);
const RESTORE: Measure = seconds("restore of it, verified and synced", Target::Ranks(2.3, 2.3));
const QUICK_RESTORE: Measure = seconds("restore of it, verified, --no-sync", Target::Ranks(2.3, 2.3));
const PLAN: Measure = seconds("restore of it, the plan alone", Target::None);

pub(super) async fn run(runs: u32) -> anyhow::Result<Outcome> {
    let depot = Depot::open(SCALE, json!({})).await?;
    let connection = depot.connect().await?;
    connection.run("CHECKPOINT").await?;
    let config = depot.member().configuration();
    let config = text(&config)?;
    let mut rows = [BACKUP, LZ4, GZIP, COPY, PLAN, RESTORE, QUICK_RESTORE].map(Row::new);
    for run in 0..runs.min(3) {
        rows[0].figures.push(time(|| depot.outrider(&["backup", "-c", config]))?);
        for (row, method) in [(1, "server-lz4"), (2, "server-gzip:1")] {
            let directory = depot.scratch(&format!("basebackup-{row}-{run}"));
            let directory = text(&directory)?;
            let arguments = [
                "-U",
                "replicator",
                "-D",
                directory,
                "-Ft",
                "--compress",
                method,
                "-c",
                "fast",
                "-X",
                "none",
            ];
            rows[row].figures.push(time(|| depot.postgres_program("pg_basebackup", &arguments))?);
            depot.remove(directory.as_ref())?;
        }
        let copy = depot.scratch("copy");
        let data = depot.member().data_directory();
        let command = format!("cp -r {} {} && sync -f {1}", text(&data)?, text(&copy)?);
        rows[3].figures.push(time(|| shell(&depot, &command))?);
        depot.remove(&copy)?;
        rows[4].figures.push(time(|| depot.outrider(&["restore", "-c", config, "--plan"]))?);
        let restored = depot.scratch(&format!("restored-{run}"));
        for (row, options) in [(5, &[][..]), (6, &["--no-sync"][..])] {
            let arguments = [&["restore", "-c", config, "--into", text(&restored)?], options].concat();
            rows[row].figures.push(depot.time_restore(&restored, || depot.outrider(&arguments))?);
        }
    }
    let mut rows = rows.to_vec();
    rows.extend(others::base_backup(&depot, runs.min(3))?);
    for row in &rows {
        println!("  {}", row.summary());
    }
    Ok(Outcome { case: "archive-backup", rows, books: None, faults: Vec::new() })
}

fn time(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn shell(depot: &Depot, command: &str) -> anyhow::Result<()> {
    let guard = &depot.cluster.guard;
    let mut shell = guard.command(std::path::Path::new("/bin/sh"), guard.directory());
    let output = finish(shell.args(["-c", command]), BENCH_LIMIT)?;
    anyhow::ensure!(output.status.success(), "{command} failed");
    Ok(())
}
