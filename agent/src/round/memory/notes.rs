//! What the agent notes about its supervisor, its Postgres and the DCS when they answer, and when they do not.

use outrider_ha::Job;
use outrider_postgres::{Error, Observation};
use outrider_supervisor::protocol::Status;
use tracing::{info, warn};

use super::{CRASHES_MAX, Memory};
use crate::clock;
use crate::report::causes;

/// Lines of Postgres' log that are shown when it ended unexpectedly.
const LOG_TAIL: usize = 8;

impl Memory {
    /// What the supervisor says; an exit of the postmaster that nobody asked for counts as a crash.
    pub(crate) fn supervisor_answers(&mut self, status: &Status) {
        let exit = status.last_exit.as_ref();
        let at = exit.map_or(0, |exit| exit.at_ns);
        let is_news = self.supervisor_pid == Some(status.supervisor_pid) && self.last_exit != Some(at);
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
            warn!(exit = ?exit.exit, "Postgres ended unexpectedly; its last lines: {tail}");
        }
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

    /// Logs once why a starting Postgres takes no connections.
    pub(crate) fn note_starting_fault(&mut self, fault: &Error) {
        let text = causes(fault);
        if self.starting_fault.is_news(&text) {
            info!(%text, "Postgres is not up yet");
        }
    }
}
