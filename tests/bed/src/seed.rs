//! Numbers that a seed chooses: the same seed, the same moments. Not for secrets.

/// Names another seed than the test's own.
const VARIABLE: &str = "OUTRIDER_SEED";

/// A sequence of numbers.
#[derive(Debug)]
pub struct Seed(u64);

impl Seed {
    /// The usual one of a test, or that of the environment (`OUTRIDER_SEED`). Says which, for when the test fails.
    ///
    /// # Panics
    /// When the environment has something else than a number.
    pub fn choose(usual: u64) -> Self {
        let named = std::env::var(VARIABLE).ok();
        let seed = named.map_or(usual, |text| text.parse().expect("OUTRIDER_SEED is a number"));
        println!("{VARIABLE}={seed}");
        Seed(seed)
    }

    /// The next one, from 0 and less than `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }

    /// The same things in another order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            let other = self.below(last as u64 + 1);
            things.swap(last, usize::try_from(other).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_nothing_is_lost_in_the_shuffle() {
        let numbers = |seed| {
            let mut seed = Seed(seed);
            let mut things: Vec<u64> = (0..9).collect();
            seed.shuffle(&mut things);
            let numbers: Vec<u64> = (0..9).map(|_| seed.below(100)).collect();
            (things, numbers)
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        let (mut things, below) = numbers(7);
        things.sort_unstable();
        assert_eq!(things, (0..9).collect::<Vec<_>>());
        assert!(below.iter().all(|number| *number < 100));
    }
}
