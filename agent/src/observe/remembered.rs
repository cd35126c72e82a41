//! What this member remembers of the cluster, by its own count, beside what the DCS shows.

use std::time::Duration;

use outrider_ha::Policy;

use crate::state::SwitchoverProgress;

/// What this member remembers besides the snapshot.
pub(super) struct Remembered<'state> {
    /// How long the lease has been free.
    pub(super) free_for: Duration,
    /// How long it has seen this request unchanged.
    pub(super) request_seen_for: Duration,
    /// The rules of the cluster.
    pub(super) policy: &'state Policy,
    /// The switchover in progress, when this member takes part in it.
    pub(super) switchover: Option<&'state SwitchoverProgress>,
    /// How long the current turn of a restart has been seen.
    pub(super) turn_for: Duration,
    /// Time limit for a turn when the request names none.
    pub(super) turn_limit: Duration,
}
