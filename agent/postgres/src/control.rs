//! The control file of a stopped Postgres, as shown by `pg_controldata`.

use outrider_wal::{Lsn, TimelineId};

use crate::error::Error;

/// The relevant values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlData {
    /// `Database system identifier`.
    pub system_identifier: u64,
    /// `Database cluster state`, such as `shut down`.
    pub state: String,
    /// `Latest checkpoint location`.
    pub checkpoint: Lsn,
    /// `Latest checkpoint's TimeLineID`.
    pub checkpoint_timeline: TimelineId,
    /// `Minimum recovery ending location`; invalid when there is none.
    pub recovery_end: Lsn,
    /// `Min recovery ending loc's timeline`; 0 when there is none.
    pub recovery_end_timeline: TimelineId,
    /// Minimum values for a standby, by parameter.
    pub hot_standby_minimum: Vec<(String, u32)>,
}

/// Minimum length of a shutdown checkpoint's record in every supported version: a 24-byte header, 2 bytes of length, the 88
/// bytes of PostgreSQL 15's `CheckPoint`.
const CHECKPOINT_RECORD: u64 = 24 + 2 + 88;

/// The lines with a standby's minimum values, and their parameters.
const HOT_STANDBY: &[(&str, &str)] = &[
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

/// Whether a standby needs at least its primary's value of this parameter.
pub(crate) fn is_hot_standby_minimum(parameter: &str) -> bool {
    HOT_STANDBY.iter().any(|(_, name)| *name == parameter)
}

impl ControlData {
    /// Parses the output of `pg_controldata` in the C locale.
    pub(crate) fn parse(output: &[String]) -> Result<Self, Error> {
        let lines = Lines(output);
        let mut hot_standby_minimum = Vec::new();
        for (what, parameter) in HOT_STANDBY {
            hot_standby_minimum.push(((*parameter).to_owned(), lines.read(what)?));
        }
        Ok(ControlData {
            system_identifier: lines.read("Database system identifier")?,
            state: lines.text("Database cluster state")?.to_owned(),
            checkpoint: lines.read("Latest checkpoint location")?,
            checkpoint_timeline: TimelineId::new(lines.read("Latest checkpoint's TimeLineID")?),
            recovery_end: lines.read("Minimum recovery ending location")?,
            recovery_end_timeline: TimelineId::new(lines.read("Min recovery ending loc's timeline")?),
            hot_standby_minimum,
        })
    }

    /// Whether it was a primary and shut down cleanly: its last record is a shutdown checkpoint.
    #[must_use]
    pub fn is_clean_primary(&self) -> bool {
        self.state == "shut down"
    }

    /// Whether it was in recovery.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        matches!(self.state.as_str(), "shut down in recovery" | "in archive recovery")
    }

    /// A position within the last record of a cleanly stopped primary: whoever has received up to here has every record.
    /// Postgres sends and keeps whole records, so that the padding after it does not matter.
    #[must_use]
    pub fn clean_end(&self) -> Lsn {
        self.checkpoint.advanced(CHECKPOINT_RECORD)
    }

    /// The timeline of the data.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.checkpoint_timeline.max(self.recovery_end_timeline)
    }
}

struct Lines<'output>(&'output [String]);

impl Lines<'_> {
    fn text(&self, what: &'static str) -> Result<&str, Error> {
        let found = self.0.iter().find_map(|line| line.strip_prefix(what)?.trim_start().strip_prefix(':'));
        found.map(str::trim).ok_or_else(|| self.missing(what))
    }

    fn read<Value: std::str::FromStr>(&self, what: &'static str) -> Result<Value, Error> {
        self.text(what)?.parse().map_err(|_| self.missing(what))
    }

    fn missing(&self, what: &'static str) -> Error {
        Error::ControlData { what, output: self.0.join(" | ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
pg_control version number:            1300
Database system identifier:           7711687470068093566
Database cluster state:               shut down in recovery
Latest checkpoint location:           0/5000028
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/50000A0
Min recovery ending loc's timeline:   3
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64";

    fn lines(output: &str) -> Vec<String> {
        output.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_output_of_pg_controldata_is_read() {
        let control = ControlData::parse(&lines(OUTPUT)).unwrap();
        assert_eq!(control.system_identifier, 7_711_687_470_068_093_566);
        assert!(control.is_standby() && !control.is_clean_primary());
        assert_eq!(control.timeline(), TimelineId::new(3));
        assert_eq!(control.recovery_end, "0/50000A0".parse().unwrap());
        assert!(control.hot_standby_minimum.contains(&("max_locks_per_transaction".to_owned(), 64)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let fault =
            ControlData::parse(&lines(&OUTPUT.replace("Database cluster state", "Zustand"))).unwrap_err();
        assert!(fault.to_string().contains("Database cluster state"), "{fault}");
    }
}
