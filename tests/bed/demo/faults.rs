//! The three ways in which the demonstration loses its primary. Each returns the longest time without a commit.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use outrider_bed::{Cluster, Oracle};
use serde_json::json;
use tokio::time::Instant;

use crate::screen::{Screen, span};

/// So many commits show that writing goes on.
const COMMITS: usize = 100;

/// On request: `POST /switchover`.
pub(crate) async fn switch_over(
    screen: &Screen,
    cluster: &Cluster,
    oracle: &Oracle,
) -> anyhow::Result<Duration> {
    screen.heading("1  Switchover: the primary is to change, without a lost or refused commit");
    cluster.wait_until_synchronous().await?;
    let leader = cluster.wait_for_leader().await?;
    let since = Instant::now();
    screen.event(format!(
        "curl -X POST {}/switchover -d '{{\"leader\":\"{}\"}}'",
        leader.url(),
        leader.name()
    ));
    let answer = leader.post("/switchover", &json!({"leader": leader.name()})).await?;
    screen.event(format!("{} {}", answer.status, answer.text.trim()));
    ensure!(answer.status == 200, "the switchover was refused");
    if let Some(gap) = answer.write_gap {
        screen.event(format!("the agents measured {} without writes", span(Duration::from_secs_f64(gap))));
    }
    go_on(screen, cluster, oracle, since).await
}

/// SIGKILL to the postmaster.
pub(crate) async fn crash(screen: &Screen, cluster: &Cluster, oracle: &Oracle) -> anyhow::Result<Duration> {
    screen.heading("2  Crash: the postmaster of the primary is killed with SIGKILL");
    cluster.wait_until_synchronous().await?;
    let leader = cluster.wait_for_leader().await?;
    let pid = leader.postmaster_pid().context("the primary has a postmaster")?;
    let since = Instant::now();
    leader.kill_postmaster();
    screen.event(format!("kill -KILL {pid}, the postmaster of {}", screen.name(leader.name())));
    let next = cluster.wait_for_another(leader.name()).await?;
    screen.event(format!("{} leads", screen.name(next.name())));
    go_on(screen, cluster, oracle, since).await
}

/// SIGKILL to agent, supervisor and Postgres at once; later they start again.
pub(crate) async fn lose_node(
    screen: &Screen,
    cluster: &Cluster,
    oracle: &Oracle,
) -> anyhow::Result<Duration> {
    screen.heading("3  Loss of a node: agent, supervisor and Postgres of the primary are killed at once");
    cluster.wait_until_synchronous().await?;
    let leader = cluster.wait_for_leader().await?;
    let since = Instant::now();
    leader.kill_node();
    screen.event(format!("everything of {} is gone; its lease has to run out", screen.name(leader.name())));
    let next = cluster.wait_for_another(leader.name()).await?;
    screen.event(format!("{} leads", screen.name(next.name())));
    oracle.wait_for_commits(COMMITS).await?;
    let gap = oracle.longest_gap(since);
    screen.event(format!("commits go on; the longest time without one was {}", span(gap)));
    leader.start()?;
    screen.event(format!("{} comes back", screen.name(leader.name())));
    cluster.wait_until_whole().await?;
    screen.event("all others stream from the new primary");
    Ok(gap)
}

async fn go_on(
    screen: &Screen,
    cluster: &Cluster,
    oracle: &Oracle,
    since: Instant,
) -> anyhow::Result<Duration> {
    oracle.wait_for_commits(COMMITS).await?;
    let gap = oracle.longest_gap(since);
    screen.event(format!("commits go on; the longest time without one was {}", span(gap)));
    cluster.wait_until_whole().await?;
    screen.event("all others stream from the new primary");
    Ok(gap)
}
