//! The last known position of the primary and its slots. Only as fresh as the leader's last write.

use std::collections::BTreeMap;

use outrider_wal::{Lsn, TimelineId};
use serde::Serialize;
use serde_json::{Map, Value};

/// The key `status`. Shape: `{"optime":67108960,"slots":{"p2":67108960},"retain_slots":["p2"]}`; LSNs are plain numbers. Outrider
/// adds `"timeline":1` and `"archived":{"timeline":1,"lsn":67108864}`, with `"gaps":[33554432]` in it if there are any.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// The position up to which the primary had written.
    #[serde(serialize_with = "lsn_number")]
    pub optime: Lsn,
    /// The timeline of this position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<TimelineId>,
    /// Slots that standbys keep at these positions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "lsn_numbers")]
    pub slots: BTreeMap<String, Lsn>,
    /// Slots of members that were here recently, to be kept for a while.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retain_slots: Vec<String>,
    /// The position up to which the archive is complete, as far as the leader knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<ArchivedTo>,
    /// Other keys, preserved.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// All WAL of a timeline and its ancestors before this position is in the archive, except for gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArchivedTo {
    /// The primary's timeline.
    #[serde(serialize_with = "timeline_number")]
    pub timeline: TimelineId,
    /// The start of a segment.
    #[serde(serialize_with = "lsn_number")]
    pub lsn: Lsn,
    /// Where the gaps before it begin that the primary cannot fill. Members that have that WAL keep it.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "lsn_list")]
    pub gaps: Vec<Lsn>,
}

impl Status {
    /// Reads the JSON, or the plain number of the older key `optime/leader`. Anything unreadable counts as absent.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut other = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(map)) => map,
            Ok(number) => return Status { optime: lsn(&number).unwrap_or_default(), ..Status::default() },
            Err(_) => return Status::default(),
        };
        let optime = other.shift_remove("optime").as_ref().and_then(lsn).unwrap_or_default();
        let slots = match other.shift_remove("slots") {
            Some(Value::Object(slots)) => {
                slots.iter().filter_map(|(name, at)| Some((name.clone(), lsn(at)?))).collect()
            }
            _ => BTreeMap::new(),
        };
        let retain_slots = match other.shift_remove("retain_slots") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let archived = other.shift_remove("archived").as_ref().and_then(archived_to);
        let timeline = other.shift_remove("timeline").as_ref().and_then(timeline);
        Status { optime, timeline, slots, retain_slots, archived, other }
    }
}

fn archived_to(value: &Value) -> Option<ArchivedTo> {
    let gaps = value.get("gaps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Some(ArchivedTo {
        timeline: timeline(value.get("timeline")?)?,
        lsn: value.get("lsn").and_then(lsn)?,
        gaps: gaps.iter().filter_map(lsn).collect(),
    })
}

fn timeline(value: &Value) -> Option<TimelineId> {
    value.as_u64()?.try_into().ok().map(TimelineId::new)
}

fn lsn(value: &Value) -> Option<Lsn> {
    match value {
        Value::String(text) => text.parse().ok().map(Lsn::new),
        other => other.as_u64().map(Lsn::new),
    }
}

fn lsn_number<S: serde::Serializer>(at: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.get())
}

fn lsn_list<S: serde::Serializer>(places: &[Lsn], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(places.iter().map(|at| at.get()))
}

fn timeline_number<S: serde::Serializer>(timeline: &TimelineId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(timeline.get())
}

fn lsn_numbers<S: serde::Serializer>(
    slots: &BTreeMap<String, Lsn>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(slots.iter().map(|(name, at)| (name, at.get())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::compact_json;

    #[test]
    fn the_bytes_are_patronis() {
        let text = r#"{"optime":67108960,"slots":{"p2":67108961,"p3":67108962},"retain_slots":["p2"],"x":1}"#;
        let status = Status::parse(text);
        assert_eq!((status.optime, status.slots["p3"]), (Lsn::new(67_108_960), Lsn::new(67_108_962)));
        assert_eq!(compact_json(&status), text);
        assert_eq!(compact_json(&Status { optime: Lsn::new(1), ..Status::default() }), r#"{"optime":1}"#);
    }

    #[test]
    fn what_is_archived_is_ours_and_patroni_need_not_know_it() {
        let text = r#"{"optime":9,"archived":{"timeline":2,"lsn":16777216}}"#;
        let status = Status::parse(text);
        let archived =
            ArchivedTo { timeline: TimelineId::new(2), lsn: Lsn::new(16_777_216), gaps: Vec::new() };
        assert_eq!((status.archived.as_ref(), compact_json(&status)), (Some(&archived), text.to_owned()));
        let text = r#"{"optime":9,"archived":{"timeline":2,"lsn":16777216,"gaps":[4096,8192]}}"#;
        let status = Status::parse(text);
        assert_eq!(status.archived.as_ref().unwrap().gaps, [Lsn::new(4096), Lsn::new(8192)]);
        assert_eq!(compact_json(&status), text);
        assert_eq!(Status::parse(r#"{"optime":9,"archived":7}"#).archived, None);
        let text = r#"{"optime":9,"timeline":3}"#;
        let status = Status::parse(text);
        assert_eq!((status.timeline, compact_json(&status)), (Some(TimelineId::new(3)), text.to_owned()));
    }

    #[test]
    fn the_older_plain_number_is_read() {
        assert_eq!(Status::parse("67108960").optime, Lsn::new(67_108_960));
        assert_eq!(Status::parse("nonsense"), Status::default());
    }
}
