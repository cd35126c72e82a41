//! The other members: their names, tags, what they published and what they answer when asked. No rule of election here.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use outrider_wal::{Lsn, TimelineId, TimelineStarts};
use serde::{Deserialize, Serialize};

use super::identity::SystemId;
use super::watermark::{StoreId, Watermark};

/// The name of a member, unique in its cluster; also its `application_name` when it streams.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberName(String);

impl MemberName {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for MemberName {
    fn from(name: &str) -> Self {
        MemberName(name.into())
    }
}

impl From<String> for MemberName {
    fn from(name: String) -> Self {
        MemberName(name)
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What its operator says that a member is not for. Patroni's tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Tags {
    /// Never to be promoted.
    pub nofailover: bool,
    /// Never to be a synchronous standby.
    pub nosync: bool,
    /// Among equals the higher is promoted; 0 is never.
    pub failover_priority: u32,
}

impl Default for Tags {
    fn default() -> Self {
        Tags { nofailover: false, nosync: false, failover_priority: 1 }
    }
}

impl Tags {
    /// Whether a member with these tags may ever be promoted.
    #[must_use]
    pub const fn may_lead(self) -> bool {
        !self.nofailover && self.failover_priority > 0
    }
}

/// Another member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: MemberName,
    /// Its tags.
    #[serde(default)]
    pub tags: Tags,
    /// What it last wrote to the DCS; up to a round old. `None` when it has no key there: it is gone.
    pub published: Option<MemberState>,
    /// What it said when it was asked in this round.
    #[serde(default)]
    pub answer: Answer,
}

impl Member {
    /// What it answered in this round.
    #[must_use]
    pub const fn answered(&self) -> Option<&MemberState> {
        match &self.answer {
            Answer::Answered(state) => Some(state),
            Answer::NotAsked | Answer::NoAnswer => None,
        }
    }
}

/// The outcome of asking a member directly (`GET /patroni`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// This round had no need to ask.
    #[default]
    NotAsked,
    /// Asked; no answer within the deadline. It may be dead, frozen or cut off.
    NoAnswer,
    /// Its state a moment ago.
    Answered(MemberState),
}

/// The state of a member's Postgres.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemberState {
    /// What its Postgres is.
    pub role: Role,
    /// Its timeline; 0 when not known.
    pub timeline: TimelineId,
    /// Primary: end of its flushed WAL. Standby: the furthest of received and replayed.
    pub position: Lsn,
    /// Whether it streams from its upstream right now.
    pub streaming: bool,
    /// A new primary publishes this until the checkpoint after its promotion is done; `pg_rewind` waits for it.
    #[serde(default)]
    pub awaiting_checkpoint: bool,
    /// The timeline and its ancestors, with when each was begun; none when it does not say.
    #[serde(default)]
    pub lineage: TimelineStarts,
    /// The identifier of its data directory; `None` when it has none.
    #[serde(default)]
    pub system: Option<SystemId>,
    /// The furthest that it ever saw of the DCS; only in an answer.
    #[serde(default)]
    pub watermark: Watermark,
    /// The store in which it finds nothing of its cluster; only in an answer.
    #[serde(default)]
    pub finds_blank: Option<StoreId>,
    /// A standby's replay; `None` when it is none, or does not say.
    #[serde(default)]
    pub replay: Option<Replay>,
    /// It has less than the leader of what a standby must not have less of; only of what is published.
    #[serde(default)]
    pub short: bool,
}

/// How far a standby has replayed what it has received, and what holds it up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Replay {
    /// Up to where.
    pub position: Lsn,
    /// `recovery_min_apply_delay`; 0 for none.
    #[serde(with = "crate::millis", default)]
    pub delay: Duration,
    /// Why it stands.
    #[serde(default)]
    pub hold: Option<Hold>,
}

impl Replay {
    /// Whether it is late on purpose.
    #[must_use]
    pub const fn is_delayed(&self) -> bool {
        !self.delay.is_zero()
    }

    /// Why it is behind, as far as something keeps it.
    #[must_use]
    pub fn cause(&self) -> Option<Cause<'_>> {
        match &self.hold {
            Some(hold) => Some(Cause::Held(hold)),
            None if self.is_delayed() => Some(Cause::Delayed(self.delay)),
            None => None,
        }
    }
}

/// What keeps replay behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause<'replay> {
    /// It stands.
    Held(&'replay Hold),
    /// It is late on purpose, by `recovery_min_apply_delay`.
    Delayed(Duration),
}

impl Cause<'_> {
    /// Its name as a metric label, without the particulars.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Cause::Held(Hold::Paused) => "paused",
            Cause::Held(Hold::Parameters { .. }) => "parameters",
            Cause::Held(Hold::Conflict { .. }) => "conflict",
            Cause::Delayed(_) => "delayed",
        }
    }
}

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Held(hold) => hold.fmt(f),
            Cause::Delayed(by) => {
                write!(f, "replay is late on purpose by {} s (recovery_min_apply_delay)", by.as_secs_f64())
            }
        }
    }
}

impl MemberState {
    /// Whether it replays late on purpose.
    #[must_use]
    pub fn is_delayed(&self) -> bool {
        self.replay.as_ref().is_some_and(Replay::is_delayed)
    }
}

/// Why replay stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Somebody has paused it.
    Paused,
    /// It has paused itself, because its primary had more of something than this server was started with.
    Parameters {
        /// What it has less of.
        lacking: Vec<Lacking>,
    },
    /// Queries are in its way.
    Conflict {
        /// The oldest first.
        queries: Vec<Query>,
    },
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hold::Paused => f.write_str("replay is paused (pg_wal_replay_resume() resumes it)"),
            Hold::Parameters { lacking } => {
                f.write_str("replay is paused until Postgres is restarted with its primary's values:")?;
                lacking.iter().enumerate().try_for_each(|(at, lacking)| {
                    let comma = if at == 0 { "" } else { "," };
                    let Lacking { name, here, primary } = lacking;
                    write!(f, "{comma} {name} is {here} here and was {primary} there")
                })
            }
            Hold::Conflict { queries } => {
                f.write_str("queries hold up replay:")?;
                queries.iter().enumerate().try_for_each(|(at, query)| {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma} pid {} for {} s", query.pid, query.age.as_secs())
                })
            }
        }
    }
}

/// A parameter of which a standby must not have less than its primary, and has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lacking {
    /// Its name.
    pub name: String,
    /// What this server was started with.
    pub here: u32,
    /// What the primary had when it wrote the WAL that is to be replayed next.
    pub primary: u32,
}

/// A session that keeps replay waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Query {
    /// The server process.
    pub pid: i32,
    /// How long its transaction has lasted.
    #[serde(with = "crate::millis")]
    pub age: Duration,
}

/// What a member's Postgres is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs and accepts writes.
    Primary,
    /// Runs in recovery.
    Standby,
    /// Does not run, or does not say.
    NotRunning,
}
