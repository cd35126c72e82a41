//! What a member will do: the one door out. Each step is one act; an act that fails ends the plan, and the next round looks anew.

use alloc::vec::Vec;
use core::time::Duration;

use outrider_wal::TimelineId;
use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::view::Job;
use crate::view::cluster::SyncState;
use crate::view::identity::SystemId;
use crate::view::member::MemberName;
use crate::view::restart::TurnChange;

/// The decision of one round.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    /// Why; also when there is nothing to do.
    pub reason: Reason,
    /// In this order, each only after the one before it succeeded.
    pub steps: Vec<Step>,
    /// Look again after this long, unless something happens before; `None` for the usual `loop_wait`.
    #[serde(with = "crate::millis::option", default)]
    pub look_again: Option<Duration>,
}

impl Plan {
    /// Nothing to do, and why.
    #[must_use]
    pub const fn wait(reason: Reason) -> Self {
        Plan { reason, steps: Vec::new(), look_again: None }
    }

    /// One step.
    #[must_use]
    pub fn step(reason: Reason, step: Step) -> Self {
        Plan { reason, steps: Vec::from([step]), look_again: None }
    }

    /// Several steps, in order.
    #[must_use]
    pub fn steps<const COUNT: usize>(reason: Reason, steps: [Step; COUNT]) -> Self {
        Plan { reason, steps: Vec::from(steps), look_again: None }
    }

    /// The same, with another look after `delay` because what it waits for sends no event.
    #[must_use]
    pub const fn and_look_again_in(mut self, delay: Duration) -> Self {
        self.look_again = Some(delay);
        self
    }
}

/// One act on the DCS or on Postgres.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Take the free leader lease, if `/sync` is still as it was seen; arms the fuse when it is confirmed.
    AcquireLease {
        /// Revision of `/sync`; `None` when the key was absent.
        sync_revision: Option<i64>,
        /// Revision of the `/failover` request that alone allows it, which must still stand.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<i64>,
    },
    /// Renew the leader lease; extends the fuse when it is confirmed.
    RenewLease,
    /// Give up the leader lease.
    ReleaseLease,
    /// Keep neither the lease nor the session that it hangs on alive: this member writes nothing on it in this round.
    LetLeaseRunOut,
    /// Let the fuse blow within this time, or sooner where it would anyhow.
    ShortenFuse {
        /// From now on.
        #[serde(with = "crate::millis")]
        within: Duration,
    },
    /// Give this member's session another ttl, and with it the lease that hangs on it.
    SetTtl {
        /// How long the session lives after each renewal.
        #[serde(with = "crate::millis")]
        ttl: Duration,
    },
    /// Make another member the holder in one transaction.
    HandOverLease {
        /// The new holder.
        to: MemberName,
    },
    /// Mark the cluster as being made.
    ClaimInitialize,
    /// Record the system identifier, and the configuration of the cluster when there is none yet.
    RecordInitialize {
        /// Of this member's data directory.
        system: SystemId,
    },
    /// Record in `/sync` who may be promoted besides the leader, which is this member.
    RecordSync {
        /// Names ascending.
        standbys: Vec<MemberName>,
        /// Revision of `/sync` as it was seen; `None` when the key was absent.
        revision: Option<i64>,
    },
    /// Put back into `/sync` those whom this member struck from it for a promotion that never ended recovery.
    RestoreSync {
        /// `/sync` as it was.
        before: SyncState,
    },
    /// Take `/sync` away: synchronous mode was turned off.
    ClearSync {
        /// Its revision.
        revision: i64,
    },
    /// Record where this primary's timeline came from.
    RecordHistory,
    /// Take away the `/failover` request: it is done.
    FinishRequest {
        /// Its revision.
        revision: i64,
    },
    /// Take away the `/failover` request: it is refused or given up. The reason of the plan is left in its place.
    ClearRequest {
        /// Its revision.
        revision: i64,
    },
    /// Write into the `/failover` request until when it holds.
    DateRequest {
        /// Its revision.
        revision: i64,
    },
    /// Announce a switchover to all members.
    AnnounceSwitchover {
        /// Who is to take over.
        to: MemberName,
    },
    /// Announce that Postgres is stopped for the switchover, if the `/failover` request still stands: from here on nobody can
    /// withdraw it.
    AnnounceStop {
        /// Who is to take over.
        to: MemberName,
        /// Revision of the request.
        request: i64,
    },
    /// Ask for a switchover from this member to whoever is fit, because its Postgres is to be restarted.
    AskSwitchover,
    /// Record how far a member is in a restart that was asked for.
    RecordRestart {
        /// The member.
        member: MemberName,
        /// What changes for it.
        change: TurnChange,
        /// Revision of the request as it was seen.
        revision: i64,
    },
    /// Take the announcement away.
    ClearSwitchover,
    /// Write the keys of the cluster anew where all of them are gone, and take the leader lease with them.
    RecreateCluster {
        /// Who may be promoted besides this member; `None` for no `/sync`, in asynchronous mode.
        standbys: Option<Vec<MemberName>>,
    },
    /// Make a new cluster: `initdb`.
    Initdb,
    /// Create users and rights in the new cluster.
    PostBootstrap,
    /// Start the postmaster.
    Start(StartAs),
    /// Stop the postmaster.
    Stop(StopMode),
    /// See to it that a promotion takes a number above those of timelines whose WAL is given up.
    SkipTimelines {
        /// The newest of them.
        newest: TimelineId,
    },
    /// Cancel the queries that hold replay up, and let none do so from now on.
    HastenReplay {
        /// A replay that is paused goes on, too.
        resume: bool,
    },
    /// Queries may hold replay up again, as far as the server's own settings say.
    RelaxReplay,
    /// End recovery and accept writes.
    Promote,
    /// Stream from another member.
    Follow {
        /// The member to stream from.
        upstream: MemberName,
    },
    /// Make commits wait for these standbys, every one of them.
    SetSynchronous {
        /// Names ascending.
        names: Vec<MemberName>,
    },
    /// Create the physical replication slots that are missing.
    CreateSlots {
        /// For these members.
        names: Vec<MemberName>,
    },
    /// Stop the postmaster and put the rolled back data in the place of its own. Nobody else may be promotable.
    Rollback,
    /// CHECKPOINT, so that the promotion after it is short.
    Checkpoint,
    /// Of a primary: fill the WAL segment and CHECKPOINT, so that the stop after it is short.
    ShortenStop {
        /// The member that takes over, which is not to fall behind by this.
        to: MemberName,
    },
    /// Copy the data directory of a primary; what is here is moved aside first.
    Clone {
        /// The primary.
        from: MemberName,
    },
    /// Take back what this former primary wrote and its successor never had.
    Rewind {
        /// The primary.
        from: MemberName,
    },
}

impl Step {
    /// The long work that it begins, which shows as the job of the next view.
    #[must_use]
    pub const fn job(&self) -> Option<Job> {
        match self {
            Step::Initdb => Some(Job::Initdb),
            Step::PostBootstrap => Some(Job::PostBootstrap),
            Step::Start(_) => Some(Job::Start),
            Step::Stop(_) => Some(Job::Stop),
            Step::Checkpoint | Step::ShortenStop { .. } => Some(Job::Checkpoint),
            Step::Rollback => Some(Job::Rollback),
            Step::Clone { .. } => Some(Job::Clone),
            Step::Rewind { .. } => Some(Job::Rewind),
            Step::AcquireLease { .. }
            | Step::RenewLease
            | Step::ReleaseLease
            | Step::LetLeaseRunOut
            | Step::ShortenFuse { .. }
            | Step::SetTtl { .. }
            | Step::HandOverLease { .. }
            | Step::ClaimInitialize
            | Step::RecordInitialize { .. }
            | Step::RecordSync { .. }
            | Step::RestoreSync { .. }
            | Step::ClearSync { .. }
            | Step::RecordHistory
            | Step::FinishRequest { .. }
            | Step::ClearRequest { .. }
            | Step::DateRequest { .. }
            | Step::AnnounceSwitchover { .. }
            | Step::AnnounceStop { .. }
            | Step::AskSwitchover
            | Step::RecordRestart { .. }
            | Step::ClearSwitchover
            | Step::SkipTimelines { .. }
            | Step::HastenReplay { .. }
            | Step::RelaxReplay
            | Step::RecreateCluster { .. }
            | Step::Promote
            | Step::Follow { .. }
            | Step::SetSynchronous { .. }
            | Step::CreateSlots { .. } => None,
        }
    }

    /// Whether this member holds the lease from it on.
    #[must_use]
    pub(crate) const fn takes_lease(&self) -> bool {
        matches!(self, Step::AcquireLease { .. } | Step::RecreateCluster { .. })
    }

    /// Whether it is also for a member whose entry does not stand in the DCS.
    #[must_use]
    pub const fn is_for_those_outside(&self) -> bool {
        matches!(self, Step::Stop(_) | Step::LetLeaseRunOut)
    }

    /// Whether it begins long work.
    #[must_use]
    pub const fn begins_job(&self) -> bool {
        self.job().is_some()
    }
}

/// As what Postgres is started.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartAs {
    /// Accepting writes, its commits waiting for `synchronous` from the first one on.
    Primary {
        /// Names ascending.
        synchronous: Vec<MemberName>,
    },
    /// In recovery.
    Standby {
        /// The member to stream from; nobody while there is no leader.
        upstream: Option<MemberName>,
    },
}

/// How Postgres is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Clients are cut off, a shutdown checkpoint is written and sent to the standbys.
    Fast,
    /// The same, and standbys that hold it up are cut off, but for these.
    FastAwaiting {
        /// Names ascending.
        standbys: Vec<MemberName>,
    },
    /// At once, as in a crash.
    Immediate,
}
