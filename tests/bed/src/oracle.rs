//! The oracle: writes unique serials all the time, keeps books of what was acknowledged, refused and left unknown, measures
//! the gaps, and says at the end what was lost. Does not know what was done to the cluster meanwhile.

mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Connection, Endpoint};

pub use watcher::{Overlap, Watcher};

/// For one commit; a client with less patience than this would call the database down.
const COMMIT_LIMIT: Duration = Duration::from_secs(2);
/// Between two tries to find a primary.
const SEARCH_INTERVAL: Duration = Duration::from_millis(5);
/// For the last count.
const COUNT_LIMIT: Duration = Duration::from_secs(60);

const TABLE: &str = "CREATE TABLE IF NOT EXISTS oracle (serial bigint NOT NULL)";

/// How to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// Between two commits.
    pub interval: Duration,
}

impl Default for Options {
    /// A hundred commits in a second.
    fn default() -> Self {
        Options { interval: Duration::from_millis(10) }
    }
}

/// What became of each serial.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// The server said that it is committed.
    pub acknowledged: BTreeSet<i64>,
    /// The server said that it is not.
    pub refused: BTreeSet<i64>,
    /// No answer: it may be there.
    pub unknown: BTreeSet<i64>,
}

/// A writer at work.
#[derive(Debug)]
pub struct Oracle {
    endpoints: Vec<Endpoint>,
    state: Arc<Mutex<State>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    books: Books,
    /// When each acknowledgement came.
    times: Vec<Instant>,
}

impl State {
    /// Books one try; whether the connection is still good.
    fn note(&mut self, serial: i64, outcome: Result<Result<u64, tokio_postgres::Error>, Elapsed>) -> bool {
        match outcome {
            Ok(Ok(_)) => {
                self.books.acknowledged.insert(serial);
                self.times.push(Instant::now());
                return true;
            }
            // An ERROR rolls the statement back; a FATAL ends the session, perhaps after the commit.
            Ok(Err(fault)) if fault.as_db_error().is_some_and(|error| error.severity() == "ERROR") => {
                self.books.refused.insert(serial);
            }
            Ok(Err(_)) | Err(_) => {
                self.books.unknown.insert(serial);
            }
        }
        false
    }
}

/// What the books and the database say about each other.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Commits that were acknowledged.
    pub acknowledged: usize,
    /// Commits without an answer.
    pub unknown: usize,
    /// Acknowledged, and not there.
    pub lost: Vec<i64>,
    /// There more than once.
    pub doubled: Vec<i64>,
    /// Refused, and there.
    pub risen: Vec<i64>,
}

impl Verdict {
    /// Whether the database kept every promise.
    pub fn is_good(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.risen.is_empty()
    }
}

impl Oracle {
    /// Begins to write, to whichever of `endpoints` is the primary, and waits for the first commit.
    ///
    /// # Errors
    /// When nobody takes it.
    pub async fn start(endpoints: Vec<Endpoint>, options: Options) -> anyhow::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let (stop, stopped) = watch::channel(false);
        let writer = Writer { endpoints: endpoints.clone(), state: state.clone(), stopped };
        let task = tokio::spawn(writer.write(options));
        let oracle = Oracle { endpoints, state, stop, task };
        oracle.wait_for_commits(1).await?;
        Ok(oracle)
    }

    /// Waits until this many more commits were acknowledged.
    ///
    /// # Errors
    /// When they are not in a minute.
    pub async fn wait_for_commits(&self, more: usize) -> anyhow::Result<()> {
        let wanted = self.acknowledged() + more;
        let enough = async || (self.acknowledged() >= wanted).then_some(());
        crate::wait_until(format!("{more} more commits are acknowledged"), Duration::from_secs(60), enough)
            .await
    }

    /// How many commits were acknowledged.
    pub fn acknowledged(&self) -> usize {
        lock(&self.state).books.acknowledged.len()
    }

    /// The serials that were acknowledged until now.
    pub fn acknowledged_serials(&self) -> BTreeSet<i64> {
        lock(&self.state).books.acknowledged.clone()
    }

    /// How many commits were acknowledged from `since` until now.
    pub fn acknowledged_since(&self, since: Instant) -> usize {
        let state = lock(&self.state);
        state.times.len() - state.times.partition_point(|time| *time < since)
    }

    /// How many tries were refused or left without an answer.
    pub fn errors(&self) -> usize {
        let state = lock(&self.state);
        state.books.refused.len() + state.books.unknown.len()
    }

    /// The longest time without an acknowledgement from `since` until now.
    pub fn longest_gap(&self, since: Instant) -> Duration {
        let state = lock(&self.state);
        let first = state.times.partition_point(|time| *time < since).saturating_sub(1);
        let mut moments: Vec<Instant> = state.times.get(first..).unwrap_or_default().to_vec();
        moments.push(Instant::now());
        moments
            .windows(2)
            .filter_map(|pair| Some(pair.get(1)?.duration_since(*pair.first()?)))
            .max()
            .unwrap_or_default()
    }

    /// Stops writing, counts what is in the primary, and compares.
    ///
    /// # Errors
    /// When no primary lets itself be counted.
    pub async fn finish(self) -> anyhow::Result<Verdict> {
        self.stop.send_replace(true);
        self.task.await.context("the writer broke off")?;
        let counting = async || {
            for endpoint in &self.endpoints {
                if let Ok(connection) = endpoint.connect_to_primary().await
                    && let Ok(rows) =
                        connection.client.query("SELECT serial, count(*) FROM oracle GROUP BY 1", &[]).await
                {
                    return Some(
                        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<BTreeMap<i64, i64>>(),
                    );
                }
            }
            None
        };
        let there = crate::wait_until("a primary lets itself be counted", COUNT_LIMIT, counting).await?;
        Ok(judge(&lock(&self.state).books, &there))
    }
}

fn judge(books: &Books, there: &BTreeMap<i64, i64>) -> Verdict {
    Verdict {
        acknowledged: books.acknowledged.len(),
        unknown: books.unknown.len(),
        lost: books.acknowledged.iter().filter(|serial| !there.contains_key(serial)).copied().collect(),
        doubled: there.iter().filter(|(_, count)| **count > 1).map(|(serial, _)| *serial).collect(),
        risen: books.refused.iter().filter(|serial| there.contains_key(serial)).copied().collect(),
    }
}

struct Writer {
    endpoints: Vec<Endpoint>,
    state: Arc<Mutex<State>>,
    stopped: watch::Receiver<bool>,
}

impl Writer {
    async fn write(self, options: Options) {
        let mut serial = 0;
        while !*self.stopped.borrow() {
            if let Some(connection) = self.primary().await
                && timeout(COMMIT_LIMIT, connection.run(TABLE)).await.is_ok_and(|made| made.is_ok())
            {
                self.write_to(&connection, &mut serial, &options).await;
            }
            sleep(SEARCH_INTERVAL).await;
        }
    }

    /// Whoever first says that it is the primary; a frozen one does not delay the others.
    async fn primary(&self) -> Option<Connection> {
        let mut tries = JoinSet::new();
        for endpoint in &self.endpoints {
            let endpoint = endpoint.clone();
            tries.spawn(async move { endpoint.connect_to_primary().await });
        }
        while let Some(tried) = tries.join_next().await {
            if let Ok(Ok(connection)) = tried {
                return Some(connection);
            }
        }
        None
    }

    /// Until a commit does not come back as it should.
    async fn write_to(&self, connection: &Connection, serial: &mut i64, options: &Options) {
        const INSERT: &str = "INSERT INTO oracle VALUES ($1)";
        let Ok(Ok(insert)) = timeout(COMMIT_LIMIT, connection.client.prepare(INSERT)).await else { return };
        while !*self.stopped.borrow() {
            *serial += 1;
            let outcome = timeout(COMMIT_LIMIT, connection.client.execute(&insert, &[&*serial])).await;
            if !lock(&self.state).note(*serial, outcome) {
                return;
            }
            sleep(options.interval).await;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broken_promise_is_named() {
        let books = Books { acknowledged: [1, 2, 3].into(), refused: [4, 5].into(), unknown: [6, 7].into() };
        let verdict = judge(&books, &[(1, 1), (3, 2), (5, 1), (6, 1)].into());
        assert_eq!((verdict.lost, verdict.doubled, verdict.risen), (vec![2], vec![3], vec![5]));
        assert!(judge(&books, &[(1, 1), (2, 1), (3, 1), (7, 1)].into()).is_good());
    }
}
