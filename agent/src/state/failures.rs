//! Long work that failed again and again: how often, why, and until when it is not tried anew. Waits twice as long each time,
//! at most a minute. Decides nothing.

use std::time::Duration;

use outrider_ha::Job;
use serde_json::{Value, json};
use tokio::time::Instant;

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// Doublings after which the longest wait is reached, whatever the first was.
const DOUBLINGS_MAX: u32 = 16;
/// Work that has failed so often in a row may never succeed here.
const HOPELESS: u32 = 3;
/// So much of a fault is shown to everybody; the log has all of it.
const FAULT_MAX: usize = 300;

/// Work of one kind that failed, and has not succeeded since.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    /// Which.
    pub(crate) job: Job,
    /// How often in a row.
    pub(crate) count: u32,
    /// Why, the last time.
    pub(crate) fault: String,
    until: Instant,
}

impl Failed {
    /// As members tell each other.
    pub(crate) fn document(&self) -> Value {
        json!({"job": self.job, "count": self.count, "fault": self.fault})
    }
}

/// All of it; one entry for each kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures(Vec<Failed>);

impl Failures {
    /// It failed: the first time it waits for `first`, and then for twice as long as the last time.
    pub(crate) fn note(&mut self, job: Job, fault: &str, first: Duration, now: Instant) {
        let before = self.0.iter().find(|failed| failed.job == job).map_or(0, |failed| failed.count);
        self.forget(job);
        let wait = first.saturating_mul(1 << before.min(DOUBLINGS_MAX)).min(LONGEST.max(first));
        let fault: String = fault.chars().take(FAULT_MAX).collect();
        self.0.push(Failed { job, count: before.saturating_add(1), fault, until: now + wait });
    }

    /// It succeeded, or there is no reason any more why it should fail again.
    pub(crate) fn forget(&mut self, job: Job) {
        self.0.retain(|failed| failed.job != job);
    }

    /// Postgres runs and answers: whatever should have brought that about has succeeded.
    pub(crate) fn postgres_runs(&mut self) {
        self.0.retain(|failed| match failed.job {
            Job::Checkpoint | Job::PostBootstrap | Job::Rollback => true,
            Job::Initdb | Job::Start | Job::Stop | Job::Clone | Job::Rewind => false,
        });
    }

    /// Another member leads: the next try has another source.
    pub(crate) fn source_changed(&mut self) {
        self.forget(Job::Clone);
        self.forget(Job::Rewind);
    }

    /// What is not tried yet.
    pub(crate) fn waiting(&self, now: Instant) -> Vec<Job> {
        self.0.iter().filter(|failed| now < failed.until).map(|failed| failed.job).collect()
    }

    /// What may never succeed here.
    pub(crate) fn hopeless(&self) -> Vec<Job> {
        self.0.iter().filter(|failed| failed.count >= HOPELESS).map(|failed| failed.job).collect()
    }

    /// The one that failed last.
    pub(crate) fn last(&self) -> Option<&Failed> {
        self.0.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_twice_as_long_and_at_most_a_minute() {
        let (mut failures, now, first) =
            (Failures::default(), crate::clock::monotonic(), Duration::from_secs(1));
        let mut waits = Vec::new();
        for count in 1..=20 {
            failures.note(Job::Clone, "no route", first, now);
            let failed = failures.last().unwrap();
            assert_eq!(failed.count, count);
            waits.push((failed.until - now).as_secs());
        }
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(waits.iter().skip(6).all(|wait| *wait == 60));
        assert_eq!(failures.waiting(now), [Job::Clone]);
        assert_eq!(failures.waiting(now + LONGEST), []);
        failures.note(Job::Start, "no", first, now);
        failures.note(Job::Start, "no", first, now);
        assert_eq!(failures.hopeless(), [Job::Clone]);
        failures.note(Job::Start, "no", first, now);
        assert_eq!(failures.hopeless(), [Job::Clone, Job::Start]);
    }

    #[test]
    fn what_succeeds_and_what_has_another_source_begins_anew() {
        let (mut failures, now) = (Failures::default(), crate::clock::monotonic());
        let note = |failures: &mut Failures, job| failures.note(job, "no", Duration::from_secs(1), now);
        for job in [Job::Rewind, Job::Clone, Job::Clone, Job::Start, Job::Checkpoint] {
            note(&mut failures, job);
        }
        failures.source_changed();
        assert_eq!(failures.waiting(now), [Job::Start, Job::Checkpoint]);
        failures.postgres_runs();
        assert_eq!(failures.waiting(now), [Job::Checkpoint]);
        note(&mut failures, Job::Clone);
        assert_eq!(failures.last().unwrap().document(), json!({"job": "clone", "count": 1, "fault": "no"}));
    }
}
