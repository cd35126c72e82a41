//! The retention against archives that are made up: nothing goes that a recovery within the window needs.

use jiff::ToSpan as _;
use outrider_wal::{Lsn, SegmentSize, TimelineHistory};
use proptest::prelude::*;

use super::super::*;
use crate::BackupStatus;
use crate::catalog::ArchivedWal;

const SIZE: SegmentSize = SegmentSize::DEFAULT;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn hours(hours: i64) -> Timestamp {
    start() + hours.hours()
}

/// An archive, and when each position in its WAL was written.
#[derive(Clone, Debug)]
struct Archive {
    backups: Vec<Backup>,
    /// Numbers of segments by their timelines.
    segments: Vec<(u32, u64)>,
    histories: Vec<(u32, String)>,
    /// Hour, timeline and number of the segment that was written then.
    points: Vec<(i64, u32, u64)>,
    now: i64,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many segments, some hours later.
    Wal(u8, u8),
    /// A backup that takes some segments; begun some segments earlier, as on a standby that is late with its checkpoint.
    Backup(u8, u8),
    Failed,
    /// The next segments never reach the archive.
    Lost(u8),
    Failover,
    /// A new timeline from so many segments ago, as after a recovery to a point in time.
    Rollback(u8),
    Mark(Keep),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u8..4, 1u8..30).prop_map(|(segments, hours)| Event::Wal(segments, hours)),
        6 => (0u8..3, 0u8..3).prop_map(|(segments, earlier)| Event::Backup(segments, earlier)),
        1 => Just(Event::Failed),
        1 => (1u8..3).prop_map(Event::Lost),
        2 => Just(Event::Failover),
        1 => (1u8..6).prop_map(Event::Rollback),
        1 => prop_oneof![Just(Event::Mark(Keep::Full)), Just(Event::Mark(Keep::Standalone))],
    ]
}

/// A server's life. Each segment takes an hour at least, so that times and positions go together.
fn live(events: &[Event]) -> Archive {
    let (segments, histories, points) = (vec![(1, 1)], Vec::new(), vec![(0, 1, 1)]);
    let mut archive = Archive { backups: Vec::new(), segments, histories, points, now: 0 };
    let (mut timeline, mut number, mut newest) = (1, 1, 1);
    let mut history = String::new();
    for event in events {
        archive.now += 1;
        match *event {
            Event::Wal(segments, hours) => {
                for _ in 0..segments {
                    number += 1;
                    archive.now += 1;
                    archive.segments.push((timeline, number));
                    archive.points.push((archive.now, timeline, number));
                }
                archive.now += i64::from(hours);
            }
            Event::Backup(segments, earlier) => {
                let branch = history.lines().last().map_or(1, branch_segment);
                let begin = number.saturating_sub(u64::from(earlier)).max(branch);
                let begun = archive.now;
                for _ in 0..segments {
                    number += 1;
                    archive.now += 1;
                    archive.segments.push((timeline, number));
                    archive.points.push((archive.now, timeline, number));
                }
                archive.now += 1;
                archive.backups.push(backup(begun, archive.now, timeline, begin, number));
            }
            Event::Failed => {
                let mut failed = backup(archive.now, archive.now, timeline, number, number);
                failed.state = BackupState::Unfinished;
                archive.backups.push(failed);
                archive.now += 1;
            }
            Event::Lost(segments) => number += u64::from(segments),
            Event::Failover | Event::Rollback(_) => {
                if let Event::Rollback(back) = *event {
                    let branch = history.lines().last().map_or(1, branch_segment);
                    number = number.saturating_sub(u64::from(back)).max(branch);
                }
                newest += 1;
                history.push_str(&format!("{timeline}\t{}\tx\n", Lsn::new(number * SIZE.bytes() + 0x1000)));
                timeline = newest;
                archive.histories.push((timeline, history.clone()));
                archive.segments.push((timeline, number));
                archive.points.push((archive.now, timeline, number));
            }
            Event::Mark(keep) => {
                if let Some(last) = archive.backups.last_mut() {
                    last.keep = Some(keep);
                }
            }
        }
    }
    archive
}

/// The number of the segment in which a line of a history says that a timeline ended.
fn branch_segment(line: &str) -> u64 {
    line.split('\t').nth(1).unwrap().parse::<Lsn>().unwrap().get() / SIZE.bytes()
}

fn backup(begun: i64, ended: i64, timeline: u32, begin: u64, end: u64) -> Backup {
    let id = BackupId::beginning_at(hours(begun));
    let name = |number| SegmentName::numbered(TimelineId::new(timeline), number, SIZE);
    let info = BackupInfo {
        status: BackupStatus::Done,
        begin_time: Some(hours(begun)),
        end_time: Some(hours(ended)),
        begin_wal: Some(name(begin)),
        end_wal: Some(name(end)),
        end_lsn: Some(name(end).start(SIZE).advanced(0x100)),
        version: Some(150_000),
        ..BackupInfo::new(id.clone())
    };
    let state = BackupState::Good(info);
    Backup { id, state, bytes: 1, objects: Vec::new(), keep: None, notes: Vec::new() }
}

impl Archive {
    fn catalog(&self) -> Catalog {
        let mut wal = ArchivedWal::new(SIZE);
        let mut segments = self.segments.clone();
        segments.sort_unstable();
        for (timeline, number) in segments {
            wal.add(&SegmentName::numbered(TimelineId::new(timeline), number, SIZE).to_string(), 1);
        }
        for (timeline, history) in &self.histories {
            wal.tell(TimelineId::new(*timeline), history.parse::<TimelineHistory>().unwrap());
        }
        let mut backups = self.backups.clone();
        for backup in &mut backups {
            if let Some(info) = backup.good()
                && !self.has_all(info.begin_wal.unwrap(), info.end_wal.unwrap())
            {
                backup.state = BackupState::Lacking { info: info.clone(), missing: String::new() };
            }
        }
        Catalog { owner: None, backups, wal, last_commit: None }
    }

    fn has_all(&self, first: SegmentName, last: SegmentName) -> bool {
        let mut numbers = first.number(SIZE)..=last.number(SIZE);
        numbers.all(|number| self.segments.contains(&(first.timeline.get(), number)))
    }

    /// Carried out.
    fn after(&self, plan: &RetentionPlan) -> Archive {
        let stays = |id: &BackupId| plan.backups.iter().any(|one| one.id == *id && one.reason.keeps());
        let mut after = self.clone();
        after.backups.retain(|backup| stays(&backup.id));
        after.segments.retain(|(_, number)| !plan.wal.removes(*number));
        after
    }

    /// Whether the segment can be reached on the newest timeline at this hour: from a backup that had ended by then,
    /// with each segment on the way. Written without the code under test.
    fn reaches(&self, hour: i64, target: u64) -> bool {
        let newest = self.histories.last().map_or(1, |(timeline, _)| *timeline);
        let history = self.histories.last().map_or("", |(_, history)| history);
        // Timeline and the segment in which it begins, oldest first.
        let mut way = vec![(1u32, 0u64)];
        for line in history.lines() {
            way.last_mut().unwrap().0 = line.split('\t').next().unwrap().parse().unwrap();
            way.push((newest, branch_segment(line)));
        }
        let of = |number: u64| way.iter().rev().find(|(_, begin)| *begin <= number).unwrap().0;
        self.backups.iter().filter_map(Backup::good).any(|info| {
            let (begin, end) = (info.begin_wal.unwrap(), info.end_wal.unwrap());
            let own = begin.timeline.get();
            let left = way.iter().position(|(timeline, _)| *timeline == own).map(|place| way.get(place + 1));
            let on_the_way = match left {
                None => false,
                Some(None) => true,
                // Backups of these tests end before the place at which a timeline is left in their last segment.
                Some(Some((_, left))) => end.number(SIZE) <= *left,
            };
            on_the_way
                && self.has_all(begin, end)
                && info.end_time.unwrap() <= hours(hour)
                && end.number(SIZE) <= target
                && (begin.number(SIZE)..=target).all(|number| self.segments.contains(&(of(number), number)))
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_goes_that_a_recovery_within_the_window_needs(
        events in proptest::collection::vec(event(), 1..40),
        days in 0u32..5,
        minimum in 0usize..4,
        count in proptest::option::of(0usize..4),
    ) {
        let archive = live(&events);
        let policy = RetentionPolicy { window: Some(DAY * days), minimum, count };
        let before = archive.catalog();
        let plan = plan(&before, hours(archive.now), &policy);
        let after = archive.after(&plan);
        let newest = archive.histories.last().map_or(1, |(timeline, _)| *timeline);

        for (hour, timeline, number) in &archive.points {
            if *timeline == newest && hours(*hour) >= hours(archive.now) - DAY * days && archive.reaches(*hour, *number) {
                prop_assert!(after.reaches(*hour, *number), "hour {hour}, segment {number}: {plan:?}");
            }
        }
        if archive.reaches(archive.now, archive.points.last().unwrap().2) {
            prop_assert!(after.reaches(archive.now, archive.points.last().unwrap().2), "the last point: {plan:?}");
        }
        for backup in before.backups.iter().filter(|backup| after.backups.iter().any(|kept| kept.id == backup.id)) {
            if let Some(info) = backup.good() {
                prop_assert!(after.has_all(info.begin_wal.unwrap(), info.end_wal.unwrap()), "{}: {plan:?}", backup.id);
                if backup.keep == Some(Keep::Full) {
                    let from = info.begin_wal.unwrap().number(SIZE);
                    prop_assert!(archive.segments.iter().all(|one| one.1 < from || after.segments.contains(one)));
                }
            }
        }
        let good = |catalog: &Catalog| catalog.backups.iter().filter(|backup| backup.good().is_some()).count();
        let least = minimum.max(count.unwrap_or(0)).max(1).min(good(&before));
        prop_assert!(good(&after.catalog()) >= least, "{plan:?}");
        prop_assert!(archive.backups.iter().all(|backup| backup.keep.is_none()
            || after.backups.iter().any(|kept| kept.id == backup.id)));
    }
}

/// Verdicts of an archive at an hour.
fn check(archive: &Archive, now: i64, policy: RetentionPolicy, expected: &[Reason]) -> RetentionPlan {
    let plan = plan(&archive.catalog(), hours(now), &policy);
    assert_eq!(plan.backups.iter().map(|one| one.reason).collect::<Vec<_>>(), expected, "{plan:?}");
    plan
}

fn week(minimum: usize) -> RetentionPolicy {
    RetentionPolicy { window: Some(DAY * 7), minimum, count: None }
}

#[test]
fn the_window_begins_with_the_newest_backup_that_ended_before_it() {
    let day = Event::Wal(2, 20);
    let archive = live(&[Event::Backup(1, 0), day, Event::Backup(1, 0), day, Event::Backup(1, 0)]);
    let ended = archive.now;
    let all = [Reason::WithinWindow; 3];
    let plan = check(&archive, ended, week(1), &all);
    assert!(!plan.wal.removes(1), "{plan:?}");
    let (obsolete, begins, within) = (Reason::Obsolete, Reason::BeginsWindow, Reason::WithinWindow);
    let plan = check(&archive, 7 * 24 + 30, week(1), &[obsolete, begins, within]);
    let WalVerdict::Below { oldest, .. } = plan.wal else { panic!("{plan:?}") };
    assert_eq!(Some(oldest), archive.backups[1].good().unwrap().begin_wal);
    // A year later the last one is still there.
    check(&archive, 24 * 365, week(1), &[obsolete, obsolete, begins]);
    check(&archive, 24 * 365, week(2), &[obsolete, Reason::Newest, begins]);
    let count = RetentionPolicy { window: None, minimum: 1, count: Some(2) };
    check(&archive, 24 * 365, count, &[obsolete, Reason::Newest, Reason::Newest]);
}

#[test]
fn what_is_not_done_goes_when_it_is_old_and_something_newer_is_done() {
    let archive = live(&[Event::Failed, Event::Wal(2, 2), Event::Backup(1, 0), Event::Failed]);
    let running = Reason::MayBeRunning;
    let plan = check(&archive, archive.now, week(1), &[running, Reason::WithinWindow, running]);
    assert!(matches!(plan.wal, WalVerdict::Stays { .. }), "{plan:?}");
    check(&archive, archive.now + 25, week(1), &[Reason::GivenUp, Reason::WithinWindow, running]);
}

#[test]
fn a_standalone_mark_keeps_only_the_wal_of_its_backup() {
    let day = Event::Wal(4, 20);
    let archive = live(&[day, Event::Backup(1, 0), Event::Mark(Keep::Standalone), day, Event::Backup(0, 0)]);
    let marked = Reason::Marked(Keep::Standalone);
    let plan = check(&archive, 24 * 30, week(1), &[marked, Reason::BeginsWindow]);
    let gone: Vec<u64> = (0..12).filter(|number| plan.wal.removes(*number)).collect();
    assert_eq!(gone, [0, 1, 2, 3, 4, 7, 8, 9]);
    // While it is needed otherwise, all since stays.
    let plan = check(&archive, 24 * 3, week(1), &[marked, Reason::WithinWindow]);
    assert!(!plan.wal.removes(7) && plan.wal.removes(4), "{plan:?}");
}

#[test]
fn nothing_of_the_wal_goes_while_a_backup_cannot_be_read() {
    let mut archive = live(&[Event::Backup(1, 0), Event::Wal(2, 20), Event::Backup(1, 0)]);
    archive.backups[0].state = BackupState::Unreadable { fault: "x".to_owned() };
    let plan = check(&archive, 24 * 30, week(1), &[Reason::Unreadable, Reason::BeginsWindow]);
    assert!(matches!(plan.wal, WalVerdict::Stays { .. }), "{plan:?}");
}
