//! Units of `wal.rs`.

use super::*;

const SIZE: SegmentSize = SegmentSize::DEFAULT;

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName::numbered(TimelineId::new(timeline), number, SIZE)
}

fn wal(keys: &[&str]) -> ArchivedWal {
    let mut wal = ArchivedWal::new(SIZE);
    for key in keys {
        wal.add(key, 10);
    }
    wal
}

fn info(begin: SegmentName, end: SegmentName) -> BackupInfo {
    BackupInfo {
        begin_wal: Some(begin),
        end_wal: Some(end),
        end_lsn: Some(end.start(SIZE).advanced(100)),
        ..BackupInfo::new("20260101T000000".parse().unwrap())
    }
}

#[test]
fn segments_become_runs_and_gaps_show() {
    let wal = wal(&[
        "s/wals/0000000100000000/000000010000000000000001.gz",
        "s/wals/0000000100000000/000000010000000000000001.zst",
        "s/wals/0000000100000000/000000010000000000000002",
        "s/wals/0000000100000000/000000010000000000000002.00000028.backup.gz",
        "s/wals/0000000100000000/0000000100000000000000FF.gz",
        "s/wals/0000000100000001/000000010000000100000000.gz",
        "s/wals/0000000100000001/nonsense",
    ]);
    assert_eq!((wal.segments, wal.bytes), (4, 60));
    let chain = wal.chain(&info(segment(1, 1), segment(1, 2))).unwrap();
    assert_eq!(chain.gaps, [Gap { first: segment(1, 3), last: segment(1, 254) }]);
    assert_eq!((chain.last, chain.segments), (Some(segment(1, 256)), 4));
    assert_eq!(chain.end, segment(1, 3).start(SIZE));
    assert_eq!(chain.gaps[0].to_string(), "000000010000000000000003 to 0000000100000000000000FE");
}

#[test]
fn a_chain_goes_on_over_the_timelines() {
    let mut wal = wal(&[
        "s/wals/0000000100000000/000000010000000000000002.gz",
        "s/wals/0000000100000000/000000010000000000000003.partial.gz",
        "s/wals/0000000200000000/000000020000000000000003.gz",
        "s/wals/0000000200000000/000000020000000000000004.gz",
    ]);
    wal.tell(TimelineId::new(2), "1\t0/3000100\tx\n".parse().unwrap());
    wal.add_streamed(Some("000000020000000000000005/00000000-00000100.gz"));
    wal.add_streamed(Some("000000020000000000000005/00000080-00000200.gz"));
    wal.add_streamed(Some("000000020000000000000005/00001000-00002000.gz"));
    let chain = wal.chain(&info(segment(1, 2), segment(1, 2))).unwrap();
    assert_eq!((chain.timeline.get(), chain.gaps.as_slice()), (2, [].as_slice()));
    assert_eq!((chain.last, chain.segments), (Some(segment(2, 4)), 3));
    assert_eq!(chain.end, segment(2, 5).start(SIZE).advanced(0x200));
    // One that ended after the switch stays on its own timeline.
    let chain = wal.chain(&info(segment(1, 2), segment(1, 4))).unwrap();
    assert_eq!((chain.timeline.get(), chain.last), (1, Some(segment(1, 2))));
    assert_eq!(wal.bad_histories(), [] as [String; 0]);
}

#[test]
fn a_backup_needs_its_wal_in_one_form_or_another() {
    let lacks = |wal: &ArchivedWal, end| {
        wal.missing_for(&info(segment(1, 2), segment(1, end)), segment(1, 2)).map(|gap| gap.to_string())
    };
    let first = "s/wals/0000000100000000/000000010000000000000002.gz";
    let partial = "s/wals/0000000100000000/000000010000000000000003.partial.gz";
    assert_eq!(lacks(&wal(&[first]), 2), None);
    assert_eq!(lacks(&wal(&[first]), 3).as_deref(), Some("000000010000000000000003"));
    assert_eq!(lacks(&wal(&[first, partial]), 3), None);
    assert_eq!(
        lacks(&wal(&[partial]), 3).as_deref(),
        Some("000000010000000000000002 to 000000010000000000000003")
    );
    let mut next = wal(&[first, "s/wals/0000000200000000/000000020000000000000003.gz"]);
    assert_eq!(lacks(&next, 3).as_deref(), Some("000000010000000000000003"));
    assert_eq!(next.bad_histories(), ["there is WAL of timeline 2 and no 00000002.history"]);
    next.tell(TimelineId::new(2), "1\t0/3000100\tx\n".parse().unwrap());
    assert_eq!(lacks(&next, 3), None);
}

#[test]
fn an_object_of_no_bytes_closes_no_gap() {
    let mut wal = wal(&["s/wals/0000000100000000/000000010000000000000002.gz"]);
    wal.add("s/wals/0000000100000000/000000010000000000000003.gz", 0);
    assert_eq!(wal.empty.1, 1);
    assert_eq!(wal.last_of(TimelineId::FIRST), Some(2));
}

#[test]
fn the_history_of_an_ancestor_is_the_beginning_of_the_newest() {
    let history: TimelineHistory = "1\t0/3000100\tno recovery target\n2\t0/5000000\ty\n".parse().unwrap();
    assert_eq!(beginning(&history, 1), "1\t0/3000100\tno recovery target\n".parse().unwrap());
}
