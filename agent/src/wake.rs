//! Asks for a round now. Whoever has left something for it to see wakes it: HTTP handlers, and the tasks beside it.

use tokio::sync::mpsc;

/// Wake-ups that may wait; more than one says nothing more.
const WAKES_MAX: usize = 1;

/// Asks for rounds.
#[derive(Clone)]
pub(crate) struct Waker {
    sender: mpsc::Sender<()>,
}

/// Is asked for them.
pub(crate) struct Wakes {
    receiver: mpsc::Receiver<()>,
}

/// Who asks, and who is asked.
pub(crate) fn waker() -> (Waker, Wakes) {
    let (sender, receiver) = mpsc::channel(WAKES_MAX);
    (Waker { sender }, Wakes { receiver })
}

impl Waker {
    /// Asks for a round; one that is asked for already is enough.
    pub(crate) fn wake(&self) {
        // A full queue means that a round is about to begin, a closed one that the agent ends.
        let _ = self.sender.try_send(());
    }
}

impl Wakes {
    /// Waits until a round is asked for.
    pub(crate) async fn wait(&mut self) {
        // Without anybody who could ask, nobody does.
        if self.receiver.recv().await.is_none() {
            std::future::pending().await
        }
    }
}
