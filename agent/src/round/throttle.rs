//! Slows down rounds that follow one another within milliseconds: what should take a moment and does not is looked at less often.

use std::time::Duration;

/// Quick rounds in a row before throttling.
const THROTTLE_AFTER: u32 = 60;
/// Longest wait of a quick round.
const QUICK_WAIT: Duration = Duration::from_millis(20);

/// Counts quick rounds for the same reason.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    reason: &'static str,
    rounds: u32,
}

impl Throttle {
    /// The wait, made at least `throttled` when there were many quick rounds for this reason.
    pub(crate) fn wait(&mut self, reason: &'static str, wait: Duration, throttled: Duration) -> Duration {
        if wait >= QUICK_WAIT || reason != self.reason {
            *self = Throttle { reason, rounds: 0 };
            return wait;
        }
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds > THROTTLE_AFTER { wait.max(throttled) } else { wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_that_goes_on_is_looked_at_less_often() {
        let (short, long) = (Duration::from_millis(5), Duration::from_millis(100));
        let mut throttle = Throttle::default();
        for _ in 0..THROTTLE_AFTER {
            assert_eq!(throttle.wait("promoting", short, long), short);
        }
        throttle.wait("promoting", short, long);
        assert_eq!(throttle.wait("promoting", short, long), long);
        assert_eq!(throttle.wait("leading", short, long), short);
    }
}
