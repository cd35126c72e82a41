//! Which WAL an archive has, by its listing: runs of segments, gaps between them, histories. Opens no segment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use outrider_wal::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, TimelineSwitch, WalFileName};

use super::path::TimelinePath;
use crate::compression::{split_suffix, unpack_small};
use crate::{BackupInfo, Format, Layout};
use outrider_store::{self as store, Store, each_object, read_small};

/// A history has a line for each failover.
const HISTORY_MAX: u64 = 1 << 20;
/// Names of odd objects that are remembered; the others are only counted.
const NAMES_MAX: usize = 16;

/// The WAL of an archive. Takes memory for each gap, not for each segment.
#[derive(Clone, Debug)]
pub struct ArchivedWal {
    size: SegmentSize,
    pub(super) runs: BTreeMap<TimelineId, Vec<SegmentRange>>,
    pub(super) partial: BTreeSet<SegmentName>,
    pub(super) histories: BTreeMap<TimelineId, History>,
    /// How far each unfinished segment was streamed without a gap, in bytes from its start.
    pub(super) streamed: BTreeMap<SegmentName, u64>,
    /// How its newest segments are compressed.
    format: Format,
    /// Objects of no bytes: the first few, and how many there are.
    pub empty: (Vec<String>, u64),
    /// Segments, whole ones.
    pub segments: u64,
    /// Bytes of all its objects as stored.
    pub bytes: u64,
}

/// Segments of one timeline without a gap, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentRange {
    pub(super) first: u64,
    pub(super) last: u64,
}

#[derive(Clone, Debug)]
pub(super) enum History {
    /// It is there, and another one told what is in it.
    Told(TimelineHistory),
    Unreadable(String),
}

/// Segments that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first one.
    pub first: SegmentName,
    /// The last one of the same timeline.
    pub last: SegmentName,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{} to {}", self.first, self.last)
        }
    }
}

/// The WAL that follows a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The timeline at which it ends: the newest to which the backup can be brought.
    pub timeline: TimelineId,
    /// The first segment that the backup needs.
    pub first: SegmentName,
    /// The last whole segment.
    pub last: Option<SegmentName>,
    /// What is missing between them. Recovery ends before the first of these.
    pub gaps: Vec<Gap>,
    /// Whole segments that are there.
    pub segments: u64,
    /// Up to here recovery comes: the end of the last whole segment before any gap, or of what was streamed after it.
    pub end: Lsn,
}

impl ArchivedWal {
    /// Of an archive without any.
    #[must_use]
    pub fn new(size: SegmentSize) -> Self {
        ArchivedWal {
            size,
            runs: BTreeMap::new(),
            partial: BTreeSet::new(),
            histories: BTreeMap::new(),
            streamed: BTreeMap::new(),
            format: Format::Plain,
            empty: (Vec::new(), 0),
            segments: 0,
            bytes: 0,
        }
    }

    /// Lists what was streamed and the WAL, a request for each thousand objects, and reads the histories.
    pub(super) async fn read(
        store: &dyn Store,
        layout: &Layout,
        size: SegmentSize,
    ) -> Result<Self, store::Error> {
        let mut wal = ArchivedWal::new(size);
        // In this order: chunks go away when their segment is stored, so it is seen where they are not seen any more.
        let prefix = layout.stream(None);
        each_object(store, &prefix, |key, _| wal.add_streamed(key.strip_prefix(&prefix))).await?;
        let mut histories: BTreeMap<TimelineId, String> = BTreeMap::new();
        each_object(store, &layout.wals(), |key, bytes| {
            if let Some(timeline) = wal.add(key, bytes) {
                histories.insert(timeline, key.to_owned());
            }
        })
        .await?;
        // The newest first: it tells the histories of its ancestors, which are beginnings of its own.
        while let Some((timeline, key)) = histories.pop_last() {
            let read = read_history(store, &key).await?;
            if let History::Told(history) = &read {
                for (place, switch) in history.switches().iter().enumerate().skip(1) {
                    // One that ended where it began tells nothing of where it really began.
                    let told = history.switches()[place - 1].end < switch.end;
                    if told && histories.remove(&switch.timeline).is_some() {
                        wal.tell(switch.timeline, beginning(history, place));
                    }
                }
            }
            wal.histories.insert(timeline, read);
        }
        Ok(wal)
    }

    /// Bytes in a segment.
    #[must_use]
    pub fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// Takes one object below `wals/`, in the order of the keys. Names that are no WAL are barman's or a person's.
    /// Returns the timeline when it is a history.
    pub fn add(&mut self, key: &str, bytes: u64) -> Option<TimelineId> {
        let file = key.rsplit('/').next().unwrap_or_default();
        let (name, format) = split_suffix(file);
        let name = name.parse().ok()?;
        self.bytes += bytes;
        if bytes == 0 {
            self.empty.1 += 1;
            if self.empty.0.len() < NAMES_MAX {
                self.empty.0.push(key.to_owned());
            }
            // No file of the WAL is empty: what is no WAL closes no gap.
            return None;
        }
        match name {
            WalFileName::Segment(segment) => {
                self.format = format;
                self.add_segment(segment);
                None
            }
            WalFileName::Partial(segment) => {
                self.partial.insert(segment);
                None
            }
            WalFileName::History(timeline) => Some(timeline),
            WalFileName::BackupHistory { .. } => None,
        }
    }

    /// Takes the history of a timeline.
    pub fn tell(&mut self, timeline: TimelineId, history: TimelineHistory) {
        self.histories.insert(timeline, History::Told(history));
    }

    fn add_segment(&mut self, segment: SegmentName) {
        let number = segment.number(self.size);
        let runs = self.runs.entry(segment.timeline).or_default();
        match runs.last_mut() {
            // The same one with another suffix.
            Some(run) if run.last == number => return,
            Some(run) if run.last + 1 == number => run.last = number,
            Some(_) | None => runs.push(SegmentRange { first: number, last: number }),
        }
        self.segments += 1;
    }

    /// Takes `<segment>/<from>-<to>.gz`, in the order of the keys.
    fn add_streamed(&mut self, name: Option<&str>) {
        let parsed = name.and_then(|name| {
            let (segment, chunk) = name.split_once('/')?;
            let (from, to) = chunk.strip_suffix(".gz")?.split_once('-')?;
            let place = |digits| u64::from_str_radix(digits, 16).ok();
            let Ok(WalFileName::Segment(segment)) = segment.parse() else { return None };
            Some((segment, place(from)?, place(to)?))
        });
        let Some((segment, from, to)) = parsed else { return };
        let end = self.streamed.entry(segment).or_default();
        if from <= *end && to <= self.size.bytes() {
            *end = (*end).max(to);
        }
    }

    /// Every timeline of which there is anything.
    #[must_use]
    pub fn timelines(&self) -> BTreeSet<TimelineId> {
        let ours = self.runs.keys().chain(self.histories.keys());
        ours.copied().chain(self.partial.iter().map(|segment| segment.timeline)).collect()
    }

    /// Histories that are missing or cannot be read, in words.
    #[must_use]
    pub fn bad_histories(&self) -> Vec<String> {
        let bad = |timeline: &TimelineId| match self.histories.get(timeline) {
            Some(History::Told(_)) => None,
            Some(History::Unreadable(fault)) => Some(fault.clone()),
            None if *timeline == TimelineId::FIRST => None,
            None => {
                Some(format!("there is WAL of timeline {timeline} and no {}", timeline.history_file_name()))
            }
        };
        self.timelines().iter().filter_map(bad).collect()
    }

    /// The way of a recovery to this timeline.
    #[must_use]
    pub fn path(&self, timeline: TimelineId) -> TimelinePath {
        match self.histories.get(&timeline) {
            Some(History::Told(history)) => TimelinePath::new(timeline, history),
            Some(History::Unreadable(_)) | None => TimelinePath::new(timeline, &TimelineHistory::default()),
        }
    }

    /// The newest timeline that the backup can be brought to: its own when it lies on no other.
    fn reached_by(&self, timeline: TimelineId, end: Lsn) -> TimelineId {
        let newest_first = self.timelines().into_iter().rev();
        newest_first.into_iter().find(|newest| self.path(*newest).holds(timeline, end)).unwrap_or(timeline)
    }

    /// The WAL that follows a backup; `None` when the backup does not say where it begins.
    #[must_use]
    pub fn chain(&self, info: &BackupInfo) -> Option<Chain> {
        let first = info.begin_wal?;
        let target = self.reached_by(first.timeline, info.end_lsn.unwrap_or_default());
        let from = first.number(self.size);
        let mut chain = Chain {
            timeline: target,
            first,
            last: None,
            gaps: Vec::new(),
            segments: 0,
            end: first.start(self.size),
        };
        for stretch in self.path(target).stretches(first.timeline, from, self.size) {
            let last =
                stretch.last.or_else(|| self.last_of(stretch.timeline).filter(|last| *last >= stretch.first));
            // A timeline that has begun and of which no segment is there yet.
            let Some(last) = last else { break };
            let missing = self.missing(stretch.timeline, stretch.first, last);
            let absent: u64 = missing.iter().map(|gap| gap.last - gap.first + 1).sum();
            chain.segments += last + 1 - stretch.first - absent;
            let name = |number| SegmentName::numbered(stretch.timeline, number, self.size);
            chain.gaps.extend(missing.iter().map(|gap| Gap { first: name(gap.first), last: name(gap.last) }));
            if missing.last().is_none_or(|gap| gap.last != last) {
                chain.last = Some(name(last));
            }
        }
        chain.end = self.end_of(&chain);
        Some(chain)
    }

    fn end_of(&self, chain: &Chain) -> Lsn {
        let next = match (chain.gaps.first(), chain.last) {
            (Some(gap), _) => gap.first,
            (None, Some(last)) => {
                SegmentName::numbered(chain.timeline, last.number(self.size) + 1, self.size)
            }
            (None, None) => chain.first,
        };
        next.start(self.size).advanced(self.streamed.get(&next).copied().unwrap_or_default())
    }

    /// What a backup needs of the WAL to become consistent and is not there.
    pub(super) fn missing_for(&self, info: &BackupInfo, begin: SegmentName) -> Option<Gap> {
        let end = info.end_wal?;
        let (from, to) = (begin.number(self.size), end.number(self.size));
        let missing = self.missing(begin.timeline, from, to);
        let gap = missing.first()?;
        let name = |number| SegmentName::numbered(begin.timeline, number, self.size);
        let gap = Gap { first: name(gap.first), last: name(gap.last) };
        // The last one may be there in another form: as the part that was written before the timeline was left, or
        // at the beginning of the next timeline, which a recovery takes first.
        let stands_in = self.partial.contains(&end) || {
            let next = self.reached_by(begin.timeline, info.end_lsn.unwrap_or_default());
            next != begin.timeline && self.missing(next, to, to).is_empty()
        };
        if gap.first == end && stands_in { None } else { Some(gap) }
    }

    /// The number of each whole segment, timeline by timeline.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.runs.values().flatten().flat_map(|run| run.first..=run.last)
    }

    /// The number of the last whole segment of a timeline.
    #[must_use]
    pub fn last_of(&self, timeline: TimelineId) -> Option<u64> {
        self.runs.get(&timeline)?.last().map(|run| run.last)
    }

    /// Where there is nothing in `first..=last`.
    fn missing(&self, timeline: TimelineId, first: u64, last: u64) -> Vec<SegmentRange> {
        let runs = self.runs.get(&timeline).map(Vec::as_slice).unwrap_or_default();
        let mut missing = Vec::new();
        let mut next = first;
        for run in runs.iter().filter(|run| run.last >= first && run.first <= last) {
            if run.first > next {
                missing.push(SegmentRange { first: next, last: run.first - 1 });
            }
            next = next.max(run.last + 1);
        }
        if next <= last {
            missing.push(SegmentRange { first: next, last });
        }
        missing
    }

    /// Where a segment lies, by what the newest ones' keys end in.
    #[must_use]
    pub fn key_of(&self, layout: &Layout, segment: SegmentName) -> String {
        format!("{}{}/{segment}{}", layout.wals(), segment.folder(), self.format.suffix())
    }
}

/// The first switches of a history: that of one of its timelines.
fn beginning(history: &TimelineHistory, switches: usize) -> TimelineHistory {
    let line = |switch: &TimelineSwitch| format!("{}\t{}\t{}\n", switch.timeline, switch.end, switch.reason);
    let text: String = history.switches()[..switches].iter().map(line).collect();
    text.parse().expect("lines of a history are a history")
}

async fn read_history(store: &dyn Store, key: &str) -> Result<History, store::Error> {
    let read = match read_small(store, key, HISTORY_MAX).await? {
        None => Err(format!("{key} is gone")),
        Some(Err(fault)) => Err(fault),
        Some(Ok(bytes)) => unpack_small(key, &bytes, HISTORY_MAX).and_then(|plain| {
            let text = String::from_utf8_lossy(&plain);
            text.parse::<TimelineHistory>().map_err(|bad| format!("{key}: {bad}"))
        }),
    };
    Ok(read.map_or_else(History::Unreadable, History::Told))
}

#[cfg(test)]
mod tests;
