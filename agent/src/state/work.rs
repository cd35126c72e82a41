//! Work beside the round, whose outcome it is told.

use std::time::Duration;

use outrider_postgres::Error;
use tokio::task::JoinHandle;
use tracing::error;

/// Ends when this is dropped.
pub(crate) struct Work<Outcome> {
    task: JoinHandle<Result<Outcome, Error>>,
}

impl<Outcome> Drop for Work<Outcome> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<Outcome: Send + 'static> Work<Outcome> {
    /// Begins it.
    pub(crate) fn begin(work: impl Future<Output = Result<Outcome, Error>> + Send + 'static) -> Self {
        Work { task: tokio::spawn(work) }
    }
}

/// Waits for its end; for ever when there is none.
pub(super) async fn ended<Outcome>(work: Option<&mut Work<Outcome>>) -> Result<Outcome, Error> {
    let Some(work) = work else { return std::future::pending().await };
    match (&mut work.task).await {
        Ok(outcome) => outcome,
        // A defect of ours: it is not made worse by going on as if the work had failed.
        Err(fault) => {
            error!(%fault, "a job ended unexpectedly");
            Err(Error::TooSlow { act: "finish the current job", limit: Duration::ZERO })
        }
    }
}
