//! SIGKILL to the postmaster of the primary, with a synchronous standby: how long clients cannot write.

use tokio::time::Instant;

use crate::figures::{Measure, Outcome, Target};
use crate::scene::{Scene, repeat};

const MEASURES: [Measure; 2] = [
    Measure { name: "crash", unit: "s", digits: 3, target: Target::Ranks(0.5, 1.0) },
    Measure { name: "crash, until whole again", unit: "s", digits: 3, target: Target::None },
];

pub(super) async fn run(runs: u32) -> anyhow::Result<Outcome> {
    repeat("crash", runs, true, &MEASURES, once).await
}

async fn once(scene: &Scene) -> anyhow::Result<Vec<Option<f64>>> {
    let leader = scene.cluster.wait_for_leader().await?;
    let since = Instant::now();
    leader.kill_postmaster();
    scene.cluster.wait_for_another(leader.name()).await?;
    let gap = scene.gap(since).await?;
    let returning = scene.settle(leader.name()).await?;
    Ok(vec![Some(gap), Some(returning)])
}
