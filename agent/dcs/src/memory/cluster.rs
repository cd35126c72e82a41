//! Keys, leases and revisions in memory, with etcd's semantics. Does not know who asks, except for the faults by name.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::dcs::Changes;
use crate::keys::Keys;
use crate::store::{Committed, Compare, KeyValue, Op, Range, StoreError, Transaction};

/// This store has one leader forever.
const EPOCH: u64 = 2;

/// The faults between the members of one name and the store.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) unreachable: bool,
    pub(super) lost_replies: u32,
    pub(super) deposed_answers: u32,
}

struct Granted {
    owner: String,
    ttl: Duration,
    expires_at: Instant,
}

struct Watcher {
    base: String,
    changes: watch::Sender<Changes>,
}

#[derive(Default)]
pub(super) struct Cluster {
    /// Seeds the identity of this store.
    random: RandomState,
    revision: i64,
    keys: BTreeMap<String, KeyValue>,
    leases: BTreeMap<i64, Granted>,
    leases_granted: i64,
    watchers: Vec<Watcher>,
    faults: HashMap<String, Faults>,
}

impl Cluster {
    pub(super) fn faults(&mut self, name: &str) -> &mut Faults {
        self.faults.entry(name.to_owned()).or_default()
    }

    /// Another one for each store.
    fn identity(&self) -> u64 {
        self.random.hash_one(())
    }

    pub(super) fn subscribe(&mut self, base: &str) -> watch::Receiver<Changes> {
        self.watchers.retain(|watcher| watcher.changes.receiver_count() > 0);
        let (changes, receiver) = watch::channel(Changes::default());
        self.watchers.push(Watcher { base: base.to_owned(), changes });
        receiver
    }

    pub(super) fn get(&self, key: &str) -> Option<KeyValue> {
        self.keys.get(key).cloned()
    }

    pub(super) fn range(&self, prefix: &str) -> Range {
        let keys = self.keys.values().filter(|pair| pair.key.starts_with(prefix)).cloned().collect();
        Range { store: self.identity(), revision: self.revision, keys }
    }

    pub(super) fn grant(&mut self, owner: &str, ttl: Duration, now: Instant) -> i64 {
        self.leases_granted += 1;
        let granted = Granted { owner: owner.to_owned(), ttl, expires_at: now + ttl };
        self.leases.insert(self.leases_granted, granted);
        self.leases_granted
    }

    /// The ttl, and the epoch of the store's leader that answered.
    pub(super) fn keep_alive(
        &mut self,
        name: &str,
        lease: i64,
        now: Instant,
    ) -> Result<(Duration, u64), StoreError> {
        let faults = self.faults.entry(name.to_owned()).or_default();
        let granted = self.leases.get_mut(&lease).ok_or(StoreError::LeaseGone)?;
        if faults.deposed_answers > 0 {
            faults.deposed_answers -= 1;
            return Ok((granted.ttl, EPOCH - 1));
        }
        granted.expires_at = now + granted.ttl;
        Ok((granted.ttl, EPOCH))
    }

    pub(super) fn revoke(&mut self, lease: i64) -> Result<(), StoreError> {
        self.leases.remove(&lease).ok_or(StoreError::LeaseGone)?;
        let hanging = self.keys.values().filter(|pair| pair.lease == lease);
        let deletes: Vec<Op> = hanging.map(|pair| Op::Delete(pair.key.clone())).collect();
        self.apply(&deletes);
        Ok(())
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.leases.values().map(|granted| granted.expires_at).min()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.revoke_where(|granted| granted.expires_at <= now);
    }

    pub(super) fn expire_sessions(&mut self, owner: &str) {
        self.revoke_where(|granted| granted.owner == owner);
    }

    fn revoke_where(&mut self, condition: impl Fn(&Granted) -> bool) {
        let ended = self.leases.iter().filter(|(_, granted)| condition(granted));
        let ended: Vec<i64> = ended.map(|(lease, _)| *lease).collect();
        for lease in ended {
            self.revoke(lease).expect("it was found just now under the same lock");
        }
    }

    pub(super) fn commit(&mut self, transaction: &Transaction) -> Result<Committed, StoreError> {
        let (mut ops, mut found) = (Vec::new(), Vec::new());
        let succeeded = self.choose(transaction, &mut ops);
        // As in etcd: if one lease is gone, nothing of the transaction happens.
        for op in &ops {
            let (Op::Put { lease, .. } | Op::Move { lease, .. }) = op else { continue };
            if *lease != 0 && !self.leases.contains_key(lease) {
                return Err(StoreError::LeaseGone);
            }
        }
        for op in &ops {
            if let Op::Get(key) = op {
                found.push(self.get(key));
            }
        }
        self.apply(&ops);
        Ok(Committed { succeeded, revision: self.revision, found, epoch: EPOCH })
    }

    /// Collects the operations, with nested transactions resolved. Returns whether this or a nested one succeeded.
    fn choose(&self, transaction: &Transaction, ops: &mut Vec<Op>) -> bool {
        let mut succeeded = transaction.when.iter().all(|compare| self.holds(compare));
        for op in if succeeded { &transaction.then } else { &transaction.otherwise } {
            match op {
                Op::Nested(nested) => succeeded |= self.choose(nested, ops),
                other => ops.push(other.clone()),
            }
        }
        succeeded
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => !self.keys.contains_key(key),
            Compare::Revision(key, seen) => self.keys.get(key).map_or(0, |pair| pair.mod_revision) == *seen,
            Compare::Value(key, value) => {
                self.keys.get(key).is_some_and(|pair| pair.value == value.as_bytes())
            }
            Compare::Lease(key, lease) => self.keys.get(key).map_or(0, |pair| pair.lease) == *lease,
        }
    }

    /// One revision for all of them; none when nothing is written.
    pub(super) fn apply(&mut self, ops: &[Op]) {
        let revision = self.revision + 1;
        for op in ops {
            let (key, fresh) = match op {
                Op::Put { key, value, lease } => {
                    (key, self.put(key, value.as_bytes().to_vec(), *lease, revision))
                }
                Op::Move { key, lease } => {
                    let Some(pair) = self.get(key) else { continue };
                    (key, self.put(key, pair.value, *lease, revision))
                }
                Op::Delete(key) if self.keys.remove(key).is_some() => (key, true),
                Op::Delete(_) | Op::Get(_) | Op::Nested(_) => continue,
            };
            self.revision = revision;
            for watcher in self.watchers.iter().filter(|watcher| key.starts_with(&watcher.base)) {
                watcher.changes.send_modify(|changes| Keys::count(&watcher.base, key, fresh, changes));
            }
        }
    }

    /// Whether the key is new.
    fn put(&mut self, key: &str, value: Vec<u8>, lease: i64, revision: i64) -> bool {
        let before = self.keys.get(key).map(|pair| pair.create_revision);
        let create_revision = before.unwrap_or(revision);
        let pair = KeyValue { key: key.to_owned(), value, create_revision, mod_revision: revision, lease };
        self.keys.insert(key.to_owned(), pair);
        before.is_none()
    }
}
