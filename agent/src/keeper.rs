//! What the keepers of base backups and of rollbacks have alike: a task that ends in good order, and which of the boards that the
//! round hangs up say something to it.

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

/// A board that was hung up before a keeper's own last change says nothing to it.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    /// The revision of that change.
    known: i64,
    /// The revision of the last board.
    shown: i64,
}

impl Freshness {
    /// Whether a board of this revision says something.
    pub(crate) fn is_news(&mut self, revision: i64) -> bool {
        // A store that was put back to an earlier state counts from there.
        if revision < self.shown {
            self.known = 0;
        }
        self.shown = revision;
        revision >= self.known
    }

    /// The keeper has changed something, or looked itself.
    pub(crate) fn changed(&mut self, revision: i64) {
        self.known = revision;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_boards_from_ones_own_change_on_count_and_a_store_that_was_put_back() {
        let mut freshness = Freshness::default();
        assert!(freshness.is_news(5));
        freshness.changed(8);
        assert_eq!([6, 8, 9].map(|revision| freshness.is_news(revision)), [false, true, true]);
        freshness.changed(12);
        assert!(freshness.is_news(3));
    }
}
