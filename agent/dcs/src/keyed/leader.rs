//! The leader lease: acquired, renewed, released, handed over. Whether it should be is decided elsewhere.

use crate::dcs::Leadership;
use crate::error::Error;
use crate::keys::revision_as_term;
use crate::store::{Compare, Fault, KeptAlive, KeyValue, NO_LEASE, Op, Repeat, Store, Transaction};
use crate::values::{Generation, parse_record};

use super::{Keyed, Operation, conflict};

/// Maximum attempts. The second reaches the store's new leader; a third that does not means a store in trouble.
const RENEWALS_AT_MOST: usize = 3;

impl<S: Store> Keyed<S> {
    /// That the leader key is this member's, on its own lease. The name alone could be a namesake's.
    pub(super) fn leader_is_mine(&self, lease: i64) -> Vec<Compare> {
        let key = self.keys.leader();
        vec![Compare::Value(key.clone(), self.keys.me().to_owned()), Compare::Lease(key, lease)]
    }

    pub(super) async fn acquire(
        &self,
        operation: Operation,
        sync_revision: Option<i64>,
        wish: Option<i64>,
    ) -> Result<Leadership, Error> {
        let (key, entry) = (self.keys.leader(), self.keys.my_member());
        let (lease, kept_alive) = self.session_to_lead_on(operation, &key).await?;
        let mut when = vec![Compare::Absent(key.clone()), Compare::Lease(entry.clone(), lease)];
        when.extend(sync_revision.map(|seen| Compare::Revision(self.keys.sync(), seen)));
        when.extend(wish.map(|seen| Compare::Revision(self.keys.failover(), seen)));
        let me = self.keys.me().to_owned();
        let put = Op::Put { key: key.clone(), value: me.clone(), lease };
        let then = vec![put, Op::put(self.keys.term(), me), Op::Get(self.keys.generation())];
        let otherwise = vec![Op::Get(key.clone()), Op::Get(entry)];
        let transaction = Transaction { when, then, otherwise };
        let outcome = self.commit(operation, &key, Repeat::Never, transaction).await?;
        if !outcome.succeeded {
            let found = match outcome.found.as_slice() {
                [Some(leader), ..] => held_by(leader),
                [None, Some(entry)] if entry.lease == lease => {
                    "/sync has changed since it was read, or /failover".to_owned()
                }
                _ => "this member's entry is not on its session".to_owned(),
            };
            return Err(conflict(operation, &key, found));
        }
        let term = term_base(outcome.found.first()) + revision_as_term(outcome.revision);
        self.lead_since(operation, term, outcome.epoch, &kept_alive).await
    }

    /// The lease that the leader key will be attached to, kept alive just before.
    pub(super) async fn session_to_lead_on(
        &self,
        operation: Operation,
        key: &str,
    ) -> Result<(i64, KeptAlive), Error> {
        let lease = self.own_lease(operation).await?;
        if lease == NO_LEASE {
            return Err(conflict(operation, key, "this member has no session yet"));
        }
        let kept_alive = self.keep_alive(lease, operation).await;
        let kept_alive = kept_alive.map_err(|fault| fault.before_the_act().on(operation.act, key))?;
        Ok((lease, kept_alive))
    }

    /// The leadership committed in this epoch of the store; renewed at once when the session was kept alive in another epoch.
    pub(super) async fn lead_since(
        &self,
        operation: Operation,
        term: u64,
        epoch: u64,
        kept_alive: &KeptAlive,
    ) -> Result<Leadership, Error> {
        if epoch == kept_alive.epoch {
            Ok(self.leadership(term, kept_alive))
        } else {
            self.renew(operation).await
        }
    }

    /// Renews the lease, then proves in one transaction that the key is attached to it. In this order, and in one epoch of
    /// the store, so that the store's leader that renewed it was not a deposed one.
    pub(super) async fn renew(&self, operation: Operation) -> Result<Leadership, Error> {
        let key = self.keys.leader();
        let lease = self.own_lease(operation).await?;
        for _ in 0..RENEWALS_AT_MOST {
            let kept_alive = if lease == NO_LEASE {
                Err(Fault::LeaseGone)
            } else {
                self.keep_alive(lease, operation).await
            };
            let kept_alive = kept_alive.map_err(|fault| fault.on(operation.act, &key))?;
            let found =
                vec![Op::Get(key.clone()), Op::Get(self.keys.term()), Op::Get(self.keys.generation())];
            let when = self.leader_is_mine(lease);
            let transaction = Transaction { when, then: found.clone(), otherwise: found };
            let outcome = self.commit(operation, &key, Repeat::Harmless, transaction).await?;
            if !outcome.succeeded {
                return Err(conflict(operation, &key, leader_in_words(&outcome.found)));
            }
            if outcome.epoch == kept_alive.epoch {
                return Ok(self.leadership(term(&outcome.found), &kept_alive));
            }
        }
        let source = "the store changed its own leader during every attempt".into();
        Err(Error::Unknown { act: operation.act, object: key, source })
    }

    pub(super) async fn release(&self, operation: Operation) -> Result<(), Error> {
        let key = self.keys.leader();
        let when = self.leader_is_mine(self.own_lease(operation).await?);
        let (then, otherwise) = (vec![Op::Delete(key.clone())], vec![Op::Get(key.clone())]);
        let transaction = Transaction { when, then, otherwise };
        let outcome = self.commit(operation, &key, Repeat::Harmless, transaction).await?;
        match outcome.found.first() {
            Some(Some(leader)) => Err(conflict(operation, &key, held_by(leader))),
            _ => Ok(()),
        }
    }

    pub(super) async fn hand_over(&self, operation: Operation, to: &str) -> Result<u64, Error> {
        let (key, heir) = (self.keys.leader(), self.keys.member(to));
        let lease = self.own_lease(operation).await?;
        if to == self.keys.me() {
            return Err(conflict(operation, &key, "it cannot be handed over to its current holder"));
        }
        let Some(entry) = self.look(operation, &heir).await?.filter(|entry| entry.lease != 0) else {
            return Err(conflict(operation, &heir, "it has no entry with a session"));
        };
        let mut when = self.leader_is_mine(lease);
        when.push(Compare::Lease(heir.clone(), entry.lease));
        let put = Op::Put { key: key.clone(), value: to.to_owned(), lease: entry.lease };
        let then = vec![put, Op::put(self.keys.term(), to), Op::Get(self.keys.generation())];
        let transaction = Transaction { when, then, otherwise: vec![Op::Get(key.clone())] };
        match self.store.commit(transaction, Repeat::Never, operation.until).await {
            Ok(outcome) if outcome.succeeded => {
                Ok(term_base(outcome.found.first()) + revision_as_term(outcome.revision))
            }
            Ok(outcome) => Err(conflict(operation, &key, leader_in_words(&outcome.found))),
            Err(Fault::LeaseGone) => Err(conflict(operation, &heir, "its session has expired")),
            Err(fault) => Err(fault.on(operation.act, &key)),
        }
    }

    fn leadership(&self, term: u64, kept_alive: &KeptAlive) -> Leadership {
        Leadership {
            term,
            sent_at: kept_alive.sent_at,
            sent_at_boottime_ns: kept_alive.sent_at_boottime_ns,
            ttl: self.lease.ttl(kept_alive),
        }
    }
}

/// From the values of `leader`, `outrider/term` and `outrider/generation`.
fn term(found: &[Option<KeyValue>]) -> u64 {
    let leader = found.first().and_then(Option::as_ref).map_or(0, |leader| leader.create_revision);
    let handed_over = found.get(1).and_then(Option::as_ref).map_or(0, |term| term.mod_revision);
    term_base(found.get(2)) + revision_as_term(leader.max(handed_over))
}

/// The base of terms, from the value of `outrider/generation`.
fn term_base(found: Option<&Option<KeyValue>>) -> u64 {
    let generation = found.and_then(Option::as_ref).map(|pair| parse_record::<Generation>(&pair.text()));
    generation.map_or(0, |generation| generation.term_base)
}

/// `found`: the value of `leader` comes first.
pub(super) fn leader_in_words(found: &[Option<KeyValue>]) -> String {
    match found.first() {
        Some(Some(leader)) => held_by(leader),
        _ => "nobody holds the leader lease".to_owned(),
    }
}

fn held_by(leader: &KeyValue) -> String {
    format!("{} holds the leader lease, on session {:x}", leader.text(), leader.lease)
}
