//! Timelines and their history files: which history a server's WAL belongs to, where it branched, and when.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{BadLsn, Lsn};

/// The number of a timeline. Each promotion starts a new one; 0 means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(u32);

impl TimelineId {
    /// The timeline that `initdb` creates.
    pub const FIRST: TimelineId = TimelineId(1);

    /// The timeline with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        TimelineId(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The name of its history file, such as `00000002.history`.
    #[must_use]
    pub fn history_file_name(self) -> String {
        alloc::format!("{:08X}.history", self.0)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One line of a history file: `timeline` was left at `end` for the next one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimelineSwitch {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// Where it was left: the first byte that belongs to the next timeline.
    pub end: Lsn,
    /// PostgreSQL's reason, such as `no recovery target specified`.
    pub reason: String,
}

/// The ancestors of a timeline, oldest first, as in its `.history` file. Timeline 1 has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimelineHistory {
    switches: Vec<TimelineSwitch>,
}

/// A line of a history file that PostgreSQL would not accept either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadHistory {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: String,
}

impl fmt::Display for BadHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the timeline history: {}", self.line, self.fault)
    }
}

impl core::error::Error for BadHistory {}

impl TimelineHistory {
    /// The switches, oldest first.
    #[must_use]
    pub fn switches(&self) -> &[TimelineSwitch] {
        &self.switches
    }

    /// Where `timeline` was left on the way here; `None` when it is not an ancestor.
    #[must_use]
    pub fn left_at(&self, timeline: TimelineId) -> Option<Lsn> {
        self.switches.iter().find(|switch| switch.timeline == timeline).map(|switch| switch.end)
    }

    /// The text of the history file of `timeline`, one of the ancestors.
    #[must_use]
    pub fn text_until(&self, timeline: TimelineId) -> String {
        let before = self.switches.iter().filter(|switch| switch.timeline < timeline);
        before
            .map(|switch| alloc::format!("{}\t{}\t{}\n", switch.timeline, switch.end, switch.reason))
            .collect()
    }

    /// Whether a server on `timeline` whose WAL ends at `end` has written nothing that the timeline of this
    /// history (`own`) does not have, so that it can follow without a rewind.
    #[must_use]
    pub fn is_ancestor(&self, own: TimelineId, timeline: TimelineId, end: Lsn) -> bool {
        timeline == own || self.left_at(timeline).is_some_and(|left| end <= left)
    }
}

impl FromStr for TimelineHistory {
    type Err = BadHistory;

    /// Reads the text of a `.history` file: `timeline TAB lsn TAB reason` a line, `#` comments, ascending. A recovery along a
    /// timeline that stops before that one begins names it as its parent all the same (PostgreSQL, StartupXLOG): what comes
    /// before it was then left there too.
    fn from_str(text: &str) -> Result<Self, BadHistory> {
        let mut switches: Vec<TimelineSwitch> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let fault = |fault: &str| BadHistory { line: index + 1, fault: fault.to_string() };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.splitn(3, char::is_whitespace).map(str::trim);
            let timeline = fields.next().unwrap_or_default();
            let timeline = timeline.parse().map_err(|_| fault("the timeline is not a number"))?;
            let end = fields.next().ok_or_else(|| fault("the switch point is missing"))?;
            let end = end.parse().map_err(|BadLsn| fault("the switch point is not an LSN"))?;
            if switches.last().is_some_and(|before| before.timeline.get() >= timeline) {
                return Err(fault("timelines do not ascend"));
            }
            let reason = fields.next().unwrap_or_default().to_string();
            switches.push(TimelineSwitch { timeline: TimelineId(timeline), end, reason });
        }
        let mut least = Lsn::new(u64::MAX);
        for switch in switches.iter_mut().rev() {
            least = least.min(switch.end);
            switch.end = least;
        }
        Ok(TimelineHistory { switches })
    }
}

/// When timelines began, in microseconds since 1970-01-01 UTC, from the first record of each; 0 where that is no longer
/// known. Two timelines begun separately from the same place have the same number and history: only this tells them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineStarts(BTreeMap<TimelineId, i64>);

impl TimelineStarts {
    /// Whether the timeline is among them.
    #[must_use]
    pub fn lists(&self, timeline: TimelineId) -> bool {
        self.0.contains_key(&timeline)
    }

    /// When it began; `None` when that is not known, or it is not among them.
    #[must_use]
    pub fn start(&self, timeline: TimelineId) -> Option<i64> {
        self.0.get(&timeline).copied().filter(|start| *start != 0)
    }

    /// Adds a timeline, or changes what is known of it.
    pub fn set(&mut self, timeline: TimelineId, start: Option<i64>) {
        self.0.insert(timeline, start.unwrap_or_default());
    }

    /// The timelines, oldest first.
    pub fn timelines(&self) -> impl DoubleEndedIterator<Item = TimelineId> + '_ {
        self.0.keys().copied()
    }

    /// Only the newest `count` timelines.
    #[must_use]
    pub fn newest(mut self, count: usize) -> Self {
        while self.0.len() > count {
            self.0.pop_first();
        }
        self
    }

    /// The oldest timeline whose beginning both know, and know differently.
    #[must_use]
    pub fn begun_twice(&self, other: &TimelineStarts) -> Option<TimelineId> {
        self.timelines().find(|timeline| {
            let starts = (self.start(*timeline), other.start(*timeline));
            matches!(starts, (Some(own), Some(theirs)) if own != theirs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIRD: &str =
        "1\t0/3000148\tno recovery target specified\n\n2\t0/50000A0\tno recovery target specified\n";

    #[test]
    fn a_history_file_is_read_whole() {
        let history: TimelineHistory = THIRD.parse().unwrap();
        assert_eq!(history.switches().len(), 2);
        assert_eq!(history.left_at(TimelineId::new(2)), Some(Lsn::new(0x0500_00A0)));
        assert_eq!(history.switches()[0].reason, "no recovery target specified");
    }

    #[test]
    fn a_server_that_wrote_past_the_switch_is_no_ancestor() {
        let history: TimelineHistory = THIRD.parse().unwrap();
        let own = TimelineId::new(3);
        assert!(history.is_ancestor(own, TimelineId::new(2), Lsn::new(0x0500_00A0)));
        assert!(!history.is_ancestor(own, TimelineId::new(2), Lsn::new(0x0500_00A1)));
        assert!(!history.is_ancestor(own, TimelineId::new(7), Lsn::INVALID));
        assert!(history.is_ancestor(own, own, Lsn::new(u64::MAX)));
    }

    #[test]
    fn a_timeline_that_ended_before_its_parent_was_left_ended_the_parent_too() {
        let history: TimelineHistory = "1\t0/5000000\tx\n2\t0/3000000\ty\n".parse().unwrap();
        let left = |timeline| history.left_at(TimelineId::new(timeline));
        assert_eq!((left(1), left(2)), (Some(Lsn::new(0x0300_0000)), Some(Lsn::new(0x0300_0000))));
    }

    #[test]
    fn a_broken_line_is_named() {
        for (text, line) in
            [("x\t0/1\ty", 1), ("1\t0/1\ty\n2", 2), ("2\t0/1\ty\n1\t0/2\ty", 2), ("1\tzz\ty", 1)]
        {
            assert_eq!(text.parse::<TimelineHistory>().unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn timelines_of_one_number_are_told_apart_by_when_they_were_begun() {
        let starts = |of: &[(u32, Option<i64>)]| {
            let mut starts = TimelineStarts::default();
            of.iter().for_each(|(timeline, start)| starts.set(TimelineId::new(*timeline), *start));
            starts
        };
        let own = starts(&[(1, None), (2, Some(20)), (4, Some(40))]);
        assert_eq!(own.begun_twice(&own), None);
        assert_eq!(own.begun_twice(&starts(&[(2, None), (3, Some(30)), (4, Some(40))])), None);
        assert_eq!(own.begun_twice(&starts(&[(2, Some(21)), (4, Some(41))])), Some(TimelineId::new(2)));
        assert_eq!(own.clone().newest(1), starts(&[(4, Some(40))]));
        assert!(own.lists(TimelineId::new(1)) && !own.lists(TimelineId::new(3)));
    }
}
