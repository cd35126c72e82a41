//! One node: its Postgres with what that has written, its supervisor's fuse, and what its agent knows. Holds no rule.

use outrider_ha::Role;
use outrider_wal::TimelineId;

use crate::act::Acts;
use crate::ids::{NodeId, Nodes};
use crate::store::{Store, Sync};
use crate::wal::{Record, Wal};

/// A Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Postgres {
    /// Accepts writes.
    Primary,
    /// In recovery.
    Standby {
        /// Whom `primary_conninfo` names.
        upstream: Option<NodeId>,
    },
    /// Is being promoted: receives nothing more, and will accept writes.
    Promoting,
    /// A primary that recovers from a crash, and will accept writes.
    Starting,
    /// Was a primary and was stopped in good order.
    StoppedClean,
    /// Was a primary and was not.
    Crashed,
    /// Was a standby.
    StoppedStandby,
    /// `pg_rewind` was broken off: what is there is nothing that could be started.
    HalfRewound,
    /// The same of a clone.
    HalfCloned,
    /// There is nothing.
    Empty,
}

impl Postgres {
    /// What it is to the others.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Postgres::Primary => Role::Primary,
            Postgres::Standby { .. } | Postgres::Promoting => Role::Standby,
            Postgres::Starting
            | Postgres::StoppedClean
            | Postgres::Crashed
            | Postgres::StoppedStandby
            | Postgres::HalfRewound
            | Postgres::HalfCloned
            | Postgres::Empty => Role::NotRunning,
        }
    }

    /// Whether the postmaster runs.
    #[must_use]
    pub const fn runs(self) -> bool {
        self.accepts_connections() || matches!(self, Postgres::Promoting | Postgres::Starting)
    }

    /// Whether another can stream from it.
    #[must_use]
    pub const fn accepts_connections(self) -> bool {
        matches!(self, Postgres::Primary | Postgres::Standby { .. })
    }

    /// Whether the fuse must stop it.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        matches!(self, Postgres::Primary | Postgres::Promoting | Postgres::Starting)
    }

    /// Whether it has answered and may cease to. One that starts or is stopped does not answer anyhow.
    #[must_use]
    pub const fn may_hang(self) -> bool {
        self.accepts_connections() || matches!(self, Postgres::Promoting)
    }

    /// What is left of it after a crash.
    #[must_use]
    pub const fn crashed(self) -> Self {
        match self {
            Postgres::Primary | Postgres::Starting => Postgres::Crashed,
            Postgres::Standby { .. } | Postgres::Promoting => Postgres::StoppedStandby,
            Postgres::StoppedClean
            | Postgres::Crashed
            | Postgres::StoppedStandby
            | Postgres::HalfRewound
            | Postgres::HalfCloned
            | Postgres::Empty => self,
        }
    }

    /// Whether there is a whole data directory.
    #[must_use]
    pub const fn has_data(self) -> bool {
        !matches!(self, Postgres::HalfRewound | Postgres::HalfCloned | Postgres::Empty)
    }
}

/// Why a Postgres that runs lets its agent see nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hang {
    /// It answers.
    #[default]
    No,
    /// Its postmaster lets nobody in. Sessions and standbys that are connected go on.
    Silent,
    /// It was told to stop and is not gone yet; nor do its sessions have to be.
    Stopping {
        /// In good order.
        fast: bool,
        /// The agent that told it waits for it.
        awaited: bool,
    },
}

/// One node: Postgres, supervisor and agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its Postgres.
    pub postgres: Postgres,
    /// Whether that answers.
    pub hang: Hang,
    /// What that has flushed.
    pub wal: Wal,
    /// How much of that a standby has replayed; `None` where that is always all of it. Of a primary it says nothing.
    pub replayed: Option<u8>,
    /// Whom commits wait for in the running primary.
    pub waits_for: Nodes,
    /// Whom they shall wait for once the configuration file is read.
    pub configured: Nodes,
    /// What the agent remembers to have set.
    pub set: Nodes,
    /// The position at which the agent saw that in effect.
    pub since: Option<u8>,
    /// The fuse is armed.
    pub fuse: bool,
    /// It was armed for a lease of the ttl that the cluster had before that was shortened.
    pub long_fuse: bool,
    /// The session has the shorter ttl, and the lease that hangs on it.
    pub short_session: bool,
    /// The lease that this node confirmed last is of the term that the DCS is in.
    pub held_this_term: bool,
    /// The agent knows of both; its successor does not before it has renewed the lease.
    pub knows_lease: bool,
    /// No promotion of its Postgres ends recovery any more.
    pub never_promoted: bool,
    /// Its agent has seen that again and again.
    pub promotion_failed: bool,
    /// The newest birth in its WAL when it was a primary last.
    pub led: Option<u8>,
    /// `/sync` as it was before the agent struck the others from it for a promotion, while nobody has written it since.
    pub struck: Option<Sync>,
    /// The checkpoint for the announced switchover is done.
    pub checkpointed: bool,
    /// Its entry stands in the DCS, as far as its agent knows.
    pub entered: bool,
    /// Its supervisor was told to end: it starts and promotes nothing any more.
    pub terminating: bool,
    /// It is gone and never comes back.
    pub lost: bool,
    /// What it published last; `None` where that is always what it is.
    pub published: Option<Published>,
    /// What the agent has read from the DCS and not decided on yet.
    pub read: Option<Box<Read>>,
    /// The steps that the agent has decided on and not taken yet.
    pub plan: Acts,
}

impl Node {
    /// A standby of `upstream` with nothing in its WAL.
    #[must_use]
    pub fn standby_of(upstream: NodeId) -> Self {
        Node {
            postgres: Postgres::Standby { upstream: Some(upstream) },
            hang: Hang::No,
            wal: Wal::default(),
            replayed: None,
            waits_for: Nodes::NONE,
            configured: Nodes::NONE,
            set: Nodes::NONE,
            since: None,
            fuse: false,
            long_fuse: false,
            short_session: false,
            held_this_term: false,
            knows_lease: false,
            never_promoted: false,
            promotion_failed: false,
            led: None,
            struck: None,
            checkpointed: false,
            entered: true,
            terminating: false,
            lost: false,
            published: None,
            read: None,
            plan: Acts::default(),
        }
    }

    /// Whether its lease may end before its fuse blows.
    #[must_use]
    pub fn fuse_outlives_lease(&self) -> bool {
        self.fuse && self.long_fuse && self.short_session
    }

    /// Whether it is still to replay some of its WAL.
    #[must_use]
    pub fn has_to_replay(&self) -> bool {
        let recovers = matches!(self.postgres, Postgres::Standby { .. } | Postgres::Promoting);
        recovers && self.replayed.is_some_and(|replayed| replayed < self.wal.position())
    }

    /// All of its WAL is replayed, as it wrote it, or copied it from a running server.
    pub fn has_replayed_all(&mut self) {
        self.replayed = self.replayed.map(|_| self.wal.position());
    }

    /// One that was stopped as a primary has replayed its own WAL.
    pub(crate) fn starts_as_standby(&mut self, upstream: Option<NodeId>) {
        if self.postgres != Postgres::StoppedStandby {
            self.has_replayed_all();
        }
        self.becomes(Postgres::Standby { upstream });
    }

    /// What its agent would publish now.
    #[must_use]
    pub fn to_publish(&self) -> Published {
        if self.hang == Hang::No {
            Published { role: self.postgres.role(), timeline: self.wal.timeline() }
        } else {
            Published { role: Role::NotRunning, timeline: TimelineId::default() }
        }
    }

    /// Its agent publishes what it is.
    pub fn publish(&mut self) {
        self.published = Some(self.to_publish());
    }

    /// A standby replays one record.
    pub fn replay(&mut self) {
        self.replayed = self.replayed.map(|replayed| replayed + 1);
    }

    /// Postgres becomes this, and what only a running primary has is forgotten.
    pub fn becomes(&mut self, postgres: Postgres) {
        self.postgres = postgres;
        if !postgres.runs() {
            self.hang = Hang::No;
        }
        self.set_synchronous(Nodes::NONE);
        self.waits_for = Nodes::NONE;
    }

    /// Postgres is told to stop. One that does not answer is killed in the end, whatever it was told.
    pub fn begin_to_stop(&mut self, fast: bool) {
        if self.postgres.runs() {
            let fast = fast && matches!(self.hang, Hang::No | Hang::Stopping { fast: true, .. });
            self.hang = Hang::Stopping { fast, awaited: true };
        }
    }

    /// Postgres stops in good order, if it does anything.
    pub fn stop_fast(&mut self) {
        if self.postgres == Postgres::Primary && self.hang != Hang::Silent {
            self.wal.push(Record::Shutdown);
            self.becomes(Postgres::StoppedClean);
        } else {
            self.crash();
        }
    }

    /// Postgres is gone at once.
    pub fn crash(&mut self) {
        if self.postgres.runs() {
            self.becomes(self.postgres.crashed());
        }
    }

    /// What its agent knew of a promotion is over: recovery has ended, or there is other data.
    pub fn forget_promotion(&mut self) {
        self.promotion_failed = false;
        self.struck = None;
    }

    /// Its data is now that of a primary with this WAL.
    pub fn is_copied(&mut self, wal: Wal) {
        self.wal = wal;
        self.forget_promotion();
        self.has_replayed_all();
        self.becomes(Postgres::StoppedStandby);
    }

    /// Nothing is left that could be relied on.
    pub fn loses_data(&mut self, left: Postgres) {
        self.wal = Wal::default();
        self.forget_promotion();
        self.has_replayed_all();
        self.becomes(left);
    }

    /// The agent writes whom commits shall wait for; nothing is in effect yet.
    pub fn set_synchronous(&mut self, names: Nodes) {
        self.set = names;
        self.configured = names;
        self.since = None;
    }
}

/// A member's key in the DCS, as far as `decide` looks at it without asking the member itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Published {
    /// The kind of its Postgres.
    pub role: Role,
    /// The number of its timeline.
    pub timeline: TimelineId,
}

/// What an agent read from the DCS a while ago.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Read {
    /// The keys.
    pub store: Store,
    /// Nobody has written `/sync` since.
    pub sync_is_last: bool,
    /// The term in it is the one that this node held last.
    pub held_its_term: bool,
}
