//! How long a commit waits until the store has it, while its segment is still being written; and what an idle archive asks
//! of the store.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use outrider_wal::{Lsn, SegmentName, SegmentSize, WalFileName};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::depot::Depot;
use crate::figures::{Measure, Outcome, Row, Target};

/// Commits that are followed into the store.
const COMMITS: usize = 200;
/// Between two of them: prime to the second in which chunks leave, so that each meets it at another moment.
const SPACING: Duration = Duration::from_millis(173);
/// Between two looks into the store's directory.
const LOOK: Duration = Duration::from_millis(5);
/// For one commit.
const LIMIT: Duration = Duration::from_secs(30);
/// How long nobody writes.
const IDLE: Duration = Duration::from_secs(120);

const SAFE: Measure = Measure {
    name: "archive, commit until the store has it",
    unit: "s",
    digits: 2,
    target: Target::Ranks(1.5, 1.5),
};
const REQUESTS: Measure =
    Measure { name: "archive, requests of an idle hour", unit: "", digits: 0, target: Target::None };

pub(super) async fn run() -> anyhow::Result<Outcome> {
    let depot = Depot::open(1, json!({})).await?;
    let store = depot.cluster.store.as_ref().context("the cluster has no object store")?;
    let connection = depot.connect().await?;
    connection.run("CREATE TABLE followed (number int)").await?;
    let mut safe = Row::new(SAFE);
    let mut waiting: Vec<(Lsn, Instant)> = Vec::new();
    let mut next = Instant::now();
    let mut committed = 0;
    while committed < COMMITS || !waiting.is_empty() {
        if committed < COMMITS && Instant::now() >= next {
            let begun = Instant::now();
            let insert = "INSERT INTO followed SELECT 1 RETURNING pg_current_wal_insert_lsn()::text";
            connection.text(insert).await?;
            // All that the commit wrote lies before this.
            let end: Lsn = connection.text("SELECT pg_current_wal_flush_lsn()::text").await?.parse()?;
            waiting.push((end, begun));
            committed += 1;
            next = begun + SPACING;
        }
        let stored = furthest(&store.keys());
        waiting.retain(|(end, begun)| {
            let arrived = *end <= stored;
            if arrived {
                safe.figures.push(begun.elapsed().as_secs_f64());
            }
            !arrived
        });
        let oldest = waiting.first().map_or(Duration::ZERO, |(_, begun)| begun.elapsed());
        ensure!(oldest < LIMIT, "a commit is not in the store after {oldest:?}");
        sleep(LOOK).await;
    }
    let mut requests = Row::new(REQUESTS);
    let before = store.requests().await?;
    let begun = Instant::now();
    sleep(IDLE).await;
    let asked = store.requests().await? - before;
    requests.figures.push(asked as f64 * 3600.0 / begun.elapsed().as_secs_f64());
    let rows = vec![safe, requests];
    for row in &rows {
        println!("  {}", row.summary());
    }
    Ok(Outcome { case: "archive-stream", rows, books: None, faults: Vec::new() })
}

/// Up to where the store has the WAL, by the names of its objects.
fn furthest(keys: &[String]) -> Lsn {
    keys.iter().filter_map(|key| end(key)).max().unwrap_or_default()
}

/// Where a chunk `…/stream/<segment>/<from>-<to>.gz` ends, or a segment `…/wals/…/<segment>.gz`.
fn end(key: &str) -> Option<Lsn> {
    let size = SegmentSize::DEFAULT;
    let segment = |name: &str| match name.parse().ok()? {
        WalFileName::Segment(segment) => Some::<SegmentName>(segment),
        WalFileName::Partial(_) | WalFileName::History(_) | WalFileName::BackupHistory { .. } => None,
    };
    let (folder, file) = key.strip_suffix(".gz")?.rsplit_once('/')?;
    if key.contains("/outrider/stream/") {
        let start = segment(folder.rsplit('/').next()?)?.start(size);
        let to = u64::from_str_radix(file.split_once('-')?.1, 16).ok()?;
        return Some(Lsn::new(start.get() + to));
    }
    Some(Lsn::new(segment(file)?.start(size).get() + size.bytes()))
}
