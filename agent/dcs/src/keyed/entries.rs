//! Everything but the leader key: the member's entry, the bootstrap claim, configuration, requests and records.

use crate::dcs::Session;
use crate::error::Error;
use crate::store::{Compare, Fault, Op, Repeat, Store, Transaction};

use super::leader::leader_in_words;
use super::{Keyed, Operation, conflict};

impl<S: Store> Keyed<S> {
    pub(super) async fn publish_member(&self, operation: Operation, value: &str) -> Result<Session, Error> {
        let key = self.keys.my_member();
        let (mut lease, mut session) = self.keep_session(operation).await?;
        loop {
            let transaction = put_own(&key, value, lease);
            match self.store.commit(transaction, Repeat::Harmless, operation.until).await {
                Ok(outcome) if outcome.succeeded => return Ok(session),
                Ok(_) => return Err(conflict(operation, &key, "another agent runs under this name")),
                // It has just expired, after it was last kept alive.
                Err(Fault::LeaseGone) if session == Session::Same => {
                    self.lease.forget(lease);
                    (lease, session) = self.keep_session(operation).await?;
                }
                Err(fault) => return Err(fault.on(operation.act, &key)),
            }
        }
    }

    /// The claim is attached to the lease, so that a bootstrap whose agent dies does not hold up the others forever.
    pub(super) async fn claim_bootstrap(&self, operation: Operation) -> Result<(), Error> {
        let key = self.keys.initialize();
        let (lease, _) = self.keep_session(operation).await?;
        let put = Op::Put { key: key.clone(), value: String::new(), lease };
        let claim = either(vec![Compare::Absent(key.clone())], vec![put], vec![Op::Get(key.clone())]);
        let transaction = either(own_claim(&key, lease), Vec::new(), vec![Op::Nested(claim)]);
        let outcome = self.commit(operation, &key, Repeat::Harmless, transaction).await?;
        self.succeeded(
            operation,
            &key,
            outcome.succeeded,
            "the cluster is initialized, or another member is initializing it",
        )
    }

    pub(super) async fn record_system_identifier(
        &self,
        operation: Operation,
        identifier: &str,
    ) -> Result<(), Error> {
        let key = self.keys.initialize();
        let lease = self.own_lease(operation).await?;
        let put = || vec![Op::put(key.clone(), identifier)];
        // The leader makes the cluster, even if an earlier leader left a claim.
        let leading_and = |compare| [self.leader_is_mine(lease), vec![compare]].concat();
        let claimed = leading_and(Compare::Value(key.clone(), String::new()));
        let over_anothers = either(claimed, put(), vec![Op::Get(key.clone())]);
        let missing = leading_and(Compare::Absent(key.clone()));
        let as_leader = either(missing, put(), vec![Op::Nested(over_anothers)]);
        let over_claim = either(own_claim(&key, lease), put(), vec![Op::Nested(as_leader)]);
        let same = vec![Compare::Value(key.clone(), identifier.to_owned())];
        let transaction = either(same, Vec::new(), vec![Op::Nested(over_claim)]);
        let outcome = self.commit(operation, &key, Repeat::Harmless, transaction).await?;
        let found = match outcome.found.first() {
            Some(Some(other)) if other.value.is_empty() => "another member has claimed it".to_owned(),
            Some(Some(other)) => format!("the cluster's system identifier is {}", other.text()),
            _ => "neither the claim nor the leader lease is this member's".to_owned(),
        };
        self.succeeded(operation, &key, outcome.succeeded, &found)
    }

    pub(super) async fn give_up_bootstrap(&self, operation: Operation) -> Result<(), Error> {
        let key = self.keys.initialize();
        let when = own_claim(&key, self.own_lease(operation).await?);
        let transaction = either(when, vec![Op::Delete(key.clone())], vec![Op::Get(key.clone())]);
        let outcome = self.commit(operation, &key, Repeat::Harmless, transaction).await?;
        let gone = outcome.found.iter().flatten().next().is_none();
        self.succeeded(operation, &key, gone, "it is not this member's claim")
    }

    /// Puts `value` where the key was last changed at `seen`. Returns the new revision.
    pub(super) async fn replace(
        &self,
        operation: Operation,
        key: String,
        value: String,
        seen: i64,
    ) -> Result<i64, Error> {
        let when = vec![Compare::Revision(key.clone(), seen)];
        let transaction = either(when, vec![Op::put(key.clone(), value)], Vec::new());
        let outcome = self.commit(operation, &key, Repeat::Never, transaction).await?;
        self.succeeded(operation, &key, outcome.succeeded, CHANGED)?;
        Ok(outcome.revision)
    }

    /// Puts `value` over whatever is there. Never sent twice: the second could undo what came in between.
    pub(super) async fn overwrite(
        &self,
        operation: Operation,
        key: String,
        value: String,
    ) -> Result<i64, Error> {
        let transaction = Transaction { then: vec![Op::put(key.clone(), value)], ..Transaction::default() };
        Ok(self.commit(operation, &key, Repeat::Never, transaction).await?.revision)
    }

    /// As leader: puts `value`, or deletes for `None`, where the key was last changed at `seen` and `also` holds. Returns the
    /// revision.
    pub(super) async fn replace_as_leader(
        &self,
        operation: Operation,
        key: String,
        value: Option<String>,
        seen: i64,
        also: Vec<Compare>,
    ) -> Result<i64, Error> {
        let change = match value {
            Some(value) => Op::put(key.clone(), value),
            None => Op::Delete(key.clone()),
        };
        self.change_as_leader(operation, key, vec![change], seen, also).await
    }

    /// As leader: does `changes` where the key was last changed at `seen` and `also` holds. Returns the revision.
    async fn change_as_leader(
        &self,
        operation: Operation,
        key: String,
        changes: Vec<Op>,
        seen: i64,
        also: Vec<Compare>,
    ) -> Result<i64, Error> {
        let mut when = self.leader_is_mine(self.own_lease(operation).await?);
        when.push(Compare::Revision(key.clone(), seen));
        when.extend(also);
        let transaction = either(when, changes, self.look_at_leader_and(&key));
        let outcome = self.commit(operation, &key, Repeat::Never, transaction).await?;
        if outcome.succeeded {
            return Ok(outcome.revision);
        }
        let now = outcome.found.get(1).and_then(Option::as_ref).map_or(0, |pair| pair.mod_revision);
        let found = if now == seen { leader_in_words(&outcome.found) } else { CHANGED.to_owned() };
        Err(conflict(operation, &key, found))
    }

    /// As leader: deletes `sync`, and notes that it is gone because somebody meant it to be.
    pub(super) async fn delete_sync_as_leader(&self, operation: Operation, seen: i64) -> Result<(), Error> {
        let key = self.keys.sync();
        let note = Op::put(self.keys.sync_cleared(), self.keys.me());
        let changes = vec![Op::Delete(key.clone()), note];
        self.change_as_leader(operation, key, changes, seen, Vec::new()).await.map(drop)
    }

    /// As leader: puts `value` over whatever is there. Only the holder writes it, one write at a time.
    pub(super) async fn overwrite_as_leader(
        &self,
        operation: Operation,
        key: String,
        value: String,
    ) -> Result<(), Error> {
        let when = self.leader_is_mine(self.own_lease(operation).await?);
        let transaction = either(when, vec![Op::put(key.clone(), value)], self.look_at_leader_and(&key));
        let outcome = self.commit(operation, &key, Repeat::Harmless, transaction).await?;
        self.succeeded(operation, &key, outcome.succeeded, &leader_in_words(&outcome.found))
    }

    fn look_at_leader_and(&self, key: &str) -> Vec<Op> {
        vec![Op::Get(self.keys.leader()), Op::Get(key.to_owned())]
    }

    fn succeeded(&self, operation: Operation, key: &str, succeeded: bool, found: &str) -> Result<(), Error> {
        if succeeded { Ok(()) } else { Err(conflict(operation, key, found)) }
    }
}

const CHANGED: &str = "it has changed since it was read";

fn either(when: Vec<Compare>, then: Vec<Op>, otherwise: Vec<Op>) -> Transaction {
    Transaction { when, then, otherwise }
}

/// The empty value on this agent's lease.
fn own_claim(key: &str, lease: i64) -> Vec<Compare> {
    vec![Compare::Value(key.to_owned(), String::new()), Compare::Lease(key.to_owned(), lease)]
}

/// Does nothing if it is already there; puts it if the key is attached to `lease` or does not exist; otherwise reads it.
fn put_own(key: &str, value: &str, lease: i64) -> Transaction {
    let put = || vec![Op::Put { key: key.to_owned(), value: value.to_owned(), lease }];
    let mine = Compare::Lease(key.to_owned(), lease);
    let create = either(vec![Compare::Absent(key.to_owned())], put(), vec![Op::Get(key.to_owned())]);
    let refresh = either(vec![mine.clone()], put(), vec![Op::Nested(create)]);
    let unchanged = vec![mine, Compare::Value(key.to_owned(), value.to_owned())];
    either(unchanged, Vec::new(), vec![Op::Nested(refresh)])
}
