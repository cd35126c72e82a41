//! One row of the cluster's timeline history. Does not know the history files of Postgres itself.

use outrider_wal::Lsn;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// A timeline that ended. Shape: `[1,67108960,"no recovery target specified","2026-01-01T00:00:00+00:00","p2"]`; rows of
/// older versions end after the third or fourth item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// The timeline that was left.
    pub timeline: u32,
    /// Where it was left.
    pub lsn: Lsn,
    /// The reason that Postgres wrote into its history file.
    pub reason: String,
    /// When, ISO 8601.
    pub timestamp: Option<String>,
    /// Who led from there on.
    pub new_leader: Option<String>,
}

impl HistoryRow {
    /// Reads the whole key, `[[..],..]`. Rows that are not readable are left out.
    #[must_use]
    pub fn parse_all(text: &str) -> Vec<Self> {
        let rows: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
        rows.iter().filter_map(Self::from_value).collect()
    }

    fn from_value(row: &Value) -> Option<Self> {
        let text = |index: usize| row.get(index).and_then(Value::as_str).map(str::to_owned);
        Some(HistoryRow {
            timeline: row.get(0)?.as_u64()?.try_into().ok()?,
            lsn: Lsn::new(row.get(1)?.as_u64()?),
            reason: text(2)?,
            timestamp: text(3),
            new_leader: text(4),
        })
    }
}

impl Serialize for HistoryRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_seq(None)?;
        row.serialize_element(&self.timeline)?;
        row.serialize_element(&self.lsn.get())?;
        row.serialize_element(&self.reason)?;
        if self.timestamp.is_some() || self.new_leader.is_some() {
            row.serialize_element(&self.timestamp)?;
        }
        if let Some(new_leader) = &self.new_leader {
            row.serialize_element(new_leader)?;
        }
        row.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::compact_json;

    #[test]
    fn the_bytes_are_patronis() {
        let text = r#"[[1,67108960,"no recovery target specified"],[2,67109000,"x","2026-01-01T00:00:00+00:00"],[3,67109001,"x","2026-01-01T00:00:00+00:00","p2"]]"#;
        let rows = HistoryRow::parse_all(text);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2].new_leader.as_deref(), Some("p2"));
        assert_eq!(compact_json(&rows), text);
        assert_eq!(compact_json(&Vec::<HistoryRow>::new()), "[]");
    }

    #[test]
    fn rows_that_cannot_be_read_are_left_out() {
        assert_eq!(HistoryRow::parse_all(r#"[[1,2,"x"],["a"],7]"#).len(), 1);
        assert_eq!(HistoryRow::parse_all("{}"), []);
    }
}
