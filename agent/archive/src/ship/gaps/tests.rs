//! Units of `gaps.rs`.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::*;
use crate::memory::MemoryStore;
use crate::{Compression, Layout};
use outrider_store::Store as _;

const SIZE: SegmentSize = SegmentSize::new(1 << 20).unwrap();

/// A server on a timeline, what its pg_wal has and what the archive has.
struct Scene {
    directory: TempDir,
    store: Arc<MemoryStore>,
    timeline: u32,
}

fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName::numbered(TimelineId::new(timeline), number, SIZE)
}

impl Scene {
    /// Timeline 2 was left for 3 in the middle of segment 10, after 1 had been left at the end of segment 4.
    fn on(timeline: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("archive_status")).unwrap();
        fs::write(directory.path().join("00000002.history"), "1\t0/500000\tx\n").unwrap();
        fs::write(directory.path().join("00000003.history"), "1\t0/500000\tx\n2\t0/A00148\tx\n").unwrap();
        Scene { directory, store: Arc::default(), timeline }
    }

    /// A segment whose header and last page say where `content` belongs.
    fn write(&self, file: &str, content: SegmentName) {
        let mut bytes = vec![1; SIZE.bytes() as usize];
        let page = |bytes: &mut [u8], address: u64| {
            bytes[0..2].copy_from_slice(&0xD110u16.to_ne_bytes());
            bytes[2..4].copy_from_slice(&2u16.to_ne_bytes());
            bytes[4..8].copy_from_slice(&content.timeline.get().to_ne_bytes());
            bytes[8..16].copy_from_slice(&address.to_ne_bytes());
            bytes[24..32].copy_from_slice(&42u64.to_ne_bytes());
            bytes[32..36].copy_from_slice(&(1u32 << 20).to_ne_bytes());
        };
        let start = content.start(SIZE).get();
        let last = (SIZE.bytes() - PAGE) as usize;
        page(&mut bytes, start);
        page(&mut bytes[last..], start + last as u64);
        fs::write(self.directory.path().join(file), bytes).unwrap();
    }

    fn has(&self, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.write(&name(timeline, number).to_string(), name(timeline, number));
        }
    }

    fn ready(&self, file: &str) {
        fs::write(self.directory.path().join("archive_status").join(format!("{file}.ready")), "").unwrap();
    }

    fn archived(&self, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let key = layout().wal(WalFileName::Segment(name(timeline, number)), Compression::GZIP);
            self.store.add(&key, b"x");
        }
    }

    async fn found(&self) -> GapCheck {
        let uploader = Uploader {
            store: self.store.clone(),
            layout: layout(),
            compression: Compression::GZIP,
            suffixes: Default::default(),
            pg_wal: self.directory.path().to_owned(),
            packers: Arc::new(Semaphore::new(1)),
        };
        let timeline = TimelineId::new(self.timeline);
        let leadership = Leadership { term: 1, system_identifier: 42, segment_size: SIZE, timeline };
        check(&uploader, leadership).await.unwrap()
    }

    /// What is to be filled, and what is lost: `timeline:number` and `timeline:first-last`.
    async fn expect(&self, holes: &str, gaps: &str) {
        let found = self.found().await;
        let hole = |file: &WalFile| match file.name() {
            WalFileName::Segment(segment) => format!("{}:{}", segment.timeline, segment.number(SIZE)),
            WalFileName::Partial(segment) => {
                format!("{}:{}.partial", segment.timeline, segment.number(SIZE))
            }
            other => panic!("{other}"),
        };
        let gap = |(first, last): &(SegmentName, SegmentName)| {
            assert_eq!(first.timeline, last.timeline);
            format!("{}:{}-{}", first.timeline, first.number(SIZE), last.number(SIZE))
        };
        let joined = |texts: Vec<String>| texts.join(" ");
        let seen =
            (joined(found.holes.iter().map(hole).collect()), joined(found.gaps.iter().map(gap).collect()));
        assert_eq!(seen, (holes.to_owned(), gaps.to_owned()));
    }
}

fn layout() -> Layout {
    Layout::new("s").unwrap()
}

#[tokio::test]
async fn a_whole_archive_costs_two_requests_and_shows_nothing() {
    let scene = Scene::on(1);
    scene.has(1, 5..=9);
    scene.archived(1, 1..=8);
    scene.expect("", "").await;
    assert_eq!(scene.store.requests(), 2);
    assert_eq!(scene.found().await.compared_to, Some(9));
}

#[tokio::test]
async fn what_the_old_primary_did_not_ship_is_found_up_to_the_switch() {
    let scene = Scene::on(3);
    scene.has(1, 2..=6);
    scene.has(2, 5..=12);
    scene.has(3, 10..=12);
    // The first segment of a timeline begins with the pages of the one before.
    scene.write(&name(2, 5).to_string(), name(1, 5));
    scene.write(&name(3, 10).to_string(), name(2, 10));
    scene.write(&format!("{}.partial", name(2, 10)), name(2, 10));
    scene.archived(1, 0..=3);
    scene.expect("1:4 2:5 2:6 2:7 2:8 2:9 2:10.partial 3:10 3:11", "").await;
    scene.archived(1, 4..=5);
    scene.archived(2, 5..=10);
    scene.expect("3:10 3:11", "").await;
}

#[tokio::test]
async fn what_is_marked_as_ready_leaves_by_itself() {
    let scene = Scene::on(1);
    scene.has(1, 5..=9);
    scene.archived(1, 1..=5);
    for number in 7..=8 {
        scene.ready(&name(1, number).to_string());
    }
    scene.expect("1:6", "").await;
    assert_eq!(scene.found().await.ready, [name(1, 7), name(1, 8)]);
}

#[tokio::test]
async fn what_is_lost_for_ever_is_named_from_the_last_that_the_archive_has() {
    let scene = Scene::on(3);
    scene.has(3, 20..=25);
    scene.archived(1, 1..=3);
    scene.archived(2, 5..=7);
    scene.archived(3, 21..=22);
    scene.expect("3:20 3:23 3:24", "1:4-4 2:8-9 3:10-19").await;
    fs::remove_file(scene.directory.path().join(name(3, 23).to_string())).unwrap();
    scene.expect("3:20 3:24", "1:4-4 2:8-9 3:10-19 3:23-23").await;
}

#[tokio::test]
async fn a_gap_of_long_ago_stays_one_when_pg_wal_has_gone_on() {
    let scene = Scene::on(3);
    scene.has(3, 40..=45);
    scene.archived(1, 2..=4);
    scene.archived(2, (5..=9).filter(|number| *number != 7));
    scene.archived(3, (10..=44).filter(|number| !(20..=29).contains(number)));
    scene.expect("", "2:7-7 3:20-29").await;
    // What retention takes goes with the gaps in it.
    for number in 2..=4 {
        let key = layout().wal(WalFileName::Segment(name(1, number)), Compression::GZIP);
        scene.store.delete(&key).await.unwrap();
    }
    for number in [5, 6] {
        let key = layout().wal(WalFileName::Segment(name(2, number)), Compression::GZIP);
        scene.store.delete(&key).await.unwrap();
    }
    scene.expect("", "3:20-29").await;
}

#[tokio::test]
async fn no_more_gaps_are_named_than_can_be_shown() {
    let scene = Scene::on(1);
    scene.has(1, 100..=105);
    scene.archived(1, (1..=104).filter(|number| number % 2 == 1 || *number > 99));
    let found = scene.found().await;
    assert_eq!((found.gaps.len(), found.gaps[0], found.more), (GAPS_MAX, (name(1, 2), name(1, 2)), false));
    assert_eq!(found.compared_to, Some(105));
}

#[tokio::test]
async fn what_retention_removed_is_no_gap_and_does_not_come_back() {
    let scene = Scene::on(1);
    scene.has(1, 5..=12);
    scene.archived(1, [8, 9, 11]);
    scene.expect("1:10", "").await;
}

#[tokio::test]
async fn an_empty_archive_gets_what_there_is() {
    let scene = Scene::on(1);
    scene.expect("", "").await;
    scene.has(1, 5..=7);
    scene.expect("1:5 1:6", "").await;
}

#[tokio::test]
async fn files_that_are_not_what_their_names_say_are_not_taken() {
    let scene = Scene::on(1);
    scene.has(1, 5..=9);
    scene.archived(1, 1..=5);
    // Kept for use later, under the name of a segment to come and of one that was received by half.
    scene.write(&name(1, 10).to_string(), name(1, 2));
    let half = scene.directory.path().join(name(1, 7).to_string());
    let mut bytes = fs::read(&half).unwrap();
    let last = bytes.len() - PAGE as usize;
    bytes[last + 8..last + 16].copy_from_slice(&0x20_0000u64.to_ne_bytes());
    fs::write(&half, &bytes).unwrap();
    scene.expect("1:6 1:8", "1:7-7").await;
    // After a switch the rest of a segment is empty.
    bytes[last..].fill(0);
    fs::write(&half, &bytes).unwrap();
    scene.expect("1:6 1:7 1:8", "").await;
}

#[tokio::test]
async fn more_than_is_taken_at_one_time_is_found_later() {
    let scene = Scene::on(1);
    scene.has(1, 5..=6);
    scene.has(1, [7 + HOLES_MAX as u64 * 2]);
    scene.archived(1, 1..=5);
    let found = scene.found().await;
    assert!(found.more && found.holes.len() == 1, "{found:?}");
    assert_eq!(found.gaps, [(name(1, 7), name(1, 5 + HOLES_MAX as u64))]);
    assert_eq!(found.compared_to, Some(6 + HOLES_MAX as u64));
}
