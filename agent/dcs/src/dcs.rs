//! What the agent can ask of a DCS. Every call ends within the store's own deadline, and every failure is one of four
//! kinds.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::snapshot::Snapshot;
use crate::values::{
    BackupClaim, BackupOutcome, BackupRequest, Failover, FailoverAnswer, HistoryRow, RebuiltKeys,
    RestartRequest, RollbackClaim, RollbackOutcome, RollbackRequest, Status, SwitchoverIntent, SyncState,
};

/// A confirmed hold on the leader lease, and the time from which it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// Increases with every change of holder, never with a renewal.
    pub term: u64,
    /// When the request that confirmed it was sent, by this process's monotonic clock.
    pub sent_at: Instant,
    /// The same moment by the clock in [`crate::Identity::boottime_ns`]: CLOCK_BOOTTIME in nanoseconds.
    pub sent_at_boottime_ns: u64,
    /// How long after `sent_at` the store keeps the lease if it hears nothing more.
    pub ttl: Duration,
}

impl Leadership {
    /// When the lease ends unless it is renewed, by the monotonic clock.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.sent_at + self.ttl
    }

    /// When the lease ends unless it is renewed, in nanoseconds of CLOCK_BOOTTIME.
    #[must_use]
    pub fn until_boottime_ns(&self) -> u64 {
        let ttl = u64::try_from(self.ttl.as_nanos()).unwrap_or(u64::MAX);
        self.sent_at_boottime_ns.saturating_add(ttl)
    }
}

/// Whether the agent's session (its etcd lease) continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// The session is the one that was there before.
    Same,
    /// There was none, or it had expired and everything attached to it is gone, including the leader key.
    New,
}

/// Counters of changes below the base path. They also increase when the watch had to restart, since something may have been
/// missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Every change, this agent's own writes too.
    pub all: u64,
    /// Every change except a member's refresh of its entry and of `status`, and the progress of a backup. The first two
    /// change with the WAL: rounds that wake on them would wake the others, which would wake them, without end.
    pub urgent: u64,
}

/// The DCS of one cluster, as one member sees it.
///
/// Writes marked *as leader* are compared, in the same transaction, with the leader key being this member's on this
/// agent's own lease; otherwise they are `Conflict` and change nothing. A `seen` revision is [`crate::Entry::revision`]
/// as read, 0 when the key was absent; the write is `Conflict` when the key has changed since.
#[async_trait]
pub trait Dcs: Send + Sync {
    /// The name under which this member is known in the DCS.
    fn name(&self) -> &str;

    /// Everything below the base path at one moment. Linearizable: it shows every write confirmed before it began.
    async fn read(&self) -> Result<Snapshot, Error>;

    /// Keeps the session alive and publishes this member's entry, unless it is already there.
    ///
    /// # Errors
    /// `Conflict` when another live agent runs under this name: it is never displaced.
    async fn touch_member(&self, value: &Value) -> Result<Session, Error>;

    /// Takes the leader lease if nobody holds it. Needs this member's entry ([`Dcs::touch_member`]).
    ///
    /// `sync_revision`: the revision of `/sync` that eligibility was decided on, 0 for absent, `None` not to compare.
    ///
    /// # Errors
    /// `Conflict` when someone holds it, when `/sync` has changed, or when this member's entry is not on its session.
    async fn acquire_leader(&self, sync_revision: Option<i64>) -> Result<Leadership, Error>;

    /// The same for a member that may have it only because of a requested failover: the request must still be the one
    /// `seen`.
    ///
    /// # Errors
    /// `Conflict` also when the request was cancelled.
    async fn acquire_leader_on_request(
        &self,
        sync_revision: Option<i64>,
        seen: i64,
    ) -> Result<Leadership, Error>;

    /// Keeps the leader lease: the session is kept alive *and* the key is compared with this member on this session.
    ///
    /// # Errors
    /// `Conflict` when the lease is not held (any more): Postgres must not be writable.
    async fn renew_leader(&self) -> Result<Leadership, Error>;

    /// Releases the leader lease. Also succeeds when nobody holds it. Postgres must not be writable any more.
    ///
    /// # Errors
    /// `Conflict` when someone else holds it; nothing is changed.
    async fn release_leader(&self) -> Result<(), Error>;

    /// As leader: makes `to` the holder, on `to`'s own session, in one transaction. Returns the new term.
    /// Postgres must not be writable any more. `to` sees it as its own and confirms it with [`Dcs::renew_leader`].
    ///
    /// # Errors
    /// `Conflict` when `to` has no live entry, or it changed sessions meanwhile.
    async fn hand_over_leader(&self, to: &str) -> Result<u64, Error>;

    /// Claims the right to run initdb: writes an empty `initialize` that is attached to this session until
    /// [`Dcs::write_initialize`].
    async fn claim_initialize(&self) -> Result<(), Error>;

    /// Records the system identifier (decimal), either over this session's own claim or, as leader, where it is missing or
    /// only claimed.
    ///
    /// # Errors
    /// `Conflict` when there is another identifier, or another's claim and this member does not lead.
    async fn write_initialize(&self, system_identifier: &str) -> Result<(), Error>;

    /// Withdraws this session's claim after a failed bootstrap; `Conflict` when it is not this session's.
    async fn clear_initialize(&self) -> Result<(), Error>;

    /// Writes the dynamic configuration if there is none. Returns its revision.
    async fn create_config(&self, value: &Value) -> Result<i64, Error>;

    /// Replaces the dynamic configuration that was `seen`. Returns its new revision.
    async fn replace_config(&self, value: &Value, seen: i64) -> Result<i64, Error>;

    /// Requests a manual failover or switchover, replacing any earlier request, as Patroni does. Returns its revision.
    async fn write_failover(&self, value: &Failover) -> Result<i64, Error>;

    /// Replaces the request that was `seen`. Returns the new revision.
    async fn replace_failover(&self, value: &Failover, seen: i64) -> Result<i64, Error>;

    /// Removes the request that was `seen`: writes `{}`, as Patroni does.
    async fn clear_failover(&self, seen: i64) -> Result<(), Error>;

    /// The same, with an answer.
    async fn answer_failover(&self, answer: &FailoverAnswer, seen: i64) -> Result<(), Error>;

    /// As leader: records who may be promoted. Returns the new revision.
    async fn write_sync(&self, value: &SyncState, seen: i64) -> Result<i64, Error>;

    /// As leader: deletes `/sync`, because synchronous mode is off.
    async fn clear_sync(&self, seen: i64) -> Result<(), Error>;

    /// As leader: writes the whole timeline history.
    async fn write_history(&self, rows: &[HistoryRow]) -> Result<(), Error>;

    /// As leader: writes the last known position and the slots.
    async fn write_status(&self, value: &Status) -> Result<(), Error>;

    /// As leader: writes the failsafe set, member names with the URL of their API.
    async fn write_failsafe(&self, members: &BTreeMap<String, String>) -> Result<(), Error>;

    /// As leader: records a planned switchover. Returns its revision.
    async fn write_intent(&self, value: &SwitchoverIntent, seen: i64) -> Result<i64, Error>;

    /// The same, provided that the request is still the one that was `request`. Returns its revision.
    ///
    /// # Errors
    /// `Conflict` when the request was cancelled.
    async fn write_intent_on_request(
        &self,
        value: &SwitchoverIntent,
        seen: i64,
        request: i64,
    ) -> Result<i64, Error>;

    /// As leader: deletes the record of the planned switchover that was `seen`.
    async fn clear_intent(&self, seen: i64) -> Result<(), Error>;

    /// Asks for a base backup. Returns the revision of the request.
    ///
    /// # Errors
    /// `Conflict` when one was asked for already and has not ended.
    async fn request_backup(&self, value: &BackupRequest) -> Result<i64, Error>;

    /// Withdraws the request that was `seen`; the member that takes the backup then stops.
    async fn withdraw_backup(&self, seen: i64) -> Result<(), Error>;

    /// Takes up the request that was `seen`: the claim goes on this session, and `request`, with one more attempt, in the
    /// place of the one seen. Returns its new revision.
    ///
    /// # Errors
    /// `Conflict` when another takes it, when the request has changed, or when this member's entry is not on its session.
    async fn claim_backup(
        &self,
        claim: &BackupClaim,
        request: &BackupRequest,
        seen: i64,
    ) -> Result<i64, Error>;

    /// Writes how far this member's backup is; `Conflict` when it is not this session's any more.
    async fn report_backup(&self, claim: &BackupClaim) -> Result<(), Error>;

    /// Gives this member's claim back, and leaves the request for another; `Conflict` when it is not this session's. Returns
    /// the revision of that.
    async fn release_backup(&self) -> Result<i64, Error>;

    /// Ends this member's backup: the outcome is recorded, claim and request go. A request that is not the one `seen` stays.
    /// Returns the revision of the end.
    ///
    /// # Errors
    /// `Conflict` when the claim is not this session's.
    async fn finish_backup(&self, outcome: &BackupOutcome, seen: i64) -> Result<i64, Error>;

    /// Writes a restart of members, asked for or further on, in the place of the one that was `seen`. Returns its revision.
    ///
    /// # Errors
    /// `Conflict` when it has changed since.
    async fn write_restart(&self, value: &RestartRequest, seen: i64) -> Result<i64, Error>;

    /// Asks for a rollback of the running cluster. Returns the revision of the request.
    ///
    /// # Errors
    /// `Conflict` when one was asked for already and has not ended.
    async fn request_rollback(&self, value: &RollbackRequest) -> Result<i64, Error>;

    /// Withdraws the request that was `seen`; the leader then stops preparing the rollback.
    async fn withdraw_rollback(&self, seen: i64) -> Result<(), Error>;

    /// Takes up the request that was `seen`, as [`Dcs::claim_backup`] does.
    async fn claim_rollback(
        &self,
        claim: &RollbackClaim,
        request: &RollbackRequest,
        seen: i64,
    ) -> Result<i64, Error>;

    /// Writes how far this member's rollback is; `Conflict` when it is not this session's any more.
    async fn report_rollback(&self, claim: &RollbackClaim) -> Result<(), Error>;

    /// From here on the rollback cannot be taken back: `request` takes the place of the one that was `seen`. Returns its new
    /// revision.
    ///
    /// # Errors
    /// `Conflict` when the claim is not this session's, or the request was taken back.
    async fn begin_rollback_swap(
        &self,
        claim: &RollbackClaim,
        request: &RollbackRequest,
        seen: i64,
    ) -> Result<i64, Error>;

    /// Ends this member's rollback, as [`Dcs::finish_backup`] does.
    async fn finish_rollback(&self, outcome: &RollbackOutcome, seen: i64) -> Result<i64, Error>;

    /// As the primary of a cluster whose keys are all gone: rewrites them and takes the leader lease, in one transaction.
    /// Needs this member's entry ([`Dcs::touch_member`]).
    ///
    /// # Errors
    /// `Conflict` when there is any key of a cluster, or when this member's entry is not on its session.
    async fn recreate_cluster(&self, keys: &RebuiltKeys) -> Result<Leadership, Error>;

    /// While nobody leads: rewrites the keys of the cluster, in one transaction, and removes every request and everything in
    /// progress. `seen` is the revision of the generation.
    ///
    /// # Errors
    /// `Conflict` when somebody holds the leader lease, when there is another system identifier, or when somebody else has
    /// rebuilt the keys meanwhile.
    async fn rebuild_cluster(&self, keys: &RebuiltKeys, seen: i64) -> Result<(), Error>;

    /// Moves everything attached to this session to a new session with this ttl, in one transaction: for a new `ttl`
    /// setting, or a longer lease for a planned restart. Renew afterwards to learn the new deadline.
    ///
    /// Before shortening, arm the fuse for the shorter ttl: from here on the store counts by it.
    ///
    /// # Errors
    /// After `Unknown` the next call finds out by itself which of the two sessions holds the keys.
    async fn set_ttl(&self, ttl: Duration) -> Result<(), Error>;

    /// Ends the session: this member's entry goes, and the leader key if it was held. The next [`Dcs::touch_member`] would
    /// start a new one. Postgres must not be writable any more.
    async fn close(&self) -> Result<(), Error>;

    /// Counters to wait on; see [`Changes`]. Read after every change: the counters say that something changed, not what.
    fn watch(&self) -> watch::Receiver<Changes>;
}
