//! The few operations of a key-value store with leases and transactions. Knows nothing of leaders and members.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::dcs::Changes;
use crate::error::{Cause, Error};

/// A lease id that no key is attached to. A key without a lease compares equal to 0, so 0 must not mean "none of mine".
pub(crate) const NO_LEASE: i64 = -1;

/// A key with everything that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    /// 0 when it has none.
    pub(crate) lease: i64,
}

impl KeyValue {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }
}

/// All keys with a prefix, at one revision.
pub(crate) struct Range {
    /// Which store this is: etcd's cluster id.
    pub(crate) store: u64,
    pub(crate) revision: i64,
    pub(crate) keys: Vec<KeyValue>,
}

#[derive(Clone, Debug)]
pub(crate) enum Compare {
    /// The key does not exist.
    Absent(String),
    /// It was last changed at this revision; 0: it does not exist.
    Revision(String, i64),
    /// It exists and holds these bytes.
    Value(String, String),
    /// It is attached to this lease.
    Lease(String, i64),
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put {
        key: String,
        value: String,
        /// 0 for none.
        lease: i64,
    },
    /// Attaches an existing key to another lease and leaves its value.
    Move {
        key: String,
        lease: i64,
    },
    Delete(String),
    Get(String),
    Nested(Transaction),
}

impl Op {
    pub(crate) fn put(key: String, value: impl Into<String>) -> Self {
        Op::Put { key, value: value.into(), lease: 0 }
    }
}

/// `then` if every comparison holds, else `otherwise`; all at one revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) when: Vec<Compare>,
    pub(crate) then: Vec<Op>,
    pub(crate) otherwise: Vec<Op>,
}

/// The outcome of a transaction.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    /// Whether every comparison held, or those of a nested transaction on the way.
    pub(crate) succeeded: bool,
    /// The store's revision afterwards: the mod_revision of what was put.
    pub(crate) revision: i64,
    /// The results of each `Get`, in order, nested ones too.
    pub(crate) found: Vec<Option<KeyValue>>,
    /// See [`KeptAlive::epoch`].
    pub(crate) epoch: u64,
}

/// A renewed lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptAlive {
    pub(crate) lease: i64,
    /// What it was granted with.
    pub(crate) ttl: Duration,
    /// Before the request was sent.
    pub(crate) sent_at: Instant,
    pub(crate) sent_at_boottime_ns: u64,
    /// The store's own leadership (etcd's raft term). Keepalives do not go through consensus: a deposed etcd leader that
    /// does not know it yet would confirm one. A transaction committed afterwards in the same epoch proves that it was not
    /// deposed.
    pub(crate) epoch: u64,
}

/// Whether a request may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Yes: if an answer is missing, the next endpoint is asked.
    Harmless,
    /// No: a missing answer is `Unknown`.
    Never,
}

/// Why a request has no usable answer.
#[derive(Debug)]
pub(crate) enum StoreError {
    Unreachable(Cause),
    Unknown(Cause),
    Refused(Cause),
    /// The named lease has expired or never existed.
    LeaseGone,
}

impl StoreError {
    /// For a step before the one that matters: whatever happened to it, the operation itself was not carried out.
    pub(crate) fn before_the_act(self) -> Self {
        match self {
            StoreError::Unknown(cause) => StoreError::Unreachable(cause),
            other => other,
        }
    }

    pub(crate) fn on(self, act: &'static str, object: &str) -> Error {
        let object = object.to_owned();
        match self {
            StoreError::Unreachable(source) => Error::Unreachable { act, object, source },
            StoreError::Unknown(source) => Error::Unknown { act, object, source },
            StoreError::Refused(source) => Error::Refused { act, object, source },
            StoreError::LeaseGone => {
                Error::Conflict { act, object, found: "the session has expired".to_owned() }
            }
        }
    }
}

/// Every call ends at `until` at the latest.
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// How long all requests of one operation may take together.
    fn operation_limit(&self) -> Duration;

    /// All keys with this prefix. Linearizable.
    async fn range(&self, prefix: &str, until: Instant) -> Result<Range, StoreError>;

    async fn commit(
        &self,
        transaction: Transaction,
        repeat: Repeat,
        until: Instant,
    ) -> Result<Committed, StoreError>;

    /// A new lease that lives at least `ttl`; its id.
    async fn grant(&self, ttl: Duration, until: Instant) -> Result<i64, StoreError>;

    async fn keep_alive(&self, lease: i64, until: Instant) -> Result<KeptAlive, StoreError>;

    /// Ends a lease and deletes what hangs on it.
    async fn revoke(&self, lease: i64, until: Instant) -> Result<(), StoreError>;

    fn changes(&self) -> watch::Receiver<Changes>;
}
