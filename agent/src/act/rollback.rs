//! The swap of a rollback, as a job: stop in good order, see that the lease is still held, put the prepared data in its place.

use std::time::Duration;

use outrider_ha::Job;
use outrider_postgres::{Error, Postgres};
use outrider_supervisor::protocol;
use tracing::{info, warn};

use super::{Actor, StepError};
use crate::clock;
use crate::log::causes;
use crate::swap_offer::{SwapOrder, Swapped};

/// The fuse lives at least so long when the data is swapped.
const LEFT_LEAST: Duration = Duration::from_millis(300);

impl Actor<'_> {
    /// Begins the swap that the job has offered. One that was withdrawn at this moment, or is of an earlier lease, is
    /// not begun.
    pub(super) fn roll_back(&mut self) -> Result<(), StepError> {
        let lease = self.live_lease("roll its data back")?;
        let Some(order) = self.instruments.rollback.take_for(lease.term) else { return Ok(()) };
        let postgres = self.instruments.postgres.clone();
        self.set_stopping(true);
        self.state.jobs.stop_waiting_for_postgres();
        // What the standbys do not have yet is thrown away.
        let cut_off = self.walsenders_but(&[]);
        self.state.commits.forget();
        self.begin(Job::Rollback, async move {
            let stopping = clock::monotonic();
            let done = swap(&postgres, &order, &cut_off).await;
            let told = done.as_ref().map(|()| Swapped { stopping }).map_err(|fault| causes(fault));
            // The next agent finds the journal.
            let _ = order.done.send(told);
            done
        });
        Ok(())
    }
}

/// When this is dropped, or fails, the data is what it was.
async fn swap(postgres: &Postgres, order: &SwapOrder, cut_off: &[i32]) -> Result<(), Error> {
    postgres.stop(protocol::StopMode::Fast, cut_off).await?;
    let (timeline, end) = postgres.clean_end().await?;
    info!(%timeline, %end, "shut down cleanly");
    // The rounds renew the lease meanwhile and arm the fuse with it.
    let status = postgres.supervisor().status().await?;
    let left = status.fuse.filter(|fuse| !fuse.expired).map(|fuse| clock::until_boottime(fuse.deadline_ns));
    if left.is_none_or(|left| left < LEFT_LEAST) {
        warn!(?left, "the lease may no longer be held");
        return Err(Error::Rollback {
            problem: "the leader lease was lost while Postgres stopped".to_owned(),
        });
    }
    let swap = postgres.swap_in(&order.id, &order.aside)?;
    info!(old = %swap.aside.display(), "the rolled back data is in its place");
    Ok(())
}
