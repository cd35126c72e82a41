//! This member's entry in the DCS, as it was last written, and the session that it hangs on.

use std::time::Duration;

use outrider_dcs::Error;
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use crate::clock;
use crate::log::{LastLogged, causes};

/// An entry that has not changed is written again after so many rounds, should somebody have deleted it.
const ENTRY_ROUNDS: u32 = 30;

/// What is remembered of it.
#[derive(Default)]
pub(crate) struct Entry {
    is_member: bool,
    written: Option<Written>,
    fault: LastLogged,
    ttl: Option<Duration>,
}

struct Written {
    value: Value,
    /// Since when, in rounds.
    rounds: u32,
    /// Since when.
    at: Instant,
}

impl Entry {
    /// Whether this member has its entry in the DCS, and no other agent has its name.
    pub(crate) fn is_member(&self) -> bool {
        self.is_member
    }

    /// Whether this value need not be written in this round: a leader's renewal keeps the session that it hangs on, and
    /// nobody's session runs out within a third of its ttl.
    pub(crate) fn stands(&mut self, value: &Value, leads: bool, ttl: Duration) -> bool {
        let Some(written) = &mut self.written else { return false };
        let kept = leads && written.rounds < ENTRY_ROUNDS;
        let ttl = self.ttl.map_or(ttl, |of_session| of_session.min(ttl));
        let stands = written.value == *value && (kept || written.at.elapsed() < ttl / 3);
        written.rounds += u32::from(stands);
        stands
    }

    /// It was written.
    pub(crate) fn written(&mut self, value: Value) {
        self.is_member = true;
        self.fault.forget();
        self.written = Some(Written { value, rounds: 0, at: clock::monotonic() });
    }

    /// It was not, as far as is known.
    pub(crate) fn not_written(&mut self, fault: &Error) {
        self.written = None;
        // Another agent lives under this name: two of one name would pass for one another in `/sync`.
        if fault.is_conflict() {
            self.is_member = false;
        }
        let text = causes(fault);
        if self.fault.is_news(&text) {
            warn!(fault = %text, "cannot publish this member");
        }
    }

    /// The ttl of this agent's session; `None` when it was resumed from an earlier agent, who may have lengthened it.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// The session has this ttl.
    pub(crate) fn has_ttl(&mut self, ttl: Duration) {
        self.ttl = Some(ttl);
    }
}
