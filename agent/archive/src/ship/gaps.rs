//! Finds what the archive lacks of this server's own history: segments that pg_wal still has, and those it has no more.
//! Sends nothing.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use outrider_wal::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};

use super::Leadership;
use crate::content::{Expected, HEADER, check_header};
use crate::listing::Listing;
use crate::ready::WalFile;
use crate::upload::Uploader;
use outrider_store as store;

/// Files found at one time. When there are more, they are found when these have left.
const HOLES_MAX: usize = 1024;
/// Gaps that are shown.
pub(super) const GAPS_MAX: usize = 16;
/// Places where the archive of one timeline is broken off. Where there are more, it is looked at only as far back as pg_wal goes.
const RANGES_MAX: usize = 4096;
/// Bytes in a page of WAL, unless PostgreSQL was built otherwise.
const PAGE: u64 = 8192;
/// A history has a few lines.
const HISTORY_MAX: u64 = 1 << 20;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GapCheck {
    /// Files of pg_wal that the archive lacks and that are not marked as ready, oldest first.
    pub(super) holes: Vec<WalFile>,
    /// Segments that neither the archive nor pg_wal has, oldest first; the first and the last of each gap.
    pub(super) gaps: Vec<(SegmentName, SegmentName)>,
    /// Whether there is more of either.
    pub(super) more: bool,
    /// Segments that the archive lacks and that are marked as ready, oldest first: they leave by themselves.
    pub(super) ready: Vec<SegmentName>,
    /// The number of the first segment that was not compared; `None` when pg_wal had none to compare.
    pub(super) compared_to: Option<u64>,
}

/// Why the check came to no end.
#[derive(Debug)]
pub(super) enum CheckError {
    Store(store::Error),
    PgWal(io::Error),
}

impl From<store::Error> for CheckError {
    fn from(error: store::Error) -> Self {
        CheckError::Store(error)
    }
}

/// One timeline of the server's history, from the segment in which it began to the one in which it was left. That last
/// one exists as `.partial` only; of the timeline that the server is on it is the one being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    timeline: TimelineId,
    first: u64,
    end: u64,
    /// Whether the timeline was left in the middle of segment `end`.
    partial: bool,
}

impl Stretch {
    fn holds(self, number: u64) -> bool {
        (self.first..self.end).contains(&number)
    }
}

/// What pg_wal has. Its segments are only names until they are needed.
#[derive(Debug)]
struct PgWal {
    directory: PathBuf,
    expected: Expected,
    segments: BTreeSet<SegmentName>,
    partials: BTreeSet<SegmentName>,
    /// Marked so, and on their way without this check.
    ready: BTreeSet<SegmentName>,
    stretches: Vec<Stretch>,
    /// The oldest segment of the server's history that is what its name says.
    oldest: Option<u64>,
}

/// Compares the names in the archive, from its first segment of this history on, with those in pg_wal: what both lack is a gap,
/// however long ago it was lost, and whoever lost it. What lies before the archive's first segment was removed from it, or never
/// was in it, and is no gap.
pub(super) async fn check(uploader: &Uploader, leadership: Leadership) -> Result<GapCheck, CheckError> {
    // Files leave and PostgreSQL writes, renames and removes meanwhile. First pg_wal, then the archive: what left between the two
    // is in the archive, and what PostgreSQL finished after the first look lies beyond what is compared. What it removed since
    // then is only missed when its upload is tried, and looked for again.
    let directory = uploader.pg_wal.clone();
    let looked = tokio::task::spawn_blocking(move || PgWal::look(directory, leadership)).await;
    let pg_wal = looked.map_err(|panicked| CheckError::PgWal(io::Error::other(panicked)))?;
    let pg_wal = pg_wal.map_err(CheckError::PgWal)?;
    let size = leadership.segment_size;
    let listing = Listing { store: &*uploader.store, layout: &uploader.layout, size };
    let Some(oldest) = pg_wal.oldest else { return Ok(GapCheck::default()) };

    let beginning = beginning(&listing, &pg_wal.stretches).await?;
    let floor = beginning.unwrap_or(oldest);
    let mut found = GapCheck::default();
    let mut missing: Vec<SegmentName> = Vec::new();
    for stretch in &pg_wal.stretches {
        let from = stretch.first.max(floor);
        if from < stretch.end && !found.more {
            let name = |number| SegmentName::numbered(stretch.timeline, number, size);
            let (mut ranges, torn) = listing.missing(stretch.timeline, from, stretch.end, RANGES_MAX).await?;
            let lost = ranges.iter().filter(|(first, _)| *first < oldest);
            let lost = lost.map(|(first, last)| (name(*first), name((*last).min(oldest - 1))));
            found.gaps.extend(lost.take(GAPS_MAX - found.gaps.len()));
            let mut more = false;
            if torn {
                let from = from.max(oldest);
                (ranges, more) = listing.missing(stretch.timeline, from, stretch.end, HOLES_MAX).await?;
            }
            let room = HOLES_MAX - missing.len().min(HOLES_MAX);
            let before = missing.len();
            let numbers = ranges.into_iter().flat_map(|(first, last)| first.max(oldest)..=last);
            missing.extend(numbers.map(name).take(room + 1));
            found.more = more || missing.len() - before > room;
            missing.truncate(HOLES_MAX);
        }
        let last = SegmentName::numbered(stretch.timeline, stretch.end, size);
        let shown = pg_wal.partials.contains(&last) && !pg_wal.ready.contains(&last);
        if stretch.partial && shown && stretch.end >= floor && !listing.has_any(last).await? {
            found.holes.push(WalFile::from(WalFileName::Partial(last)));
        }
    }
    found.compared_to = match missing.last() {
        Some(last) if found.more => Some(last.number(size) + 1),
        Some(_) | None => pg_wal.stretches.last().map(|current| current.end),
    };
    let sorted = tokio::task::spawn_blocking(move || pg_wal.sort(missing, found)).await;
    sorted.map_err(|panicked| CheckError::PgWal(io::Error::other(panicked)))
}

/// The archive's first segment of this history.
async fn beginning(listing: &Listing<'_>, stretches: &[Stretch]) -> Result<Option<u64>, store::Error> {
    let mut timeline = TimelineId::FIRST;
    // Timelines that others left behind lie between; each step goes beyond one, and the last is the server's own.
    while let Some(first) = listing.first(timeline).await? {
        let number = first.number(listing.size);
        let Some(current) = stretches.last() else { break };
        let own = |stretch: &Stretch| stretch.timeline == first.timeline && number < stretch.end;
        if first.timeline == current.timeline || stretches.iter().any(own) {
            return Ok(Some(number));
        }
        if first.timeline > current.timeline {
            break;
        }
        timeline = TimelineId::new(first.timeline.get() + 1);
    }
    Ok(None)
}

impl PgWal {
    /// Blocks.
    fn look(directory: PathBuf, leadership: Leadership) -> io::Result<Self> {
        let Leadership { system_identifier, segment_size, timeline, .. } = leadership;
        let expected = Expected { system_identifier: Some(system_identifier), segment_size };
        let mut pg_wal = PgWal {
            segments: BTreeSet::new(),
            partials: BTreeSet::new(),
            ready: BTreeSet::new(),
            stretches: Vec::new(),
            oldest: None,
            expected,
            directory,
        };
        for entry in fs::read_dir(&pg_wal.directory)? {
            match name_of(&entry?, "") {
                Some(WalFileName::Segment(segment)) => pg_wal.segments.insert(segment),
                Some(WalFileName::Partial(segment)) => pg_wal.partials.insert(segment),
                Some(WalFileName::BackupHistory { .. } | WalFileName::History(_)) | None => false,
            };
        }
        for entry in fs::read_dir(pg_wal.directory.join("archive_status"))? {
            match name_of(&entry?, ".ready") {
                Some(WalFileName::Segment(segment) | WalFileName::Partial(segment)) => {
                    pg_wal.ready.insert(segment);
                }
                Some(WalFileName::BackupHistory { .. } | WalFileName::History(_)) | None => {}
            }
        }
        let history = read_history(&pg_wal.directory, timeline)?;
        pg_wal.stretches = stretches(timeline, history.as_ref(), segment_size);
        pg_wal.find_ends();
        Ok(pg_wal)
    }

    /// The oldest segment, and the last finished one: below and above are names whose files still hold older WAL,
    /// since PostgreSQL renames a segment for use later.
    fn find_ends(&mut self) {
        let size = self.expected.segment_size;
        let number = |segment: &SegmentName| segment.number(size);
        let stretches = self.stretches.clone();
        let own = |segment: &&SegmentName| {
            let (timeline, number) = (segment.timeline, segment.number(size));
            stretches.iter().any(|stretch| stretch.timeline == timeline && stretch.holds(number))
        };
        let mut by_age: Vec<SegmentName> = self.segments.iter().filter(own).copied().collect();
        by_age.sort_by_key(number);
        self.oldest = by_age.iter().find(|segment| self.timeline_in(**segment).is_some()).map(number);
        let Some(current) = self.stretches.last_mut() else { return };
        let timeline = current.timeline;
        let newest = self
            .segments
            .iter()
            .rev()
            .filter(|segment| segment.timeline == timeline)
            .find(|segment| timeline_in(&self.directory, **segment, self.expected).is_some());
        // PostgreSQL writes one after the other, so the newest is being written and those before it are finished.
        current.end = newest.map_or(current.first, number);
    }

    /// Which of the missing segments pg_wal has, and which nobody has. Blocks.
    fn sort(&self, missing: Vec<SegmentName>, mut found: GapCheck) -> GapCheck {
        let size = self.expected.segment_size;
        let mut lost: Vec<SegmentName> = Vec::new();
        for segment in missing {
            if self.ready.contains(&segment) {
                found.ready.push(segment);
                continue;
            }
            if self.segments.contains(&segment) && self.is_whole(segment) {
                found.holes.push(WalFile::from(WalFileName::Segment(segment)));
            } else {
                lost.push(segment);
            }
        }
        for segment in lost {
            let full = found.gaps.len() == GAPS_MAX;
            match found.gaps.last_mut() {
                Some((_, last)) if last.next(size) == segment => *last = segment,
                Some(_) if full => {
                    found.more = true;
                    break;
                }
                Some(_) | None => found.gaps.push((segment, segment)),
            }
        }
        found.holes.sort();
        found
    }

    fn timeline_in(&self, segment: SegmentName) -> Option<TimelineId> {
        timeline_in(&self.directory, segment, self.expected)
    }

    /// Whether the segment was written on the timeline of its name, up to its end.
    fn is_whole(&self, segment: SegmentName) -> bool {
        let size = self.expected.segment_size;
        // The first segment of a timeline begins as a copy of the one before; without a history it is not known which.
        let number = segment.number(size);
        let is_first = self.stretches.len() == 1
            || self
                .stretches
                .iter()
                .any(|stretch| stretch.timeline == segment.timeline && stretch.first == number);
        let Some(timeline) = self.timeline_in(segment) else { return false };
        (is_first || timeline == segment.timeline) && self.has_last_page(segment).unwrap_or(false)
    }

    /// Whether the last page is where it belongs, or empty, as it is after a switch to the next segment. A file that
    /// was received by half and had been another segment before has that one's page there.
    fn has_last_page(&self, segment: SegmentName) -> io::Result<bool> {
        let size = self.expected.segment_size;
        let at = size.bytes() - PAGE;
        let file = File::open(self.directory.join(segment.to_string()))?;
        let mut header = [0; 24];
        file.read_exact_at(&mut header, at)?;
        let mut address = [0; 8];
        address.copy_from_slice(&header[8..16]);
        let address = Lsn::new(u64::from_ne_bytes(address));
        Ok(header == [0; 24] || address.get() == segment.start(size).get() + at)
    }
}

/// The timeline that the segment's header names, when it is the header that its name promises.
fn timeline_in(directory: &Path, segment: SegmentName, expected: Expected) -> Option<TimelineId> {
    let mut header = [0; HEADER];
    let mut file = File::open(directory.join(segment.to_string())).ok()?;
    file.read_exact(&mut header).ok()?;
    check_header(WalFileName::Segment(segment), segment, &header, expected).ok()?;
    let timeline = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    Some(TimelineId::new(timeline))
}

fn name_of(entry: &fs::DirEntry, suffix: &str) -> Option<WalFileName> {
    entry.file_name().to_str()?.strip_suffix(suffix)?.parse().ok()
}

/// None when there is none: then only the timeline itself is looked at.
fn read_history(directory: &Path, timeline: TimelineId) -> io::Result<Option<TimelineHistory>> {
    let file = match File::open(directory.join(timeline.history_file_name())) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(HISTORY_MAX).read_to_string(&mut text)?;
    let history = text.parse::<TimelineHistory>();
    history.map(Some).map_err(|bad| io::Error::new(ErrorKind::InvalidData, format!("{bad} ({timeline})")))
}

/// The timelines from the first known to `timeline`. The end of the last one is not known here.
fn stretches(timeline: TimelineId, history: Option<&TimelineHistory>, size: SegmentSize) -> Vec<Stretch> {
    let switches = history.map_or(&[][..], TimelineHistory::switches);
    let mut stretches = Vec::new();
    let mut first = 0;
    for switch in switches.iter().filter(|switch| switch.timeline < timeline) {
        let end = switch.end.get() / size.bytes();
        let partial = !switch.end.get().is_multiple_of(size.bytes());
        stretches.push(Stretch { timeline: switch.timeline, first, end, partial });
        first = end;
    }
    stretches.push(Stretch { timeline, first, end: u64::MAX / size.bytes(), partial: false });
    stretches
}

#[cfg(test)]
mod tests {
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
            fs::write(self.directory.path().join("archive_status").join(format!("{file}.ready")), "")
                .unwrap();
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
            let seen = (
                joined(found.holes.iter().map(hole).collect()),
                joined(found.gaps.iter().map(gap).collect()),
            );
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
        assert_eq!(
            (found.gaps.len(), found.gaps[0], found.more),
            (GAPS_MAX, (name(1, 2), name(1, 2)), false)
        );
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
}
