//! What the agent notes about its supervisor, its Postgres and the DCS when they answer, and when they do not.

use outrider_ha::Job;
use outrider_postgres::{Error, Observation, Settings, why_it_ended};
use outrider_supervisor::protocol::{Exit, Status};
use tracing::{error, info, warn};

use super::{CRASHES_MAX, Memory};
use crate::clock;
use crate::report::causes;

/// Lines of Postgres' log that are shown when it ended unexpectedly.
const LOG_TAIL: usize = 8;

impl Memory {
    /// What the supervisor says; an exit of the postmaster that nobody asked for counts as a crash.
    pub(crate) fn supervisor_answers(&mut self, status: &Status, settings: &Settings) {
        let exit = status.last_exit.as_ref();
        let at = exit.map_or(0, |exit| exit.at_ns);
        let is_news = self.supervisor_pid == Some(status.supervisor_pid) && self.last_exit != Some(at);
        if is_news {
            self.promotion.ended(exit.is_some_and(|exit| !exit.expected && !exit.fenced));
        }
        if let Some(exit) = exit.filter(|exit| is_news && !exit.expected && !exit.fenced) {
            self.crashes.push_back(clock::monotonic());
            if self.crashes.len() > CRASHES_MAX {
                self.crashes.pop_front();
            }
            let shown = status.log_tail.len().saturating_sub(LOG_TAIL);
            let tail = status.log_tail.get(shown..).unwrap_or_default().join(" | ");
            // One that never came up would do the same again at once.
            if self.answered_pid != Some(exit.pid) {
                self.failed(Job::Start, &tail);
            }
            warn!(exit = %exit.exit, "Postgres ended unexpectedly; its last lines: {tail}");
        }
        self.note_start_failure(status, settings);
        if self.supervisor_pid.is_some_and(|pid| pid != status.supervisor_pid) {
            warn!(pid = status.supervisor_pid, "the supervisor was started anew");
        }
        if self.supervisor_silent {
            info!("the supervisor answers again");
        }
        self.last_exit = Some(at);
        self.supervisor_pid = Some(status.supervisor_pid);
        self.supervisor_silent = false;
        self.supervisor_is_gone = false;
        self.terminating = status.terminating;
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
    pub(crate) fn supervisor_is_silent(&mut self, fault: &Error) {
        if !self.supervisor_silent {
            warn!(fault = %causes(fault), "the supervisor does not answer");
        }
        self.supervisor_silent = true;
        self.supervisor_is_gone = matches!(fault, Error::NoSupervisor { .. });
    }

    /// A Postgres that this agent did not start keeps whom its commits wait for and where it streams from, until a step
    /// changes them: `/sync` may rest on it.
    pub(crate) fn adopt(&mut self, seen: &Observation) {
        if !self.adopted {
            self.configuration.adopt(seen);
        }
        self.adopted = true;
    }

    /// Somebody else may have set whom commits wait for (`ALTER SYSTEM`): then it is set and proven anew.
    pub(crate) fn check_synchronous(&mut self, seen: &Observation) {
        let wanted = self.configuration.synchronous_standby_names();
        if self.synchronous.since.is_some() && seen.synchronous_standby_names != wanted {
            warn!(
                wanted,
                found = seen.synchronous_standby_names,
                "somebody changed synchronous_standby_names; setting it anew"
            );
            self.forget_synchronous();
        }
    }

    /// Counts a request to the DCS that failed.
    pub(crate) fn count_dcs_error(&mut self, fault: &outrider_dcs::Error) {
        let kind = match fault {
            outrider_dcs::Error::Unreachable { .. } => "unreachable",
            outrider_dcs::Error::Conflict { .. } => "conflict",
            outrider_dcs::Error::Unknown { .. } => "unknown",
            outrider_dcs::Error::Refused { .. } => "refused",
        };
        *self.counters.dcs_errors.entry(kind).or_default() += 1;
    }

    /// The DCS answers.
    pub(crate) fn dcs_answers(&mut self) {
        if self.silence_logged {
            info!(silent_for = ?self.silent_for(), "the DCS answers again");
        }
        self.silence_logged = false;
        self.silent_since = None;
        self.dcs_last_seen = Some(clock::wall());
    }

    /// It does not.
    pub(crate) fn dcs_is_silent(&mut self, fault: &outrider_dcs::Error) {
        self.count_dcs_error(fault);
        if !self.silence_logged {
            warn!(fault = %causes(fault), "the DCS does not answer; waiting for it");
        }
        self.silence_logged = true;
        self.silent_since.get_or_insert_with(clock::monotonic);
    }

    /// Postgres answers in an open session, and takes new ones or not.
    pub(crate) fn note_shut_out(&mut self, why: Option<&str>) {
        match (why, self.shut_out_since) {
            (Some(why), None) => {
                warn!(why, "Postgres takes no new connection; those that are open go on");
                self.shut_out_since = Some(clock::monotonic());
            }
            (None, Some(_)) => self.shut_out_since = None,
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// The postmaster stands still because of a signal, or it does not.
    pub(crate) fn note_frozen(&mut self, frozen: bool) {
        if frozen && !self.frozen {
            warn!(
                "the postmaster stands still: somebody stopped it with a signal (SIGSTOP), and SIGCONT lets it go on"
            );
        }
        self.frozen = frozen;
    }

    /// Logs once why a starting Postgres takes no connections.
    pub(crate) fn note_starting_fault(&mut self, fault: &Error) {
        let text = causes(fault);
        if self.starting_fault.is_news(&text) {
            info!(%text, "Postgres is not up yet");
        }
    }
}
