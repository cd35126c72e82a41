//! How far what somebody asked for is, by this member's own count: its part in an announced switchover, and the present turn of a
//! restart.

use std::time::Duration;

use outrider_dcs::{Entry, RestartRequest, Snapshot};
use tokio::time::Instant;

use crate::clock;
use crate::deadline::due_in;

/// How far this member is in an announced switchover.
#[derive(Clone, Debug)]
pub(crate) struct SwitchoverProgress {
    /// Identifier of the announcement.
    pub(crate) id: String,
    /// Its own CHECKPOINT for it is done.
    pub(crate) checkpointed: bool,
    /// When its Postgres was told to stop for it.
    pub(crate) stopping_since: Option<Instant>,
}

/// The turn last seen: its key in the DCS, and since when.
#[derive(Debug, Default)]
pub(crate) struct TurnSeen(Option<(i64, Instant)>);

impl TurnSeen {
    /// How long it has been the same. Every turn that begins or ends changes the key; before it is due, no time counts.
    pub(crate) fn seen(&mut self, snapshot: &Snapshot) -> Duration {
        let due = |entry: &&Entry<RestartRequest>| {
            entry.value.is_open() && due_in(entry.value.scheduled_at.as_deref()).is_zero()
        };
        let revision = snapshot.restart.as_ref().filter(due).map(|entry| entry.revision);
        let now = clock::monotonic();
        self.0 = match (revision, self.0) {
            (None, _) => None,
            (Some(revision), Some((seen, since))) if revision == seen => Some((seen, since)),
            (Some(revision), _) => Some((revision, now)),
        };
        self.0.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(since))
    }
}
