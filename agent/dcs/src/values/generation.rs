//! Which writing of the cluster's keys this is: ours, under `outrider/generation`. Absent until they had to be written anew.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{HistoryRow, RollbackOutcome, SyncState};

/// Written whenever the keys of a cluster are rebuilt in a DCS that has lost them or went back to an older copy. Whoever has
/// seen a higher generation than the DCS shows knows that the DCS went back; whoever has seen a lower one forgets the
/// revisions of the DCS that was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Generation {
    /// Grows by one with each rebuilding; 0 before the first.
    pub generation: u64,
    /// The highest term that anybody knew. Terms are the store's revisions from there on, since a store that was wiped counts
    /// its revisions from the beginning.
    pub term_base: u64,
    /// The member that rebuilt the keys.
    pub by: String,
    /// When, RFC 3339, UTC.
    pub at: String,
}

/// What the keys of a cluster say after they were rebuilt.
#[derive(Clone, Debug, PartialEq)]
pub struct RebuiltKeys {
    /// The new generation.
    pub generation: Generation,
    /// The system identifier, decimal.
    pub system_identifier: String,
    /// The dynamic configuration; `None` leaves what is there.
    pub config: Option<Value>,
    /// Who may be promoted; `None` in asynchronous mode.
    pub sync: Option<SyncState>,
    /// The timeline history.
    pub history: Vec<HistoryRow>,
    /// How the last rollback of the cluster ended.
    pub rollback_last: Option<RollbackOutcome>,
}
