//! SIGKILL to agent, supervisor and Postgres of the leader at once: how long clients cannot write. Nobody is left to hand the
//! lease over, so it has to run out.

use tokio::time::Instant;

use crate::figures::{Measure, Outcome, Target};
use crate::scene::{Scene, repeat};

const MEASURES: [Measure; 2] = [
    Measure { name: "node", unit: "s", digits: 2, target: Target::Ranks(5.5, 6.5) },
    Measure { name: "node, while it comes back", unit: "s", digits: 3, target: Target::None },
];

pub(super) async fn run(runs: u32) -> anyhow::Result<Outcome> {
    repeat("node", runs, true, &MEASURES, once).await
}

async fn once(scene: &Scene) -> anyhow::Result<Vec<Option<f64>>> {
    let leader = scene.cluster.wait_for_leader().await?;
    let since = Instant::now();
    leader.kill_node();
    scene.cluster.wait_for_another(leader.name()).await?;
    let gap = scene.gap(since).await?;
    leader.start()?;
    let returning = scene.settle(leader.name()).await?;
    Ok(vec![Some(gap), Some(returning)])
}
