//! What a member sees of itself and of its cluster when it decides on a job.

use alloc::string::String;
use alloc::vec::Vec;

use outrider_wal::{Lsn, TimelineId};

/// The cluster as the DCS shows it, and this member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// This member's name.
    pub me: String,
    /// Who holds the leader lease.
    pub leader: Option<Leader>,
    /// All members that have an entry.
    pub members: Vec<Member>,
    /// How far the WAL of the cluster has come, as far as anybody has said.
    pub end: Lsn,
    /// Whether the cluster has been made.
    pub made: bool,
    /// The local Postgres.
    pub postgres: Postgres,
    /// The supervisor of this member was told to end.
    pub terminating: bool,
    /// This agent was told to end, and decides on what is in hand for the last time.
    pub leaving: bool,
}

/// The holder of the leader lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its name.
    pub name: String,
    /// It is this member, on its session.
    pub mine: bool,
    /// The term of the lease.
    pub term: u64,
}

/// A member, as it describes itself in the DCS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// It is there, and its Postgres is a running standby that streams.
    pub streams: bool,
    /// How far its WAL has come.
    pub position: Lsn,
}

/// The local Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Postgres {
    /// It answers, and is the primary on this timeline.
    Primary(TimelineId),
    /// It answers, and is a standby.
    Standby,
    /// It runs and does not answer, or nobody knows whether it runs.
    Silent,
    /// It starts, is stopped, or there is none.
    Down,
}

impl View {
    /// Whether this member holds the leader lease.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.mine)
    }

    /// Whether its Postgres answers, and is what the others think it is.
    #[must_use]
    pub fn is_what_others_think(&self) -> bool {
        match self.postgres {
            Postgres::Primary(_) => self.leads(),
            Postgres::Standby => self.leader.as_ref().is_some_and(|leader| !leader.mine),
            Postgres::Silent | Postgres::Down => false,
        }
    }

    /// Whether nothing new is begun here.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.terminating || self.leaving
    }
}
