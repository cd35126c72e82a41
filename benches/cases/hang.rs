//! SIGSTOP to every process of the primary's Postgres, or to its postmaster alone, while agent and supervisor go on: how long
//! clients cannot write. Of a stopped postmaster those that are connected notice nothing until it is given up; who comes anew is shut out.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use outrider_bed::process::{self, Signal};
use tokio::time::{Instant, sleep};

use crate::figures::{Measure, Outcome, Target};
use crate::scene::{Scene, repeat};

/// Between two tries of a client that comes anew each time.
const TRY_INTERVAL: Duration = Duration::from_millis(20);
/// For somebody to let it in.
const LIMIT: Duration = Duration::from_secs(60);

const MEASURES_ALL: [Measure; 2] = [
    Measure { name: "freeze-postgres", unit: "s", digits: 2, target: Target::Below(8.0) },
    Measure { name: "freeze-postgres, while it comes back", unit: "s", digits: 3, target: Target::None },
];
const MEASURES_POSTMASTER: [Measure; 3] = [
    Measure { name: "freeze-postmaster, who comes anew", unit: "s", digits: 2, target: Target::Below(8.0) },
    Measure { name: "freeze-postmaster, who is connected", unit: "s", digits: 2, target: Target::Below(8.0) },
    Measure { name: "freeze-postmaster, while it comes back", unit: "s", digits: 3, target: Target::None },
];

pub(super) async fn run_all(runs: u32) -> anyhow::Result<Outcome> {
    repeat("freeze-postgres", runs, true, &MEASURES_ALL, all).await
}

pub(super) async fn run_postmaster(runs: u32) -> anyhow::Result<Outcome> {
    repeat("freeze-postmaster", runs, true, &MEASURES_POSTMASTER, postmaster).await
}

async fn all(scene: &Scene) -> anyhow::Result<Vec<Option<f64>>> {
    let leader = scene.cluster.wait_for_leader().await?;
    let since = Instant::now();
    let stopped = leader.signal_postgres(Signal::Stop);
    ensure!(!stopped.is_empty(), "{} has no Postgres to stop", leader.name());
    scene.cluster.wait_for_another(leader.name()).await?;
    let gap = scene.gap(since).await?;
    let returning = scene.settle(leader.name()).await?;
    Ok(vec![Some(gap), Some(returning)])
}

async fn postmaster(scene: &Scene) -> anyhow::Result<Vec<Option<f64>>> {
    let leader = scene.cluster.wait_for_leader().await?;
    let pid = leader.postmaster_pid().context("the leader has no postmaster")?;
    let since = Instant::now();
    process::send(pid, Signal::Stop);
    let shut_out = until_somebody_is_let_in(scene, since).await?;
    let gap = scene.gap(since).await?;
    let returning = scene.settle(leader.name()).await?;
    Ok(vec![Some(shut_out), Some(gap), Some(returning)])
}

/// How long a client found no primary that takes a new connection.
async fn until_somebody_is_let_in(scene: &Scene, since: Instant) -> anyhow::Result<f64> {
    while since.elapsed() < LIMIT {
        for endpoint in scene.cluster.endpoints() {
            if endpoint.connect_to_primary().await.is_ok() {
                return Ok(since.elapsed().as_secs_f64());
            }
        }
        sleep(TRY_INTERVAL).await;
    }
    anyhow::bail!("no primary took a connection within {LIMIT:?}")
}
