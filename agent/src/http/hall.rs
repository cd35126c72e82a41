//! A bounded number of places for connections. When all are taken, the connection that has been idle the longest makes room
//! for the next. Does no I/O.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The places.
#[derive(Clone)]
pub(super) struct Hall {
    size: usize,
    places: Arc<Semaphore>,
    waiting: Arc<Mutex<Waiting>>,
}

/// The idle connections, by how long they have been idle.
#[derive(Default)]
struct Waiting {
    numbers: u64,
    visitors: BTreeMap<u64, CancellationToken>,
}

/// A connection's place. A new one counts as idle.
pub(super) struct Place {
    hall: Hall,
    _permit: OwnedSemaphorePermit,
    leave: CancellationToken,
    number: Mutex<Option<u64>>,
}

impl Hall {
    /// With this many places.
    pub(super) fn new(places: usize) -> Self {
        Hall { size: places, places: Arc::new(Semaphore::new(places)), waiting: Arc::default() }
    }

    /// A place, as soon as there is one. Waits only while every connection is being served.
    pub(super) async fn enter(&self) -> Place {
        let permit = match self.places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let longest = self.waiting().visitors.pop_first();
                if let Some((_, longest)) = longest {
                    longest.cancel();
                }
                self.places.clone().acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        let place = Place {
            hall: self.clone(),
            _permit: permit,
            leave: CancellationToken::new(),
            number: Mutex::default(),
        };
        place.wait();
        place
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Marks this connection as idle.
    pub(super) fn wait(&self) {
        let mut waiting = self.hall.waiting();
        waiting.numbers += 1;
        let number = waiting.numbers;
        waiting.visitors.insert(number, self.leave.clone());
        *self.number() = Some(number);
    }

    /// Marks this connection as being served: nobody takes its place.
    pub(super) fn serve(&self) {
        let mut waiting = self.hall.waiting();
        if let Some(number) = self.number().take() {
            waiting.visitors.remove(&number);
        }
    }

    /// Whether more than half of the places are taken, so that connections should close after one answer.
    pub(super) fn is_crowded(&self) -> bool {
        self.hall.places.available_permits() < self.hall.size / 2
    }

    /// Completes when the place is needed for another connection.
    pub(super) async fn needed(&self) {
        self.leave.cancelled().await;
    }

    fn number(&self) -> MutexGuard<'_, Option<u64>> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.serve();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn must_leave(place: &Place) -> bool {
        place.leave.is_cancelled()
    }

    #[tokio::test]
    async fn who_has_asked_for_nothing_the_longest_makes_room() {
        let hall = Hall::new(3);
        let (first, second, third) = (hall.enter().await, hall.enter().await, hall.enter().await);
        assert!(first.is_crowded());
        first.serve();
        first.wait();
        third.serve();
        let mut fourth = pin!(hall.enter());
        let mut context = Context::from_waker(Waker::noop());
        assert!(fourth.as_mut().poll(&mut context).is_pending());
        assert_eq!((must_leave(&first), must_leave(&second), must_leave(&third)), (false, true, false));
        drop(second);
        let fourth = fourth.await;
        fourth.serve();
        first.serve();
        // All are being served: the next one waits, and nobody is disconnected.
        let mut fifth = pin!(hall.enter());
        assert!(fifth.as_mut().poll(&mut context).is_pending());
        assert!(![&first, &third, &fourth].into_iter().any(must_leave));
        drop(third);
        fifth.await;
        assert_eq!(hall.waiting().visitors.len(), 0);
    }
}
