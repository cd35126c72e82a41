//! `outrider wal-push` for a segment that is shipped already, which is what PostgreSQL's archiver waits for, beside the bare
//! start of a process.

use std::time::Duration;

use anyhow::ensure;
use outrider_bed::{Archive, Builder, Cluster, Member, wait_until};
use tokio::time::Instant;

use crate::figures::{Measure, Outcome, Row, Target};

/// How often each is started.
const STARTS: usize = 50;
/// For a segment to be shipped.
const SHIP_LIMIT: Duration = Duration::from_secs(60);

const PUSH: Measure = Measure { name: "wal-push", unit: "ms", digits: 2, target: Target::Ranks(5.0, 5.0) };
const BARE: Measure =
    Measure { name: "wal-push, bare start (version)", unit: "ms", digits: 2, target: Target::None };

pub(super) async fn run() -> anyhow::Result<Outcome> {
    let cluster = Builder::new().archive(Archive::Embedded).start().await?;
    let leader = cluster.wait_for_leader().await?;
    let segment = shipped(&cluster, leader).await?;
    let path = leader.data_directory().join("pg_wal").join(segment).display().to_string();
    let socket = leader.directory().join("run/archive.sock").display().to_string();
    let push = times(leader, PUSH, &["wal-push", "--socket", &socket, &path])?;
    let bare = times(leader, BARE, &["version"])?;
    Ok(Outcome { case: "wal-push", rows: vec![push, bare], books: None, faults: Vec::new() })
}

/// Finishes a segment, and waits until PostgreSQL was told that it is in the archive.
async fn shipped(cluster: &Cluster, leader: &Member) -> anyhow::Result<String> {
    let endpoints = cluster.endpoints();
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == leader.name());
    let endpoint = endpoint.ok_or_else(|| anyhow::anyhow!("{} has no address", leader.name()))?;
    let connection = endpoint.connect_to_primary().await?;
    // A switch right after a switch does nothing.
    connection.run("SELECT pg_logical_emit_message(true, 'bench', 'a record')").await?;
    let segment = connection.text("SELECT pg_walfile_name(pg_switch_wal())").await?;
    let question = format!("SELECT (last_archived_wal >= '{segment}')::text FROM pg_stat_archiver");
    let archived =
        async || connection.text(&question).await.is_ok_and(|answer| answer == "true").then_some(());
    wait_until(format!("{segment} is archived"), SHIP_LIMIT, archived).await?;
    Ok(segment)
}

fn times(leader: &Member, measure: Measure, arguments: &[&str]) -> anyhow::Result<Row> {
    let mut row = Row::new(measure);
    for _ in 0..STARTS {
        let begun = Instant::now();
        let output = leader.outrider(arguments)?;
        row.figures.push(begun.elapsed().as_secs_f64() * 1000.0);
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "outrider {} failed: {}", arguments.join(" "), said.trim());
    }
    println!("  {}", row.summary());
    Ok(row)
}
