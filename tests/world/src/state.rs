//! One moment of the world: the DCS, the nodes, what may still go wrong, and what the oracle remembers. Holds no rule.

use outrider_wal::TimelineId;

use crate::node::{Node, Postgres};
use crate::past::Past;
use crate::restart::Restart;
use crate::rollback::Rollback;
use crate::wal::Branches;

/// A node, by number: 0 is member a.
pub type NodeId = u8;

/// A set of nodes, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Nodes(u8);

impl Nodes {
    /// Nobody.
    pub const NONE: Nodes = Nodes(0);

    /// With `node` in it.
    #[must_use]
    pub const fn with(self, node: NodeId) -> Self {
        Nodes(self.0 | 1 << node)
    }

    /// Without `node` in it.
    #[must_use]
    pub const fn without(self, node: NodeId) -> Self {
        Nodes(self.0 & !(1 << node))
    }

    /// Whether `node` is in it.
    #[must_use]
    pub const fn has(self, node: NodeId) -> bool {
        self.0 >> node & 1 == 1
    }

    /// Those in it, ascending.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        (0..8).filter(move |node| self.has(*node))
    }

    /// Every subset of it.
    pub fn subsets(self) -> impl Iterator<Item = Nodes> {
        (0..=self.0).filter(move |subset| subset & !self.0 == 0).map(Nodes)
    }
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The DCS.
    pub dcs: Store,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// What may still happen.
    pub left: Budget,
    /// Where the DCS may go back: what it was, and who has seen what of it.
    pub past: Option<Box<Past>>,
    /// The rollback that is being done.
    pub rollback: Option<Rollback>,
    /// What the oracle remembers.
    pub oracle: Oracle,
}

impl State {
    /// The node with this number.
    #[must_use]
    pub fn node(&self, node: NodeId) -> &Node {
        &self.nodes[usize::from(node)]
    }

    /// The same, to be changed.
    pub fn node_mut(&mut self, node: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    /// The numbers of all nodes.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        0..u8::try_from(self.nodes.len()).expect("few")
    }

    /// All nodes with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.ids().zip(&self.nodes)
    }

    /// Whether WAL flows to `node` from the one it names, because that one runs and has all that is here.
    #[must_use]
    pub fn streams_from(&self, node: NodeId) -> Option<NodeId> {
        let Postgres::Standby { upstream: Some(upstream) } = self.node(node).postgres else { return None };
        let source = self.node(upstream);
        let flows = source.postgres.accepts_connections() && self.node(node).wal.is_prefix_of(source.wal);
        flows.then_some(upstream)
    }
}

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

/// What may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Faults.
    pub faults: u8,
    /// Commits that clients send.
    pub commits: u8,
    /// Switchovers that somebody asks for.
    pub requests: u8,
    /// Failovers that somebody asks for.
    pub failovers: u8,
    /// Nodes that are told to end.
    pub terminations: u8,
    /// Rollbacks that somebody asks for.
    pub rollbacks: u8,
    /// Restarts of all members that somebody asks for.
    pub restarts: u8,
}

/// What no node knows, and what the properties ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Oracle {
    /// The commits that clients were told of, one bit each.
    pub acknowledged: u8,
    /// Promotions so far.
    pub births: u8,
    /// Somebody was promoted in the term that the DCS is in.
    pub born_this_term: bool,
    /// The birth of the timeline to which the cluster was rolled back.
    pub rolled_back: Option<u8>,
    /// To whom a switchover was asked for last.
    pub wanted: Option<NodeId>,
    /// There was a moment at which no Postgres ran.
    pub all_were_down: bool,
    /// The first wrong that was done.
    pub wrong: Option<Wrong>,
}

/// What no node may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// A plan broke a rule of `invariant::check`.
    RuleBroken,
    /// A standby was promoted that `/sync` did not make its leader first, or that lacked an acknowledged commit.
    NotEligible,
    /// Two promotions in one term, or one in a term that was over.
    TermWentBack,
    /// A promotion chose the number of a timeline that was there already.
    TimelineBornTwice,
    /// A switchover handed the lease to a member that had still to replay something.
    HandedOverUnreplayed,
    /// A Postgres was started on what a broken off rewind or clone had left, or on nothing.
    UnusableStarted,
    /// Two members were restarted at one time, or one while another was down.
    RestartedTogether,
    /// A primary was restarted before its standbys, or after them where it must be first.
    RestartedOutOfOrder,
    /// A primary was restarted where it is although somebody else could have led.
    PrimaryRestarted,
    /// A new cluster was made beside the one that there is.
    SecondCluster,
}
