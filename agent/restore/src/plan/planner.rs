//! Finds out how a goal is reached, or why it cannot be: the base backup, the timelines, the WAL, and whether the target
//! is in it. Writes nothing.

use std::sync::Arc;

use jiff::Timestamp;
use outrider_wal::{Lsn, Record, SegmentName, TimelineId};

use super::reach::Reach;
use super::records::{Reader, Tail, Wanted, instant, time_of};
use super::{Plan, Stop};
use crate::error::{Point, RestoreError};
use crate::target::{Goal, Target, TargetAction, TargetTimeline};
use outrider_archive::catalog::{ArchivedWal, Backup, BackupState, Catalog, TimelinePath};
use outrider_archive::{BackupId, BackupInfo, Layout};
use outrider_store::{Store, each_object};

/// Segments without a transaction that are passed when the one is looked for in which a time lies.
const IDLE_MAX: u64 = 8;

/// A base backup with what a plan needs of it.
pub(super) struct Base<'a> {
    pub(super) info: &'a BackupInfo,
    pub(super) first_wal: SegmentName,
    pub(super) end: Lsn,
    timeline: TimelineId,
    /// By the clock of the member that took it.
    pub(super) ended: Timestamp,
}

/// Where the recovery will stop.
struct StopPoint {
    stop: Option<Stop>,
    /// The number of the last segment that is replayed.
    last: u64,
}

pub(crate) async fn plan(
    store: &Arc<dyn Store>,
    layout: &Layout,
    goal: &Goal,
    wanted: Option<&BackupId>,
) -> Result<Plan, RestoreError> {
    let catalog = Catalog::read(&**store, layout).await.map_err(RestoreError::Store)?;
    let bases = bases(&catalog);
    if bases.is_empty() && wanted.is_none() {
        let lacking: Vec<String> = catalog.backups.iter().filter_map(lacking).collect();
        let (url, server) = (store.url().to_owned(), layout.server().to_owned());
        return Err(RestoreError::NoBackup { url, server, lacking });
    }
    let bases = match wanted {
        None if catalog.is_disputed() => return Err(RestoreError::Disputed { url: store.url().to_owned() }),
        None => bases,
        Some(id) => vec![the_one(&catalog, bases, id)?],
    };
    let path = path(&catalog.wal, goal.timeline, &bases)?;
    let mut on_path: Vec<Base<'_>> =
        bases.into_iter().filter(|base| path.holds(base.timeline, base.end)).collect();
    // Their names are times of their members' clocks.
    on_path.sort_by_key(|base| base.end);
    if on_path.is_empty() {
        let there =
            "the backups that are there were taken on other timelines, or ended after it branched off";
        let timeline = path.timelines().last().unwrap_or(TimelineId::FIRST);
        return Err(RestoreError::NotOnTimeline { timeline, there: there.to_owned() });
    }
    let mut planner =
        Planner { wal: &catalog.wal, path, reader: Reader::new(store.clone(), layout.clone())? };
    let (base, reach, tail, found) = planner.choose(goal, &on_path).await?;
    let size = catalog.wal.segment_size();
    let stored_bytes = stored_bytes(&**store, layout, &base.info.id).await?;
    let first = base.first_wal.number(size);
    let first_point = planner.point(on_path.first().unwrap_or(base)).await?;
    let clock_skew = planner.skew(base).await?;
    let raised = match goal.action {
        // It answers queries on the way, and waits for ever where it has less than the primary had.
        TargetAction::Pause => {
            let until = Lsn::new((found.last + 1).saturating_mul(size.bytes()));
            let from = base.first_wal.start(size);
            planner.reader.parameters(&catalog.wal, &planner.path, &reach, (from, until)).await?
        }
        TargetAction::Promote | TargetAction::Shutdown => [0; 5],
    };
    let lacking = catalog.backups.iter().filter(|backup| backup.id > base.info.id).filter_map(lacking);
    Ok(Plan {
        goal: goal.clone(),
        backup: base.info.clone(),
        stored_bytes,
        plain_bytes: base.info.cluster_size,
        path: planner.path.timelines().skip_while(|timeline| *timeline != base.timeline).collect(),
        first_wal: base.first_wal,
        last_wal: planner.path.segment(found.last.max(first), size),
        segments: (found.last + 1).saturating_sub(first),
        wal_bytes: (found.last + 1).saturating_sub(first) * size.bytes(),
        stop: found.stop,
        first_point,
        last_point: tail.point(),
        gaps: reach.gaps,
        clock_skew,
        raised,
        passed_over: lacking.collect(),
    })
}

/// The backups that can be restored, oldest first.
fn bases(catalog: &Catalog) -> Vec<Base<'_>> {
    catalog.backups.iter().filter_map(Backup::good).filter_map(base_of).collect()
}

fn base_of(info: &BackupInfo) -> Option<Base<'_>> {
    Some(Base {
        info,
        first_wal: info.begin_wal?,
        end: info.end_lsn?,
        timeline: info.timeline.or(info.begin_wal.map(|wal| wal.timeline))?,
        ended: info.end_time?,
    })
}

/// That a finished backup cannot be restored.
fn lacking(backup: &Backup) -> Option<String> {
    match &backup.state {
        BackupState::Lacking { missing, .. } => Some(format!("{} lacks {missing}", backup.id)),
        BackupState::Unreadable { fault } => Some(format!("{}: {fault}", backup.id)),
        BackupState::Foreign { .. } => {
            Some(format!("{} is {}", backup.id, backup.fault().unwrap_or_default()))
        }
        BackupState::Good(_) | BackupState::Failed(_) | BackupState::Unfinished => None,
    }
}

fn the_one<'a>(catalog: &Catalog, bases: Vec<Base<'a>>, id: &BackupId) -> Result<Base<'a>, RestoreError> {
    let there = || {
        let ids: Vec<String> = bases.iter().map(|base| base.info.id.to_string()).collect();
        if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
    };
    let fault = match catalog.backup(id).map(|backup| &backup.state) {
        None => None,
        Some(BackupState::Good(_)) => Some("its backup.info lacks its times or positions".to_owned()),
        Some(BackupState::Lacking { missing, .. }) => Some(format!("it lacks {missing}")),
        Some(BackupState::Failed(_)) => Some("it failed, or is not finished".to_owned()),
        Some(BackupState::Unfinished) => Some("it is not finished".to_owned()),
        Some(BackupState::Foreign { system_identifier, .. }) => {
            Some(format!("it is of another cluster, whose system identifier is {system_identifier}"))
        }
        Some(BackupState::Unreadable { fault }) => Some(fault.clone()),
    };
    let refused = RestoreError::NotThisBackup { id: id.clone(), fault, there: there() };
    bases.into_iter().find(|base| base.info.id == *id).ok_or(refused)
}

/// The way to the timeline that is asked for.
fn path(
    wal: &ArchivedWal,
    timeline: TargetTimeline,
    bases: &[Base<'_>],
) -> Result<TimelinePath, RestoreError> {
    let newest = wal.newest_timeline();
    let timeline = match timeline {
        TargetTimeline::Latest => newest,
        TargetTimeline::Current => bases.last().map_or(newest, |base| base.timeline),
        TargetTimeline::Number(number) => number,
    };
    if wal.has_history(timeline) {
        Ok(wal.path(timeline))
    } else {
        Err(RestoreError::NoTimeline { timeline, newest })
    }
}

pub(super) struct Planner<'a> {
    pub(super) wal: &'a ArchivedWal,
    pub(super) path: TimelinePath,
    pub(super) reader: Reader,
}

impl<'a> Planner<'a> {
    /// The backup to begin with, and what is known of the WAL behind it.
    async fn choose<'b>(
        &mut self,
        goal: &Goal,
        bases: &'b [Base<'a>],
    ) -> Result<(&'b Base<'a>, Reach, Tail, StopPoint), RestoreError> {
        let newest = bases.iter().rev().collect::<Vec<_>>();
        let base = match &goal.target {
            Target::Time(time) => self.before(*time, goal.inclusive, bases).await?,
            Target::Lsn(lsn) => newest.iter().find(|base| base.end <= *lsn).copied(),
            Target::Latest | Target::Immediate | Target::Xid(_) | Target::Name(_) => newest.first().copied(),
        };
        let Some(mut base) = base else {
            let first = match bases.first() {
                Some(first) => self.point(first).await?,
                None => Point { lsn: Lsn::INVALID, time: None },
            };
            return Err(RestoreError::TooEarly { target: goal.target.clone(), first });
        };
        let mut reach = self.reach(base)?;
        let tail = self.tail(base, &reach).await?;
        let found = match &goal.target {
            Target::Latest => self.latest(&reach, &tail)?,
            Target::Immediate => {
                StopPoint { stop: None, last: self.number(base.end.get().saturating_sub(1)) }
            }
            Target::Time(time) => self.time(goal, *time, &reach, &tail).await?,
            Target::Lsn(lsn) => self.lsn(goal, *lsn, &reach, &tail)?,
            Target::Xid(_) | Target::Name(_) => {
                let found = self.search(goal, &newest, &tail).await?;
                (base, reach) = (found.0, found.1);
                found.2
            }
        };
        Ok((base, reach, tail, found))
    }

    /// Where a backup is consistent, and when that was as its WAL tells.
    async fn point(&mut self, base: &Base<'_>) -> Result<Point, RestoreError> {
        let time = self.consistent_at(base).await?.and_then(instant);
        Ok(Point { lsn: base.end, time })
    }

    pub(super) fn number(&self, lsn: u64) -> u64 {
        lsn / self.wal.segment_size().bytes()
    }

    /// How far a backup leads; at least to where it is consistent.
    fn reach(&self, base: &Base<'_>) -> Result<Reach, RestoreError> {
        let reach = Reach::new(self.wal, &self.path, base.first_wal.number(self.wal.segment_size()));
        let reached = reach.end_lsn(self.wal);
        if reached >= base.end {
            return Ok(reach);
        }
        Err(RestoreError::Incomplete { id: base.info.id.clone(), end: base.end, reached, gaps: reach.gaps })
    }

    async fn tail(&mut self, base: &Base<'_>, reach: &Reach) -> Result<Tail, RestoreError> {
        let tail = self.reader.tail(self.wal, &self.path, reach).await?;
        let nothing = reach.end_lsn(self.wal);
        let tail = tail.unwrap_or(Tail { end: nothing, replayed: nothing, last: None });
        if tail.replayed >= base.end {
            return Ok(tail);
        }
        // The listing promised more than is in the last file.
        let (id, gaps) = (base.info.id.clone(), reach.gaps.clone());
        Err(RestoreError::Incomplete { id, end: base.end, reached: tail.end, gaps })
    }

    fn latest(&self, reach: &Reach, tail: &Tail) -> Result<StopPoint, RestoreError> {
        if !reach.gaps.is_empty() {
            // Recovery would take the gap for the end, and what was committed behind it would be lost without a word.
            return Err(self.gap(&Target::Latest, reach, tail));
        }
        Ok(StopPoint { stop: None, last: self.number(tail.end.get().saturating_sub(1)) })
    }

    /// PostgreSQL stops before the first transaction that ended after the time. Without one it would fail at the end.
    async fn time(
        &mut self,
        goal: &Goal,
        time: Timestamp,
        reach: &Reach,
        tail: &Tail,
    ) -> Result<StopPoint, RestoreError> {
        let wanted = time.as_microsecond();
        let stops = |last: i64| if goal.inclusive { last > wanted } else { last >= wanted };
        if !tail.last.is_some_and(stops) {
            let hint = "; ask for a time before that, or for the latest point";
            return Err(self.beyond(&goal.target, reach, tail, hint));
        }
        let size = self.wal.segment_size();
        let (mut low, mut high) = (reach.first, reach.end);
        // In `high` or before it lies the record; in front of `low` it does not.
        while low < high {
            let middle = low + (high - low) / 2;
            let mut place = middle;
            let mut times = None;
            while place < high && place - middle < IDLE_MAX && times.is_none() {
                times = self.reader.times(self.path.segment(place, size), self.wal).await?;
                place += 1;
            }
            match times {
                Some(times) if stops(times.last) => high = middle,
                Some(_) => low = place,
                // Nothing happened here for long: the estimate may be some segments too small.
                None => high = middle,
            }
        }
        let mut last = low.min(reach.end);
        while last < reach.end && last - low < IDLE_MAX {
            match self.reader.times(self.path.segment(last, size), self.wal).await? {
                Some(times) if stops(times.last) => break,
                Some(_) | None => last += 1,
            }
        }
        Ok(StopPoint { stop: None, last })
    }

    /// PostgreSQL stops at the first record that begins at the LSN or after it.
    fn lsn(&self, goal: &Goal, lsn: Lsn, reach: &Reach, tail: &Tail) -> Result<StopPoint, RestoreError> {
        if lsn < tail.end {
            return Ok(StopPoint { stop: Some(Stop { lsn, time: None }), last: self.number(lsn.get()) });
        }
        let hint = "; no record begins at that LSN or after it yet: ask for the latest point";
        Err(self.beyond(&goal.target, reach, tail, hint))
    }

    /// Looks through the WAL for a transaction or a restore point: what follows the newest backup first, and then what lies
    /// before it, so that as little as possible is replayed.
    async fn search<'b>(
        &mut self,
        goal: &Goal,
        newest_first: &[&'b Base<'a>],
        tail: &Tail,
    ) -> Result<(&'b Base<'a>, Reach, StopPoint), RestoreError> {
        let wanted = match &goal.target {
            Target::Xid(xid) => Wanted::Xid(*xid),
            Target::Name(name) => Wanted::Name(name),
            Target::Latest | Target::Immediate | Target::Time(_) | Target::Lsn(_) => {
                return Err(RestoreError::NotFound {
                    target: goal.target.clone(),
                    since: String::new(),
                    last: tail.point(),
                });
            }
        };
        let mut until = Lsn::new(u64::MAX);
        let mut since = Lsn::INVALID;
        for base in newest_first {
            // An older backup that is not whole ends the search: what it leads to cannot be had.
            let Ok(reach) = self.reach(base) else { break };
            let found = self.reader.find(wanted, self.wal, &self.path, &reach, (base.end, until)).await?;
            if let Some(record) = found {
                let last = self.number(record.start.get());
                return Ok((base, reach, StopPoint { stop: Some(stop(&record)), last }));
            }
            if !reach.gaps.is_empty() && until.get() == u64::MAX {
                return Err(self.gap(&goal.target, &reach, tail));
            }
            (until, since) = (base.end, base.end);
        }
        let since = format!("{since}, where the oldest base backup is consistent");
        Err(RestoreError::NotFound { target: goal.target.clone(), since, last: tail.point() })
    }

    fn beyond(&self, target: &Target, reach: &Reach, tail: &Tail, hint: &'static str) -> RestoreError {
        if reach.gaps.is_empty() {
            RestoreError::Beyond { target: target.clone(), last: tail.point(), hint }
        } else {
            self.gap(target, reach, tail)
        }
    }

    fn gap(&self, target: &Target, reach: &Reach, tail: &Tail) -> RestoreError {
        RestoreError::Gap { target: target.clone(), gaps: reach.gaps.clone(), last: tail.point() }
    }
}

fn stop(record: &Record) -> Stop {
    Stop { lsn: record.start, time: time_of(record).and_then(instant) }
}

/// Bytes of the tars of a backup.
async fn stored_bytes(store: &dyn Store, layout: &Layout, id: &BackupId) -> Result<u64, RestoreError> {
    let mut bytes = 0;
    each_object(store, &layout.backup(id, ""), |_, size| bytes += size).await.map_err(RestoreError::Store)?;
    Ok(bytes)
}
