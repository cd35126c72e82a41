//! A DCS in this process: an instrument for tests that need no etcd, with its faults as plain methods. It passes the same
//! contract as etcd. Nothing outlives the process.

mod cluster;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::dcs::{Changes, Dcs};
use crate::keyed::{Identity, Keyed};
use crate::session::SessionError;
use crate::store::{Committed, Fault, KeptAlive, Op, Range, Repeat, Store, Transaction};

use cluster::Cluster;

/// The store that several members share; clones are the same store. Leases count by tokio's clock, so they obey paused
/// time. What it is asked for by a member, it answers at once.
#[derive(Clone, Default)]
pub struct MemoryCluster {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cluster: Mutex<Cluster>,
    /// A lease was granted, prolonged or revoked: the next one to expire may be another.
    leases_changed: Notify,
}

impl Shared {
    /// The store as of now: what has expired is gone.
    fn now(&self) -> MutexGuard<'_, Cluster> {
        let mut cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.expire(Instant::now());
        cluster
    }
}

impl MemoryCluster {
    /// A store that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The DCS as one member sees it. Two members may have the same name, as two agents may.
    ///
    /// # Errors
    /// When there is a session file and it cannot be opened or is in use.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn member(&self, identity: &Identity) -> Result<Arc<dyn Dcs>, SessionError> {
        let (changes, expiry) = {
            let changes = self.shared.now().subscribe(&identity.base_path);
            (changes, tokio::spawn(expire_in_time(Arc::clone(&self.shared))).abort_handle())
        };
        let (name, boottime_ns) = (identity.name.clone(), identity.boottime_ns);
        let store = MemoryStore { shared: Arc::clone(&self.shared), name, boottime_ns, changes, expiry };
        Ok(Arc::new(Keyed::open(identity, store)?))
    }

    /// Whether the members of this name can reach the store.
    pub fn set_reachable(&self, name: &str, reachable: bool) {
        self.shared.now().faults(name).unreachable = !reachable;
    }

    /// The next `count` transactions of the members of this name are carried out, and their answers lost.
    pub fn lose_replies(&self, name: &str, count: u32) {
        self.shared.now().faults(name).lost_replies = count;
    }

    /// The next `count` times, the sessions of the members of this name are said to be kept alive by a leader of the
    /// store that has been deposed: it prolongs nothing.
    pub fn keep_alive_by_a_deposed_leader(&self, name: &str, count: u32) {
        self.shared.now().faults(name).deposed_answers = count;
    }

    /// Ends every session of the members of this name, as if they had been silent for their ttl.
    pub fn expire_sessions(&self, name: &str) {
        self.shared.now().expire_sessions(name);
        self.shared.leases_changed.notify_waiters();
    }

    /// The bytes under a key, and the lease that it hangs on (0 for none).
    #[must_use]
    pub fn get(&self, key: &str) -> Option<(String, i64)> {
        self.shared.now().get(key).map(|pair| (pair.text(), pair.lease))
    }

    /// Puts a key without a lease, as a person with the store's own client would.
    pub fn put(&self, key: &str, value: &str) {
        self.shared.now().apply(&[Op::put(key.to_owned(), value)]);
    }

    /// Deletes a key, as a person with the store's own client would.
    pub fn delete(&self, key: &str) {
        self.shared.now().apply(&[Op::Delete(key.to_owned())]);
    }
}

/// Lets leases expire when their time has come, so that the others' watches see it. One for each member.
async fn expire_in_time(shared: Arc<Shared>) {
    loop {
        let changed = shared.leases_changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let next = shared.now().next_expiry();
        match next {
            Some(at) => {
                let _ = tokio::time::timeout_at(at, changed).await;
            }
            None => changed.await,
        }
    }
}

/// One member's way to the store.
struct MemoryStore {
    shared: Arc<Shared>,
    name: String,
    boottime_ns: fn() -> u64,
    changes: watch::Receiver<Changes>,
    expiry: AbortHandle,
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.expiry.abort();
    }
}

impl MemoryStore {
    /// Does `act` unless this member cannot reach the store.
    fn ask<T>(&self, act: impl FnOnce(&mut Cluster) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut cluster = self.shared.now();
        if cluster.faults(&self.name).unreachable {
            return Err(Fault::Unreachable("this member is cut off from the memory store".into()));
        }
        let answer = act(&mut cluster);
        self.shared.leases_changed.notify_waiters();
        answer
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn operation_limit(&self) -> Duration {
        // Never reached: every answer comes at once.
        Duration::from_secs(1)
    }

    async fn range(&self, prefix: &str, _until: Instant) -> Result<Range, Fault> {
        self.ask(|cluster| Ok(cluster.range(prefix)))
    }

    async fn commit(&self, transaction: Transaction, _: Repeat, _: Instant) -> Result<Committed, Fault> {
        self.ask(|cluster| {
            let answer = cluster.commit(&transaction);
            let faults = cluster.faults(&self.name);
            if faults.lost_replies == 0 {
                return answer;
            }
            faults.lost_replies -= 1;
            Err(Fault::Unknown("the answer of the memory store was lost".into()))
        })
    }

    async fn grant(&self, ttl: Duration, _until: Instant) -> Result<i64, Fault> {
        self.ask(|cluster| Ok(cluster.grant(&self.name, ttl, Instant::now())))
    }

    async fn keep_alive(&self, lease: i64, _until: Instant) -> Result<KeptAlive, Fault> {
        let (sent_at, sent_at_boottime_ns) = (Instant::now(), (self.boottime_ns)());
        let (ttl, epoch) = self.ask(|cluster| cluster.keep_alive(&self.name, lease, sent_at))?;
        Ok(KeptAlive { lease, ttl, sent_at, sent_at_boottime_ns, epoch })
    }

    async fn revoke(&self, lease: i64, _until: Instant) -> Result<(), Fault> {
        self.ask(|cluster| cluster.revoke(lease))
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.clone()
    }
}

#[cfg(test)]
mod tests;
