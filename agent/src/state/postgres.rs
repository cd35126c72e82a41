//! What the local Postgres said in this round, and since when it has not answered, not let anybody in, or had less than its primary.

use std::time::Duration;

use outrider_postgres::{Error, Observation};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock;
use crate::log::{Said, causes};

/// What is remembered of it.
#[derive(Default)]
pub(crate) struct Postgres {
    seen: Option<Observation>,
    /// The postmaster that has answered since its start.
    answered_pid: Option<i32>,
    /// Why a starting one takes no connections, as it was last logged.
    starting_fault: Said,
    silent_since: Option<Instant>,
    shut_out_since: Option<Instant>,
    short_since: Option<Instant>,
    was_writable: bool,
    users_ready: bool,
}

impl Postgres {
    /// It answers.
    pub(crate) fn answers(&mut self, seen: Observation, pid: Option<i32>) {
        self.answered_pid = pid;
        self.silent_since = None;
        self.starting_fault.forget();
        self.note_shut_out(seen.shut_out.as_deref());
        self.seen = Some(seen);
    }

    /// It should, and does not.
    pub(crate) fn does_not_answer(&mut self) {
        self.seen = None;
        self.note_shut_out(None);
    }

    /// There is none.
    pub(crate) fn does_not_run(&mut self) {
        self.does_not_answer();
        self.silent_since = None;
    }

    /// What it said in this round; `None` when it did not answer.
    pub(crate) fn seen(&self) -> Option<&Observation> {
        self.seen.as_ref()
    }

    /// Whether this postmaster has answered since its start.
    pub(crate) fn has_answered(&self, pid: i32) -> bool {
        self.answered_pid == Some(pid)
    }

    /// How long it has not answered, from the first time on that it did not.
    pub(crate) fn silent_for(&mut self) -> Duration {
        clock::since(*self.silent_since.get_or_insert_with(clock::monotonic))
    }

    /// Logs once why a starting one takes no connections.
    pub(crate) fn is_not_up(&mut self, fault: &Error) {
        let text = causes(fault);
        if self.starting_fault.is_news(&text) {
            info!(%text, "Postgres is not up yet");
        }
    }

    /// It answers in an open session, and takes new ones or not.
    fn note_shut_out(&mut self, why: Option<&str>) {
        match (why, self.shut_out_since) {
            (Some(why), None) => {
                warn!(why, "Postgres accepts no new connections; open ones go on");
                self.shut_out_since = Some(clock::monotonic());
            }
            (None, Some(_)) => self.shut_out_since = None,
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// How long it has taken no new connection, though it answers; `None` while it takes some, or does not answer.
    pub(crate) fn shut_out_for(&self) -> Option<Duration> {
        self.shut_out_since.map(clock::since)
    }

    /// As a standby it has less than its primary of what it must not have less of, or it has not; for how long.
    pub(crate) fn short_for(&mut self, is_short: bool) -> Option<Duration> {
        self.short_since = is_short.then(|| self.short_since.unwrap_or_else(clock::monotonic));
        self.short_since.map(clock::since)
    }

    /// Whether it accepted writes, or was about to, in the last round.
    pub(crate) fn was_writable(&self) -> bool {
        self.was_writable
    }

    /// It does, or is about to; or not.
    pub(crate) fn is_writable(&mut self, writable: bool) {
        self.was_writable = writable;
    }

    /// Whether the users were created, or found.
    pub(crate) fn users_are_ready(&self) -> bool {
        self.users_ready
    }

    /// They were.
    pub(crate) fn users_were_made(&mut self) {
        self.users_ready = true;
    }
}
