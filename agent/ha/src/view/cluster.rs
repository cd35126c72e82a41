//! What the DCS holds: the leader lease, who is synchronous, the identifier, the history. No rule of what follows from it.

use alloc::vec::Vec;
use core::time::Duration;

use outrider_wal::{Lsn, TimelineHistory, TimelineId};
use serde::{Deserialize, Serialize};

use super::identity::{SystemId, Term};
use super::member::MemberName;
use super::request::{Request, Switchover};
use super::restart::Restart;
use super::watermark::{StoreId, Watermark};

/// The cluster as one linearizable read shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cluster {
    /// Who alone may have a writable Postgres.
    pub lease: Lease,
    /// The highest term that the DCS knows.
    pub term: Term,
    /// Which store it is.
    #[serde(default)]
    pub store: Option<StoreId>,
    /// How often the cluster's keys were rebuilt.
    #[serde(default)]
    pub generation: u64,
    /// The store's revision.
    #[serde(default)]
    pub revision: i64,
    /// The revision at which `/sync` was last changed, or deleted by a leader; 0 for never.
    #[serde(default)]
    pub sync_revision: i64,
    /// Nothing of a cluster stands there.
    #[serde(default)]
    pub blank: bool,
    /// Whose data this cluster has.
    pub initialize: Initialize,
    /// Who may be promoted without losing an acknowledged commit; `None` in asynchronous mode. A record that nobody can
    /// read names nobody, so that nobody is promoted on it.
    pub sync: Option<SyncState>,
    /// The last position that a leader published.
    pub last_position: Lsn,
    /// The timeline that it is of; 0 when that was not published.
    #[serde(default)]
    pub last_timeline: TimelineId,
    /// Where the cluster's timelines were left, as its leaders recorded it.
    pub history: TimelineHistory,
    /// The timeline that the last rollback began: whoever is on an earlier one has what it threw away.
    #[serde(default)]
    pub least_timeline: TimelineId,
    /// Whose data a rollback is swapping, until it is recorded how that ended: nobody else knows whether the cluster has been
    /// rolled back.
    #[serde(default)]
    pub swapping: Option<MemberName>,
    /// What somebody asks for (`/failover`).
    pub request: Option<Request>,
    /// The switchover that the leader has begun.
    pub switchover: Option<Switchover>,
    /// A restart of members that somebody asked for, and that has not ended.
    #[serde(default)]
    pub restart: Option<Restart>,
}

impl Cluster {
    /// How far the DCS is.
    #[must_use]
    pub fn watermark(&self) -> Watermark {
        Watermark {
            store: self.store,
            generation: self.generation,
            term: self.term,
            revision: self.revision,
            sync_revision: self.sync_revision,
            lost: None,
        }
    }

    /// The same for one who has `seen` that much: that `/sync` is absent says nothing, since a person may have deleted it.
    #[must_use]
    pub fn watermark_without_sync(&self, seen: &Watermark) -> Watermark {
        let mut now = self.watermark();
        if self.sync.is_none() && !self.blank {
            now.sync_revision = now.sync_revision.max(seen.sync_revision);
        }
        now
    }
}

/// The leader lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lease {
    /// Nobody holds it.
    Free {
        /// How long this member has seen it free.
        #[serde(with = "crate::millis")]
        since: Duration,
    },
    /// This member holds it, on its own session.
    Mine,
    /// Another one holds it; also one that has this member's name but not its session.
    Theirs {
        /// Its name.
        holder: MemberName,
    },
}

/// The `initialize` key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initialize {
    /// No cluster was ever made.
    Absent,
    /// Somebody is at it, or died of it: the leader lease tells which.
    Bootstrapping,
    /// The cluster has this identifier.
    Done(SystemId),
}

/// The `/sync` key: its leader and the standbys that hold every acknowledged commit of that leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SyncState {
    /// The primary of which `standbys` are synchronous.
    pub leader: Option<MemberName>,
    /// Names ascending.
    pub standbys: Vec<MemberName>,
    /// The newest timeline that was begun by a promotion which never ended recovery; nobody led on it. 0 for none.
    #[serde(default)]
    pub given_up: TimelineId,
    /// The revision of the key, for compare-and-swap.
    pub revision: i64,
}

impl SyncState {
    /// Whether a member with this name has all that was acknowledged.
    #[must_use]
    pub fn covers(&self, name: &MemberName) -> bool {
        self.leader.as_ref() == Some(name) || self.standbys.contains(name)
    }
}
