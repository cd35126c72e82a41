//! The records of work that one member does for the cluster, a base backup or a rollback: asked for by anybody, taken up by one
//! member at a time, ended by the one who took it up.

use crate::error::Error;
use crate::store::{Compare, Op, Repeat, Store, Transaction};

use super::{Keyed, Operation, conflict};

/// The keys of one kind of work.
pub(super) struct Records {
    /// What it is, in words.
    pub(super) work: &'static str,
    /// The wish for it, until it has ended.
    pub(super) asked: String,
    /// Who does it, on that member's session.
    pub(super) taken: String,
    /// How the last one ended.
    pub(super) last: String,
}

impl<S: Store> Keyed<S> {
    /// Those of a base backup.
    pub(super) fn backups(&self) -> Records {
        let (asked, taken) = (self.keys.backup_request(), self.keys.backup());
        Records { work: "backup", asked, taken, last: self.keys.backup_last() }
    }

    /// Those of a rollback.
    pub(super) fn rollbacks(&self) -> Records {
        let (asked, taken) = (self.keys.rollback_request(), self.keys.rollback());
        Records { work: "rollback", asked, taken, last: self.keys.rollback_last() }
    }

    /// Deletes the request that was `seen`.
    pub(super) async fn take_back(
        &self,
        operation: Operation,
        records: Records,
        seen: i64,
    ) -> Result<(), Error> {
        let key = records.asked;
        let when = vec![Compare::Revision(key.clone(), seen)];
        let transaction = Transaction { when, then: vec![Op::Delete(key.clone())], otherwise: Vec::new() };
        let outcome = self.commit(operation, &key, Repeat::Never, transaction).await?;
        if outcome.succeeded {
            return Ok(());
        }
        Err(conflict(operation, &key, "it has changed since it was read"))
    }

    /// The claim, and the request with one more attempt, in one transaction: nobody begins with a request that is gone.
    pub(super) async fn take_up(
        &self,
        operation: Operation,
        records: Records,
        (claim, request): (String, String),
        seen: i64,
    ) -> Result<i64, Error> {
        let Records { work, asked, taken: key, .. } = records;
        let lease = self.own_lease(operation).await?;
        let when = vec![
            Compare::Absent(key.clone()),
            Compare::Revision(asked.clone(), seen),
            Compare::Lease(self.keys.my_member(), lease),
        ];
        let then = vec![Op::Put { key: key.clone(), value: claim, lease }, Op::put(asked, request)];
        let otherwise = vec![Op::Get(key.clone()), Op::Get(self.keys.my_member())];
        let transaction = Transaction { when, then, otherwise };
        let outcome = self.commit(operation, &key, Repeat::Never, transaction).await?;
        if outcome.succeeded {
            return Ok(outcome.revision);
        }
        let found = match outcome.found.as_slice() {
            [Some(other), ..] => format!("a {work} is being taken: {}", other.text()),
            [None, Some(entry)] if entry.lease == lease => {
                "the request has changed since it was read".to_owned()
            }
            _ => "this member's entry is not on its session".to_owned(),
        };
        Err(conflict(operation, &key, found))
    }

    /// Writes how far this member's work is.
    pub(super) async fn show(
        &self,
        operation: Operation,
        records: Records,
        claim: String,
    ) -> Result<i64, Error> {
        let lease = self.own_lease(operation).await?;
        let put = Op::Put { key: records.taken.clone(), value: claim, lease };
        self.as_taker(operation, &records, lease, Vec::new(), vec![put]).await
    }

    /// The same together with the request that was `seen`, which says more from then on; nothing when that was taken back.
    pub(super) async fn show_both(
        &self,
        operation: Operation,
        records: Records,
        (claim, request): (String, String),
        seen: i64,
    ) -> Result<i64, Error> {
        let lease = self.own_lease(operation).await?;
        let when = vec![Compare::Revision(records.asked.clone(), seen)];
        let claim = Op::Put { key: records.taken.clone(), value: claim, lease };
        let request = Op::put(records.asked.clone(), request);
        self.as_taker(operation, &records, lease, when, vec![claim, request]).await
    }

    /// Gives this member's claim back and leaves the request.
    pub(super) async fn give_back(&self, operation: Operation, records: Records) -> Result<i64, Error> {
        let lease = self.own_lease(operation).await?;
        let delete = Op::Delete(records.taken.clone());
        self.as_taker(operation, &records, lease, Vec::new(), vec![delete]).await
    }

    /// The outcome for the claim and the request, in one transaction. A request that is another one by now stays.
    pub(super) async fn end_work(
        &self,
        operation: Operation,
        records: Records,
        outcome: String,
        seen: i64,
    ) -> Result<i64, Error> {
        let lease = self.own_lease(operation).await?;
        let answered = Transaction {
            when: vec![Compare::Revision(records.asked.clone(), seen)],
            then: vec![Op::Delete(records.asked.clone())],
            otherwise: Vec::new(),
        };
        let last = Op::put(records.last.clone(), outcome);
        let then = vec![last, Op::Delete(records.taken.clone()), Op::Nested(answered)];
        self.as_taker(operation, &records, lease, Vec::new(), then).await
    }

    /// Does `then` while the claim hangs on this member's session, and `when` holds besides.
    async fn as_taker(
        &self,
        operation: Operation,
        records: &Records,
        lease: i64,
        mut when: Vec<Compare>,
        then: Vec<Op>,
    ) -> Result<i64, Error> {
        let Records { work, taken: key, .. } = records;
        when.push(Compare::Lease(key.clone(), lease));
        let transaction = Transaction { when, then, otherwise: vec![Op::Get(key.clone())] };
        let outcome = self.commit(operation, key, Repeat::Never, transaction).await?;
        if outcome.succeeded {
            return Ok(outcome.revision);
        }
        let found = match outcome.found.first() {
            Some(Some(other)) if other.lease == lease => format!("the request for this {work} has changed"),
            Some(Some(other)) => format!("another member has it: {}", other.text()),
            _ => format!("no {work} is being taken"),
        };
        Err(conflict(operation, key, found))
    }
}
