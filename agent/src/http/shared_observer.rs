//! Queries to Postgres for HTTP requests. All that arrive while one query runs share the next, so that Postgres answers one at
//! a time, however many ask. No answer is older than its request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outrider_postgres::{KnownParameters, Observation, Observer};
use tokio::sync::Mutex;

/// The last query and the way to the next. Clones share both.
#[derive(Clone)]
pub(crate) struct SharedObserver {
    observer: Observer,
    /// Number of queries started.
    begun: Arc<AtomicU64>,
    last: Arc<Mutex<Last>>,
}

#[derive(Default)]
struct Last {
    /// Its number.
    number: u64,
    seen: Option<Observation>,
}

impl SharedObserver {
    /// With no query started.
    pub(crate) fn new(observer: Observer) -> Self {
        SharedObserver { observer, begun: Arc::default(), last: Arc::default() }
    }

    /// The result of a query that starts now or later; `None` when Postgres does not answer.
    pub(super) async fn observe(&self) -> Option<Observation> {
        // The round, which looks as often, logs why it does not answer.
        self.shared(async || self.observer.observe().await.ok()).await
    }

    /// What Postgres knows of parameters; `None` when it does not answer.
    pub(super) async fn known_parameters(&self) -> Option<KnownParameters> {
        self.observer.known_parameters().await.ok()
    }

    async fn shared(&self, observe: impl AsyncFnOnce() -> Option<Observation>) -> Option<Observation> {
        let begun_before = self.begun.load(Ordering::Relaxed);
        let mut last = self.last.lock().await;
        if last.number <= begun_before {
            let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
            let seen = observe().await;
            *last = Last { number, seen };
        }
        last.seen.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::Notify;

    use super::*;
    use crate::config;
    use crate::sample;

    #[tokio::test]
    async fn whoever_comes_during_a_look_shares_the_next() {
        let observer = SharedObserver::new(Observer::new(Arc::new(config::sample::config(None).postgres)));
        let (count, begins, ends) = (Cell::new(0), Notify::new(), Notify::new());
        let slow = async || {
            count.set(count.get() + 1);
            begins.notify_one();
            ends.notified().await;
            Some(Observation { connections: 1, ..sample::observation() })
        };
        let later = async || {
            observer
                .shared(async || {
                    count.set(count.get() + 1);
                    Some(Observation { connections: 2, ..sample::observation() })
                })
                .await
                .map(|seen| seen.connections)
        };
        let during = async {
            begins.notified().await;
            let all = async { tokio::join!(later(), later(), later()) };
            tokio::join!(all, async { ends.notify_one() }).0
        };
        let (first, others) = tokio::join!(observer.shared(slow), during);
        assert_eq!((first.map(|seen| seen.connections), others), (Some(1), (Some(2), Some(2), Some(2))));
        assert_eq!(count.get(), 2);
        assert_eq!(later().await, Some(2));
        assert_eq!(count.get(), 3, "nobody gets what was seen before they asked");
    }
}
