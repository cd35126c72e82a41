//! In how long the file system of pg_wal will be full. Pure: the sizes and times come from the caller.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How far back the growth of waiting WAL is looked at.
const WINDOW: Duration = Duration::from_secs(300);
/// Looks that are remembered; one every five seconds or so, and more while files come.
const SAMPLES_MAX: usize = 128;

/// The waiting bytes of the last minutes.
#[derive(Clone, Debug, Default)]
pub(super) struct Growth {
    samples: VecDeque<(Instant, u64)>,
}

impl Growth {
    /// Takes in what waits now. Returns in how long `free` bytes are used up if it grows on like this.
    pub(super) fn seen(&mut self, now: Instant, waiting: u64, free: Option<u64>) -> Option<Duration> {
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.samples.pop_front();
        }
        let recent = self.samples.back().is_some_and(|(at, _)| {
            now.duration_since(*at) < WINDOW / u32::try_from(SAMPLES_MAX).unwrap_or(u32::MAX)
        });
        let first = self.samples.front().copied();
        if !recent {
            self.samples.push_back((now, waiting));
        }
        let (at, then) = first?;
        let (grown, seconds) = (waiting.checked_sub(then)?, now.duration_since(at).as_secs_f64());
        if grown == 0 || seconds <= 0.0 {
            return None;
        }
        Duration::try_from_secs_f64(free? as f64 * seconds / grown as f64).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_time_left_follows_the_growth_of_the_last_minutes() {
        let (start, mut growth) = (Instant::now(), Growth::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(growth.seen(at(0), 100, Some(1000)), None);
        assert_eq!(growth.seen(at(10), 200, Some(1000)), Some(Duration::from_secs(100)));
        assert_eq!(growth.seen(at(20), 100, Some(1000)), None, "it does not grow");
        assert_eq!(growth.seen(at(20), 300, None), None);
        // What was before the window does not count: from 300 on it grew from 200.
        assert_eq!(growth.seen(at(305), 300, Some(1000)), Some(Duration::from_secs(2950)));
        assert_eq!(growth.seen(at(2000), 300, Some(1000)), None, "nothing to compare with");
    }

    #[tokio::test]
    async fn few_looks_are_remembered_however_many_there_are() {
        let (start, mut growth) = (Instant::now(), Growth::default());
        for number in 0..100_000 {
            growth.seen(start + Duration::from_millis(number * 10), number, None);
        }
        assert!(growth.samples.len() <= SAMPLES_MAX + 1, "{}", growth.samples.len());
    }
}
