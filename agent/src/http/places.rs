//! A bounded number of places for connections. When all are taken, the connection that has been idle the longest makes room
//! for the next. Does no I/O.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The places.
#[derive(Clone)]
pub(super) struct Places {
    size: usize,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Idle>>,
}

/// The idle connections, by how long they have been idle.
#[derive(Default)]
struct Idle {
    numbers: u64,
    connections: BTreeMap<u64, CancellationToken>,
}

/// A connection's place. A new one counts as idle.
pub(super) struct Place {
    places: Places,
    _permit: OwnedSemaphorePermit,
    evict: CancellationToken,
    number: Mutex<Option<u64>>,
}

impl Places {
    /// With this many places.
    pub(super) fn new(permits: usize) -> Self {
        Places { size: permits, permits: Arc::new(Semaphore::new(permits)), idle: Arc::default() }
    }

    /// A place, as soon as there is one. Waits only while every connection is being served.
    pub(super) async fn take(&self) -> Place {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let longest = self.idle().connections.pop_first();
                if let Some((_, longest)) = longest {
                    longest.cancel();
                }
                self.permits.clone().acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        let place = Place {
            places: self.clone(),
            _permit: permit,
            evict: CancellationToken::new(),
            number: Mutex::default(),
        };
        place.idle();
        place
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Marks this connection as idle.
    pub(super) fn idle(&self) {
        let mut idle = self.places.idle();
        idle.numbers += 1;
        let number = idle.numbers;
        idle.connections.insert(number, self.evict.clone());
        *self.number() = Some(number);
    }

    /// Marks this connection as being served: nobody takes its place.
    pub(super) fn serve(&self) {
        let mut idle = self.places.idle();
        if let Some(number) = self.number().take() {
            idle.connections.remove(&number);
        }
    }

    /// Whether more than half of the places are taken, so that connections should close after one answer.
    pub(super) fn is_half_full(&self) -> bool {
        self.places.permits.available_permits() < self.places.size / 2
    }

    /// Completes when the place is needed for another connection.
    pub(super) async fn needed(&self) {
        self.evict.cancelled().await;
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

    fn is_evicted(place: &Place) -> bool {
        place.evict.is_cancelled()
    }

    #[tokio::test]
    async fn who_has_asked_for_nothing_the_longest_makes_room() {
        let places = Places::new(3);
        let (first, second, third) = (places.take().await, places.take().await, places.take().await);
        assert!(first.is_half_full());
        first.serve();
        first.idle();
        third.serve();
        let mut fourth = pin!(places.take());
        let mut context = Context::from_waker(Waker::noop());
        assert!(fourth.as_mut().poll(&mut context).is_pending());
        assert_eq!((is_evicted(&first), is_evicted(&second), is_evicted(&third)), (false, true, false));
        drop(second);
        let fourth = fourth.await;
        fourth.serve();
        first.serve();
        // All are being served: the next one waits, and nobody is disconnected.
        let mut fifth = pin!(places.take());
        assert!(fifth.as_mut().poll(&mut context).is_pending());
        assert!(![&first, &third, &fourth].into_iter().any(is_evicted));
        drop(third);
        fifth.await;
        assert_eq!(places.idle().connections.len(), 0);
    }
}
