//! Which base backups and which WAL may go: decides, and says why. What takes them away is in the room below.

mod removal;
#[cfg(test)]
mod tests;
mod trust;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use outrider_wal::{SegmentName, TimelineId};

use crate::catalog::{Backup, BackupState, Catalog, Keep};
use crate::{BackupId, BackupInfo};

pub use removal::{Removed, remove_backup, remove_obsolete};
pub use trust::trusted_plan;

/// Names of backups are times: of a clock that is this far ahead they say nothing of their age. Barman's are local times, up to 14
/// hours ahead.
const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(15);
/// What was begun longer ago and is not done was given up.
const GIVEN_UP: SignedDuration = SignedDuration::from_hours(24);

/// What is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Every point of this time until now stays recoverable. `None`: only the numbers count.
    pub window: Option<Duration>,
    /// This many good backups stay whatever their age; at least 1.
    pub minimum: usize,
    /// This many of the newest good backups stay, besides those of the window.
    pub count: Option<usize>,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        RetentionPolicy { window: Some(Duration::from_secs(7 * 24 * 60 * 60)), minimum: 1, count: None }
    }
}

/// What stays and what goes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionPlan {
    /// A verdict for each backup of the catalog, in its order.
    pub backups: Vec<Verdict>,
    /// What becomes of the WAL.
    pub wal: WalVerdict,
    /// Why nothing goes although it is old: both clocks are named.
    pub doubt: Option<String>,
}

/// What becomes of one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The backup.
    pub id: BackupId,
    /// Bytes of its objects as stored.
    pub bytes: u64,
    /// Why it stays or goes.
    pub reason: Reason,
}

/// Why a backup stays or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Stays: it ended within the window.
    WithinWindow,
    /// Stays: recovery to the beginning of the window starts from it.
    BeginsWindow,
    /// Stays: it is one of so many that are kept whatever their age.
    Newest,
    /// Stays: a person marked it.
    Marked(Keep),
    /// Stays: it may still be under way.
    MayBeRunning,
    /// Stays: it is another cluster's, with this system identifier, and not ours to remove.
    Foreign(u64),
    /// Stays: there are backups of several servers, and nothing says whose archive it is.
    Disputed,
    /// Stays: what it is nobody can tell.
    Unreadable,
    /// Stays: what it lacks may yet come.
    Lacking,
    /// Stays: it would go by a clock that is not to be trusted.
    ClockDoubted,
    /// Goes: nothing needs it.
    Obsolete,
    /// Goes: it was never finished.
    GivenUp,
}

impl Reason {
    /// Whether the backup stays.
    #[must_use]
    pub fn keeps(self) -> bool {
        !matches!(self, Reason::Obsolete | Reason::GivenUp)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::WithinWindow => f.write_str("ended within the window"),
            Reason::BeginsWindow => f.write_str("the window starts from it"),
            Reason::Newest => f.write_str("one of the newest good ones"),
            Reason::Marked(keep) => write!(f, "marked to be kept ({keep})"),
            Reason::MayBeRunning => f.write_str("may still be under way"),
            Reason::Foreign(whose) => write!(f, "of another cluster (system identifier {whose})"),
            Reason::Disputed => {
                f.write_str("there are backups of several servers, and nothing says whose archive it is")
            }
            Reason::Unreadable => f.write_str("its backup.info cannot be read; delete it by hand"),
            Reason::Lacking => f.write_str("what it lacks may still arrive"),
            Reason::ClockDoubted => f.write_str("would be removed only by a clock that cannot be trusted"),
            Reason::Obsolete => f.write_str("nothing needs it"),
            Reason::GivenUp => f.write_str("it was never finished"),
        }
    }
}

/// What becomes of the WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalVerdict {
    /// All of it stays.
    Stays {
        /// Why.
        reason: String,
    },
    /// Segments with lower numbers go, whatever their timeline: each recovery begins at its backup's first segment and
    /// only moves on. Histories stay for ever.
    Below {
        /// The first segment of the oldest backup that stays.
        oldest: SegmentName,
        /// Its number.
        number: u64,
        /// Numbers that stay although they are lower: of backups that are marked `standalone`.
        except: Vec<RangeInclusive<u64>>,
    },
}

impl WalVerdict {
    /// Whether the segment with this number goes.
    #[must_use]
    pub fn removes(&self, number: u64) -> bool {
        match self {
            WalVerdict::Stays { .. } => false,
            WalVerdict::Below { number: first, except, .. } => {
                number < *first && !except.iter().any(|range| range.contains(&number))
            }
        }
    }
}

impl RetentionPlan {
    /// Nothing goes, for this reason.
    fn doubted(mut self, why: String) -> Self {
        for verdict in self.backups.iter_mut().filter(|verdict| !verdict.reason.keeps()) {
            verdict.reason = Reason::ClockDoubted;
        }
        self.wal = WalVerdict::Stays { reason: why.clone() };
        self.doubt = Some(why);
        self
    }

    /// How many segments of the catalog go.
    #[must_use]
    pub fn segments(&self, catalog: &Catalog) -> u64 {
        catalog.wal.numbers().filter(|number| self.wal.removes(*number)).count() as u64
    }

    /// Whether nothing goes.
    #[must_use]
    pub fn is_empty(&self, catalog: &Catalog) -> bool {
        self.backups.iter().all(|verdict| verdict.reason.keeps()) && self.segments(catalog) == 0
    }
}

/// Decides for every backup and for the WAL.
#[must_use]
pub fn plan(catalog: &Catalog, now: Timestamp, policy: &RetentionPolicy) -> RetentionPlan {
    let needed = needed(catalog, now, policy);
    let disputed = catalog.is_disputed();
    let reason = |backup: &Backup| -> Reason {
        if let Some(whose) = backup.foreign() {
            return Reason::Foreign(whose);
        }
        if disputed {
            return Reason::Disputed;
        }
        if let Some(keep) = backup.keep {
            return Reason::Marked(keep);
        }
        if let Some((_, reason)) = needed.iter().find(|(id, _)| **id == backup.id) {
            return *reason;
        }
        match &backup.state {
            BackupState::Good(_) => Reason::Obsolete,
            BackupState::Lacking { .. } if is_young(backup, catalog, now) => Reason::Lacking,
            BackupState::Lacking { .. } => Reason::GivenUp,
            BackupState::Foreign { system_identifier, .. } => Reason::Foreign(*system_identifier),
            BackupState::Unreadable { .. } => Reason::Unreadable,
            BackupState::Failed(_) | BackupState::Unfinished if is_young(backup, catalog, now) => {
                Reason::MayBeRunning
            }
            BackupState::Failed(_) | BackupState::Unfinished => Reason::GivenUp,
        }
    };
    let verdict =
        |backup: &Backup| Verdict { id: backup.id.clone(), bytes: backup.bytes, reason: reason(backup) };
    let backups: Vec<Verdict> = catalog.backups.iter().map(verdict).collect();
    let wal = wal_verdict(catalog, &backups, &needed);
    RetentionPlan { backups, wal, doubt: None }
}

/// The good backups that the policy needs, with the first reason for each.
fn needed<'catalog>(
    catalog: &'catalog Catalog,
    now: Timestamp,
    policy: &RetentionPolicy,
) -> Vec<(&'catalog BackupId, Reason)> {
    let good: Vec<&BackupInfo> = catalog.backups.iter().filter_map(Backup::good).collect();
    let mut needed: Vec<(&BackupId, Reason)> = Vec::new();
    let mut need = |info: &'catalog BackupInfo, reason| {
        if !needed.iter().any(|(id, _)| **id == info.id) {
            needed.push((&info.id, reason));
        }
    };
    if let Some(window) = policy.window {
        let length = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
        let start = now.saturating_sub(length).unwrap_or(Timestamp::MIN);
        // One whose end is not known counts as of the window.
        let before = |info: &BackupInfo| info.end_time.is_some_and(|end| end <= start);
        good.iter().filter(|info| !before(info)).for_each(|info| need(info, Reason::WithinWindow));
        for timeline in open_timelines(catalog, &good, start) {
            let path = catalog.wal.path(timeline);
            let lies_on = |info: &&&BackupInfo| {
                let place = info.begin_wal.zip(info.end_lsn);
                place.is_some_and(|(begin, end)| path.holds(begin.timeline, end))
            };
            // By when it ended: one that took long may have begun before another that is older.
            let ended_before = good.iter().filter(|info| before(info)).filter(lies_on);
            if let Some(first) = ended_before.max_by_key(|info| (info.end_time, &info.id)) {
                need(first, Reason::BeginsWindow);
            }
        }
    }
    let minimum = policy.minimum.max(policy.count.unwrap_or_default()).max(1);
    // One that a clock far ahead has named is kept for its own reasons, and in nobody's place.
    let plausible = |info: &&&BackupInfo| {
        let named = [info.id.time(), info.begin_time];
        named.into_iter().flatten().all(|time| time.duration_since(now) <= AHEAD_MAX)
    };
    good.iter().rev().filter(plausible).take(minimum).for_each(|info| need(info, Reason::Newest));
    // The newest of all may be of a former primary that went its own way.
    if let Some(newest) = catalog.wal.timelines().last() {
        let path = catalog.wal.path(*newest);
        let lies_on = |info: &&&BackupInfo| {
            let place = info.begin_wal.zip(info.end_lsn);
            place.is_some_and(|(begin, end)| path.holds(begin.timeline, end))
        };
        good.iter()
            .rev()
            .filter(plausible)
            .filter(lies_on)
            .take(minimum)
            .for_each(|info| need(info, Reason::Newest));
    }
    needed
}

/// The timelines that may have points within the window: all but those that were left before it, which a backup of a later
/// timeline shows that began before it.
fn open_timelines(catalog: &Catalog, good: &[&BackupInfo], start: Timestamp) -> Vec<TimelineId> {
    let began_before = good.iter().filter(|info| info.begin_time.is_some_and(|begin| begin <= start));
    let later = began_before.filter_map(|info| info.begin_wal).map(|begin| begin.timeline).max();
    let all = catalog.wal.timelines();
    let own = good.iter().filter_map(|info| info.begin_wal).map(|begin| begin.timeline);
    let mut open: Vec<TimelineId> =
        all.into_iter().chain(own).filter(|timeline| later.is_none_or(|later| *timeline >= later)).collect();
    open.sort_unstable();
    open.dedup();
    open
}

/// Whether it may still be under way: begun less than a day ago, or nothing newer was finished (one that began later and is
/// done shows that this one is not, since there is one at a time).
fn is_young(backup: &Backup, catalog: &Catalog, now: Timestamp) -> bool {
    let begun = backup.info().and_then(|info| info.begin_time).or_else(|| backup.id.time());
    let old = begun.is_some_and(|begun| now.duration_since(begun) > GIVEN_UP);
    let newer = catalog.backups.iter().any(|other| other.good().is_some() && other.id > backup.id);
    !(old && newer)
}

fn wal_verdict(catalog: &Catalog, verdicts: &[Verdict], needed: &[(&BackupId, Reason)]) -> WalVerdict {
    let size = catalog.wal.segment_size();
    let stays = |reason: String| WalVerdict::Stays { reason };
    let mut oldest: Option<SegmentName> = None;
    let mut except = Vec::new();
    let mut servers = Vec::new();
    for (backup, verdict) in
        catalog.backups.iter().zip(verdicts).filter(|(_, verdict)| verdict.reason.keeps())
    {
        let id = &backup.id;
        match verdict.reason {
            Reason::Foreign(_) => continue,
            Reason::Unreadable => return stays(format!("nobody can tell what the backup {id} needs")),
            Reason::MayBeRunning => return stays(format!("the backup {id} may still be under way")),
            _ => {}
        }
        let Some(info) = backup.info() else {
            return stays(format!("nobody can tell what the backup {id} needs"));
        };
        let Some(begin) = info.begin_wal else {
            return stays(format!("the backup {id} does not say where it begins"));
        };
        if info.segment_size != size {
            return stays("there are backups with different sizes of segments".to_owned());
        }
        servers.extend(info.system_identifier);
        let alone = verdict.reason == Reason::Marked(Keep::Standalone)
            && !needed.iter().any(|(needed, _)| *needed == id);
        match info.end_wal {
            Some(end) if alone => except.push(begin.number(size)..=end.number(size)),
            Some(_) | None => {
                let earlier = oldest.is_none_or(|oldest| begin.number(size) < oldest.number(size));
                oldest = if earlier { Some(begin) } else { oldest };
            }
        }
    }
    servers.dedup();
    if servers.len() > 1 {
        return stays("there are backups of different servers (system identifiers)".to_owned());
    }
    match oldest {
        None => stays("there is no good backup".to_owned()),
        Some(oldest) => WalVerdict::Below { oldest, number: oldest.number(size), except },
    }
}
