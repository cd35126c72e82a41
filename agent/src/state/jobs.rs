//! Long work: at most one job beside the round, what of it failed, and what is waited for after a start and after a switchover.

use std::time::Duration;

use outrider_ha::Job;
use outrider_postgres::Error;
use tokio::time::Instant;

use super::background::{Background, ended};
use super::failures::{Failed, Failures};
use crate::clock;

/// What is remembered of it.
#[derive(Default)]
pub(crate) struct Jobs {
    running: Option<Running>,
    /// Until when work that failed is not tried again.
    cooling_until: Option<Instant>,
    failures: Failures,
    /// Ends when Postgres accepts connections.
    coming_up: Option<Background<()>>,
    /// When Postgres was told to stop for a switchover whose end is not seen yet.
    write_gap_since: Option<Instant>,
    /// The measurement of that gap.
    write_gap: Option<Background<Option<Duration>>>,
}

struct Running {
    kind: Job,
    work: Background<()>,
    begun: Instant,
}

/// What has ended.
pub(crate) enum Ended {
    /// The job.
    Job(Job, Result<(), Error>),
    /// Postgres accepts connections, or is gone.
    CameUp(Result<(), Error>),
    /// The measurement of a switchover's gap.
    WriteGap(Option<Duration>),
}

impl Jobs {
    /// A job begins. The plan never begins a second one while one is under way; should it, the older one is not waited for, and what
    /// that told the supervisor goes on.
    pub(crate) fn begin(&mut self, kind: Job, work: Background<()>) {
        self.running = Some(Running { kind, work, begun: clock::monotonic() });
    }

    /// The kind of the job under way.
    pub(crate) fn kind(&self) -> Option<Job> {
        self.running.as_ref().map(|running| running.kind)
    }

    /// Waits for something to end; for ever when there is nothing under way.
    pub(crate) async fn ended(&mut self) -> Ended {
        let kind = self.kind().unwrap_or(Job::Start);
        tokio::select! {
            outcome = ended(self.running.as_mut().map(|running| &mut running.work)) => Ended::Job(kind, outcome),
            outcome = ended(self.coming_up.as_mut()) => Ended::CameUp(outcome),
            measured = ended(self.write_gap.as_mut()) => Ended::WriteGap(measured.ok().flatten()),
        }
    }

    /// The job has ended; how long it took.
    pub(crate) fn end(&mut self) -> Duration {
        self.running.take().map(|running| running.begun.elapsed()).unwrap_or_default()
    }

    /// Work failed: nothing is begun before the next `loop_wait` is over, and the same the later the more often it fails.
    pub(crate) fn failed(&mut self, kind: Job, fault: &str, loop_wait: Duration) {
        let now = clock::monotonic();
        self.cooling_until = Some(now + loop_wait);
        self.failures.note(kind, fault, loop_wait, now);
    }

    /// It succeeded, or there is no reason any more why it should fail again.
    pub(crate) fn succeeded(&mut self, kind: Job) {
        self.failures.forget(kind);
    }

    /// Postgres runs and answers: whatever should have brought that about has succeeded.
    pub(crate) fn postgres_runs(&mut self) {
        self.failures.postgres_runs();
    }

    /// Another member leads: the next try of a clone or a rewind has another source.
    pub(crate) fn source_changed(&mut self) {
        self.failures.source_changed();
    }

    /// Whether work that failed has to wait.
    pub(crate) fn are_cooling_down(&self) -> bool {
        self.cooling_until.is_some_and(|until| clock::monotonic() < until)
    }

    /// What is not tried yet.
    pub(crate) fn backing_off(&self) -> Vec<Job> {
        self.failures.waiting(clock::monotonic())
    }

    /// What may never succeed here.
    pub(crate) fn hopeless(&self) -> Vec<Job> {
        self.failures.hopeless()
    }

    /// What failed last, and has not succeeded since.
    pub(crate) fn failing(&self) -> Option<&Failed> {
        self.failures.last()
    }

    /// Postgres was started: it is waited for until it accepts connections.
    pub(crate) fn wait_for_postgres(&mut self, coming_up: Background<()>) {
        self.coming_up = Some(coming_up);
    }

    /// It is not waited for, or not any more.
    pub(crate) fn stop_waiting_for_postgres(&mut self) {
        self.coming_up = None;
    }

    /// Postgres is told to stop for a switchover: nobody can write from here on.
    pub(crate) fn write_gap_begins(&mut self) {
        self.write_gap_since = Some(clock::monotonic());
    }

    /// Since when nobody could write, when this member now hands the lease over.
    pub(crate) fn take_write_gap(&mut self) -> Option<Instant> {
        self.write_gap_since.take()
    }

    /// The gap is being measured.
    pub(crate) fn measure_write_gap(&mut self, measurement: Background<Option<Duration>>) {
        self.write_gap = Some(measurement);
    }

    /// The measurement has ended.
    pub(crate) fn write_gap_is_measured(&mut self) {
        self.write_gap = None;
    }
}
