//! The steps of a plan, small enough for millions of states. Does not carry them out: that is `perform`.

use std::fmt;

use outrider_ha::{Plan, StartAs, Step, StopMode, TurnChange, TurnEnd};

use crate::ids::{NodeId, Nodes, number, numbers};
use crate::store::Sync;

/// The longest plan is a switchover taken back.
const ACTS_MAX: usize = 5;

/// A step. `seen_last`: nobody has written `/sync` since the plan was made, so that its revision compares equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the `Step` of the same name")]
pub enum Act {
    AcquireLease {
        seen_last: bool,
    },
    RenewLease,
    ReleaseLease,
    ShortenFuse,
    /// To the ttl of the cluster.
    SetTtl,
    HandOverLease(NodeId),
    RecordSync {
        standbys: Nodes,
        seen_last: bool,
    },
    RestoreSync {
        before: Sync,
        seen_last: bool,
    },
    RecordHistory,
    ClearRequest,
    AnnounceSwitchover(NodeId),
    ClearSwitchover,
    StartPrimary(Nodes),
    StartStandby(Option<NodeId>),
    StopFast,
    StopImmediate,
    Promote,
    Follow(NodeId),
    SetSynchronous(Nodes),
    CreateSlots(Nodes),
    Checkpoint,
    /// Afterwards the node has what its source has.
    Rewind(NodeId),
    /// The same.
    Clone(NodeId),
    Initdb,
    /// With these as promotable.
    Recreate(Nodes),
    Rollback,
    AskSwitchover,
    RecordRestart {
        note: Note,
        seen_last: bool,
        of: NodeId,
    },
}

impl Act {
    /// Whether it is a write to the DCS, whose reply can get lost.
    #[must_use]
    pub const fn is_write(self) -> bool {
        match self {
            Act::AcquireLease { .. }
            | Act::RenewLease
            | Act::ReleaseLease
            | Act::SetTtl
            | Act::HandOverLease(_)
            | Act::RecordSync { .. }
            | Act::RestoreSync { .. }
            | Act::RecordHistory
            | Act::ClearRequest
            | Act::AnnounceSwitchover(_)
            | Act::ClearSwitchover
            | Act::Recreate(_)
            | Act::AskSwitchover
            | Act::RecordRestart { .. } => true,
            Act::ShortenFuse
            | Act::StartPrimary(_)
            | Act::StartStandby(_)
            | Act::StopFast
            | Act::StopImmediate
            | Act::Promote
            | Act::Follow(_)
            | Act::SetSynchronous(_)
            | Act::CreateSlots(_)
            | Act::Checkpoint
            | Act::Rewind(_)
            | Act::Clone(_)
            | Act::Initdb
            | Act::Rollback => false,
        }
    }

    /// `None` for what changes nothing that the world has.
    fn from_step(step: &Step) -> Option<Self> {
        Some(match step {
            Step::AcquireLease { .. } => Act::AcquireLease { seen_last: true },
            Step::RenewLease => Act::RenewLease,
            Step::ReleaseLease => Act::ReleaseLease,
            Step::ShortenFuse { .. } => Act::ShortenFuse,
            Step::SetTtl { .. } => Act::SetTtl,
            Step::HandOverLease { to } => Act::HandOverLease(number(to)),
            Step::RecordSync { standbys, .. } => {
                Act::RecordSync { standbys: numbers(standbys), seen_last: true }
            }
            Step::RestoreSync { before } => {
                let leader = before.leader.as_ref().map(number).expect("the world's /sync has one");
                Act::RestoreSync {
                    before: Sync { leader, standbys: numbers(&before.standbys) },
                    seen_last: true,
                }
            }
            Step::RecordHistory => Act::RecordHistory,
            Step::FinishRequest { .. } | Step::ClearRequest { .. } => Act::ClearRequest,
            Step::AnnounceSwitchover { to } => Act::AnnounceSwitchover(number(to)),
            Step::ClearSwitchover => Act::ClearSwitchover,
            Step::Start(StartAs::Primary { synchronous }) => Act::StartPrimary(numbers(synchronous)),
            Step::Start(StartAs::Standby { upstream }) => Act::StartStandby(upstream.as_ref().map(number)),
            Step::Stop(StopMode::Fast | StopMode::FastAwaiting { .. }) => Act::StopFast,
            Step::Stop(StopMode::Immediate) => Act::StopImmediate,
            Step::Promote => Act::Promote,
            Step::Follow { upstream } => Act::Follow(number(upstream)),
            Step::SetSynchronous { names } => Act::SetSynchronous(numbers(names)),
            Step::CreateSlots { names } => Act::CreateSlots(numbers(names)),
            Step::Checkpoint | Step::ShortenStop { .. } => Act::Checkpoint,
            Step::Rewind { from } => Act::Rewind(number(from)),
            Step::Clone { from } => Act::Clone(number(from)),
            Step::Initdb => Act::Initdb,
            Step::RecreateCluster { standbys } => {
                Act::Recreate(numbers(standbys.as_deref().unwrap_or_default()))
            }
            Step::Rollback => Act::Rollback,
            Step::AskSwitchover => Act::AskSwitchover,
            Step::RecordRestart { member, change, .. } => {
                Act::RecordRestart { note: Note::of(change), seen_last: true, of: number(member) }
            }
            Step::AnnounceStop { .. }
            | Step::HastenReplay { .. }
            | Step::RelaxReplay
            | Step::LetLeaseRunOut => return None,
            Step::ClaimInitialize
            | Step::RecordInitialize { .. }
            | Step::PostBootstrap
            | Step::ClearSync { .. }
            | Step::DateRequest { .. }
            | Step::SkipTimelines { .. } => {
                panic!("{step:?} in a cluster that is made and keeps its mode")
            }
        })
    }
}

/// What a node notes in the key of a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// It begins.
    Begins {
        /// By asking for a switchover.
        switching: bool,
    },
    /// Its turn is over.
    Ends,
    /// It took too long: nobody else is restarted.
    GivesUp,
}

impl Note {
    /// Of a step.
    #[must_use]
    pub fn of(change: &TurnChange) -> Self {
        match change {
            TurnChange::Begun { switching, .. } => Note::Begins { switching: *switching },
            TurnChange::Ended(TurnEnd::TooLate) => Note::GivesUp,
            TurnChange::Ended(_) => Note::Ends,
        }
    }
}

/// The steps that are still to be taken, in order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Acts([Option<Act>; ACTS_MAX]);

impl Acts {
    /// The steps of `plan`.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let mut acts = Acts::default();
        let steps: Vec<Act> = plan.steps.iter().filter_map(Act::from_step).collect();
        assert!(steps.len() <= ACTS_MAX, "{plan:?} is longer than {ACTS_MAX}");
        for (place, act) in acts.0.iter_mut().zip(steps) {
            *place = Some(act);
        }
        acts
    }

    /// Whether there is none left.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0[0].is_none()
    }

    /// The next one.
    #[must_use]
    pub fn next(self) -> Option<Act> {
        self.0[0]
    }

    /// Whether this is only a renewal.
    #[must_use]
    pub fn only_renews(self) -> bool {
        self.0[0] == Some(Act::RenewLease) && self.0[1].is_none()
    }

    /// Without the next one.
    #[must_use]
    pub fn rest(self) -> Self {
        let [_, rest @ ..] = self.0;
        let mut acts = Acts::default();
        acts.0[..ACTS_MAX - 1].copy_from_slice(&rest);
        acts
    }

    /// The same, decided on when `/sync` may have been written already.
    #[must_use]
    pub fn with_sync_seen(mut self, is_last: bool) -> Self {
        if !is_last {
            self.sync_was_written();
        }
        self
    }

    /// Somebody wrote `/sync`: what was seen of it is no longer the last.
    pub fn sync_was_written(&mut self) {
        for act in self.0.iter_mut().flatten() {
            if let Act::AcquireLease { seen_last }
            | Act::RecordSync { seen_last, .. }
            | Act::RestoreSync { seen_last, .. } = act
            {
                *seen_last = false;
            }
        }
    }
}

impl Acts {
    /// All of them, in order.
    pub fn iter(self) -> impl Iterator<Item = Act> {
        self.0.into_iter().flatten()
    }

    /// A clone and a rewind come to the same where neither breaks off.
    #[must_use]
    pub fn with_copies_alike(mut self) -> Self {
        for act in self.0.iter_mut().flatten() {
            if let Act::Clone(from) = *act {
                *act = Act::Rewind(from);
            }
        }
        self
    }

    /// Somebody wrote how far a restart is.
    pub fn restart_was_written(&mut self) {
        for act in self.0.iter_mut().flatten() {
            if let Act::RecordRestart { seen_last, .. } = act {
                *seen_last = false;
            }
        }
    }
}

impl fmt::Debug for Acts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().flatten()).finish()
    }
}
