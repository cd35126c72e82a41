//! One moment of the world: the DCS, the nodes, what may still go wrong, and what the oracle remembers. Holds no rule.
//! Parts of it with a course of their own are below it, each with what may happen to it: `past`, `rollback`, `slots`.

pub(crate) mod past;
pub(crate) mod rollback;
pub(crate) mod slots;

use crate::ids::NodeId;
use crate::node::{Node, Postgres};
use crate::store::Store;
use past::Past;
use rollback::Rollback;
use slots::Slots;

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
    /// Slots, and the WAL that they keep.
    pub slots: Option<Box<Slots>>,
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
        (flows && self.keeps_what_follows(upstream, node)).then_some(upstream)
    }

    /// Somebody wrote `/sync`: what was seen of it is no longer the last.
    pub(crate) fn sync_was_written(&mut self) {
        for node in self.lookers() {
            let here = self.node_mut(node);
            here.plan.sync_was_written();
            here.struck = None;
            if let Some(read) = &mut here.read {
                read.sync_is_last = false;
            }
        }
    }
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
