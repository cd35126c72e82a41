//! A DCS in this process, for tests that need no etcd, with its faults as methods. It passes the same contract as etcd.
//! Nothing outlives the process.

mod cluster;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clock;
use crate::dcs::{Changes, Dcs};
use crate::keyed::{Identity, Keyed};
use crate::session::SessionError;
use crate::store::{Committed, KeptAlive, Op, Range, Repeat, Store, StoreError, Transaction};

use cluster::Cluster;

/// The store that several members share; clones are the same store. Leases use tokio's clock, so they obey paused time. It
/// answers a member's requests at once.
#[derive(Clone, Default)]
pub struct MemoryCluster {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cluster: Mutex<Cluster>,
    /// A lease was granted, renewed or revoked: the next one to expire may be another.
    leases_changed: Notify,
}

impl Shared {
    /// The store as of now, without what has expired.
    fn now(&self) -> MutexGuard<'_, Cluster> {
        let mut cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.expire(clock::monotonic());
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

    /// The next `count` transactions of the members of this name are carried out, but their answers are lost.
    pub fn lose_replies(&self, name: &str, count: u32) {
        self.shared.now().faults(name).lost_replies = count;
    }

    /// For the next `count` times, a deposed leader of the store claims to have kept alive the sessions of the members of
    /// this name: it renews nothing.
    pub fn keep_alive_by_a_deposed_leader(&self, name: &str, count: u32) {
        self.shared.now().faults(name).deposed_answers = count;
    }

    /// Ends every session of the members of this name, as if they had been silent for their ttl.
    pub fn expire_sessions(&self, name: &str) {
        self.shared.now().expire_sessions(name);
        self.shared.leases_changed.notify_waiters();
    }

    /// The bytes under a key, and the lease it is attached to (0 for none).
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

/// Expires leases when their time has come, so that the others' watches see it. One per member.
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

/// One member's connection to the store.
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
    fn ask<T>(&self, act: impl FnOnce(&mut Cluster) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut cluster = self.shared.now();
        if cluster.faults(&self.name).unreachable {
            return Err(StoreError::Unreachable("this member is cut off from the memory store".into()));
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

    async fn range(&self, prefix: &str, _until: Instant) -> Result<Range, StoreError> {
        self.ask(|cluster| Ok(cluster.range(prefix)))
    }

    async fn commit(&self, transaction: Transaction, _: Repeat, _: Instant) -> Result<Committed, StoreError> {
        self.ask(|cluster| {
            let answer = cluster.commit(&transaction);
            let faults = cluster.faults(&self.name);
            if faults.lost_replies == 0 {
                return answer;
            }
            faults.lost_replies -= 1;
            Err(StoreError::Unknown("the answer of the memory store was lost".into()))
        })
    }

    async fn grant(&self, ttl: Duration, _until: Instant) -> Result<i64, StoreError> {
        self.ask(|cluster| Ok(cluster.grant(&self.name, ttl, clock::monotonic())))
    }

    async fn keep_alive(&self, lease: i64, _until: Instant) -> Result<KeptAlive, StoreError> {
        let (sent_at, sent_at_boottime_ns) = (clock::monotonic(), (self.boottime_ns)());
        let (ttl, epoch) = self.ask(|cluster| cluster.keep_alive(&self.name, lease, sent_at))?;
        Ok(KeptAlive { lease, ttl, sent_at, sent_at_boottime_ns, epoch })
    }

    async fn revoke(&self, lease: i64, _until: Instant) -> Result<(), StoreError> {
        self.ask(|cluster| cluster.revoke(lease))
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dcs::Session;
    use crate::error::Error;

    const TTL: Duration = Duration::from_secs(2);

    fn identity(name: &str) -> Identity {
        Identity {
            name: name.to_owned(),
            base_path: "/service/a/".to_owned(),
            ttl: TTL,
            session_file: None,
            boottime_ns: || 7,
        }
    }

    #[tokio::test]
    async fn a_lease_that_is_not_kept_alive_is_free_after_its_ttl_and_the_others_see_it() {
        let cluster = MemoryCluster::new();
        let (p1, p2) = (cluster.member(&identity("p1")).unwrap(), cluster.member(&identity("p2")).unwrap());
        p1.touch_member(&json!({})).await.unwrap();
        let held = p1.acquire_leader(None).await.unwrap();
        assert_eq!((held.ttl, held.sent_at_boottime_ns), (TTL, 7));
        let mut seen = p2.watch();
        let before = seen.borrow_and_update().urgent;
        tokio::time::timeout_at(held.until() + Duration::from_secs(10), seen.changed())
            .await
            .unwrap()
            .unwrap();
        assert!(Instant::now() >= held.until());
        assert!(seen.borrow().urgent > before);
        assert_eq!(p2.read().await.unwrap().leader, None);
        assert!(p1.renew_leader().await.unwrap_err().is_conflict());
        assert_eq!(p1.touch_member(&json!({})).await.unwrap(), Session::New);
    }

    #[tokio::test]
    async fn a_cut_off_member_is_told_that_nothing_happened() {
        let cluster = MemoryCluster::new();
        let p1 = cluster.member(&identity("p1")).unwrap();
        p1.touch_member(&json!({})).await.unwrap();
        cluster.set_reachable("p1", false);
        assert!(matches!(p1.acquire_leader(None).await, Err(Error::Unreachable { .. })));
        cluster.set_reachable("p1", true);
        assert_eq!(p1.read().await.unwrap().leader, None);
    }

    #[tokio::test]
    async fn a_lost_answer_is_unknown_and_the_write_may_stand() {
        let cluster = MemoryCluster::new();
        let p1 = cluster.member(&identity("p1")).unwrap();
        p1.touch_member(&json!({})).await.unwrap();
        cluster.lose_replies("p1", 1);
        assert!(matches!(p1.acquire_leader(None).await, Err(Error::Unknown { .. })));
        assert!(p1.read().await.unwrap().leader.unwrap().mine);
        p1.renew_leader().await.unwrap();
    }

    #[tokio::test]
    async fn a_session_kept_alive_by_a_deposed_leader_of_the_store_is_not_believed() {
        let cluster = MemoryCluster::new();
        let p1 = cluster.member(&identity("p1")).unwrap();
        p1.touch_member(&json!({})).await.unwrap();
        cluster.keep_alive_by_a_deposed_leader("p1", 1);
        let held = p1.acquire_leader(None).await.unwrap();
        cluster.keep_alive_by_a_deposed_leader("p1", 1);
        let renewed = p1.renew_leader().await.unwrap();
        assert_eq!(renewed.term, held.term);
        cluster.keep_alive_by_a_deposed_leader("p1", u32::MAX);
        assert!(matches!(p1.renew_leader().await, Err(Error::Unknown { .. })));
    }
}
