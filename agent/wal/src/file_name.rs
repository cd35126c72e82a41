//! Names of the files in `pg_wal` and in the archive: segments, partial segments, histories, backup histories.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use crate::{Lsn, TimelineId};

/// Bytes in a WAL segment: a power of two from 1 MiB to 1 GiB; 16 MiB unless set with `initdb --wal-segsize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentSize(u64);

impl SegmentSize {
    /// The default of `initdb`.
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);

    /// A segment size of this many bytes; `None` when PostgreSQL does not allow it.
    #[must_use]
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1 << 20 && bytes <= 1 << 30 {
            Some(SegmentSize(bytes))
        } else {
            None
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Segments with the same middle eight digits in their names: 4 GiB of WAL.
    const fn per_log(self) -> u64 {
        (1 << 32) / self.0
    }
}

/// The name of a whole segment: 24 hexadecimal digits, of timeline, log and segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline on which it was written.
    pub timeline: TimelineId,
    log: u32,
    segment: u32,
}

impl SegmentName {
    /// The segment of `timeline` that holds the byte at `lsn`.
    #[must_use]
    pub const fn holding(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Self {
        Self::numbered(timeline, lsn.get() / size.bytes(), size)
    }

    /// The segment with this number, counted from the start of the log.
    #[must_use]
    pub const fn numbered(timeline: TimelineId, number: u64, size: SegmentSize) -> Self {
        SegmentName {
            timeline,
            log: (number / size.per_log()) as u32,
            segment: (number % size.per_log()) as u32,
        }
    }

    /// Its number from the start of the log.
    #[must_use]
    pub const fn number(self, size: SegmentSize) -> u64 {
        self.log as u64 * size.per_log() + self.segment as u64
    }

    /// The position of its first byte.
    #[must_use]
    pub const fn start(self, size: SegmentSize) -> Lsn {
        Lsn::new(self.number(size) * size.bytes())
    }

    /// The next segment of the same timeline.
    #[must_use]
    pub const fn next(self, size: SegmentSize) -> Self {
        Self::numbered(self.timeline, self.number(size) + 1, size)
    }

    /// The first sixteen digits: the folder of the archive in which barman keeps it.
    #[must_use]
    pub fn folder(self) -> String {
        alloc::format!("{:08X}{:08X}", self.timeline.get(), self.log)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.log, self.segment)
    }
}

/// A name that PostgreSQL may hand to `archive_command` or ask of `restore_command`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalFileName {
    /// A whole segment: `000000010000000000000002`.
    Segment(SegmentName),
    /// The last, unfinished segment of a timeline that was left: `000000010000000000000002.partial`.
    Partial(SegmentName),
    /// Where a base backup began: `000000010000000000000002.00000028.backup`.
    BackupHistory {
        /// The segment in which the backup began.
        segment: SegmentName,
        /// Bytes from the start of that segment.
        offset: u32,
    },
    /// The ancestors of a timeline: `00000002.history`.
    History(TimelineId),
}

impl WalFileName {
    /// The timeline in its name.
    #[must_use]
    pub const fn timeline(self) -> TimelineId {
        match self {
            WalFileName::Segment(segment)
            | WalFileName::Partial(segment)
            | WalFileName::BackupHistory { segment, .. } => segment.timeline,
            WalFileName::History(timeline) => timeline,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFileName::Segment(segment) => segment.fmt(f),
            WalFileName::Partial(segment) => write!(f, "{segment}.partial"),
            WalFileName::BackupHistory { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
            WalFileName::History(timeline) => f.write_str(&timeline.history_file_name()),
        }
    }
}

/// Not a name that PostgreSQL gives to a file of its WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFileName(String);

impl fmt::Display for BadFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not the name of a WAL file: expected a segment (24 hexadecimal digits), a .history, .backup or .partial file",
            self.0
        )
    }
}

impl core::error::Error for BadFileName {}

impl FromStr for WalFileName {
    type Err = BadFileName;

    fn from_str(text: &str) -> Result<Self, BadFileName> {
        parse(text).ok_or_else(|| BadFileName(text.to_string()))
    }
}

fn parse(text: &str) -> Option<WalFileName> {
    let (stem, suffix) = text.split_once('.').unwrap_or((text, ""));
    if suffix == "history" {
        return Some(WalFileName::History(TimelineId::new(digits8(stem)?)));
    }
    if stem.len() != 24 || !stem.is_ascii() {
        return None;
    }
    let segment = SegmentName {
        timeline: TimelineId::new(digits8(&stem[..8])?),
        log: digits8(&stem[8..16])?,
        segment: digits8(&stem[16..])?,
    };
    match suffix {
        "" if text.len() == 24 => Some(WalFileName::Segment(segment)),
        "partial" => Some(WalFileName::Partial(segment)),
        suffix => {
            let offset = digits8(suffix.strip_suffix(".backup")?)?;
            Some(WalFileName::BackupHistory { segment, offset })
        }
    }
}

/// Exactly eight upper-case hexadecimal digits, as PostgreSQL writes them.
fn digits8(text: &str) -> Option<u32> {
    let upper = text.len() == 8 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
    if upper { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_segment_holds_the_place_it_was_made_for(timeline in 1u32.., lsn in 0u64.., power in 20u32..=30) {
            let size = SegmentSize::new(1 << power).unwrap();
            let name = SegmentName::holding(TimelineId::new(timeline), Lsn::new(lsn), size);
            prop_assert!(name.start(size).get() <= lsn && lsn - name.start(size).get() < size.bytes());
            prop_assert_eq!(name.to_string().parse(), Ok(WalFileName::Segment(name)));
        }
    }

    #[test]
    fn every_kind_of_name_is_read_and_printed_alike() {
        for name in [
            "000000010000000000000002",
            "000000010000000000000002.partial",
            "000000010000000000000002.00000028.backup",
            "0000000A.history",
        ] {
            assert_eq!(name.parse::<WalFileName>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "",
            ".history",
            "00000001000000000000000",
            "00000001000000000000000g",
            "000000010000000000000002.",
            "000000010000000000000002.gz",
            "00000001000000000000000a",
            "../../etc/passwd",
            "000000010000000000000002.28.backup",
            "0000000é0000000000000002",
        ] {
            assert!(name.parse::<WalFileName>().is_err(), "{name}");
        }
    }

    #[test]
    fn the_log_number_changes_every_four_gibibytes() {
        let size = SegmentSize::DEFAULT;
        let last = SegmentName::numbered(TimelineId::FIRST, 255, size);
        assert_eq!(last.to_string(), "0000000100000000000000FF");
        assert_eq!(last.next(size).to_string(), "000000010000000100000000");
        assert_eq!(last.next(size).folder(), "0000000100000001");
    }
}
