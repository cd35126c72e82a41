//! A planned switchover to the synchronous standby: how long clients cannot write, and what the API says about it; and the same while
//! ten long reports run on the candidate.

use anyhow::{Context as _, ensure};
use outrider_bed::{Connection, Endpoint};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::figures::{Measure, Outcome, Target};
use crate::scene::{Scene, repeat};

const TARGET: Target = Target::Ranks(0.15, 0.3);
const MEASURES: [Measure; 3] = [
    Measure { name: "switchover", unit: "s", digits: 3, target: TARGET },
    Measure { name: "switchover, as the API says", unit: "s", digits: 3, target: TARGET },
    Measure { name: "switchover, until whole again", unit: "s", digits: 3, target: Target::None },
];

const AMONG_REPORTS: [Measure; 1] = [Measure {
    name: "switchover, ten reports on the candidate",
    unit: "s",
    digits: 3,
    target: Target::Ranks(0.3, 0.3),
}];
const REPORTS: usize = 10;

pub(super) async fn run(runs: u32) -> anyhow::Result<Outcome> {
    repeat("switchover", runs, true, &MEASURES, once).await
}

pub(super) async fn run_among_reports(runs: u32) -> anyhow::Result<Outcome> {
    repeat("switchover-reports", runs, true, &AMONG_REPORTS, once_among_reports).await
}

async fn once_among_reports(scene: &Scene) -> anyhow::Result<Vec<Option<f64>>> {
    let candidate = scene.cluster.wait_until_synchronous().await?.into_iter().next();
    let candidate = candidate.context("no synchronous standby")?;
    let mut endpoints = scene.cluster.endpoints().into_iter();
    let endpoint = endpoints.find(|endpoint| endpoint.name == candidate).context("it has no address")?;
    let reports = begin_reports(&endpoint).await?;
    let figures = once(scene).await;
    for report in reports {
        report.abort();
    }
    let ended = "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity WHERE query LIKE '%a long report%' \
        AND pid <> pg_backend_pid()";
    endpoint.connect().await?.text(ended).await?;
    Ok(figures?.into_iter().take(1).collect())
}

/// Queries that have read from a table and never end, each with a snapshot that replay must respect.
async fn begin_reports(endpoint: &Endpoint) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let mut reports = Vec::new();
    for _ in 0..REPORTS {
        let connection: Connection = endpoint.connect().await?;
        connection.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        connection.text("SELECT count(*)::text FROM pg_class").await?;
        // It is ended together with its session.
        reports.push(tokio::spawn(async move {
            let _ = connection.run("/* a long report */ SELECT pg_sleep(3600)").await;
        }));
    }
    Ok(reports)
}

async fn once(scene: &Scene) -> anyhow::Result<Vec<Option<f64>>> {
    let leader = scene.cluster.wait_for_leader().await?;
    let candidate = scene.cluster.wait_until_synchronous().await?.into_iter().next();
    let candidate = candidate.context("no synchronous standby")?;
    let since = Instant::now();
    let answer =
        leader.post("/switchover", &json!({"leader": leader.name(), "candidate": candidate})).await?;
    ensure!(answer.status == 200, "the switchover was answered {}: {}", answer.status, answer.text.trim());
    let gap = scene.gap(since).await?;
    let returning = scene.settle(leader.name()).await?;
    Ok(vec![Some(gap), answer.write_gap, Some(returning)])
}
