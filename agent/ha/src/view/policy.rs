//! The rules that the operator set: cluster policy from the DCS, this member's tags from its file. No rule of our own.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::member::Tags;

/// Settings that decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// Time to live of the leader lease.
    #[serde(with = "crate::millis")]
    pub ttl: Duration,
    /// The longest time between two rounds.
    #[serde(with = "crate::millis")]
    pub loop_wait: Duration,
    /// How many bytes a standby may be behind and still be promoted, in asynchronous mode.
    pub maximum_lag_on_failover: u64,
    /// How long a primary may take to start before a standby is preferred.
    #[serde(with = "crate::millis")]
    pub primary_start_timeout: Duration,
    /// How long a switchover may take from stopping the primary to handing over; then it is rolled back.
    #[serde(with = "crate::millis")]
    pub switchover_timeout: Duration,
    /// A primary that cannot renew stops itself when its fuse has this much left.
    #[serde(with = "crate::millis")]
    pub step_down_margin: Duration,
    /// Whether commits wait for standbys.
    pub synchronous_mode: SynchronousMode,
    /// How many standbys a commit waits for.
    pub synchronous_node_count: u32,
    /// The tags of this member.
    #[serde(default)]
    pub tags: Tags,
}

impl Policy {
    /// How long a request for another leader holds when nobody said otherwise, and how long its answer is waited for.
    #[must_use]
    pub fn request_limit(&self) -> Duration {
        REQUEST_LIMIT_LEAST.max(self.loop_wait * 2)
    }
}

/// As long as Patroni waits for the outcome.
const REQUEST_LIMIT_LEAST: Duration = Duration::from_secs(20);

/// `synchronous_mode`, with Patroni's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SynchronousMode {
    /// Commits wait for nobody; a failover may lose the last of them.
    Off,
    /// Commits wait for the recorded standbys; a lone primary goes on. No failover loses an acknowledged commit.
    On,
}
