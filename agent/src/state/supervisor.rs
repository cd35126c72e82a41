//! What the supervisor says of itself and of the postmaster's exits, and since when it says nothing.

use std::collections::VecDeque;
use std::time::Duration;

use outrider_postgres::{Error, Settings, why_it_ended};
use outrider_supervisor::protocol::{Exit, Status};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::promotion::{GIVEN_UP, Promotion};
use crate::clock;
use crate::log::causes;

/// Unexpected exits older than this no longer count as a crash loop.
const CRASH_WINDOW: Duration = Duration::from_secs(60);
/// More of them than this are not worth remembering.
const CRASHES_MAX: usize = 16;
/// Lines of Postgres' log that are shown when it ended unexpectedly.
const LOG_TAIL: usize = 8;

/// What is remembered of it.
#[derive(Default)]
pub(crate) struct Supervisor {
    /// The one that answered last.
    pid: Option<i32>,
    /// It did not answer the last time.
    is_silent: bool,
    is_gone: bool,
    /// When one was last started.
    started: Option<Instant>,
    is_terminating: bool,
    /// When the postmaster exited unexpectedly.
    crashes: VecDeque<Instant>,
    /// The last exit that it told of, by its time; `None` before its first answer.
    last_exit: Option<u64>,
    /// Why Postgres ended before it answered, in its own words; `None` since it answers.
    start_failure: Option<String>,
    /// The postmaster was seen to stand still.
    is_frozen: bool,
}

/// Postgres ended, and nobody had asked for it.
pub(crate) struct Crash {
    /// Of the postmaster.
    pub(crate) pid: i32,
    /// Its last lines.
    pub(crate) words: String,
}

impl Supervisor {
    /// What it says. An exit of the postmaster that nobody asked for counts as a crash, and comes back when it is news.
    pub(crate) fn answers(
        &mut self,
        status: &Status,
        settings: &Settings,
        promotion: &mut Promotion,
    ) -> Option<Crash> {
        let exit = status.last_exit.as_ref();
        let at = exit.map_or(0, |exit| exit.at_ns);
        let is_news = self.pid == Some(status.supervisor_pid) && self.last_exit != Some(at);
        if is_news {
            promotion.ended(exit.is_some_and(|exit| !exit.expected && !exit.fenced));
        }
        let crash = exit.filter(|exit| is_news && !exit.expected && !exit.fenced).map(|exit| {
            self.crashes.push_back(clock::monotonic());
            if self.crashes.len() > CRASHES_MAX {
                self.crashes.pop_front();
            }
            let shown = status.log_tail.len().saturating_sub(LOG_TAIL);
            let words = status.log_tail.get(shown..).unwrap_or_default().join(" | ");
            warn!(exit = %exit.exit, "Postgres ended unexpectedly; its last lines: {words}");
            Crash { pid: exit.pid, words }
        });
        self.note_start_failure(status, settings);
        if self.pid.is_some_and(|pid| pid != status.supervisor_pid) {
            warn!(pid = status.supervisor_pid, "the supervisor was restarted");
        }
        if self.is_silent {
            info!("the supervisor answers again");
        }
        self.last_exit = Some(at);
        self.pid = Some(status.supervisor_pid);
        self.is_silent = false;
        self.is_gone = false;
        self.is_terminating = status.terminating;
        crash
    }

    /// Why Postgres ended, in its own words, until it answers again.
    fn note_start_failure(&mut self, status: &Status, settings: &Settings) {
        let exit = status.last_exit.as_ref();
        let Some(exit) = exit.filter(|exit| !exit.expected && !exit.fenced) else { return };
        let is_known = self.start_failure.is_some() && self.last_exit == Some(exit.at_ns);
        if status.postmaster.is_some() || is_known {
            return;
        }
        let words = why_it_ended(settings, &status.log_tail);
        let words = words.unwrap_or_else(|| match exit.exit {
            Exit::Code(code) => format!("Postgres ended with exit status {code} and said nothing"),
            Exit::Signal(signal) => format!("Postgres was killed by signal {signal}"),
        });
        if self.start_failure.as_ref() != Some(&words) {
            error!("Postgres does not run: {words}");
        }
        self.start_failure = Some(words);
    }

    /// It does not answer.
    pub(crate) fn is_silent(&mut self, fault: &Error) {
        if !self.is_silent {
            warn!(fault = %causes(fault), "the supervisor does not answer");
        }
        self.is_silent = true;
        self.is_gone = matches!(fault, Error::NoSupervisor { .. });
    }

    /// Whether nobody listens on its socket.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether it was told to end.
    pub(crate) fn is_terminating(&self) -> bool {
        self.is_terminating
    }

    /// Whether it is to be started: it is gone, and was not started within `limit`.
    pub(crate) fn is_to_be_started(&self, limit: Duration) -> bool {
        self.is_gone && self.started.is_none_or(|started| started.elapsed() >= limit)
    }

    /// It was started, or that was tried.
    pub(crate) fn was_started(&mut self) {
        self.started = Some(clock::monotonic());
    }

    /// Why Postgres ended before it answered, in its own words; `None` since it answers.
    pub(crate) fn start_failure(&self) -> Option<&str> {
        self.start_failure.as_deref()
    }

    /// Postgres answers.
    pub(crate) fn postgres_answers(&mut self) {
        self.start_failure = None;
    }

    /// This Postgres had to be given up: it counts as a crash loop.
    pub(crate) fn postgres_was_given_up(&mut self) {
        self.crashes.extend([clock::monotonic(); GIVEN_UP as usize]);
    }

    /// Unexpected exits within the last minute.
    pub(crate) fn recent_crashes(&mut self) -> u32 {
        let now = clock::monotonic();
        self.crashes.retain(|at| now.saturating_duration_since(*at) < CRASH_WINDOW);
        u32::try_from(self.crashes.len()).unwrap_or(u32::MAX)
    }

    /// The postmaster stands still because of a signal, or it does not.
    pub(crate) fn sees_frozen(&mut self, frozen: bool) {
        if frozen && !self.is_frozen {
            warn!("the postmaster is stopped: somebody sent it SIGSTOP; SIGCONT resumes it");
        }
        self.is_frozen = frozen;
    }
}
