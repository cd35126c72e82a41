//! The last known position of the primary and its slots. Only as fresh as the leader's last write.

use std::collections::BTreeMap;

use outrider_wal::Lsn;
use serde::Serialize;
use serde_json::{Map, Value};

/// The key `status`. Shape: `{"optime":67108960,"slots":{"p2":67108960},"retain_slots":["p2"]}`; LSNs are plain numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// How far the primary had written.
    #[serde(serialize_with = "lsn_number")]
    pub optime: Lsn,
    /// Slots that standbys keep at these positions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "lsn_numbers")]
    pub slots: BTreeMap<String, Lsn>,
    /// Slots of members that were here lately, to be kept for a while.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retain_slots: Vec<String>,
    /// Keys of others, carried along.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Status {
    /// Reads the JSON, or the plain number of the older key `optime/leader`. What cannot be read counts as absent.
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
        Status { optime, slots, retain_slots, other }
    }
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
    fn the_older_plain_number_is_read() {
        assert_eq!(Status::parse("67108960").optime, Lsn::new(67_108_960));
        assert_eq!(Status::parse("nonsense"), Status::default());
    }
}
