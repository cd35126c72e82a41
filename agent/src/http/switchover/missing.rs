//! What a new leader is known to lack when it may lack commits: timelines, positions, bytes, since when.

use outrider_dcs::Snapshot;
use outrider_ha::MemberName;
use outrider_wal::Lsn;
use serde_json::Value;

use crate::state::sync_state;

/// In words. `status`: what the member answers to `GET /patroni`.
pub(super) fn of(cluster: &Snapshot, name: &str, status: &Value) -> String {
    let location = |key: &str| status["xlog"][key].as_u64().map_or(Lsn::INVALID, Lsn::new);
    let at = location("location").max(location("received_location")).max(location("replayed_location"));
    let timeline = status["timeline"].as_u64().unwrap_or_default();
    let mut words = format!("{name} is on timeline {timeline} at {at}");
    if let Some(last) = status["xlog"]["replayed_timestamp"].as_str() {
        words += &format!(", its last commit is of {last}");
    }
    let mut lacks = Vec::new();
    let history = cluster.history.as_ref().map(|entry| entry.value.as_slice()).unwrap_or_default();
    for row in history.iter().filter(|row| u64::from(row.timeline) >= timeline) {
        let by = row.new_leader.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
        let when = row.timestamp.as_deref().map(|when| format!(", {when}")).unwrap_or_default();
        lacks.push(format!("timeline {}, begun at {}{by}{when}", row.timeline + 1, row.lsn));
    }
    let last = cluster.status.as_ref().map_or(Lsn::INVALID, |entry| entry.value.optime);
    match at.behind(last) {
        0 => {}
        bytes => lacks.push(format!(
            "{bytes} bytes up to {last}, the last position that a leader published, and what was written after it"
        )),
    }
    if let Some(sync) = cluster.sync.as_ref().map(|entry| &entry.value)
        && !sync_state(sync, 0).covers(&MemberName::from(name))
    {
        let holders: Vec<&str> = sync.leader.iter().chain(&sync.sync_standby).map(String::as_str).collect();
        lacks.push(format!("whatever was acknowledged since only {} had to have it", holders.join(" and ")));
    }
    if lacks.is_empty() {
        return format!("{words}; nothing is known to be missing");
    }
    format!("{words}; it lacks: {}", lacks.join("; "))
}

#[cfg(test)]
mod tests {
    use outrider_dcs::{Entry, HistoryRow, Status, SyncState};
    use serde_json::json;

    use super::*;

    #[test]
    fn timelines_positions_bytes_and_times_are_named() {
        let row = HistoryRow {
            timeline: 1,
            lsn: Lsn::new(0x500),
            reason: "promoted".to_owned(),
            timestamp: Some("2026-11-29T08:00:00Z".to_owned()),
            new_leader: Some("n1".to_owned()),
        };
        let sync = SyncState::parse(r#"{"leader":"n1","sync_standby":""}"#);
        let cluster = Snapshot {
            history: Some(Entry { value: vec![row], revision: 1 }),
            status: Some(Entry { value: Status::parse("1536"), revision: 1 }),
            sync: Some(Entry { value: sync, revision: 1 }),
            ..Snapshot::default()
        };
        let status = json!({"timeline": 1, "xlog": {"received_location": 0x400, "replayed_location": 0x3F0,
                            "replayed_timestamp": "2026-11-29 07:00:00+00:00"}});
        assert_eq!(
            of(&cluster, "n2", &status),
            "n2 is on timeline 1 at 0/400, its last commit is of 2026-11-29 07:00:00+00:00; it lacks: timeline 2, begun at \
             0/500 by n1, 2026-11-29T08:00:00Z; 512 bytes up to 0/600, the last position that a leader published, and what \
             was written after it; whatever was acknowledged since only n1 had to have it"
        );
        let whole = json!({"timeline": 2, "xlog": {"received_location": 0x600}});
        let words = of(&cluster, "n1", &whole);
        assert_eq!(words, "n1 is on timeline 2 at 0/600; nothing is known to be missing");
    }
}
