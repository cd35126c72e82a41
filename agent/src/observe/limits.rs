//! Who has less than the leader of the parameters that a standby must not have less of (`max_connections` and four others): by
//! what members publish as in effect, so that all of them see the same.

use std::collections::BTreeMap;

use outrider_dcs::Snapshot;
use outrider_postgres::{Observation, Role};
use serde::Deserialize as _;
use serde_json::Value;

/// Values in effect, by parameter.
pub(super) type Limits = BTreeMap<String, u32>;

/// What a member publishes; empty when it publishes none.
pub(super) fn published(member: &Value) -> Limits {
    let limits = member.pointer("/outrider/limits").and_then(|limits| Limits::deserialize(limits).ok());
    limits.unwrap_or_default()
}

/// What the leader publishes.
pub(super) fn of_leader(snapshot: &Snapshot) -> Limits {
    let leader = snapshot.leader.as_ref().and_then(|leader| snapshot.member(&leader.name));
    leader.map(|leader| published(&leader.value)).unwrap_or_default()
}

/// Whether a restart would leave the leader with less: the standbys then follow once it has.
pub(super) fn leader_lowers(snapshot: &Snapshot) -> bool {
    let leader = snapshot.leader.as_ref().and_then(|leader| snapshot.member(&leader.name));
    leader.is_some_and(|leader| leader.value.pointer("/outrider/lowers") == Some(&Value::Bool(true)))
}

/// Whether one of them is lower here than at the leader. Unknown values do not count.
pub(super) fn are_short(here: &Limits, leader: &Limits) -> bool {
    leader.iter().any(|(name, theirs)| here.get(name).is_some_and(|here| here < theirs))
}

/// Whether this Postgres is a standby with less than the leader has, or had when it wrote the WAL to be replayed next.
pub(super) fn is_short_here(seen: &Observation, leader: &Limits) -> bool {
    match &seen.role {
        Role::Primary { .. } => false,
        Role::Standby { lacking, .. } => !lacking.is_empty() || are_short(&seen.limits, leader),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whoever_has_less_of_one_of_them_is_short() {
        let limits = |limits: Value| published(&json!({"outrider": {"limits": limits}}));
        let leader = limits(json!({"max_connections": 60, "max_wal_senders": 10}));
        assert!(are_short(&limits(json!({"max_connections": 59, "max_wal_senders": 99})), &leader));
        assert!(!are_short(&limits(json!({"max_connections": 60, "max_wal_senders": 10})), &leader));
        // A leader that does not publish its values, or a member that does not, causes no work.
        assert!(!are_short(&limits(json!({})), &leader) && !are_short(&leader, &limits(json!("x"))));
    }
}
