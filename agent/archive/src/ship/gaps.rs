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
mod tests;
