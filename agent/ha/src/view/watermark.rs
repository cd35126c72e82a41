//! How far a member has seen the DCS, by which one that was wiped, restored from an old copy or exchanged for another is told.
//! No rule of what follows.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::identity::Term;

/// Which store the DCS is: etcd's cluster id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreId(pub u64);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The furthest that somebody has seen of the DCS, or what the DCS shows now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Watermark {
    /// Which store it was; `None` before the first look.
    pub store: Option<StoreId>,
    /// How often the cluster's keys were rebuilt. The numbers below are of this generation.
    pub generation: u64,
    /// The highest term.
    pub term: Term,
    /// The highest revision of the store.
    pub revision: i64,
    /// The revision at which `/sync` was last changed.
    pub sync_revision: i64,
    /// What the DCS of this generation was found to have lost: it is not believed any more, however far its revisions come.
    pub lost: Option<Lost>,
}

/// What somebody has seen of the DCS, and it does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each has what was seen and what stands there now")]
pub enum Lost {
    /// It is another store.
    Store { seen: StoreId, now: StoreId },
    /// The keys were rebuilt more often.
    Generation { seen: u64, now: u64 },
    /// There was a higher term.
    Term { seen: Term, now: Term },
    /// The store had a higher revision.
    Revision { seen: i64, now: i64 },
    /// `/sync` was changed later.
    Sync { seen: i64, now: i64 },
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Store { seen, now } => write!(f, "the store's id was {seen} and is {now}"),
            Lost::Generation { seen, now } => write!(f, "the generation of its keys was {seen} and is {now}"),
            Lost::Term { seen, now } => write!(f, "its term was {seen} and is {now}"),
            Lost::Revision { seen, now } => write!(f, "its revision was {seen} and is {now}"),
            Lost::Sync { seen, now } => {
                write!(f, "/sync was changed at revision {seen}, the one there is of {now}")
            }
        }
    }
}

impl Watermark {
    /// What is compared to tell who has seen the most.
    #[must_use]
    pub const fn extent(&self) -> (u64, Term, i64, i64) {
        (self.generation, self.term, self.sync_revision, self.revision)
    }

    /// What was seen and is not in `now`; `None` when nothing is missing. A higher generation makes all that was seen of a
    /// lower one void.
    #[must_use]
    pub fn lost_by(&self, now: &Watermark) -> Option<Lost> {
        let (seen, generation) = (self.generation, now.generation);
        if generation != seen {
            return (generation < seen).then_some(Lost::Generation { seen, now: generation });
        }
        if self.lost.is_some() {
            return self.lost;
        }
        if let (Some(seen), Some(now)) = (self.store, now.store)
            && seen != now
        {
            return Some(Lost::Store { seen, now });
        }
        if now.term < self.term {
            return Some(Lost::Term { seen: self.term, now: now.term });
        }
        if now.revision < self.revision {
            return Some(Lost::Revision { seen: self.revision, now: now.revision });
        }
        (now.sync_revision < self.sync_revision)
            .then_some(Lost::Sync { seen: self.sync_revision, now: now.sync_revision })
    }

    /// What is to be remembered after the DCS has shown `now`.
    #[must_use]
    pub fn after(&self, now: &Watermark) -> Watermark {
        match self.lost_by(now) {
            None => Watermark { store: now.store.or(self.store), ..*now },
            // The address of another store may be a mistake, and be corrected.
            Some(Lost::Store { .. } | Lost::Generation { .. }) => *self,
            // A store that goes on from an old copy would reach these numbers again.
            lost @ Some(Lost::Term { .. } | Lost::Revision { .. } | Lost::Sync { .. }) => {
                Watermark { lost, ..*self }
            }
        }
    }
}
