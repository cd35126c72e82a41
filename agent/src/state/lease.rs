//! The leader lease as it was last confirmed, with the fuse that was armed for it; and how long nobody has had it.

use std::time::Duration;

use outrider_dcs::Leader;
use outrider_ha::Term;
use outrider_postgres::ArmedFuse;
use tokio::time::Instant;

use crate::clock;

/// Proof that the leader lease was confirmed and the fuse is armed for it; what makes Postgres writable asks for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldLease {
    /// The term of the lease.
    pub(crate) term: Term,
    /// The fuse, which blows before the lease ends.
    pub(crate) fuse: ArmedFuse,
    /// When the lease ends unless it is renewed, in nanoseconds since boot.
    pub(crate) until_ns: u64,
}

/// What is remembered of the lease.
pub(crate) struct Lease {
    held: Option<HeldLease>,
    last_term: Term,
    free_since: Option<Instant>,
}

impl Lease {
    /// Of an agent that has not held it.
    pub(super) fn new() -> Self {
        Lease { held: None, last_term: Term(0), free_since: None }
    }

    /// It was acquired or renewed, and the fuse is armed for it.
    pub(crate) fn confirmed(&mut self, held: HeldLease) {
        self.last_term = held.term;
        self.held = Some(held);
    }

    /// The fuse blows earlier from now on.
    pub(crate) fn fuse_was_shortened(&mut self, fuse: ArmedFuse) {
        if let Some(held) = &mut self.held {
            held.fuse = fuse;
        }
    }

    /// It is released, or handed over.
    pub(crate) fn given_up(&mut self) {
        self.held = None;
    }

    /// The DCS shows whose it is.
    pub(crate) fn seen(&mut self, leader: Option<&Leader>) {
        self.free_since = match leader {
            None => self.free_since.or_else(|| Some(clock::monotonic())),
            Some(_) => None,
        };
        if !leader.is_some_and(|leader| leader.mine) {
            self.held = None;
        }
    }

    /// It is this member's in the DCS: one that was handed over counts from the moment that it is seen.
    pub(crate) fn seen_as_own(&mut self, term: Term) {
        self.last_term = self.last_term.max(term);
    }

    /// As it was last confirmed; it may have run out since.
    pub(crate) fn held(&self) -> Option<HeldLease> {
        self.held
    }

    /// As it was last confirmed, if it is still sure to be held.
    pub(crate) fn live(&self) -> Option<HeldLease> {
        self.held.filter(|lease| clock::boottime_ns() < lease.fuse.deadline_ns())
    }

    /// Time left on the fuse, as it was last armed; `None` when it has blown or there is none.
    pub(crate) fn fuse_left(&self) -> Option<Duration> {
        let left = clock::until_boottime(self.held?.fuse.deadline_ns());
        (!left.is_zero()).then_some(left)
    }

    /// The term of the lease that this process held last.
    pub(crate) fn last_term(&self) -> Term {
        self.last_term
    }

    /// How long it has been free.
    pub(crate) fn free_for(&self) -> Duration {
        self.free_since.map(clock::since).unwrap_or_default()
    }
}
