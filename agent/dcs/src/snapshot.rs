//! The contents of the DCS at one moment. Does not judge them: the entry of a member that is long gone is shown like any
//! other.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrider_wal::Lsn;
use serde_json::Value;

use crate::values::{
    BackupClaim, BackupOutcome, BackupRequest, Failover, FailoverAnswer, Generation, HistoryRow,
    RestartRequest, RollbackClaim, RollbackOutcome, RollbackRequest, Status, SwitchoverIntent, SyncState,
};

/// A value with the revision of its last change, to be passed back as `seen`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<T> {
    /// The value.
    pub value: T,
    /// When it was last changed: etcd's mod_revision. Never 0.
    pub revision: i64,
}

/// The holder of the leader lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The member's name.
    pub name: String,
    /// Increases with every change of holder, also when the lease is handed over.
    pub term: u64,
    /// When the key was last written.
    pub revision: i64,
    /// The session (etcd lease) that the key is attached to; 0 for none.
    pub lease: i64,
    /// It has my name *and* is attached to my session. A namesake's is not mine.
    pub mine: bool,
}

/// A member's entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The member's name.
    pub name: String,
    /// Patroni's member JSON with all its keys; a JSON string when it is not JSON.
    pub value: Arc<Value>,
    /// The session that the entry is attached to; 0 for none.
    pub lease: i64,
    /// The revision at which it was created: smaller means earlier.
    pub created: i64,
    /// When it was last changed.
    pub revision: i64,
}

impl Member {
    /// `state`: "running", "streaming", "stopped" and so on.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.text("state")
    }

    /// `role`: "primary", "replica" (older: "master").
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.text("role")
    }

    /// `conn_url`: where others reach its Postgres.
    #[must_use]
    pub fn conn_url(&self) -> Option<&str> {
        self.text("conn_url")
    }

    /// `api_url`: where others reach its REST API.
    #[must_use]
    pub fn api_url(&self) -> Option<&str> {
        self.text("api_url")
    }

    /// `timeline`: the timeline of its Postgres.
    #[must_use]
    pub fn timeline(&self) -> Option<u32> {
        self.value.get("timeline")?.as_u64()?.try_into().ok()
    }

    /// `xlog_location`: flushed on a primary, received or replayed on a standby.
    #[must_use]
    pub fn xlog_location(&self) -> Option<Lsn> {
        self.value.get("xlog_location")?.as_u64().map(Lsn::new)
    }

    /// One of the `tags`.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<&Value> {
        self.value.get("tags")?.get(name)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.value.get(key)?.as_str()
    }
}

/// The base backup that is being taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupTaken {
    /// How far it has come.
    pub claim: BackupClaim,
    /// Attached to my session. It may be left over from an agent that died and whose session was resumed.
    pub mine: bool,
}

/// The rollback that is being prepared or carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackTaken {
    /// How far it has come.
    pub claim: RollbackClaim,
    /// Attached to my session. It may be left over from an agent that died and whose session was resumed.
    pub mine: bool,
}

/// Everything that the DCS holds for one cluster, at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Which store this was read from: etcd's cluster id.
    pub store: u64,
    /// The store's revision of this read. If it goes backwards, the store was restored from a backup.
    pub revision: i64,
    /// The generation of the cluster's keys; `None` when they were never rebuilt.
    pub generation: Option<Entry<Generation>>,
    /// Empty while the cluster is bootstrapped, then the system identifier in decimal.
    pub initialize: Option<Entry<String>>,
    /// The dynamic configuration with all its keys; `Null` when it is not JSON.
    pub config: Option<Entry<Arc<Value>>>,
    /// The holder of the leader lease; none when it is free.
    pub leader: Option<Leader>,
    /// The highest term that this cluster ever had, also while the lease is free; 0 for none.
    pub term: u64,
    /// The members, by name.
    pub members: Vec<Member>,
    /// Last known position and slots; also from the older key `optime/leader`.
    pub status: Option<Entry<Status>>,
    /// A request for a manual failover or switchover; `{}` is none.
    pub failover: Option<Entry<Failover>>,
    /// The answer to the last one, if there is any.
    pub failover_answer: Option<FailoverAnswer>,
    /// Who may be promoted in synchronous modes. When unreadable: a record that names nobody.
    pub sync: Option<Entry<SyncState>>,
    /// When `sync` was last written, or deleted by a leader; 0 for never.
    pub sync_revision: i64,
    /// The timelines and their first leaders.
    pub history: Option<Entry<Vec<HistoryRow>>>,
    /// The failsafe set: member names with the URL of their API.
    pub failsafe: Option<Entry<BTreeMap<String, String>>>,
    /// A planned switchover in progress.
    pub intent: Option<Entry<SwitchoverIntent>>,
    /// A requested base backup, until it has ended.
    pub backup_request: Option<Entry<BackupRequest>>,
    /// The base backup that is being taken.
    pub backup: Option<BackupTaken>,
    /// How the last one ended.
    pub backup_last: Option<Entry<BackupOutcome>>,
    /// The last requested restart of members, also when it has ended.
    pub restart: Option<Entry<RestartRequest>>,
    /// A requested rollback, until it has ended.
    pub rollback_request: Option<Entry<RollbackRequest>>,
    /// The rollback that is being prepared or carried out.
    pub rollback: Option<RollbackTaken>,
    /// How the last one ended.
    pub rollback_last: Option<Entry<RollbackOutcome>>,
}

impl Snapshot {
    /// Whether there are no keys of a cluster, except perhaps of members that wait for one.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.initialize.is_none()
            && self.leader.is_none()
            && self.term == 0
            && self.config.is_none()
            && self.sync.is_none()
            && self.history.is_none()
            && self.generation.is_none()
    }

    /// A member's entry by name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}
