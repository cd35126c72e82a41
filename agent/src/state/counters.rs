//! Sums since the start of the agent, for metrics. Nothing is decided by them.

use std::collections::BTreeMap;
use std::time::Duration;

use outrider_dcs::Error;

/// Sums since the start of the agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// Rounds by label of their reason.
    pub(crate) rounds: BTreeMap<&'static str, u64>,
    /// Durations of rounds: the number within each bound of [`ROUND_BOUNDS`], in its order, and last all others.
    pub(crate) round_durations: [u64; ROUND_BOUNDS.len() + 1],
    /// Their sum.
    pub(crate) round_duration_sum: Duration,
    /// How long the last confirmed renewal of the lease took.
    pub(crate) last_renewal: Option<Duration>,
    /// Failed requests to the DCS by kind: `unreachable`, `conflict`, `unknown`, `refused`.
    pub(crate) dcs_errors: BTreeMap<&'static str, u64>,
    /// Promotions of this member without a planned hand-over.
    pub(crate) failovers: u64,
    /// Planned promotions of this member, and hand-overs by it.
    pub(crate) switchovers: u64,
    /// Times the supervisor fenced Postgres because the fuse blew.
    pub(crate) fenced: u64,
    /// Times Postgres was started by this agent.
    pub(crate) postgres_starts: u64,
    /// The last write gap that this member measured as the old primary of a switchover.
    pub(crate) last_write_gap: Option<Duration>,
    /// Lines that the flight recorder could not write.
    pub(crate) recorder_failures: u64,
}

/// Upper bounds of the histogram of round durations, in seconds.
pub(crate) const ROUND_BOUNDS: [f64; 8] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];

impl Counters {
    /// A round ended for this reason, and took so long.
    pub(crate) fn note_round(&mut self, reason: &'static str, took: Duration) {
        *self.rounds.entry(reason).or_default() += 1;
        let bound =
            ROUND_BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound).unwrap_or(ROUND_BOUNDS.len());
        self.round_durations[bound] += 1;
        self.round_duration_sum += took;
    }

    /// A request to the DCS failed.
    pub(crate) fn note_dcs_error(&mut self, fault: &Error) {
        let kind = match fault {
            Error::Unreachable { .. } => "unreachable",
            Error::Conflict { .. } => "conflict",
            Error::Unknown { .. } => "unknown",
            Error::Refused { .. } => "refused",
        };
        *self.dcs_errors.entry(kind).or_default() += 1;
    }
}
