//! A cluster in which nobody writes: the memory and the processor time of agents and supervisors.

use std::time::Duration;

use anyhow::Context as _;
use outrider_bed::process::{self, Stat};
use outrider_bed::{Archive, Builder, wait_until};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::figures::{Measure, Outcome, Row, Target};

/// How long they are watched. The kernel counts processor time in hundredths of a second, so this shows 0.008 %.
const WATCH: Duration = Duration::from_secs(120);
/// For the first base backup, which a new cluster takes by itself.
const BACKUP_LIMIT: Duration = Duration::from_secs(60);

const MIB: f64 = 1024.0 * 1024.0;
const MEMORY: Measure = Measure { name: "", unit: "MiB", digits: 1, target: Target::Below(15.0) };
const PROCESSOR: Measure = Measure { name: "", unit: "%", digits: 3, target: Target::Below(0.1) };

/// With an archive, as a member in earnest has one, and after the first base backup: what that leaves behind counts.
pub(super) async fn run() -> anyhow::Result<Outcome> {
    let cluster = Builder::new().archive(Archive::Embedded).start().await?;
    cluster.wait_until_synchronous().await?;
    let leader = cluster.wait_for_leader().await?;
    let standby = cluster.standbys().await?.into_iter().next().context("no standby")?;
    wait_until("the first base backup", BACKUP_LIMIT, async || {
        let answer = leader.get("/backup").await.ok()?;
        let records: Value = serde_json::from_str(&answer.text).ok()?;
        records["last"]["backup"].as_str().map(drop)
    })
    .await?;
    let watched = [
        ("idle, leader's agent, RSS", "idle, leader's agent, CPU", leader.agent_pid()),
        ("idle, standby's agent, RSS", "idle, standby's agent, CPU", standby.agent_pid()),
        ("idle, leader's supervisor, RSS", "idle, leader's supervisor, CPU", leader.supervisor_pid()),
    ];
    let before = watched.iter().map(|(_, _, pid)| look(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
    let begun = Instant::now();
    sleep_until(begun + WATCH).await;
    let mut rows = Vec::new();
    for ((memory, processor, pid), before) in watched.into_iter().zip(before) {
        let after = look(pid)?;
        let share = after.cpu.saturating_sub(before.cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
        rows.push(row(memory, MEMORY, after.resident as f64 / MIB));
        rows.push(row(processor, PROCESSOR, share * 100.0));
    }
    Ok(Outcome { case: "idle", rows, books: None, faults: Vec::new() })
}

fn look(pid: Option<i32>) -> anyhow::Result<Stat> {
    pid.and_then(process::stat).context("a process of the cluster has ended")
}

fn row(name: &'static str, measure: Measure, figure: f64) -> Row {
    let row = Row { measure: Measure { name, ..measure }, figures: vec![figure] };
    println!("  {name}: {}", row.with_unit(figure));
    row
}
