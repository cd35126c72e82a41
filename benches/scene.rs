//! A cluster with a writer and a watcher, on which one thing is done again and again. Knows no case.

use std::time::Duration;

use anyhow::Context as _;
use outrider_bed::{Builder, Cluster, Options, Oracle, Watcher};
use serde_json::json;
use tokio::time::Instant;

use crate::figures::{Books, Measure, Outcome, Row};

/// Between two commits of the writer: a gap is measured to this.
const WRITE_INTERVAL: Duration = Duration::from_millis(5);
/// Commits that show that writing goes on, before the gap is read off.
const COMMITS: usize = 50;

/// A cluster at work.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) oracle: Oracle,
    watcher: Watcher,
    synchronous: bool,
}

impl Scene {
    /// Three members, whole, with a writer.
    ///
    /// # Errors
    /// When the cluster does not come up, or nobody takes a commit.
    pub(crate) async fn set(synchronous: bool) -> anyhow::Result<Self> {
        let cluster = Builder::new().dcs(json!({"synchronous_mode": synchronous})).start().await?;
        if synchronous {
            cluster.wait_until_synchronous().await?;
        }
        check_mode(&cluster, synchronous).await?;
        let oracle = Oracle::start(cluster.endpoints(), Options { interval: WRITE_INTERVAL }).await?;
        let watcher = Watcher::start(cluster.endpoints());
        let scene = Scene { cluster, oracle, watcher, synchronous };
        scene.oracle.wait_for_commits(COMMITS).await?;
        Ok(scene)
    }

    /// The longest time without a commit since then, in seconds, once commits go on.
    ///
    /// # Errors
    /// When they do not.
    pub(crate) async fn gap(&self, since: Instant) -> anyhow::Result<f64> {
        self.oracle.wait_for_commits(COMMITS).await?;
        Ok(self.oracle.longest_gap(since).as_secs_f64())
    }

    /// Waits until everybody is back and the next fault may come. The longest time without a commit meanwhile, in seconds.
    ///
    /// # Errors
    /// When it does not come to that, or the leader is still the one who was disturbed.
    pub(crate) async fn settle(&self, former: &str) -> anyhow::Result<f64> {
        let since = Instant::now();
        self.wait_until_calm().await?;
        let leader = self.cluster.wait_for_leader().await?.name();
        anyhow::ensure!(leader != former, "{former} leads again: nobody took over from it");
        self.gap(since).await
    }

    /// Waits until all members stream and, in synchronous mode, a standby is recorded.
    async fn wait_until_calm(&self) -> anyhow::Result<()> {
        self.cluster.wait_until_whole().await?;
        if self.synchronous {
            self.cluster.wait_until_synchronous().await?;
        }
        Ok(())
    }

    /// Ends the writer and reads its books.
    async fn judge(self) -> anyhow::Result<Books> {
        let errors = self.oracle.errors();
        let overlaps = self.watcher.overlaps();
        for overlap in &overlaps {
            println!("  two writable primaries: {}", overlap.members.join(", "));
        }
        let verdict = self.oracle.finish().await.context("cannot count what was written")?;
        Ok(Books {
            lost: verdict.lost.len(),
            false_rows: verdict.doubled.len() + verdict.risen.len(),
            errors,
            overlaps: overlaps.len(),
            promised: self.synchronous,
        })
    }
}

/// That commits wait for a standby in synchronous mode, and only there: otherwise the figures would be another mode's.
async fn check_mode(cluster: &Cluster, synchronous: bool) -> anyhow::Result<()> {
    let leader = cluster.wait_for_leader().await?;
    let mut endpoints = cluster.endpoints().into_iter();
    let endpoint =
        endpoints.find(|endpoint| endpoint.name == leader.name()).context("the leader has no address")?;
    let names = endpoint.connect().await?.text("SHOW synchronous_standby_names").await?;
    let waits = !names.is_empty();
    anyhow::ensure!(
        waits == synchronous,
        "synchronous_mode is {synchronous}, and {} has synchronous_standby_names = '{names}'",
        leader.name()
    );
    Ok(())
}

/// Does `once` to one cluster this many times. It returns a figure for each of `measures`, where there is one. A run that
/// fails is a fault of the outcome; the next one follows if the cluster is whole again.
///
/// # Errors
/// When the cluster does not come up.
pub(crate) async fn repeat(
    case: &'static str,
    runs: u32,
    synchronous: bool,
    measures: &[Measure],
    once: impl AsyncFn(&Scene) -> anyhow::Result<Vec<Option<f64>>>,
) -> anyhow::Result<Outcome> {
    let scene = Scene::set(synchronous).await?;
    let mut outcome = Outcome {
        case,
        rows: measures.iter().copied().map(Row::new).collect(),
        books: None,
        faults: Vec::new(),
    };
    for run in 1..=runs {
        match once(&scene).await {
            Ok(figures) => note(run, &mut outcome.rows, &figures),
            Err(fault) => {
                outcome.failed(format!("run {run}: {fault:#}"));
                if let Err(fault) = scene.wait_until_calm().await {
                    outcome.failed(format!("no further run: {fault:#}"));
                    break;
                }
            }
        }
    }
    match scene.judge().await {
        Ok(books) => outcome.books = Some(books),
        Err(fault) => outcome.failed(format!("{fault:#}")),
    }
    Ok(outcome)
}

fn note(run: u32, rows: &mut [Row], figures: &[Option<f64>]) {
    let mut said = Vec::new();
    for (row, figure) in rows.iter_mut().zip(figures) {
        let Some(figure) = figure else { continue };
        row.figures.push(*figure);
        said.push(format!("{} {}", row.measure.name, row.with_unit(*figure)));
    }
    println!("  run {run}: {}", said.join("; "));
}
