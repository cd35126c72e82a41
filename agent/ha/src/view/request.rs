//! What people ask of the cluster, and the switchover that its leader has begun. No rule of when it is granted.

use core::time::Duration;

use alloc::string::String;
use serde::{Deserialize, Serialize};

use super::member::MemberName;

/// The `/failover` key: somebody wants another leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Planned or not.
    pub kind: RequestKind,
    /// The leader that is to give up; must be the leader when it is named.
    pub from: Option<MemberName>,
    /// The member that is to lead; any healthy one when it is not named.
    pub to: Option<MemberName>,
    /// Time left until it is due; 0 for at once.
    #[serde(with = "crate::millis")]
    pub due_in: Duration,
    /// Time left until it is void; 0 when it is.
    #[serde(with = "crate::millis", default = "forever")]
    pub expires_in: Duration,
    /// The key says until when it holds. Patroni's command line says nothing of the kind; whoever decides on such a request first
    /// writes it down.
    #[serde(default = "yes")]
    pub dated: bool,
    /// What the candidate lacks is given up.
    #[serde(default)]
    pub accept_data_loss: bool,
    /// A candidate that is not ready yet is waited for; otherwise the request is refused.
    #[serde(default)]
    pub wait: bool,
    /// The revision of the key, for compare-and-swap.
    pub revision: i64,
}

impl Request {
    /// Whether its deadline has passed: nothing may come of it any more.
    #[must_use]
    pub const fn is_void(&self) -> bool {
        self.expires_in.is_zero()
    }

    /// Whether it is to be done now.
    #[must_use]
    pub const fn is_due(&self) -> bool {
        self.due_in.is_zero() && !self.is_void()
    }
}

const fn forever() -> Duration {
    Duration::from_millis(u64::MAX)
}

const fn yes() -> bool {
    true
}

/// What kind of change is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// The leader is named and well: it hands over.
    Switchover,
    /// Only the candidate is named: it is to lead even when there is no leader.
    Failover,
}

/// A switchover that the leader has announced in the DCS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Switchover {
    /// Its identifier, unique.
    pub id: String,
    /// Who gives up.
    pub from: MemberName,
    /// Who takes over.
    pub to: MemberName,
    /// How long ago Postgres was told to stop for it; 0 before that.
    #[serde(with = "crate::millis")]
    pub stopping_for: Duration,
    /// Whether this member's own CHECKPOINT for it is done.
    pub checkpointed: bool,
    /// The leader stops its Postgres for it, or has done so: it can no longer be withdrawn.
    #[serde(default)]
    pub stopping: bool,
}
