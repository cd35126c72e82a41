//! What is done once a Postgres accepts connections: a standby's slots are made anew.

use std::time::Duration;

use outrider_postgres::{Error, Observer, Postgres};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::round::{Instruments, Memory};

/// Between two tries to connect to a Postgres that comes up: its first connection ends a gap in writing.
const READY_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until Postgres accepts connections, and makes a standby's slots.
pub(crate) struct Errand {
    pub(super) task: JoinHandle<Result<(), Error>>,
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A standby's slots are made anew when a member has come, or has come back.
pub(crate) fn renew_slots(instruments: &Instruments, memory: &mut Memory) {
    let is_standby = memory.seen.as_ref().is_some_and(|seen| !seen.is_primary());
    let others = memory.others(instruments.dcs.name());
    if !is_standby || memory.errand.is_some() || memory.job.is_some() || others == memory.slots_for {
        return;
    }
    memory.slots_for = others;
    memory.errand = Some(errand(instruments, memory));
}

pub(super) fn errand(instruments: &Instruments, memory: &Memory) -> Errand {
    let postgres = instruments.postgres.clone();
    let observer = postgres.observer();
    let members = memory.others(instruments.dcs.name());
    Errand { task: tokio::spawn(async move { come_up(&postgres, &observer, &members).await }) }
}

/// Ends when Postgres accepts connections, or is gone.
async fn come_up(postgres: &Postgres, observer: &Observer, members: &[String]) -> Result<(), Error> {
    loop {
        match observer.look().await {
            Ok(seen) if seen.is_primary() => return Ok(()),
            Ok(_) => return postgres.renew_standby_slots(members).await,
            Err(_) => {
                let status = postgres.supervisor().status().await?;
                if status.postmaster.is_none() {
                    return Ok(());
                }
                sleep(READY_INTERVAL).await;
            }
        }
    }
}
