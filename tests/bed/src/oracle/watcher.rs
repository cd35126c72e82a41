//! Watches all members for two that accept writes at the same time. Writes nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::client::{Connection, Endpoint};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Two members that both accepted writes at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Their names.
    pub members: Vec<String>,
    /// When it was seen.
    pub at: Instant,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    overlaps: Arc<Mutex<Vec<Overlap>>>,
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Begins to watch these members.
    pub fn start(endpoints: Vec<Endpoint>) -> Self {
        let overlaps = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(watch(endpoints, overlaps.clone()));
        Watcher { overlaps, task }
    }

    /// What was seen so far.
    pub fn overlaps(&self) -> Vec<Overlap> {
        self.overlaps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn watch(endpoints: Vec<Endpoint>, overlaps: Arc<Mutex<Vec<Overlap>>>) {
    let mut lines: Vec<(Endpoint, Option<Connection>)> = endpoints.into_iter().map(|it| (it, None)).collect();
    loop {
        let first = writable(&mut lines).await;
        if first.len() > 1 {
            // Asked one after the other, a hand-over between the two questions would look the same: who says so again
            // was writable while the others were asked.
            let again = writable(&mut lines).await;
            let members: Vec<String> = first.into_iter().filter(|name| again.contains(name)).collect();
            if members.len() > 1 {
                let mut seen = overlaps.lock().unwrap_or_else(PoisonError::into_inner);
                seen.push(Overlap { members, at: Instant::now() });
            }
        }
        sleep(INTERVAL).await;
    }
}

/// The members that accept writes: out of recovery, and able to give out a transaction id, which is what a write needs.
async fn writable(lines: &mut [(Endpoint, Option<Connection>)]) -> Vec<String> {
    let mut found = Vec::new();
    for (endpoint, line) in lines {
        if line.as_ref().is_none_or(|line| line.client.is_closed()) {
            *line = endpoint.connect().await.ok();
        }
        let Some(open) = line else { continue };
        match open.is_primary().await {
            Ok(true) if open.text("SELECT pg_current_xact_id()::text").await.is_ok() => {
                found.push(endpoint.name.clone());
            }
            Ok(_) => {}
            Err(_) => *line = None,
        }
    }
    found
}
