//! Units of `record.rs`.

use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::TimelineId;

const SIZE: usize = 1 << 20;
const PAGE: usize = 8192;
const START: u64 = 5 * SIZE as u64;

/// Bit by bit; only right.
fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!before, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg()))
    })
}

/// Writes WAL as PostgreSQL does, over as many segments as it takes.
struct Wal {
    bytes: Vec<u8>,
    previous: u64,
}

impl Wal {
    fn new() -> Self {
        Wal { bytes: Vec::new(), previous: START - 8 }
    }

    fn page_header(&mut self, continued: usize, flags: u16) {
        let at = self.bytes.len();
        let long = at.is_multiple_of(SIZE);
        let info = flags | u16::from(continued > 0) | if long { LONG } else { 0 };
        self.bytes.extend(0xD110u16.to_ne_bytes());
        self.bytes.extend(info.to_ne_bytes());
        self.bytes.extend(1u32.to_ne_bytes());
        self.bytes.extend((START + at as u64).to_ne_bytes());
        self.bytes.extend((continued as u32).to_ne_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(42u64.to_ne_bytes());
            self.bytes.extend((SIZE as u32).to_ne_bytes());
            self.bytes.extend((PAGE as u32).to_ne_bytes());
        }
    }

    /// Appends a record with this main data; returns its place.
    fn put(&mut self, manager: u8, info: u8, xid: u32, data: &[u8]) -> u64 {
        let mut body = Vec::new();
        if data.len() < 256 {
            body.extend([255, data.len() as u8]);
        } else {
            body.push(254);
            body.extend((data.len() as u32).to_ne_bytes());
        }
        body.extend(data);
        if self.bytes.len().is_multiple_of(PAGE) {
            self.page_header(0, 0);
        }
        let start = START + self.bytes.len() as u64;
        let mut header = Vec::new();
        header.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        header.extend(xid.to_ne_bytes());
        header.extend(self.previous.to_ne_bytes());
        header.extend([info, manager, 0, 0]);
        let sum = crc32c(crc32c(0, &body), &header);
        header.extend(sum.to_ne_bytes());
        let whole = [header, body].concat();
        for (written, byte) in whole.iter().enumerate() {
            if self.bytes.len().is_multiple_of(PAGE) {
                self.page_header(whole.len() - written, 0);
            }
            self.bytes.push(*byte);
        }
        self.bytes.resize(aligned(self.bytes.len()), 0);
        self.previous = start;
        start
    }

    fn commit(&mut self, xid: u32, time: i64) -> u64 {
        self.put(1, 0, xid, &(time - 946_684_800_000_000).to_ne_bytes())
    }

    /// As PostgreSQL leaves the rest of a segment that it has just made.
    fn padded(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len().next_multiple_of(SIZE), 0);
        self.bytes
    }
}

const LONG: u16 = 2;
const LONG_PAGE: usize = 40;

fn scan(bytes: &[u8]) -> (Vec<Record>, Scanned) {
    let mut records = Vec::new();
    let scanned = scan_records(bytes, None, Some(crc32c), &mut |record| records.push(record)).unwrap();
    (records, scanned)
}

fn committed(xid: u32, time: i64) -> Notable {
    Notable::Transaction { ending: Ending::Commit, xid, time }
}

#[test]
fn the_checksum_of_these_tests_is_crc_32c() {
    assert_eq!(crc32c(crc32c(0, b"12345"), b"6789"), 0xE306_9283);
}

#[test]
fn every_notable_record_is_found_with_its_place() {
    let mut wal = Wal::new();
    wal.put(10, 0, 7, &[1; 100]);
    let commit = wal.commit(7, 1_790_000_000_000_001);
    let end = START + wal.bytes.len() as u64;
    wal.put(1, 0x20, 8, &0i64.to_ne_bytes());
    let mut point = 5i64.to_ne_bytes().to_vec();
    point.extend(b"before the upgrade");
    point.resize(8 + 64, 0);
    wal.put(0, 0x70, 0, &point);
    let valid = START + wal.bytes.len() as u64;
    let (records, scanned) = scan(&wal.padded());
    let what: Vec<Notable> = records.iter().map(|record| record.what.clone()).collect();
    assert_eq!(
        what,
        [
            committed(7, 1_790_000_000_000_001),
            Notable::Transaction { ending: Ending::Abort, xid: 8, time: 946_684_800_000_000 },
            Notable::RestorePoint { name: "before the upgrade".into(), time: 946_684_800_000_005 },
        ]
    );
    assert_eq!((records[0].start, records[0].end), (Lsn::new(commit), Lsn::new(end)));
    assert_eq!(scanned, Scanned { end: Lsn::new(valid), stopped: Stopped::AtNoRecord, carried: None });
}

#[test]
fn a_timeline_is_begun_by_the_end_of_recovery_or_by_a_checkpoint_that_names_another_before() {
    let numbers = |own: u32, before: u32| [own.to_ne_bytes(), before.to_ne_bytes()].concat();
    let end_of_recovery = |time: i64, own| [time.to_ne_bytes().to_vec(), numbers(own, 1)].concat();
    let checkpoint = |own, before, seconds: i64| {
        let mut data = [0u64.to_ne_bytes().to_vec(), numbers(own, before)].concat();
        data.resize(64, 0);
        [data, seconds.to_ne_bytes().to_vec()].concat()
    };
    // Once in the middle of a page, once where one begins.
    for before in [1, (PAGE - LONG_PAGE - HEADER - 5) / 8 * 8] {
        let start = |records: &[(u8, Vec<u8>)], timeline| {
            let mut wal = Wal::new();
            wal.put(10, 0, 7, &vec![1; before]);
            let switch = START + wal.bytes.len() as u64;
            for (info, data) in records {
                wal.put(0, *info, 0, data);
            }
            let bytes = wal.padded();
            timeline_start(&bytes[..PAGE], (0, &bytes), Lsn::new(switch), TimelineId::new(timeline))
        };
        let fpw_change = (0xA0, vec![1]);
        assert_eq!(start(&[(0x90, end_of_recovery(5, 2))], 2), Some(946_684_800_000_005));
        assert_eq!(start(&[fpw_change, (0x90, end_of_recovery(6, 3))], 3), Some(946_684_800_000_006));
        assert_eq!(start(&[(0x00, checkpoint(2, 1, 7))], 2), Some(7_000_000));
        assert_eq!(start(&[(0x00, checkpoint(2, 2, 7))], 2), None);
        assert_eq!(start(&[(0x90, end_of_recovery(5, 3))], 2), None);
        assert_eq!(start(&[], 2), None);
    }
}

#[test]
fn the_number_of_a_prepared_transaction_lies_behind_the_arrays() {
    let mut data = 0i64.to_ne_bytes().to_vec();
    let words = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<_>>();
    // All of: database, two subtransactions, one relation, one statistic, one invalidation, the prepared one.
    data.extend(words(&[0x11F, 5, 1663, 2, 101, 102, 1, 1, 2, 3, 1, 4, 5, 6, 1, 7, 8, 9, 10, 777]));
    let mut wal = Wal::new();
    wal.put(1, 0x80 | 0x30, 0, &data);
    let (records, _) = scan(&wal.padded());
    let time = 946_684_800_000_000;
    assert_eq!(records[0].what, Notable::Transaction { ending: Ending::CommitPrepared, xid: 777, time });
}

#[test]
fn records_over_many_pages_fool_nobody() {
    let mut wal = Wal::new();
    let mut expected = Vec::new();
    for xid in 1..200 {
        // Contents that look like commits, and lengths that let headers lie on two pages.
        wal.put(10, 0, xid, &[0, 1].repeat(11 * xid as usize));
        expected.push((wal.commit(xid, i64::from(xid)), committed(xid, i64::from(xid))));
    }
    assert!(wal.bytes.len() > 10 * PAGE && wal.bytes.len() < SIZE);
    let (records, _) = scan(&wal.padded());
    let found: Vec<_> = records.into_iter().map(|record| (record.start.get(), record.what)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_record_on_two_segments_is_carried_from_one_to_the_other() {
    let mut crossing = 0;
    for filler in (0..88).step_by(8) {
        let mut wal = Wal::new();
        let room = |wal: &Wal| SIZE - wal.bytes.len();
        while room(&wal) > 4096 {
            wal.put(10, 0, 1, &[9; 2000]);
        }
        let before = room(&wal);
        wal.put(10, 0, 1, &vec![9; before - 29 - 80 + filler]);
        let start = wal.commit(3, 4);
        let after = wal.commit(5, 6);
        let bytes = wal.padded();
        let (first, scanned) = scan(&bytes[..SIZE]);
        let mut second = Vec::new();
        let border = START + SIZE as u64;
        let crosses = [start, after].into_iter().any(|start| start < border && start + 34 > border);
        assert_eq!(scanned.carried.is_some(), crosses, "{filler}");
        crossing += u32::from(crosses);
        if bytes.len() > SIZE {
            let each = &mut |record| second.push(record);
            scan_records(&bytes[SIZE..], scanned.carried, Some(crc32c), each).unwrap();
        }
        let all: Vec<_> = first.into_iter().chain(second).map(|record| record.what).collect();
        assert_eq!(all, [committed(3, 4), committed(5, 6)], "{filler}");
    }
    assert!(crossing > 5, "{crossing}");
}

#[test]
fn after_a_switch_nothing_is_read() {
    let mut wal = Wal::new();
    wal.commit(3, 4);
    wal.put(0, 0x40, 0, &[]);
    wal.commit(5, 6);
    let (records, scanned) = scan(&wal.bytes);
    assert_eq!(records.len(), 2);
    let end = Lsn::new(START + SIZE as u64);
    assert_eq!((records[1].end, &records[1].what), (end, &Notable::Switch));
    assert_eq!((scanned.end, scanned.stopped), (end, Stopped::AtASwitch));
}

#[test]
fn a_record_that_a_crash_cut_off_is_passed_over() {
    let mut wal = Wal::new();
    wal.commit(1, 1);
    let valid = wal.previous;
    wal.put(10, 0, 2, &[9; 20_000]);
    wal.bytes.truncate(PAGE);
    wal.previous = valid;
    wal.page_header(0, 8);
    wal.commit(3, 3);
    let (records, _) = scan(&wal.padded());
    let found: Vec<_> = records.into_iter().map(|record| record.what).collect();
    assert_eq!(found, [committed(1, 1), committed(3, 3)]);
}

#[test]
fn a_changed_bit_ends_the_valid_wal_when_sums_are_checked() {
    let mut wal = Wal::new();
    wal.commit(1, 1);
    let start = wal.put(10, 0, 2, &[9; 1000]) - START;
    wal.commit(3, 3);
    let mut bytes = wal.padded();
    bytes[start as usize + 500] ^= 1;
    let (records, scanned) = scan(&bytes);
    assert_eq!((records.len(), scanned.end), (1, Lsn::new(START + start)));
    let mut unchecked = 0;
    scan_records(&bytes, None, None, &mut |_| unchecked += 1).unwrap();
    assert_eq!(unchecked, 2);
}

#[test]
fn pages_of_older_wal_in_a_recycled_segment_are_not_read() {
    let mut wal = Wal::new();
    while wal.bytes.len() < 3 * PAGE {
        wal.commit(1, 1);
    }
    let mut bytes = wal.padded();
    let mut expected = 0;
    scan_records(&bytes[..PAGE], None, None, &mut |_| expected += 1).unwrap();
    bytes[PAGE + 8] ^= 1;
    let mut found = 0;
    let scanned = scan_records(&bytes, None, None, &mut |_| found += 1).unwrap();
    assert_eq!((found, scanned.stopped), (expected, Stopped::AtNoRecord));
}

#[test]
fn what_is_no_segment_is_refused() {
    for bytes in [&[][..], &[0; 39], &[0; SIZE], &[0xFF; 8192]] {
        assert_eq!(scan_records(bytes, None, None, &mut |_| ()), Err(NotWal));
    }
}

fn sample() -> Vec<u8> {
    let mut wal = Wal::new();
    for xid in 1..60 {
        wal.put(10, 0, xid, &[7; 700]);
        wal.commit(xid, 1);
    }
    wal.bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_prefix_gives_the_records_that_end_in_it(cut in 40usize..40_000) {
        let bytes = sample();
        let bytes = &bytes[..cut.min(bytes.len())];
        let end = Lsn::new(START + bytes.len() as u64);
        let (whole, _) = scan(&sample());
        let (records, scanned) = scan(bytes);
        prop_assert!(scanned.end <= end.advanced(ALIGNMENT as u64));
        let in_time = |record: &&Record| record.end <= scanned.end;
        prop_assert_eq!(&records, &whole.iter().filter(in_time).cloned().collect::<Vec<_>>());
        let next = whole.get(records.len());
        prop_assert!(next.is_none_or(|next| next.end > end), "{:?} was left out", next);
    }

    #[test]
    fn pieces_give_the_records_of_the_whole(
        filler in 0usize..300_000,
        pieces in prop::collection::vec(1usize..20_000, 1..30),
        changes in prop::collection::vec((40usize..45_000, any::<u8>()), 0..3),
    ) {
        let mut wal = Wal::new();
        wal.page_header(30, 1);
        wal.bytes.resize(wal.bytes.len() + 32, 5);
        for xid in 1..60 {
            wal.put(10, 0, xid, &[7; 700]);
            wal.commit(xid, 1);
        }
        wal.put(10, 0, 9, &vec![7; filler]);
        wal.commit(9, 2);
        wal.put(0, 0x40, 0, &[]);
        let mut bytes = wal.padded();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let mut whole = Vec::new();
        scan_records(&bytes, None, None, &mut |record| whole.push(record)).unwrap();
        let (mut found, mut from, mut to) = (Vec::new(), 0, 0);
        let mut scan = PiecewiseScan::begin(&bytes[..LONG_PAGE]).unwrap();
        for piece in pieces.iter().cycle() {
            to = (to + piece).min(bytes.len());
            from += scan.step(&bytes[from..to], &mut |record| found.push(record));
            if to == bytes.len() {
                break;
            }
        }
        prop_assert_eq!(found, whole);
    }

    #[test]
    fn garbage_is_survived(
        changes in prop::collection::vec((0usize..45_000, any::<u8>()), 0..40),
        carried in prop::collection::vec(any::<u8>(), 0..100),
        checked: bool,
    ) {
        let mut bytes = sample();
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let carried = Some(Carried { start: 1, bytes: carried });
        let _ = scan_records(&bytes, carried, checked.then_some(crc32c as Crc32c), &mut |_| ());
    }

    #[test]
    fn random_bytes_behind_a_true_header_are_survived(
        noise in prop::collection::vec(any::<u8>(), 0..3000),
        length in 0u32..200,
    ) {
        let mut wal = Wal::new();
        wal.page_header(0, 0);
        wal.bytes.extend(length.to_ne_bytes());
        wal.bytes.extend(noise);
        let _ = scan_records(&wal.bytes, None, None, &mut |_| ());
    }
}
