//! Single values of the cluster's rules, as anybody may have written them there: as a number, a truth or text.

use std::time::Duration;

use outrider_postgres::memory_bytes;
use serde_json::Value;

use super::section;

/// Most bytes that a healthy replica may have left to replay; `None` for no limit.
pub(crate) fn maximum_lag_on_replica(dcs: &Value) -> Option<u64> {
    memory_bytes(&section::scalar(dcs.get("maximum_lag_on_replica")?)?).ok()
}

/// A time in the rules.
pub(super) fn seconds(dcs: &Value, key: &str) -> Option<Duration> {
    section::scalar(dcs.get(key)?).and_then(|text| section::duration(&text))
}

pub(super) fn integer(dcs: &Value, key: &str) -> Option<u64> {
    section::scalar(dcs.get(key)?)?.parse().ok()
}

pub(super) fn truth(value: &Value) -> Option<bool> {
    section::boolean(&section::scalar(value)?)
}
