//! The demonstration: three members archive to an object store while a writer writes, and lose their primary three times: on
//! request, by a crash, and with its whole node. Then a backup is taken and a fresh server restored from the archive. On a
//! terminal the cluster then stays until Ctrl-C.

mod backups;
mod faults;
mod screen;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use outrider_bed::{Archive, Builder, Cluster, ObjectStore, Options, Oracle, PASSWORD, Watcher, wait_until};
use tokio::time::Instant;

use crate::screen::{Screen, span};

/// For the cluster to come up on a slow machine, and for the archive to catch up.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    let screen = Screen::new();
    let outcome = tokio::select! {
        outcome = demonstrate(&screen) => outcome,
        _ = tokio::signal::ctrl_c() => {
            println!("\nstopped; everything that was started is gone");
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            screen.result(false, format!("{fault:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether every promise was kept.
async fn demonstrate(screen: &Screen) -> anyhow::Result<bool> {
    screen.heading("Outrider: three PostgreSQL members, etcd and an S3 object store on this machine");
    let cluster = start(screen).await?;
    let outcome = show(screen, &cluster).await;
    if outcome.is_err() {
        for member in &cluster.members {
            screen.heading(format!("The last lines of {}", member.name()));
            let log = member.log();
            let lines: Vec<&str> = log.lines().collect();
            screen.block(lines[lines.len().saturating_sub(12)..].join("\n"));
        }
    }
    outcome
}

async fn start(screen: &Screen) -> anyhow::Result<Cluster> {
    let cluster = Builder::new().archive(Archive::MinioIfThere).prepare().await?;
    let store = cluster.store.as_ref().map(ObjectStore::kind).unwrap_or_default();
    screen.event(format!(
        "etcd and the object store answer ({store}); three agents start with empty directories"
    ));
    for member in &cluster.members {
        member.start()?;
    }
    let leader = cluster.wait_for_leader().await?;
    screen.event(format!("{} has made the cluster and leads", screen.name(leader.name())));
    cluster.wait_until_whole().await?;
    let synchronous = cluster.wait_until_synchronous().await?;
    screen.event(format!("three members stream; commits wait for {}", screen.name(synchronous.join(", "))));
    draw(screen, &cluster).await;
    Ok(cluster)
}

async fn show(screen: &Screen, cluster: &Cluster) -> anyhow::Result<bool> {
    let watcher = Watcher::start(cluster.endpoints());
    let since = Instant::now();
    let oracle = Oracle::start(cluster.endpoints(), Options::default()).await?;
    oracle.wait_for_commits(200).await?;
    let rate = oracle.acknowledged_since(since) as f64 / since.elapsed().as_secs_f64();
    screen.event(format!(
        "a client writes rows with a serial number, {rate:.0} commits a second, one after the other"
    ));

    let mut gaps = Vec::new();
    gaps.push(("switchover", faults::switch_over(screen, cluster, &oracle).await?));
    gaps.push(("crash of Postgres", faults::crash(screen, cluster, &oracle).await?));
    gaps.push(("loss of the node", faults::lose_node(screen, cluster, &oracle).await?));
    draw(screen, cluster).await;

    screen.heading("What the client saw");
    for (what, gap) in gaps {
        screen.event(format!("{what:<18} no commit for {}", span(gap)));
    }
    let verdict = oracle.finish().await?;
    let counts = format!(
        "acknowledged {}, lost {}, refused but there {}",
        verdict.acknowledged,
        verdict.lost.len(),
        verdict.risen.len()
    );
    screen.result(verdict.is_good(), counts);
    let overlaps = watcher.overlaps();
    screen.result(overlaps.is_empty(), format!("two primaries at one time: {}", overlaps.len()));
    drop(watcher);
    archived(screen, cluster).await?;
    let restored = backups::prove(screen, cluster).await?;
    if screen.is_terminal {
        stay(screen, cluster).await?;
    }
    Ok(verdict.is_good() && overlaps.is_empty() && restored)
}

/// Closes the current segment and waits until it lies in the store.
async fn archived(screen: &Screen, cluster: &Cluster) -> anyhow::Result<()> {
    let store = cluster.store.as_ref().context("the demonstration has an archive")?;
    let leader = cluster.wait_for_leader().await?.name().to_owned();
    let endpoint =
        cluster.endpoints().into_iter().find(|it| it.name == leader).context("the leader has a port")?;
    let connection = endpoint.connect().await?;
    let last = connection.text("SELECT pg_walfile_name(pg_switch_wal())").await?;
    let found = async || store.keys().into_iter().find(|key| key.contains("/wals/") && key.contains(&last));
    let key = wait_until(format!("{last} is archived"), LIMIT, found).await?;
    let segments = store.keys().iter().filter(|key| key.contains("/wals/")).count();
    screen.result(
        true,
        format!("the archive holds {segments} WAL files, the last is s3://{}/{key}", outrider_bed::BUCKET),
    );
    Ok(())
}

/// The table of the members, between empty lines.
async fn draw(screen: &Screen, cluster: &Cluster) {
    if let Some(table) = table::draw(cluster).await {
        println!();
        screen.block(table);
        println!();
    }
}

/// The cluster is the onlooker's until Ctrl-C.
async fn stay(screen: &Screen, cluster: &Cluster) -> anyhow::Result<()> {
    screen.heading("The cluster goes on until Ctrl-C. Try");
    let ports: Vec<String> = cluster.members.iter().map(|member| member.port().to_string()).collect();
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    screen.block(format!(
        "PGPASSWORD=\"{PASSWORD}\" psql \"host={hosts} port={} user=postgres dbname=postgres target_session_attrs=read-write\"",
        ports.join(",")
    ));
    let member = cluster.members.first().context("the cluster has members")?;
    screen.block(format!("curl -s {}/cluster", member.url()));
    screen.block(format!("curl -s {}/metrics", member.url()));
    let program = cluster.guard.programs().outrider.display();
    screen.block(format!("{program} list -c {}", member.configuration().display()));
    screen.block(format!("{program} switchover -c {}", member.configuration().display()));
    screen.block(format!("the logs: {}/member*/agent.log", cluster.guard.directory().display()));
    // Ctrl-C ends the whole demonstration.
    std::future::pending().await
}
