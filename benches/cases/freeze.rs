//! The leader's agent stands still for three ttl while its Postgres and its supervisor go on. The fuse has to end that
//! Postgres before another member leads.

use std::time::Duration;

use outrider_bed::process::Signal;
use tokio::time::{Instant, sleep_until};

use crate::figures::{Measure, Outcome, Target};
use crate::scene::{Scene, repeat};

/// Three ttl of the usual rules.
const FREEZE: Duration = Duration::from_secs(15);

const MEASURES_ON: [Measure; 2] = [
    Measure { name: "freeze-on", unit: "s", digits: 2, target: Target::None },
    Measure { name: "freeze-on, while it comes back", unit: "s", digits: 3, target: Target::None },
];
const MEASURES_OFF: [Measure; 2] = [
    Measure { name: "freeze-off", ..MEASURES_ON[0] },
    Measure { name: "freeze-off, while it comes back", ..MEASURES_ON[1] },
];

pub(super) async fn run_synchronous(runs: u32) -> anyhow::Result<Outcome> {
    repeat("freeze-on", runs, true, &MEASURES_ON, once).await
}

pub(super) async fn run_asynchronous(runs: u32) -> anyhow::Result<Outcome> {
    repeat("freeze-off", runs, false, &MEASURES_OFF, once).await
}

async fn once(scene: &Scene) -> anyhow::Result<Vec<Option<f64>>> {
    let leader = scene.cluster.wait_for_leader().await?;
    let since = Instant::now();
    leader.signal_agent(Signal::Stop);
    // How long it stands still is the fault itself. Nobody asks for the leader meanwhile: a frozen agent does not answer.
    sleep_until(since + FREEZE).await;
    let gap = scene.gap(since).await?;
    leader.signal_agent(Signal::Continue);
    let returning = scene.settle(leader.name()).await?;
    Ok(vec![Some(gap), Some(returning)])
}
