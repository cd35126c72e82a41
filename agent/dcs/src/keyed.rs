//! The DCS on any key-value store: which keys are compared before which is written. Does not know the store and does not
//! decide: each call is one intention of the agent.

mod entries;
mod leader;
mod lease;
mod rebuild;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock;
use crate::dcs::{Changes, Dcs, Leadership, Session};
use crate::documents::Documents;
use crate::error::Error;
use crate::keys::Keys;
use crate::session::{SessionError, SessionFile};
use crate::snapshot::Snapshot;
use crate::store::{Committed, Compare, KeyValue, Op, Repeat, Store, Transaction};
use crate::values::{
    BackupClaim, BackupOutcome, BackupRequest, Failover, FailoverAnswer, HistoryRow, RebuiltKeys,
    RestartRequest, RollbackClaim, RollbackOutcome, RollbackRequest, Status, SwitchoverIntent, SyncState,
    compact_json,
};

use lease::Lease;

/// Who the agent is, for any DCS.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The member's name, unique in the cluster.
    pub name: String,
    /// Prefix of the cluster's keys: see [`crate::base_path`].
    pub base_path: String,
    /// How long the session lives without being kept alive. Stores count whole seconds and round up.
    pub ttl: Duration,
    /// File that keeps the session across restarts of the agent. Without it every restart waits for the ttl.
    pub session_file: Option<PathBuf>,
    /// Reads CLOCK_BOOTTIME, in nanoseconds: the clock of the fuse.
    pub boottime_ns: fn() -> u64,
}

/// The rules, on a store.
pub(crate) struct Keyed<S> {
    store: S,
    keys: Keys,
    documents: Documents,
    lease: Lease,
}

/// One operation: its purpose, and its deadline.
#[derive(Clone, Copy)]
struct Operation {
    act: &'static str,
    until: Instant,
}

impl<S: Store> Keyed<S> {
    /// Opens the session file. Sends no request yet.
    pub(crate) fn open(identity: &Identity, store: S) -> Result<Self, SessionError> {
        let (file, leases) = match &identity.session_file {
            Some(path) => SessionFile::open(path).map(|(file, leases)| (Some(file), leases))?,
            None => (None, Vec::new()),
        };
        let keys = Keys::new(&identity.base_path, &identity.name);
        let documents = Documents::default();
        Ok(Keyed { store, keys, documents, lease: Lease::resumed(file, &leases, identity.ttl) })
    }

    fn operation(&self, act: &'static str) -> Operation {
        Operation { act, until: clock::monotonic() + self.store.operation_limit() }
    }

    /// `key` is what the error names.
    async fn commit(
        &self,
        operation: Operation,
        key: &str,
        repeat: Repeat,
        transaction: Transaction,
    ) -> Result<Committed, Error> {
        let outcome = self.store.commit(transaction, repeat, operation.until).await;
        outcome.map_err(|fault| fault.on(operation.act, key))
    }

    /// Reads one key before the operation.
    async fn look(&self, operation: Operation, key: &str) -> Result<Option<KeyValue>, Error> {
        let look = Transaction { then: vec![Op::Get(key.to_owned())], ..Transaction::default() };
        let outcome = self.store.commit(look, Repeat::Harmless, operation.until).await;
        let outcome = outcome.map_err(|fault| fault.before_the_act().on(operation.act, key))?;
        Ok(outcome.found.into_iter().flatten().next())
    }
}

fn conflict(operation: Operation, key: &str, found: impl Into<String>) -> Error {
    Error::Conflict { act: operation.act, object: key.to_owned(), found: found.into() }
}

#[async_trait]
impl<S: Store> Dcs for Keyed<S> {
    fn name(&self) -> &str {
        self.keys.me()
    }

    async fn read(&self) -> Result<Snapshot, Error> {
        let operation = self.operation("read");
        let range = self.store.range(self.keys.base(), operation.until).await;
        let range = range.map_err(|fault| fault.on(operation.act, self.keys.base()))?;
        Ok(self.keys.snapshot(&range, &self.lease.mine(), &self.documents))
    }

    async fn touch_member(&self, value: &Value) -> Result<Session, Error> {
        self.publish_member(self.operation("publish"), &compact_json(value)).await
    }

    async fn acquire_leader(&self, sync_revision: Option<i64>) -> Result<Leadership, Error> {
        self.acquire(self.operation("acquire"), sync_revision, None).await
    }

    async fn acquire_leader_on_request(
        &self,
        sync_revision: Option<i64>,
        seen: i64,
    ) -> Result<Leadership, Error> {
        self.acquire(self.operation("acquire"), sync_revision, Some(seen)).await
    }

    async fn renew_leader(&self) -> Result<Leadership, Error> {
        self.renew(self.operation("renew")).await
    }

    async fn release_leader(&self) -> Result<(), Error> {
        self.release(self.operation("release")).await
    }

    async fn hand_over_leader(&self, to: &str) -> Result<u64, Error> {
        self.hand_over(self.operation("hand over"), to).await
    }

    async fn claim_initialize(&self) -> Result<(), Error> {
        self.claim_bootstrap(self.operation("claim")).await
    }

    async fn write_initialize(&self, system_identifier: &str) -> Result<(), Error> {
        self.record_system_identifier(self.operation("write"), system_identifier).await
    }

    async fn clear_initialize(&self) -> Result<(), Error> {
        self.give_up_bootstrap(self.operation("clear")).await
    }

    async fn create_config(&self, value: &Value) -> Result<i64, Error> {
        self.replace(self.operation("create"), self.keys.config(), compact_json(value), 0).await
    }

    async fn replace_config(&self, value: &Value, seen: i64) -> Result<i64, Error> {
        self.replace(self.operation("replace"), self.keys.config(), compact_json(value), seen).await
    }

    async fn write_failover(&self, value: &Failover) -> Result<i64, Error> {
        self.overwrite(self.operation("write"), self.keys.failover(), compact_json(value)).await
    }

    async fn replace_failover(&self, value: &Failover, seen: i64) -> Result<i64, Error> {
        self.replace(self.operation("write"), self.keys.failover(), compact_json(value), seen).await
    }

    async fn answer_failover(&self, answer: &FailoverAnswer, seen: i64) -> Result<(), Error> {
        self.replace(self.operation("clear"), self.keys.failover(), answer.text(), seen).await.map(drop)
    }

    async fn clear_failover(&self, seen: i64) -> Result<(), Error> {
        let cleared = Failover::CLEARED.to_owned();
        self.replace(self.operation("clear"), self.keys.failover(), cleared, seen).await.map(drop)
    }

    async fn write_sync(&self, value: &SyncState, seen: i64) -> Result<i64, Error> {
        let value = Some(compact_json(value));
        self.replace_as_leader(self.operation("write"), self.keys.sync(), value, seen, Vec::new()).await
    }

    async fn clear_sync(&self, seen: i64) -> Result<(), Error> {
        self.delete_sync_as_leader(self.operation("delete"), seen).await
    }

    async fn write_history(&self, rows: &[HistoryRow]) -> Result<(), Error> {
        self.overwrite_as_leader(self.operation("write"), self.keys.history(), compact_json(&rows)).await
    }

    async fn write_status(&self, value: &Status) -> Result<(), Error> {
        self.overwrite_as_leader(self.operation("write"), self.keys.status(), compact_json(value)).await
    }

    async fn write_failsafe(&self, members: &BTreeMap<String, String>) -> Result<(), Error> {
        self.overwrite_as_leader(self.operation("write"), self.keys.failsafe(), compact_json(members)).await
    }

    async fn write_intent(&self, value: &SwitchoverIntent, seen: i64) -> Result<i64, Error> {
        let value = Some(compact_json(value));
        self.replace_as_leader(self.operation("write"), self.keys.intent(), value, seen, Vec::new()).await
    }

    async fn write_intent_on_request(
        &self,
        value: &SwitchoverIntent,
        seen: i64,
        request: i64,
    ) -> Result<i64, Error> {
        let (value, also) =
            (Some(compact_json(value)), vec![Compare::Revision(self.keys.failover(), request)]);
        self.replace_as_leader(self.operation("write"), self.keys.intent(), value, seen, also).await
    }

    async fn clear_intent(&self, seen: i64) -> Result<(), Error> {
        let operation = self.operation("delete");
        self.replace_as_leader(operation, self.keys.intent(), None, seen, Vec::new()).await.map(drop)
    }

    async fn request_backup(&self, value: &BackupRequest) -> Result<i64, Error> {
        self.replace(self.operation("create"), self.backups().asked, compact_json(value), 0).await
    }

    async fn withdraw_backup(&self, seen: i64) -> Result<(), Error> {
        self.take_back(self.operation("delete"), self.backups(), seen).await
    }

    async fn claim_backup(
        &self,
        claim: &BackupClaim,
        request: &BackupRequest,
        seen: i64,
    ) -> Result<i64, Error> {
        let both = (compact_json(claim), compact_json(request));
        self.take_up(self.operation("claim"), self.backups(), both, seen).await
    }

    async fn report_backup(&self, claim: &BackupClaim) -> Result<(), Error> {
        self.show(self.operation("write"), self.backups(), compact_json(claim)).await.map(drop)
    }

    async fn release_backup(&self) -> Result<i64, Error> {
        self.give_back(self.operation("release"), self.backups()).await
    }

    async fn finish_backup(&self, outcome: &BackupOutcome, seen: i64) -> Result<i64, Error> {
        self.end_work(self.operation("end"), self.backups(), compact_json(outcome), seen).await
    }

    async fn write_restart(&self, value: &RestartRequest, seen: i64) -> Result<i64, Error> {
        self.replace(self.operation("write"), self.keys.restart(), compact_json(value), seen).await
    }

    async fn request_rollback(&self, value: &RollbackRequest) -> Result<i64, Error> {
        self.replace(self.operation("create"), self.rollbacks().asked, compact_json(value), 0).await
    }

    async fn withdraw_rollback(&self, seen: i64) -> Result<(), Error> {
        self.take_back(self.operation("delete"), self.rollbacks(), seen).await
    }

    async fn claim_rollback(
        &self,
        claim: &RollbackClaim,
        request: &RollbackRequest,
        seen: i64,
    ) -> Result<i64, Error> {
        let both = (compact_json(claim), compact_json(request));
        self.take_up(self.operation("claim"), self.rollbacks(), both, seen).await
    }

    async fn report_rollback(&self, claim: &RollbackClaim) -> Result<(), Error> {
        self.show(self.operation("write"), self.rollbacks(), compact_json(claim)).await.map(drop)
    }

    async fn begin_rollback_swap(
        &self,
        claim: &RollbackClaim,
        request: &RollbackRequest,
        seen: i64,
    ) -> Result<i64, Error> {
        let both = (compact_json(claim), compact_json(request));
        self.show_both(self.operation("write"), self.rollbacks(), both, seen).await
    }

    async fn finish_rollback(&self, outcome: &RollbackOutcome, seen: i64) -> Result<i64, Error> {
        self.end_work(self.operation("end"), self.rollbacks(), compact_json(outcome), seen).await
    }

    async fn recreate_cluster(&self, keys: &RebuiltKeys) -> Result<Leadership, Error> {
        self.recreate(self.operation("recreate"), keys).await
    }

    async fn rebuild_cluster(&self, keys: &RebuiltKeys, seen: i64) -> Result<(), Error> {
        self.rebuild(self.operation("rebuild"), keys, seen).await
    }

    async fn set_ttl(&self, ttl: Duration) -> Result<(), Error> {
        self.move_to_new_lease(self.operation("set the ttl of"), ttl).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.end_session(self.operation("end")).await
    }

    fn watch(&self) -> watch::Receiver<Changes> {
        self.store.changes()
    }
}
