//! The records of a base backup: asked for by anybody, taken by one member at a time, ended by the one who took it.

use crate::error::Error;
use crate::store::{Compare, Op, Repeat, Store, Transaction};
use crate::values::{BackupClaim, BackupOutcome, BackupRequest, compact_json};

use super::{Keyed, Operation, conflict};

impl<S: Store> Keyed<S> {
    /// Deletes the request that was `seen`.
    pub(super) async fn take_back_backup(&self, operation: Operation, seen: i64) -> Result<(), Error> {
        let key = self.keys.backup_request();
        let when = vec![Compare::Revision(key.clone(), seen)];
        let transaction = Transaction { when, then: vec![Op::Delete(key.clone())], otherwise: Vec::new() };
        let outcome = self.commit(operation, &key, Repeat::Never, transaction).await?;
        if outcome.succeeded {
            return Ok(());
        }
        Err(conflict(operation, &key, "it has changed since it was read"))
    }

    /// The claim, and the request with one more attempt, in one transaction: nobody begins with a request that is gone.
    pub(super) async fn take_up_backup(
        &self,
        operation: Operation,
        claim: &BackupClaim,
        request: &BackupRequest,
        seen: i64,
    ) -> Result<i64, Error> {
        let (key, asked) = (self.keys.backup(), self.keys.backup_request());
        let lease = self.own_lease(operation).await?;
        let when = vec![
            Compare::Absent(key.clone()),
            Compare::Revision(asked.clone(), seen),
            Compare::Lease(self.keys.my_member(), lease),
        ];
        let then = vec![
            Op::Put { key: key.clone(), value: compact_json(claim), lease },
            Op::put(asked, compact_json(request)),
        ];
        let otherwise = vec![Op::Get(key.clone()), Op::Get(self.keys.my_member())];
        let transaction = Transaction { when, then, otherwise };
        let outcome = self.commit(operation, &key, Repeat::Never, transaction).await?;
        if outcome.succeeded {
            return Ok(outcome.revision);
        }
        let found = match outcome.found.as_slice() {
            [Some(other), ..] => format!("a backup is being taken: {}", other.text()),
            [None, Some(entry)] if entry.lease == lease => {
                "the request has changed since it was read".to_owned()
            }
            _ => "this member's entry is not on its session".to_owned(),
        };
        Err(conflict(operation, &key, found))
    }

    /// Writes how far this member's backup is.
    pub(super) async fn show_backup(&self, operation: Operation, claim: &BackupClaim) -> Result<i64, Error> {
        let key = self.keys.backup();
        let lease = self.own_lease(operation).await?;
        let put = Op::Put { key: key.clone(), value: compact_json(claim), lease };
        self.as_taker(operation, lease, vec![put]).await
    }

    /// Gives this member's claim back and leaves the request.
    pub(super) async fn drop_backup(&self, operation: Operation) -> Result<i64, Error> {
        let key = self.keys.backup();
        let lease = self.own_lease(operation).await?;
        self.as_taker(operation, lease, vec![Op::Delete(key)]).await
    }

    /// The outcome for the claim and the request, in one transaction. A request that is another one by now stays.
    pub(super) async fn end_backup(
        &self,
        operation: Operation,
        outcome: &BackupOutcome,
        seen: i64,
    ) -> Result<i64, Error> {
        let (key, asked) = (self.keys.backup(), self.keys.backup_request());
        let lease = self.own_lease(operation).await?;
        let answered = Transaction {
            when: vec![Compare::Revision(asked.clone(), seen)],
            then: vec![Op::Delete(asked)],
            otherwise: Vec::new(),
        };
        let last = Op::put(self.keys.backup_last(), compact_json(outcome));
        self.as_taker(operation, lease, vec![last, Op::Delete(key), Op::Nested(answered)]).await
    }

    /// Does `then` while the claim hangs on this member's session.
    async fn as_taker(&self, operation: Operation, lease: i64, then: Vec<Op>) -> Result<i64, Error> {
        let key = self.keys.backup();
        let when = vec![Compare::Lease(key.clone(), lease)];
        let transaction = Transaction { when, then, otherwise: vec![Op::Get(key.clone())] };
        let outcome = self.commit(operation, &key, Repeat::Never, transaction).await?;
        if outcome.succeeded {
            return Ok(outcome.revision);
        }
        let found = match outcome.found.first() {
            Some(Some(other)) => format!("another member takes it: {}", other.text()),
            _ => "no backup is being taken".to_owned(),
        };
        Err(conflict(operation, &key, found))
    }
}
