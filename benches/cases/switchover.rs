//! A planned switchover to the synchronous standby: how long clients cannot write, and what the API says about it.

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::time::Instant;

use crate::figures::{Measure, Outcome, Target};
use crate::scene::{Scene, repeat};

const TARGET: Target = Target::Ranks(0.15, 0.3);
const MEASURES: [Measure; 3] = [
    Measure { name: "switchover", unit: "s", digits: 3, target: TARGET },
    Measure { name: "switchover, as the API says", unit: "s", digits: 3, target: TARGET },
    Measure { name: "switchover, until whole again", unit: "s", digits: 3, target: Target::None },
];

pub(super) async fn run(runs: u32) -> anyhow::Result<Outcome> {
    repeat("switchover", runs, true, &MEASURES, once).await
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
