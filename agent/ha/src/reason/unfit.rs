//! Why a member cannot take over, and what a candidate lacks, in words. Decides neither.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use outrider_wal::TimelineId;
use serde::{Deserialize, Serialize};

use crate::view::member::{Hold, Lacking, MemberName, Query};

/// `: the cause`, when it is known.
pub(super) struct Because<'why>(pub(super) &'why Option<Unfit>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

/// What a member lacks that somebody named for a failover without a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// The cluster was on a newer timeline.
    Timeline {
        /// Its timeline.
        own: TimelineId,
        /// The newest one known.
        cluster: TimelineId,
    },
    /// In synchronous mode: it is not recorded as synchronous.
    NotSynchronous,
    /// In asynchronous mode: it is further behind than `maximum_lag_on_failover` allows.
    Bytes {
        /// Behind the last position that a leader published.
        bytes: u64,
    },
    /// In asynchronous mode: another member that answers, and may lead, has more.
    Behind {
        /// That member.
        member: MemberName,
        /// How much more; 0 when it is on a newer timeline.
        bytes: u64,
    },
    /// In asynchronous mode: a rollback may have swapped the data of another member.
    Swap {
        /// That member.
        member: MemberName,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Timeline { own, cluster } => {
                write!(f, "it is on timeline {own} while the cluster was on {cluster}")
            }
            Lack::NotSynchronous => {
                f.write_str("it is not recorded as synchronous, so it may lack acknowledged commits")
            }
            Lack::Bytes { bytes } => {
                write!(f, "it is {bytes} bytes behind the last position that a leader published")
            }
            Lack::Behind { member, bytes: 0 } => write!(f, "{member} is on a newer timeline"),
            Lack::Behind { member, bytes } => write!(f, "{member} has {bytes} bytes more"),
            Lack::Swap { member } => {
                write!(f, "a rollback may have swapped the data of {member}, which this would take back")
            }
        }
    }
}

/// ` to b`, or nothing where no member was named.
pub(super) struct Whom<'reason>(pub(super) &'reason Option<MemberName>);

impl fmt::Display for Whom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(member) => write!(f, " to {member}"),
            None => Ok(()),
        }
    }
}

/// Why a member cannot take over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// There is no member of that name.
    Unknown,
    /// It did not answer.
    NoAnswer,
    /// Its tags forbid it.
    MayNotLead,
    /// It answers, and its Postgres does not.
    NotRunning,
    /// It does not stream from the leader.
    NotStreaming,
    /// In synchronous mode: it is not recorded as synchronous.
    NotSynchronous,
    /// It is too far behind.
    Lags {
        /// Bytes.
        bytes: u64,
    },
    /// It does not say how far it has replayed.
    ReplayUnknown,
    /// It has replayed too little of what it received.
    ReplayLags {
        /// Bytes.
        bytes: u64,
    },
    /// Somebody has paused its replay.
    ReplayPaused,
    /// Its replay stands, because its primary had more of something than it was started with.
    LacksParameters {
        /// Of what.
        lacking: Vec<Lacking>,
    },
    /// It replays late on purpose.
    ReplayDelayed {
        /// `recovery_min_apply_delay`.
        #[serde(with = "crate::millis")]
        by: Duration,
    },
    /// Queries hold its replay up.
    Conflict {
        /// The oldest first.
        queries: Vec<Query>,
    },
    /// No member is fit.
    Nobody,
    /// The leader's Postgres would not start again as a standby.
    FaultyFiles,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Unknown => f.write_str("candidate does not exist"),
            Unfit::NoAnswer => f.write_str("candidate does not answer"),
            Unfit::MayNotLead => f.write_str("candidate may not lead (nofailover)"),
            Unfit::NotRunning => f.write_str("candidate has no Postgres that answers"),
            Unfit::NotStreaming => f.write_str("candidate does not stream from the leader"),
            Unfit::NotSynchronous => f.write_str("candidate name does not match with sync_standby"),
            Unfit::Lags { bytes } => write!(f, "candidate is {bytes} bytes behind"),
            Unfit::ReplayUnknown => f.write_str("candidate does not say how far it has replayed"),
            Unfit::ReplayLags { bytes } => write!(f, "candidate has still to replay {bytes} bytes"),
            Unfit::ReplayPaused => {
                f.write_str("replay is paused on the candidate (pg_wal_replay_resume() resumes it)")
            }
            Unfit::LacksParameters { lacking } => {
                write!(f, "on the candidate {}", Hold::Parameters { lacking: lacking.clone() })
            }
            Unfit::ReplayDelayed { by } => {
                write!(f, "candidate replays late on purpose (recovery_min_apply_delay, {} s)", by.as_secs())
            }
            Unfit::Conflict { queries } => {
                f.write_str("queries on the candidate hold its replay up:")?;
                queries.iter().enumerate().try_for_each(|(at, query)| {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma} pid {} for {} s", query.pid, query.age.as_secs())
                })
            }
            Unfit::Nobody => f.write_str("no good candidates have been found"),
            Unfit::FaultyFiles => f.write_str(
                "the configuration files of the leader's Postgres have an error, so that it would not start again: see the list of members",
            ),
        }
    }
}
