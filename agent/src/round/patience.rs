//! Slows down rounds that follow one another within milliseconds: what should take a moment and does not is looked at less often.

use std::time::Duration;

/// So many quick rounds for one reason are a moment.
const QUICK_ROUNDS: u32 = 60;
/// A wait that is shorter makes a round a quick one.
const QUICK: Duration = Duration::from_millis(20);

/// Counts quick rounds for the same reason.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    reason: &'static str,
    rounds: u32,
}

impl Patience {
    /// The wait, made at least `patient` when there were many quick rounds for this reason.
    pub(crate) fn at_least(&mut self, reason: &'static str, wait: Duration, patient: Duration) -> Duration {
        if wait >= QUICK || reason != self.reason {
            *self = Patience { reason, rounds: 0 };
            return wait;
        }
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds > QUICK_ROUNDS { wait.max(patient) } else { wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_that_goes_on_is_looked_at_less_often() {
        let (short, long) = (Duration::from_millis(5), Duration::from_millis(100));
        let mut patience = Patience::default();
        for _ in 0..QUICK_ROUNDS {
            assert_eq!(patience.at_least("promoting", short, long), short);
        }
        patience.at_least("promoting", short, long);
        assert_eq!(patience.at_least("promoting", short, long), long);
        assert_eq!(patience.at_least("leading", short, long), short);
    }
}
