//! Runs one kind of job beside the round: a task that does one step with each report, and ends cleanly with the agent.
//! Decides nothing: that is up to the kind.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::report::{Report, ReportReceiver};

/// Time limit for a job to end when the agent ends.
const END_LIMIT: Duration = Duration::from_secs(5);

/// One kind of job.
pub(crate) trait Job: Send + Sized + 'static {
    /// For the log: what happens to work that does not end in time when the agent ends.
    const LOOSE: &'static str;

    /// Decides what is next, and does it.
    fn look(&mut self, report: &Report) -> impl Future<Output = ()> + Send;

    /// Waits until something that is under way has ended, and notes it; for ever while nothing is. Can be dropped while it waits.
    fn happened(&mut self) -> impl Future<Output = ()> + Send;

    /// How soon to look again when no report comes; `None` when nothing can have changed until one does.
    fn look_again(&self) -> Option<Duration>;

    /// The agent ends: cancels what is under way and records what it can.
    fn leave(self, last: Option<&Report>) -> impl Future<Output = ()> + Send;
}

/// The task. Dropping it aborts it.
pub(crate) struct Task {
    task: AbortOnDrop,
    end: oneshot::Sender<()>,
    loose: &'static str,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins.
pub(crate) fn run<J: Job>(job: J, reports: ReportReceiver) -> Task {
    let (end, told) = oneshot::channel();
    Task { task: AbortOnDrop(tokio::spawn(keep(job, reports, told))), end, loose: J::LOOSE }
}

impl Task {
    /// Tells it that the agent ends, and waits for its end.
    pub(crate) async fn end(mut self) {
        // A task that is gone already has nothing in hand.
        let _ = self.end.send(());
        if timeout(END_LIMIT, &mut self.task.0).await.is_err() {
            warn!(limit = ?END_LIMIT, "{}", self.loose);
        }
    }
}

async fn keep<J: Job>(mut job: J, mut reports: ReportReceiver, mut told: oneshot::Receiver<()>) {
    loop {
        let report = reports.borrow_and_update().clone();
        if let Some(report) = &report {
            job.look(report).await;
        }
        let again = job.look_again();
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            () = sleep(again.unwrap_or_default()), if again.is_some() => {}
            () = job.happened() => {}
            _ = &mut told => {
                let last = reports.borrow().clone();
                return job.leave(last.as_deref()).await;
            }
        }
    }
}
