//! One moment of the world: the DCS, the nodes, what may still go wrong, and what the oracle remembers. Holds no rule.

use outrider_ha::Role;
use outrider_wal::TimelineId;

use crate::act::Acts;
use crate::past::Past;
use crate::wal::{Branches, Record, Wal};

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
    /// The switchover that the leader announced: from whom, to whom.
    pub announced: Option<(NodeId, NodeId)>,
}

/// A request for another leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who is to lead.
    pub to: NodeId,
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
}

impl Postgres {
    /// What it is to the others.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Postgres::Primary => Role::Primary,
            Postgres::Standby { .. } | Postgres::Promoting => Role::Standby,
            Postgres::Starting | Postgres::StoppedClean | Postgres::Crashed | Postgres::StoppedStandby => {
                Role::NotRunning
            }
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

    /// What is left of it after a crash.
    #[must_use]
    pub const fn crashed(self) -> Self {
        match self {
            Postgres::Primary | Postgres::Starting => Postgres::Crashed,
            Postgres::Standby { .. } | Postgres::Promoting => Postgres::StoppedStandby,
            Postgres::StoppedClean | Postgres::Crashed | Postgres::StoppedStandby => self,
        }
    }
}

/// One node: Postgres, supervisor and agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its Postgres.
    pub postgres: Postgres,
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
    /// The lease that this node confirmed last is of the term that the DCS is in.
    pub held_this_term: bool,
    /// The agent knows of both; its successor does not before it has renewed the lease.
    pub knows_lease: bool,
    /// The checkpoint for the announced switchover is done.
    pub checkpointed: bool,
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
            wal: Wal::default(),
            replayed: None,
            waits_for: Nodes::NONE,
            configured: Nodes::NONE,
            set: Nodes::NONE,
            since: None,
            fuse: false,
            held_this_term: false,
            knows_lease: false,
            checkpointed: false,
            terminating: false,
            lost: false,
            published: None,
            read: None,
            plan: Acts::default(),
        }
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

    /// What its agent would publish now.
    #[must_use]
    pub fn to_publish(&self) -> Published {
        Published { role: self.postgres.role(), timeline: self.wal.timeline() }
    }

    /// Postgres becomes this, and what only a running primary has is forgotten.
    pub fn becomes(&mut self, postgres: Postgres) {
        self.postgres = postgres;
        self.set_synchronous(Nodes::NONE);
        self.waits_for = Nodes::NONE;
    }

    /// Postgres stops in good order.
    pub fn stop_fast(&mut self) {
        if self.postgres == Postgres::Primary {
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
}
