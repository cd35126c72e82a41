//! How large a world is, what may go wrong in it, and which rule of ours is broken on purpose. Holds no behaviour.

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
            synchronous: true,
            synchronous_node_count: 1,
            fuse: Fuse::Live,
            early_reads: false,
            late_members: false,
            losses: false,
            late_replay: false,
            restores: false,
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

/// A rule that is broken on purpose, to see that the search finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A standby that is not recorded as synchronous stands.
    StandsUnsynchronous,
    /// A primary without the lease goes on.
    NeverStepsDown,
    /// A standby is promoted first and takes the lease then, and the supervisor lets it.
    PromotesFirst,
    /// The supervisor lets a writable Postgres live when the fuse blows.
    FuseIgnored,
    /// Commits stop waiting for a standby before `/sync` says that it may not be promoted.
    RelaxesSettingFirst,
    /// A standby is recorded as promotable as soon as the setting is written, without proof that it has everything.
    RecordsWithoutProof,
    /// The lease is taken without a comparison of `/sync` with what was seen.
    TakesLeaseBlindly,
    /// A new primary does not strike the others from `/sync` before it is promoted.
    PromotesWithoutRecord,
    /// A crashed primary comes back and its commits wait for nobody, whoever `/sync` names.
    RevivesWaitingForNobody,
    /// A primary takes a free lease again without asking who held it in between.
    ReclaimsBlindly,
    /// An agent that was restarted takes the setting for empty because it remembers none.
    TrustsItsMemory,
    /// A standby that diverged goes on as if it could follow.
    FollowsDiverged,
    /// A new primary never records where its timeline began.
    KeepsHistoryToItself,
    /// A member stands although another one has seen more of the DCS.
    IgnoresWhoKnowsMore,
    /// The member that a failover names stands, whatever it lacks.
    PassesOver,
    /// A switchover hands over to a member that has received everything, and replayed it or not.
    HandsOverUnreplayed,
}
