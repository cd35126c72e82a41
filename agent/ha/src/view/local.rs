//! This member's own Postgres, its fuse, and what it keeps on its disk. No rule of what to do about it.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use outrider_wal::{Lsn, TimelineHistory, TimelineId, TimelineStarts};
use serde::{Deserialize, Serialize};

use super::Job;
use super::cluster::SyncState;
use super::identity::{SystemId, Term};
use super::member::{MemberName, Replay};
use super::watermark::Watermark;

/// What is here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Local {
    /// The Postgres.
    pub postgres: Postgres,
    /// The identifier of the data directory; `None` when there is none.
    pub system: Option<SystemId>,
    /// This member's entry stands in the DCS, on its own session: no other agent lives under its name.
    #[serde(default = "yes")]
    pub entered: bool,
    /// The ttl of that session; the longest that there is when an agent before this one began it, which may have lengthened it. `None` when
    /// it has none.
    #[serde(with = "crate::millis::option", default)]
    pub session_ttl: Option<Duration>,
    /// Time left on the armed fuse; `None` when none is armed or it has blown.
    #[serde(with = "crate::millis::option", default)]
    pub fuse: Option<Duration>,
    /// The furthest that this member ever saw of the DCS, from its disk.
    #[serde(default)]
    pub watermark: Watermark,
    /// Where nothing of a cluster stands in the DCS: who was recorded as promotable besides the leader when this member saw it last, or
    /// wrote it. Names ascending.
    #[serde(default)]
    pub recorded: Vec<MemberName>,
    /// The term of the leader lease that this member held last; 0 when it never did.
    #[serde(default)]
    pub held_term: Term,
    /// The position up to which this Postgres had written when it was last seen running.
    #[serde(default)]
    pub last_position: Lsn,
    /// The ancestors of the timeline of the data directory, from `pg_wal`.
    #[serde(default)]
    pub history: TimelineHistory,
    /// When these timelines were begun, and its own. What is not listed came while nobody looked.
    #[serde(default)]
    pub starts: TimelineStarts,
    /// How long the postmaster has stood still because of a signal (SIGSTOP); it goes on only when somebody lets it.
    #[serde(with = "crate::millis::option", default)]
    pub frozen: Option<Duration>,
    /// How long Postgres has taken no new connection, though it answers in the one that is open.
    #[serde(with = "crate::millis::option", default)]
    pub shut_out: Option<Duration>,
    /// Unexpected exits of the postmaster within the last minute.
    #[serde(default)]
    pub recent_crashes: u32,
    /// A promotion that was begun here and of which no end of recovery was seen.
    #[serde(default)]
    pub promotion: Promotion,
    /// Whether the last `pg_rewind` failed, so that only a clone is left.
    #[serde(default)]
    pub rewind_failed: bool,
    /// Whether the last long work failed less than a `loop_wait` ago: it is not tried again at once.
    #[serde(default)]
    pub cooling_down: bool,
    /// Long work that has failed several times and waits longer than that, each kind once.
    #[serde(default)]
    pub backing_off: Vec<Job>,
    /// Long work that has failed so often in a row that it may never succeed here, each kind once.
    #[serde(default)]
    pub hopeless: Vec<Job>,
    /// It is being tried whether Postgres starts with the parameters of the cluster, and there are no others.
    #[serde(default)]
    pub trying_parameters: bool,
    /// The data was made to begin a cluster with, and the DCS did not name the cluster by it.
    #[serde(default)]
    pub unrecorded: bool,
    /// Whether the users of the cluster were created, or found, by this process.
    #[serde(default)]
    pub users_ready: bool,
    /// This primary has not had a checkpoint since its promotion, so that `pg_rewind` could not yet tell its timeline.
    #[serde(default)]
    pub awaiting_checkpoint: bool,
    /// Nobody listens on the supervisor's socket: it is gone, and Postgres and the fuse with it.
    #[serde(default)]
    pub unsupervised: bool,
    /// The supervisor was told to end, and Postgres with it: the lease is handed over while there is time.
    #[serde(default)]
    pub terminating: bool,
    /// Rolled back data is prepared beside that of this primary, and waits to take its place.
    #[serde(default)]
    pub rollback_prepared: bool,
    /// When the postmaster that answers was started, as it says itself.
    #[serde(default)]
    pub postmaster: Option<String>,
    /// Whether a parameter waits for a restart.
    #[serde(default)]
    pub pending_restart: bool,
    /// How long this standby has had less than its primary of what it must not have less of (`max_connections` and four others);
    /// `None` when it has enough.
    #[serde(with = "crate::millis::option", default)]
    pub short_for: Option<Duration>,
    /// Replay here lets no query hold it up: recovery conflicts are resolved at once.
    #[serde(default)]
    pub hastened: bool,
    /// Its configuration files have an error: it goes on with what it read before, and would not start again.
    #[serde(default)]
    pub faulty_files: bool,
    /// Members for which a physical replication slot exists here, names ascending.
    #[serde(default)]
    pub slots: Vec<MemberName>,
}

/// A promotion that does not come to an end. While recovery has not ended nothing was written, so nothing acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Promotion {
    /// How often in a row Postgres has ended in it.
    #[serde(default)]
    pub failures: u32,
    /// How long it has lasted this time.
    #[serde(with = "crate::millis", default)]
    pub lasts: Duration,
    /// `/sync` as it was when this member struck the others from it, and the revision of what it has said since; `None` when
    /// this process of the agent did not.
    #[serde(default)]
    pub struck: Option<SyncState>,
}

const fn yes() -> bool {
    true
}

/// So many timelines a member tells of: nobody is away for longer.
const LINEAGE_MAX: usize = 64;

impl Local {
    /// The timeline of the data and its ancestors, with when each was begun; none when that is not known.
    #[must_use]
    pub fn lineage(&self) -> TimelineStarts {
        let mut lineage = TimelineStarts::default();
        let Some(own) = self.postgres.timeline() else { return lineage };
        let ancestors = self.history.switches();
        // The history of a timeline that was just begun may not be read yet.
        if own > TimelineId::FIRST && ancestors.is_empty() {
            return lineage;
        }
        for timeline in ancestors.iter().map(|switch| switch.timeline).chain([own]) {
            lineage.set(timeline, self.starts.start(timeline));
        }
        lineage.newest(LINEAGE_MAX)
    }
}

impl Postgres {
    /// The timeline of the data; `None` when there is none, or it does not say.
    #[must_use]
    pub const fn timeline(&self) -> Option<TimelineId> {
        match self {
            Postgres::Stopped { timeline, .. }
            | Postgres::Primary { timeline, .. }
            | Postgres::Standby { timeline, .. } => Some(*timeline),
            Postgres::Empty
            | Postgres::Unusable(_)
            | Postgres::Starting { .. }
            | Postgres::Unresponsive { .. } => None,
        }
    }
}

/// The state of the local Postgres.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Postgres {
    /// No data directory, or an empty one.
    Empty,
    /// There is data that must not be started.
    Unusable(Unusable),
    /// A complete data directory, no postmaster.
    Stopped {
        /// Timeline in its control file.
        timeline: TimelineId,
        /// Cleanly stopped primary: the end of its WAL. Standby: the furthest position that it is known to have had.
        /// Crashed primary: the last position that is known; its WAL may go further.
        end: Lsn,
        /// How it ended.
        shutdown: Shutdown,
    },
    /// The postmaster runs and does not accept connections yet.
    Starting {
        /// Without `standby.signal`: it will accept writes.
        writable: bool,
        /// How long.
        #[serde(with = "crate::millis")]
        since: Duration,
    },
    /// The postmaster runs, and is on its way down or does not answer.
    Unresponsive {
        /// It was started or promoted to accept writes.
        writable: bool,
        /// How long.
        #[serde(with = "crate::millis")]
        since: Duration,
    },
    /// Accepts writes.
    Primary {
        /// Its timeline.
        timeline: TimelineId,
        /// End of its flushed WAL.
        position: Lsn,
        /// Who streams from it, names ascending.
        walsenders: Vec<WalSender>,
        /// Whom its commits wait for.
        synchronous: Synchronous,
    },
    /// In recovery.
    Standby {
        /// Its timeline.
        timeline: TimelineId,
        /// The furthest of received and replayed.
        position: Lsn,
        /// Where it streams from.
        streaming: Streaming,
        /// A promotion was requested and is not finished.
        promoting: bool,
        /// How far it has replayed.
        #[serde(default)]
        replay: Option<Replay>,
    },
}

/// Why a data directory must not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unusable {
    /// `initdb` did not finish.
    HalfInitialized,
    /// A clone did not finish.
    HalfCloned,
    /// `pg_rewind` did not finish.
    HalfRewound,
    /// Not ours to touch: wrong owner, wrong mode, wrong version, unreadable.
    Refused,
}

/// How a Postgres that is stopped came to its end, from its control file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shutdown {
    /// A primary, `shut down`: its last record is a shutdown checkpoint.
    CleanPrimary,
    /// A primary that did not write its end.
    CrashedPrimary,
    /// A standby, whether `shut down in recovery` or not.
    Standby,
}

/// What the standby's WAL receiver does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Streaming {
    /// The member that `primary_conninfo` names.
    pub upstream: Option<MemberName>,
    /// Whether WAL comes from it now.
    pub active: bool,
}

/// A standby that is connected to this primary.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WalSender {
    /// Its `application_name`.
    pub name: MemberName,
    /// `state` is `streaming`.
    pub streaming: bool,
    /// `sync_state` is `sync` or `quorum`.
    pub sync: bool,
    /// Up to where it has flushed.
    pub flushed: Lsn,
}

/// `synchronous_standby_names` of the running primary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Synchronous {
    /// The names that this agent has put in it, ascending; every one of them must confirm a commit. None after the
    /// agent was restarted: it sets and proves them anew.
    pub names: Vec<MemberName>,
    /// End of the WAL when the setting was proven to be in effect: a standby that has flushed it holds every commit
    /// that was acknowledged before the setting counted. `None` until it is proven.
    pub since: Option<Lsn>,
}
