//! The demonstration: three real members, etcd and an object store on this machine, a writer that never stops, and three
//! things that go wrong on purpose. Ends with the measured gaps and with what was lost.

mod screen;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use outrider_bed::{Archive, Builder, Cluster, Member, Options, Oracle, Watcher};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::screen::Screen;

/// Between the end of one event and the announcement of the next.
const PAUSE: Duration = Duration::from_secs(2);

/// Shows a cluster that survives a switchover, a crash and the loss of a node.
#[derive(Parser)]
struct Asked {
    /// End after the show even on a terminal
    #[arg(long)]
    once: bool,
    /// Use a real MinIO when its binary is on this machine (make minio)
    #[arg(long)]
    minio: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let asked = Asked::parse();
    let interrupted = tokio::signal::ctrl_c();
    tokio::select! {
        outcome = show(&asked) => match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(fault) => {
                eprintln!("{fault:#}");
                ExitCode::FAILURE
            }
        },
        _ = interrupted => {
            println!("\ninterrupted: stopping everything that was started");
            ExitCode::from(130)
        }
    }
}

/// Whether every promise was kept.
async fn show(asked: &Asked) -> anyhow::Result<bool> {
    let screen = Screen::new();
    let cluster = bring_up(&screen, asked).await?;
    cluster.wait_until_synchronous().await?;
    table::print(&cluster).await;

    screen.say("a writer begins: a hundred commits in a second, each with a serial that goes into its books");
    let oracle = Oracle::start(cluster.endpoints(), Options::default()).await?;
    let watcher = Watcher::start(cluster.endpoints());
    oracle.wait_for_commits(100).await?;

    let mut gaps = Vec::new();
    gaps.push(("planned switchover", switchover(&screen, &cluster, &oracle).await?));
    gaps.push(("postmaster killed (SIGKILL)", crash(&screen, &cluster, &oracle).await?));
    gaps.push(("node lost (SIGKILL to all of it)", node_loss(&screen, &cluster, &oracle).await?));
    table::print(&cluster).await;

    let stays = screen.is_terminal() && !asked.once;
    if stays {
        leave_running(&screen, &cluster);
        tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
        println!();
    }
    let overlaps = watcher.overlaps();
    let verdict = oracle.finish().await?;
    screen.title("What clients noticed");
    for (event, gap) in gaps {
        println!("  {event:<34} no commit for {:.2} s", gap.as_secs_f64());
    }
    println!();
    println!("  acknowledged {}, lost {}", verdict.acknowledged, verdict.lost.len());
    println!("  without an answer {} (they may be there or not)", verdict.unknown);
    println!("  moments with two writable primaries: {}", overlaps.len());
    if let Some(store) = &cluster.store {
        let segments = store.keys().into_iter().filter(|key| key.contains("/wals/")).count();
        println!("  objects of WAL in the store: {segments}");
    }
    Ok(verdict.is_good() && overlaps.is_empty())
}

async fn bring_up(screen: &Screen, asked: &Asked) -> anyhow::Result<Cluster> {
    let begun = Instant::now();
    screen.title("Three members, one etcd, one object store");
    let archive = if asked.minio { Archive::MinioIfThere } else { Archive::Embedded };
    let cluster = Builder::new().archive(archive).prepare().await?;
    screen.say(&format!("etcd and the object store answer after {:.1} s", begun.elapsed().as_secs_f64()));
    for member in &cluster.members {
        member.start()?;
    }
    let begun = Instant::now();
    let leader = cluster.wait_for_leader().await?;
    screen.say(&format!(
        "{} has made the cluster and leads after {:.1} s",
        leader.name(),
        begun.elapsed().as_secs_f64()
    ));
    cluster.wait_until_whole().await?;
    screen
        .say(&format!("three members, two of them streaming, after {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(cluster)
}

async fn switchover(screen: &Screen, cluster: &Cluster, oracle: &Oracle) -> anyhow::Result<Duration> {
    let leader = cluster.wait_for_leader().await?;
    let candidate =
        cluster.wait_until_synchronous().await?.into_iter().next().context("no synchronous standby")?;
    screen.announce(&format!("planned switchover from {} to {candidate}", leader.name())).await;
    let since = Instant::now();
    let answer =
        leader.post("/switchover", &json!({"leader": leader.name(), "candidate": candidate})).await?;
    screen.say(&format!("the API says: {} {}", answer.status, answer.text.trim()));
    settle(screen, cluster, oracle, since).await
}

async fn crash(screen: &Screen, cluster: &Cluster, oracle: &Oracle) -> anyhow::Result<Duration> {
    let leader = cluster.wait_for_leader().await?;
    screen.announce(&format!("SIGKILL to the postmaster of {}", leader.name())).await;
    let since = Instant::now();
    leader.kill_postmaster();
    cluster.wait_for_another(leader.name()).await?;
    settle(screen, cluster, oracle, since).await
}

async fn node_loss(screen: &Screen, cluster: &Cluster, oracle: &Oracle) -> anyhow::Result<Duration> {
    let lost: &Member = cluster.wait_for_leader().await?;
    screen.announce(&format!("SIGKILL to everything of {}: agent, supervisor, Postgres", lost.name())).await;
    let since = Instant::now();
    lost.kill_node();
    let leader = cluster.wait_for_another(lost.name()).await?;
    screen.say(&format!("{} leads; {} stays away for a while", leader.name(), lost.name()));
    oracle.wait_for_commits(100).await?;
    let gap = oracle.longest_gap(since);
    screen.say(&format!("{} comes back", lost.name()));
    lost.start()?;
    settle(screen, cluster, oracle, since).await?;
    Ok(gap)
}

/// Waits until the cluster is whole again, and tells the longest time without a commit.
async fn settle(
    screen: &Screen,
    cluster: &Cluster,
    oracle: &Oracle,
    since: Instant,
) -> anyhow::Result<Duration> {
    oracle.wait_for_commits(50).await?;
    let gap = oracle.longest_gap(since);
    cluster.wait_until_whole().await?;
    cluster.wait_until_synchronous().await?;
    let leader = cluster.wait_for_leader().await?;
    screen.say(&format!(
        "{} leads; no commit for {:.2} s; whole again after {:.1} s; {} commits so far",
        leader.name(),
        gap.as_secs_f64(),
        since.elapsed().as_secs_f64(),
        oracle.acknowledged()
    ));
    sleep(PAUSE).await;
    Ok(gap)
}

fn leave_running(screen: &Screen, cluster: &Cluster) {
    screen.title("The cluster goes on until Ctrl-C; try it");
    let ports: Vec<String> = cluster.members.iter().map(|member| member.port().to_string()).collect();
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    println!(
        "  PGPASSWORD=\"{}\" psql \"host={hosts} port={} user=postgres target_session_attrs=read-write\"",
        outrider_bed::PASSWORD,
        ports.join(",")
    );
    if let Some(member) = cluster.members.first() {
        let program = cluster.guard.programs().outrider.display();
        let file = member.configuration();
        println!("  {program} list -c {}", file.display());
        println!("  {program} switchover -c {}", file.display());
        println!("  curl -s {}/cluster", member.url());
        println!("  curl -s {}/metrics", member.url());
    }
    println!("  logs, configuration and data are in {}", cluster.guard.directory().display());
}
