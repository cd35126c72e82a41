//! How large a world is, and what may go wrong in it. Holds no behaviour.

use crate::mutant::Mutant;

/// A world to be searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Nodes, 2 or 3.
    pub nodes: u8,
    /// Commits that clients send, at most 4.
    pub commits: u8,
    /// Faults.
    pub faults: u8,
    /// Switchovers that somebody asks for.
    pub requests: u8,
    /// Failovers that somebody asks for, without a word of what is given up.
    pub failovers: u8,
    /// Nodes that are told to end, and come back.
    pub terminations: u8,
    /// Rollbacks of the running cluster that somebody asks for.
    pub rollbacks: u8,
    /// Restarts of all members that somebody asks for.
    pub restarts: u8,
    /// `synchronous_mode`.
    pub synchronous: bool,
    /// `synchronous_node_count`.
    pub synchronous_node_count: u32,
    /// Whether the supervisors do their duty.
    pub fuse: Fuse,
    /// Whether an agent may read the DCS earlier than it looks at everything else.
    pub early_reads: bool,
    /// Whether what a member publishes in the DCS may be old; otherwise it is what the member is.
    pub late_members: bool,
    /// Whether a node may be lost for good.
    pub losses: bool,
    /// Whether standbys replay later than they receive; otherwise at once.
    pub late_replay: bool,
    /// Whether a copy of the DCS is taken at some moment, and put back at a later one.
    pub restores: bool,
    /// Whether a Postgres may cease to answer and live on, takes its time to stop, and the word that it is being promoted may get lost.
    pub slow: bool,
    /// Whether a rewind or a clone may be broken off, and a data directory get lost.
    pub broken_data: bool,
    /// Whether the promotions of a node may fail from some moment on for ever.
    pub promotions_fail: bool,
    /// Whether agents are led to another, empty DCS, and back.
    pub led_elsewhere: bool,
    /// Whether somebody has keys rebuilt that were lost.
    pub rebuilds: bool,
    /// Whether an agent that begins decides before its entry stands in the DCS, which may take any time; otherwise it stands at once.
    pub enters: bool,
    /// Whether somebody shortens the ttl.
    pub shortens: bool,
    /// What is broken on purpose.
    pub mutant: Option<Mutant>,
}

impl Setup {
    /// Synchronous mode with one synchronous standby, live fuses, no switchover, nothing broken.
    #[must_use]
    pub fn new(nodes: u8, commits: u8, faults: u8) -> Self {
        Setup {
            nodes,
            commits,
            faults,
            requests: 0,
            failovers: 0,
            terminations: 0,
            rollbacks: 0,
            restarts: 0,
            synchronous: true,
            synchronous_node_count: 1,
            fuse: Fuse::Live,
            early_reads: false,
            late_members: false,
            losses: false,
            late_replay: false,
            restores: false,
            slow: false,
            promotions_fail: false,
            led_elsewhere: false,
            rebuilds: false,
            broken_data: false,
            enters: false,
            shortens: false,
            mutant: None,
        }
    }
}

/// What a fuse does when its deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuse {
    /// It kills a writable Postgres, always before the lease expires.
    Live,
    /// Nothing: the supervisor hangs, and its Postgres goes on. The lease may expire at any moment.
    Dead,
}
