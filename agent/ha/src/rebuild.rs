//! Whose data the cluster goes on with when the DCS has lost its keys, or went back, and nobody leads any more. Pure, as the
//! decision of a round; carried out by `outrider dcs rebuild`.

use alloc::vec::Vec;
use core::fmt;

use outrider_wal::{Lsn, TimelineId};

use crate::view::cluster::SyncState;
use crate::view::identity::{SystemId, Term};
use crate::view::member::{MemberName, Role};
use crate::view::policy::SynchronousMode;
use crate::view::watermark::Watermark;

/// A member of the cluster, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Its name.
    pub name: MemberName,
    /// What it says; `None` when it does not answer.
    pub says: Option<Testimony>,
}

/// What a member says of itself and of the DCS as it saw it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// How far it has seen the DCS.
    pub watermark: Watermark,
    /// The `/sync` that it saw last; `None` in asynchronous mode.
    pub sync: Option<SyncState>,
    /// Who led when it looked last, or to whom it has handed the lease since.
    pub leader: Option<MemberName>,
    /// What its Postgres is.
    pub role: Role,
    /// The identifier of its data; `None` when it has none.
    pub system: Option<SystemId>,
    /// The timeline of its data.
    pub timeline: TimelineId,
    /// How far its data goes; of a crashed primary at least this far.
    pub position: Lsn,
    /// Its tags allow it to lead.
    pub may_lead: bool,
}

/// How the keys are to be rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilding {
    /// Who is to lead: the only member that may be promoted at first.
    pub best: MemberName,
    /// Whose record of the keys is the newest.
    pub record_of: MemberName,
    /// The new generation.
    pub generation: u64,
    /// The highest term that anybody knows.
    pub term_base: Term,
    /// Who does not answer, and could only lack what `best` has.
    pub silent: Vec<MemberName>,
    /// Somebody who does not answer, or has no data, may have commits that were acknowledged: it is rebuilt all the same, because
    /// a person said so.
    pub may_lose: Vec<MemberName>,
}

/// Why they cannot be rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRebuilt {
    /// Somebody leads: there is nothing to rebuild, or it is about to stop.
    PrimaryRuns {
        /// Who.
        member: MemberName,
    },
    /// No member that answers remembers a cluster.
    NothingIsRemembered,
    /// No member that answers has data of this cluster and may lead.
    NobodyHasData,
    /// Those who were promotable when the DCS was last seen are not all heard: they may have commits that nobody else has.
    MayLoseCommits {
        /// Who would be taken.
        best: MemberName,
        /// Who may have more.
        missing: Vec<MemberName>,
    },
}

impl fmt::Display for NotRebuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotRebuilt::PrimaryRuns { member } => {
                write!(
                    f,
                    "{member} is running as a primary; if it has lost the lease it stops within the ttl"
                )
            }
            NotRebuilt::NothingIsRemembered => f.write_str("no member that answers remembers a cluster"),
            NotRebuilt::NobodyHasData => {
                f.write_str("no member that answers has data of this cluster and may lead")
            }
            NotRebuilt::MayLoseCommits { best, missing } => {
                write!(f, "{best} is the best of the members that answer, but ")?;
                for (place, member) in missing.iter().enumerate() {
                    write!(f, "{}{member}", if place > 0 { ", " } else { "" })?;
                }
                f.write_str(" may have acknowledged commits that it lacks")
            }
        }
    }
}

/// Whose data the cluster goes on with. `dcs`: what the DCS shows now, which may be an old copy of its keys.
///
/// In synchronous mode the members of the newest `/sync` that anybody has seen decide, and the leader of that time, to whom the lease
/// may have been handed without being in it: a later leader was one of them, and would know of a later `/sync`. When all of them
/// answer, whoever else is silent cannot have more.
///
/// # Errors
/// Why not; `MayLoseCommits` only without `accept_data_loss`.
pub fn rebuild(
    witnesses: &[Witness],
    dcs: &Watermark,
    mode: SynchronousMode,
    accept_data_loss: bool,
) -> Result<Rebuilding, NotRebuilt> {
    let heard = || witnesses.iter().filter_map(|witness| Some((&witness.name, witness.says.as_ref()?)));
    if let Some((member, _)) = heard().find(|(_, says)| says.role == Role::Primary) {
        return Err(NotRebuilt::PrimaryRuns { member: member.clone() });
    }
    let remembering = heard().filter(|(_, says)| says.watermark.term > Term(0));
    let (record_of, record) = remembering
        .max_by_key(|(name, says)| (says.watermark.extent(), core::cmp::Reverse(*name)))
        .ok_or(NotRebuilt::NothingIsRemembered)?;
    let decisive = decisive(witnesses, record, mode);
    let system = heard().find(|(name, says)| decisive.contains(name) && says.system.is_some());
    let system = system.or_else(|| heard().find(|(_, says)| says.system.is_some()));
    let system = system.and_then(|(_, says)| says.system).ok_or(NotRebuilt::NobodyHasData)?;
    let has_data = |says: &Testimony| says.system == Some(system) && says.may_lead;
    let furthest = |decisive_only: bool| {
        heard()
            .filter(|(name, says)| has_data(says) && (!decisive_only || decisive.contains(name)))
            .max_by_key(|(name, says)| (says.timeline, says.position, core::cmp::Reverse(*name)))
    };
    let (best, _) = furthest(true).or_else(|| furthest(false)).ok_or(NotRebuilt::NobodyHasData)?;
    let is_missing =
        |name: &&MemberName| !heard().any(|(heard, says)| heard == *name && says.system == Some(system));
    let missing: Vec<MemberName> = decisive.iter().filter(is_missing).cloned().collect();
    if !missing.is_empty() && !accept_data_loss {
        return Err(NotRebuilt::MayLoseCommits { best: best.clone(), missing });
    }
    let silent = witnesses
        .iter()
        .filter(|witness| witness.says.is_none() && !missing.contains(&witness.name))
        .map(|witness| witness.name.clone());
    let highest = |of: fn(&Watermark) -> u64| {
        heard().map(|(_, says)| of(&says.watermark)).chain([of(dcs)]).max().unwrap_or_default()
    };
    Ok(Rebuilding {
        best: best.clone(),
        record_of: record_of.clone(),
        generation: highest(|watermark| watermark.generation) + 1,
        term_base: Term(highest(|watermark| watermark.term.0)),
        silent: silent.collect(),
        may_lose: missing,
    })
}

/// Whose word is needed to know that nothing is lost.
fn decisive(witnesses: &[Witness], record: &Testimony, mode: SynchronousMode) -> Vec<MemberName> {
    match (mode, &record.sync) {
        (SynchronousMode::On, Some(sync)) => {
            let mut names: Vec<MemberName> =
                sync.leader.iter().chain(&sync.standbys).chain(&record.leader).cloned().collect();
            names.sort();
            names.dedup();
            names
        }
        // Nothing says who has everything: the leader had, and any other may have led since.
        (SynchronousMode::On | SynchronousMode::Off, _) => {
            witnesses.iter().map(|witness| witness.name.clone()).collect()
        }
    }
}
