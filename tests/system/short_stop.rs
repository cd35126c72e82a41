//! What a leader does before it stops for a switchover, so that the stop is short: it fills the WAL segment, and nobody sees that.

use std::process::Command;

use outrider_bed::{Builder, Cluster, Member, PROGRAM_LIMIT, finish};
use serde_json::json;

use crate::kept::{insert, primary};

/// PostgreSQL's default.
const SEGMENT: u64 = 16 << 20;

async fn switch_over(cluster: &Cluster) -> (&Member, String) {
    let leader = cluster.wait_for_leader().await.unwrap();
    let segment = "SELECT pg_walfile_name(pg_current_wal_insert_lsn())";
    let segment = primary(cluster).await.text(segment).await.unwrap();
    let candidate = cluster.wait_until_synchronous().await.unwrap().remove(0);
    let wish = json!({"leader": leader.name(), "candidate": candidate});
    let answer = leader.post("/switchover", &wish).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    cluster.wait_until_whole().await.unwrap();
    (leader, segment)
}

/// Where in the segment the record stands with which PostgreSQL ended it.
fn ended_at(cluster: &Cluster, member: &Member, segment: &str) -> u64 {
    let file = member.data_directory().join("pg_wal").join(segment);
    let mut dump = Command::new(cluster.guard.programs().postgres.join("pg_waldump"));
    let told = finish(dump.args(["--rmgr", "XLOG"]).arg(file), PROGRAM_LIMIT).unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let record = told.lines().find(|line| line.contains("SWITCH")).unwrap_or_else(|| panic!("{told}"));
    let lsn = record.split("lsn: ").nth(1).unwrap().split(',').next().unwrap();
    u64::from_str_radix(lsn.split('/').nth(1).unwrap(), 16).unwrap() % SEGMENT
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stop_finds_the_wal_segment_filled_and_logical_decoding_sees_nothing_of_it() {
    let rules = json!({"postgresql": {"parameters": {"wal_level": "logical"}}});
    let cluster = Builder::new().members(2).dcs(rules).start().await.unwrap();
    let decoded = "SELECT pg_create_logical_replication_slot('decoded', 'test_decoding')";
    primary(&cluster).await.run(decoded).await.unwrap();
    let mut segments = Vec::new();
    for row in 1..=2 {
        insert(&cluster, &format!("({row})")).await;
        segments.push(switch_over(&cluster).await);
    }
    for (leader, segment) in segments {
        let at = ended_at(&cluster, leader, &segment);
        assert!(
            at > SEGMENT / 16 * 14,
            "{segment} of {} was filled up to {at}: {}",
            leader.name(),
            leader.log()
        );
    }
    // The first leader leads again, and has the slot.
    let changes = "SELECT string_agg(data, E'\\n') FROM pg_logical_slot_peek_changes('decoded', NULL, NULL)";
    let changes = primary(&cluster).await.text(changes).await.unwrap();
    assert!(changes.contains("INSERT: \"row\"[integer]:2") && !changes.contains("outrider"), "{changes}");
}
