//! The record of who may be promoted in synchronous modes. Does not decide who that is.

use std::collections::BTreeSet;

use outrider_wal::TimelineId;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// The key `sync`. Shape: `{"leader":"p1","quorum":0,"sync_standby":"p2,p3"}`; null for nobody. Ours, where there is
/// one: `"given_up":2`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SyncState {
    /// The primary that wrote it.
    pub leader: Option<String>,
    /// In quorum mode: how many of `sync_standby` a candidate must see to know that it is not behind; otherwise 0.
    pub quorum: u32,
    /// The standbys that may be promoted.
    #[serde(serialize_with = "comma_separated")]
    pub sync_standby: BTreeSet<String>,
    /// The newest timeline that was begun by a promotion which never ended recovery; nobody led on it. Not written when it is 0.
    #[serde(skip_serializing_if = "is_none")]
    pub given_up: TimelineId,
}

impl SyncState {
    /// Reads the JSON. An unreadable one names nobody, so that nobody is promoted on it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let leader = value.get("leader").and_then(Value::as_str).filter(|name| !name.is_empty());
        let names = value.get("sync_standby").and_then(Value::as_str).unwrap_or_default();
        SyncState {
            leader: leader.map(str::to_owned),
            // Patroni also accepts a quoted number (Kubernetes' annotations are text).
            quorum: value.get("quorum").and_then(number).unwrap_or_default(),
            sync_standby: names
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            given_up: TimelineId::new(value.get("given_up").and_then(number).unwrap_or_default()),
        }
    }

    /// Whether this member is recorded as a standby that may be promoted. Names are compared case-insensitively, as
    /// Postgres compares `application_name` in synchronous_standby_names.
    #[must_use]
    pub fn has_standby(&self, name: &str) -> bool {
        self.sync_standby.iter().any(|standby| standby.eq_ignore_ascii_case(name))
    }

    /// Whether this member is the recorded primary. Names are compared case-insensitively.
    #[must_use]
    pub fn is_leader(&self, name: &str) -> bool {
        self.leader.as_deref().is_some_and(|leader| leader.eq_ignore_ascii_case(name))
    }
}

fn number(value: &Value) -> Option<u32> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64()?.try_into().ok(),
    }
}

fn is_none(timeline: &TimelineId) -> bool {
    *timeline == TimelineId::default()
}

fn comma_separated<S: Serializer>(names: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
    if names.is_empty() {
        return serializer.serialize_none();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    serializer.serialize_str(&names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::compact_json;

    #[test]
    fn the_bytes_are_patronis() {
        let sync_standby = ["p3".to_owned(), "p2".to_owned()].into();
        let sync = SyncState { leader: Some("p1".into()), sync_standby, ..SyncState::default() };
        assert_eq!(compact_json(&sync), r#"{"leader":"p1","quorum":0,"sync_standby":"p2,p3"}"#);
        assert_eq!(compact_json(&SyncState::default()), r#"{"leader":null,"quorum":0,"sync_standby":null}"#);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for given_up in ["", r#","given_up":2"#] {
            let text = format!(r#"{{"leader":"p1","quorum":1,"sync_standby":"p2,p3"{given_up}}}"#);
            assert_eq!(compact_json(&SyncState::parse(&text)), text);
        }
    }

    #[test]
    fn what_cannot_be_read_names_nobody() {
        for bad in ["", "null", "[]", "{\"leader\":1,\"sync_standby\":7}", "p1"] {
            assert_eq!(SyncState::parse(bad), SyncState::default(), "{bad}");
        }
    }

    #[test]
    fn names_are_compared_without_regard_to_case() {
        let sync = SyncState::parse(r#"{"leader":"P1","sync_standby":"Node2"}"#);
        assert!(sync.has_standby("node2") && sync.is_leader("p1") && !sync.has_standby("p1"));
    }
}
