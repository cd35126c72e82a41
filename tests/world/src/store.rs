//! The keys of the cluster, as they stand in the DCS. Holds no rule.

use outrider_wal::TimelineId;

use crate::ids::{NodeId, Nodes};
use crate::wal::Branches;

/// The keys of the cluster. Terms are not counted: what matters of a term is whether it is still the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// The holder of the leader lease.
    pub holder: Option<NodeId>,
    /// The `/sync` key; its revision shows in the plans, which know whether what they saw is still there.
    pub sync: Option<Sync>,
    /// The history that a leader recorded.
    pub branches: Branches,
    /// The position that the leader published; kept in asynchronous mode only, where it counts.
    pub last_position: u8,
    /// What somebody asked for.
    pub request: Option<Request>,
    /// Whose data a rollback is swapping.
    pub swapping: Option<NodeId>,
    /// The timeline that the last rollback began.
    pub least_timeline: TimelineId,
    /// The restart of members that somebody asked for.
    pub restart: Option<Restart>,
    /// The ttl of the cluster was shortened.
    pub short_ttl: bool,
    /// The switchover that the leader announced: from whom, to whom.
    pub announced: Option<(NodeId, NodeId)>,
}

impl Store {
    /// Keys of which nothing was asked or announced.
    #[must_use]
    pub fn new(holder: Option<NodeId>, sync: Option<Sync>, branches: Branches) -> Self {
        Store {
            holder,
            sync,
            branches,
            last_position: 0,
            request: None,
            swapping: None,
            least_timeline: TimelineId::default(),
            restart: None,
            short_ttl: false,
            announced: None,
        }
    }
}

/// A request for another leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who is to give up, where it was asked for because of a restart.
    pub from: Option<NodeId>,
    /// Who is to lead; anyone who can.
    pub to: Option<NodeId>,
    /// Also when nobody leads; otherwise it is a switchover.
    pub failover: bool,
}

/// The value of `/sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sync {
    /// Its leader.
    pub leader: NodeId,
    /// The standbys that may be promoted.
    pub standbys: Nodes,
}

/// How far a restart is with one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Turn {
    /// Not begun.
    #[default]
    Waiting,
    /// Begun.
    Begun {
        /// The postmaster that is to end still runs, or did when it was looked last.
        same: bool,
        /// It led, and somebody else is to take over.
        switching: bool,
    },
    /// Over.
    Ended,
}

/// A restart of members, while it has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Restart {
    /// By number of the node; all members are in it.
    pub turns: [Turn; 3],
    /// The leader goes first, where it is: it waits for less of what standbys must not have less of.
    pub primary_first: bool,
}
