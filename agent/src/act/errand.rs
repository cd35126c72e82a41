//! What is waited for after a start: that Postgres accepts connections, so that the next round is not a `loop_wait` late.

use std::time::Duration;

use outrider_postgres::{Error, Observer, Postgres};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::round::Instruments;

/// Between two tries to connect to a Postgres that comes up: its first connection ends a gap in writing.
const READY_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until Postgres accepts connections.
pub(crate) struct Errand {
    pub(super) task: JoinHandle<Result<(), Error>>,
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn errand(instruments: &Instruments) -> Errand {
    let postgres = instruments.postgres.clone();
    let observer = postgres.observer();
    Errand { task: tokio::spawn(async move { come_up(&postgres, &observer).await }) }
}

/// Ends when Postgres accepts connections, or is gone.
async fn come_up(postgres: &Postgres, observer: &Observer) -> Result<(), Error> {
    while observer.look().await.is_err() {
        if postgres.supervisor().status().await?.postmaster.is_none() {
            return Ok(());
        }
        sleep(READY_INTERVAL).await;
    }
    Ok(())
}
