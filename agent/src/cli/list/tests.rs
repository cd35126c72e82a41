//! Units of `list.rs`.

use super::*;

fn cluster() -> Value {
    json!({
        "scope": "demo",
        "members": [
            {"name": "p1", "role": "leader", "state": "running", "host": "10.0.0.1", "port": 5432, "timeline": 5,
             "outrider": {"reason": "the leader with the lease", "fuse_seconds": 3, "archive_waiting": 2, "archive_failing": true}},
            {"name": "p2", "role": "sync_standby", "state": "streaming", "host": "::1", "port": 5433, "timeline": 5,
             "receive_lag": 0, "receive_lsn": "0/5000060", "replay_lag": 1_600_000, "replay_lsn": "0/4E79640", "tags": {"nofailover": true}, "pending_restart": true,
             "pending_restart_reason": {"max_connections": {"old_value": "100", "new_value": "200"}},
             "outrider": {"archive_waiting": 0}},
            {"name": "p3", "role": "replica", "state": "creating replica", "timeline": 0,
             "receive_lag": "unknown", "receive_lsn": "unknown", "replay_lag": "unknown", "replay_lsn": "unknown"},
        ],
        "scheduled_switchover": {"at": "2026-12-01T00:00:00Z", "from": "p1"},
    })
}

#[test]
fn the_table_has_patronictls_columns_and_ours() {
    let shown = show(&cluster(), Format::Table).unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let lines: Vec<Vec<String>> = shown.lines().filter(|line| line.starts_with('|')).map(cells).collect();
    assert_eq!(
        lines[0],
        [
            "Member",
            "Host",
            "Role",
            "State",
            "TL",
            "Receive LSN",
            "Receive Lag",
            "Replay LSN",
            "Replay Lag",
            "Fuse in s",
            "Archive lag",
            "Reason",
            "Pending restart",
            "Tags"
        ]
    );
    let leader = [
        "p1",
        "10.0.0.1:5432",
        "Leader",
        "running",
        "5",
        "",
        "",
        "",
        "",
        "3",
        "2 segments, failing",
        "the leader with the lease",
        "",
        "",
    ];
    assert_eq!(lines[1], leader);
    assert_eq!(
        lines[2],
        [
            "p2",
            "[::1]:5433",
            "Sync Standby",
            "streaming",
            "5",
            "0/5000060",
            "0",
            "0/4E79640",
            "2 MB",
            "",
            "0 segments",
            "",
            "max_connections: 100->200",
            "nofailover: true"
        ]
    );
    assert_eq!(lines[3][5..9], ["unknown"; 4]);
    assert!(shown.starts_with("Cluster: demo\n"), "{shown}");
    assert!(shown.ends_with("Switchover scheduled at 2026-12-01T00:00:00Z from p1\n"), "{shown}");
}

#[test]
fn what_is_amiss_is_told_below_the_table_and_in_json_with_its_member() {
    let mut cluster = cluster();
    cluster["members"][0]["outrider"]["not_honoured"] = json!(["loop_wiat: is not a known key"]);
    cluster["members"][1]["outrider"]["not_honoured"] = json!(["loop_wiat: is not a known key"]);
    cluster["members"][2]["outrider"] = json!({"start_failure": ["FATAL: no such library"]});
    let shown = show(&cluster, Format::Table).unwrap();
    assert!(shown.contains("\np1, p2: not honoured: loop_wiat: is not a known key\n"), "{shown}");
    assert!(shown.ends_with("\np3: Postgres does not start: FATAL: no such library\n"), "{shown}");
    let rows: Value = serde_json::from_str(&show(&cluster, Format::Json).unwrap()).unwrap();
    assert_eq!(rows[2]["Trouble"][0], "Postgres does not start: FATAL: no such library");
}

#[test]
fn a_gap_of_the_archive_is_counted_beside_what_waits_and_named_below() {
    let mut cluster = cluster();
    let gap = "000000010000000000000003 to 000000010000000000000006";
    cluster["members"][1]["outrider"]["archive_gaps"] = json!([gap]);
    let shown = show(&cluster, Format::Table).unwrap();
    assert!(shown.contains(" 0 segments, 1 gap "), "{shown}");
    let told = format!("take a base backup: {gap}\n");
    assert!(
        shown.lines().any(|line| format!("{line}\n").ends_with(&told) && line.starts_with("p2: ")),
        "{shown}"
    );
}

#[test]
fn json_keeps_numbers_and_leaves_out_what_is_absent() {
    let rows: Value = serde_json::from_str(&show(&cluster(), Format::Json).unwrap()).unwrap();
    assert_eq!((&rows[1]["Receive Lag"], &rows[1]["Replay Lag"]), (&json!(0), &json!(2)));
    assert_eq!(rows[0].get("Replay Lag"), None);
}

#[test]
fn a_standby_whose_replay_stands_is_not_shown_as_well() {
    let mut cluster = cluster();
    let why = "replay is paused (pg_wal_replay_resume() resumes it)";
    cluster["members"][1]["outrider"]["replay"] = json!({"hold": "paused", "why": why});
    let shown = show(&cluster, Format::Table).unwrap();
    assert!(shown.contains("| streaming, replay stands |"), "{shown}");
    assert!(shown.contains(&format!("\np2: {why}; 2 MB to replay\n")), "{shown}");
    let rows: Value = serde_json::from_str(&show(&cluster, Format::Json).unwrap()).unwrap();
    assert_eq!(rows[1]["State"], "streaming");
    assert_eq!(rows[1]["Trouble"][0], format!("{why}; 2 MB to replay"));
}

#[test]
fn work_that_fails_is_shown_with_its_count() {
    let reason = |failing| reason(&json!({"reason": "cloning", "failing": failing}));
    assert_eq!(reason(Value::Null), "cloning");
    let failing = json!({"job": "clone", "count": 7, "fault": "no route"});
    assert_eq!(reason(failing), "cloning (clone failed 7 times: no route)");
}

#[test]
fn yaml_is_a_list_of_members() {
    let shown = show(&cluster(), Format::Yaml).unwrap();
    assert!(shown.starts_with("- Member: p1\n"), "{shown}");
}
