//! How long to wait before the store is asked again. Counts failures, reads no clock.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);

/// Waits that double with each failure in a row, each shortened at random by up to a half, so that the members of many
/// clusters do not all return to a recovered store at the same instant.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something worked: the next wait is the shortest again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        let share = (random() % 1024) as u32;
        half + half * share / 1024
    }
}

/// A number that differs from call to call and from process to process. Not for secrets.
#[must_use]
pub fn random() -> u64 {
    // Each RandomState has keys of its own, made from the system's randomness.
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_held_at_the_longest() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST) && waits[19] >= LONGEST / 2, "{waits:?}");
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
