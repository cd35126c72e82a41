//! What is waited for after a start: that Postgres accepts connections, so that the next round is not a `loop_wait` late.

use std::time::Duration;

use outrider_postgres::{Error, Observer, Postgres};
use tokio::time::sleep;

use crate::instruments::Instruments;
use crate::state::Background;

/// Between two tries to connect to a Postgres that comes up: its first connection ends a gap in writing.
const READY_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until Postgres accepts connections.
pub(super) fn coming_up(instruments: &Instruments) -> Background<()> {
    let postgres = instruments.postgres.clone();
    let observer = postgres.observer();
    Background::begin(async move { come_up(&postgres, &observer).await })
}

/// Ends when Postgres accepts connections, or is gone.
async fn come_up(postgres: &Postgres, observer: &Observer) -> Result<(), Error> {
    while observer.observe().await.is_err() {
        if postgres.supervisor().status().await?.postmaster.is_none() {
            return Ok(());
        }
        sleep(READY_INTERVAL).await;
    }
    Ok(())
}
