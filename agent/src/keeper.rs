//! The task of the keeper of rollbacks, which ends in good order.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

/// For what is under way to come to its end when the agent ends.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A task that is told when the agent ends. It ends when this is dropped.
pub(crate) struct Task {
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Task {
    /// Begins what `keep` makes of the line on which it is told.
    pub(crate) fn spawn<Kept>(keep: impl FnOnce(oneshot::Receiver<()>) -> Kept) -> Self
    where
        Kept: Future<Output = ()> + Send + 'static,
    {
        let (end, told) = oneshot::channel();
        Task { end: Some(end), task: tokio::spawn(keep(told)) }
    }

    /// Tells it, and waits for its end. `loose`: what becomes of the work that does not come to its own in time.
    pub(crate) async fn end(mut self, loose: &str) {
        if let Some(end) = self.end.take() {
            // A task that is gone already has nothing in hand.
            let _ = end.send(());
        }
        if timeout(END_LIMIT, &mut self.task).await.is_err() {
            warn!(limit = ?END_LIMIT, "{loose}");
        }
    }
}
