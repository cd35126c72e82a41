//! Everything but the leader key: compare-and-swap, who may write, and the bytes as Patroni's.

use std::collections::BTreeMap;

use outrider_dcs::{
    Failover, FailoverAnswer, FailoverTerms, HistoryRow, Status, SwitchoverIntent, SyncState,
};
use outrider_wal::Lsn;
use serde_json::json;

use super::bench::Bench;

super::on_every_store!(
    one_member_claims_the_bootstrap_and_records_the_system_identifier,
    a_claim_goes_with_its_session,
    a_leader_records_a_missing_system_identifier_and_never_another,
    a_leader_records_the_system_identifier_over_the_claim_of_one_who_led_before,
    the_configuration_is_replaced_only_as_seen,
    a_wish_for_a_failover_is_written_and_cleared_as_patroni_does,
    a_wish_is_dated_and_answered_only_as_seen,
    what_rests_on_a_wish_is_not_done_once_that_is_taken_back,
    records_of_the_leader_are_written_by_the_leader_only,
    records_of_the_leader_have_patronis_bytes,
    the_sync_record_is_changed_only_as_seen,
    the_switchover_intent_is_ours_and_changed_only_as_seen,
    what_others_wrote_is_kept,
    the_order_of_keys_in_an_entry_is_kept,
);

fn text(value: Option<(String, i64)>) -> String {
    value.expect("the key is there").0
}

async fn one_member_claims_the_bootstrap_and_records_the_system_identifier(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    p1.claim_initialize().await.unwrap();
    p1.claim_initialize().await.unwrap();
    assert!(p2.claim_initialize().await.unwrap_err().is_conflict());
    assert!(p2.write_initialize("1").await.unwrap_err().is_conflict());
    assert!(p2.clear_initialize().await.unwrap_err().is_conflict());
    assert_eq!(p2.read().await.unwrap().initialize.unwrap().value, "");
    p1.write_initialize("7412345678901234567").await.unwrap();
    p1.write_initialize("7412345678901234567").await.unwrap();
    assert_eq!(bench.get("initialize").await, Some(("7412345678901234567".to_owned(), 0)));
    assert!(p1.clear_initialize().await.unwrap_err().is_conflict());
    assert!(p1.claim_initialize().await.unwrap_err().is_conflict());
}

async fn a_claim_goes_with_its_session(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    p1.claim_initialize().await.unwrap();
    p1.clear_initialize().await.unwrap();
    p1.claim_initialize().await.unwrap();
    bench.expire("p1").await;
    p2.claim_initialize().await.unwrap();
    assert!(p1.write_initialize("1").await.unwrap_err().is_conflict());
}

async fn a_leader_records_a_missing_system_identifier_and_never_another(bench: &Bench) {
    let (p1, p2) = (bench.leader("p1").await, bench.member("p2").await);
    assert!(p2.write_initialize("1").await.unwrap_err().is_conflict());
    p1.write_initialize("2").await.unwrap();
    assert!(p1.write_initialize("3").await.unwrap_err().is_conflict());
    assert_eq!(text(bench.get("initialize").await), "2");
}

/// Who claimed it has let go of the lease, and lives.
async fn a_leader_records_the_system_identifier_over_the_claim_of_one_who_led_before(bench: &Bench) {
    let (p1, p2) = (bench.leader("p1").await, bench.member("p2").await);
    p1.claim_initialize().await.unwrap();
    p1.release_leader().await.unwrap();
    assert!(p2.write_initialize("2").await.unwrap_err().is_conflict());
    p2.acquire_leader(None).await.unwrap();
    p2.write_initialize("2").await.unwrap();
    assert!(p1.write_initialize("1").await.unwrap_err().is_conflict());
    assert_eq!(bench.get("initialize").await, Some(("2".to_owned(), 0)));
}

async fn the_configuration_is_replaced_only_as_seen(bench: &Bench) {
    let p1 = bench.agent("p1");
    let first = p1.create_config(&json!({"ttl": 30, "loop_wait": 10})).await.unwrap();
    assert!(p1.create_config(&json!({})).await.unwrap_err().is_conflict());
    assert_eq!(text(bench.get("config").await), r#"{"ttl":30,"loop_wait":10}"#);
    let second = p1.replace_config(&json!({"ttl": 5}), first).await.unwrap();
    assert!(p1.replace_config(&json!({}), first).await.unwrap_err().is_conflict());
    let seen = p1.read().await.unwrap().config.unwrap();
    assert_eq!((seen.revision, &*seen.value), (second, &json!({"ttl": 5})));
}

async fn a_wish_for_a_failover_is_written_and_cleared_as_patroni_does(bench: &Bench) {
    let p1 = bench.agent("p1");
    assert_eq!(p1.read().await.unwrap().failover, None);
    let wish = Failover { leader: Some("p1".into()), member: Some("p2".into()), ..Failover::default() };
    let first = p1.write_failover(&wish).await.unwrap();
    assert_eq!(text(bench.get("failover").await), r#"{"leader":"p1","member":"p2"}"#);
    let second = p1.write_failover(&wish).await.unwrap();
    assert!(p1.clear_failover(first).await.unwrap_err().is_conflict());
    let seen = p1.read().await.unwrap().failover.unwrap();
    assert_eq!((seen.revision, seen.value), (second, wish));
    p1.clear_failover(second).await.unwrap();
    assert_eq!(text(bench.get("failover").await), "{}");
    assert_eq!(p1.read().await.unwrap().failover, None);
    bench.put("failover", "p1:p2").await;
    assert_eq!(p1.read().await.unwrap().failover.unwrap().value.member.as_deref(), Some("p2"));
}

fn rows() -> Vec<HistoryRow> {
    vec![HistoryRow {
        timeline: 1,
        lsn: Lsn::new(67_108_960),
        reason: "no recovery target specified".into(),
        timestamp: Some("2026-01-01T00:00:00+00:00".into()),
        new_leader: Some("p1".into()),
    }]
}

fn status() -> Status {
    Status {
        optime: Lsn::new(67_108_960),
        slots: [("p2".to_owned(), Lsn::new(67_108_961))].into(),
        retain_slots: vec!["p2".into()],
        ..Status::default()
    }
}

fn intent() -> SwitchoverIntent {
    SwitchoverIntent {
        id: "a1".into(),
        from: "p1".into(),
        to: "p2".into(),
        stopping: false,
        deadline_unix_ms: 1_700_000_000_000,
    }
}

async fn a_wish_is_dated_and_answered_only_as_seen(bench: &Bench) {
    let p1 = bench.member("p1").await;
    let wish = Failover { member: Some("p2".to_owned()), ..Failover::default() };
    let seen = p1.write_failover(&wish).await.unwrap();
    let terms = FailoverTerms {
        id: "p1-1".to_owned(),
        deadline_unix_ms: 1_800_000_000_000,
        valid_ms: 20_000,
        accept_data_loss: false,
        wait: false,
    };
    let dated = Failover { outrider: Some(terms), ..wish };
    let next = p1.replace_failover(&dated, seen).await.unwrap();
    assert!(p1.replace_failover(&dated, seen).await.unwrap_err().is_conflict());
    assert_eq!(p1.read().await.unwrap().failover.unwrap().value, dated);
    let answer = FailoverAnswer { id: "p1-1".to_owned(), why: "it lacks data".to_owned(), lacks_data: true };
    assert!(p1.answer_failover(&answer, seen).await.unwrap_err().is_conflict());
    p1.answer_failover(&answer, next).await.unwrap();
    let read = p1.read().await.unwrap();
    assert_eq!((read.failover, read.failover_answer), (None, Some(answer)));
}

async fn what_rests_on_a_wish_is_not_done_once_that_is_taken_back(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.leader("p2").await);
    let wish = Failover { member: Some("p1".to_owned()), ..Failover::default() };
    let seen = p1.write_failover(&wish).await.unwrap();
    let first = p2.write_intent_on_request(&intent(), 0, seen).await.unwrap();
    p1.clear_failover(seen).await.unwrap();
    assert!(p2.write_intent_on_request(&intent(), first, seen).await.unwrap_err().is_conflict());
    p2.release_leader().await.unwrap();
    assert!(p1.acquire_leader_on_request(Some(0), seen).await.unwrap_err().is_conflict());
    let again = p1.write_failover(&wish).await.unwrap();
    p1.acquire_leader_on_request(Some(0), again).await.unwrap();
}

async fn records_of_the_leader_are_written_by_the_leader_only(bench: &Bench) {
    let (_leader, p2) = (bench.leader("p1").await, bench.member("p2").await);
    assert!(p2.write_status(&status()).await.unwrap_err().is_conflict());
    assert!(p2.write_history(&rows()).await.unwrap_err().is_conflict());
    assert!(p2.write_failsafe(&BTreeMap::new()).await.unwrap_err().is_conflict());
    assert!(p2.write_sync(&SyncState::default(), 0).await.unwrap_err().is_conflict());
    assert!(p2.clear_sync(0).await.unwrap_err().is_conflict());
    assert!(p2.write_intent(&intent(), 0).await.unwrap_err().is_conflict());
    assert!(p2.clear_intent(0).await.unwrap_err().is_conflict());
    for key in ["status", "history", "failsafe", "sync", "outrider/switchover"] {
        assert_eq!(bench.get(key).await, None, "{key}");
    }
}

async fn records_of_the_leader_have_patronis_bytes(bench: &Bench) {
    let p1 = bench.leader("p1").await;
    p1.write_status(&status()).await.unwrap();
    p1.write_history(&rows()).await.unwrap();
    p1.write_failsafe(&[("p1".to_owned(), "http://h:8008/patroni".to_owned())].into()).await.unwrap();
    let expected = [
        ("status", r#"{"optime":67108960,"slots":{"p2":67108961},"retain_slots":["p2"]}"#),
        ("history", r#"[[1,67108960,"no recovery target specified","2026-01-01T00:00:00+00:00","p1"]]"#),
        ("failsafe", r#"{"p1":"http://h:8008/patroni"}"#),
    ];
    for (key, bytes) in expected {
        assert_eq!(bench.get(key).await, Some((bytes.to_owned(), 0)), "{key}");
    }
    assert_eq!(text(bench.get("leader").await), "p1");
    let seen = p1.read().await.unwrap();
    assert_eq!((seen.status.unwrap().value, seen.history.unwrap().value), (status(), rows()));
    assert_eq!(seen.failsafe.unwrap().value.len(), 1);
}

async fn the_sync_record_is_changed_only_as_seen(bench: &Bench) {
    let p1 = bench.leader("p1").await;
    let standbys = ["p3".to_owned(), "p2".to_owned()].into();
    let sync = SyncState { leader: Some("p1".into()), sync_standby: standbys, ..SyncState::default() };
    let first = p1.write_sync(&sync, 0).await.unwrap();
    assert_eq!(text(bench.get("sync").await), r#"{"leader":"p1","quorum":0,"sync_standby":"p2,p3"}"#);
    assert!(p1.write_sync(&sync, 0).await.unwrap_err().is_conflict());
    let alone = SyncState { sync_standby: [].into(), ..sync };
    let second = p1.write_sync(&alone, first).await.unwrap();
    assert_eq!(text(bench.get("sync").await), r#"{"leader":"p1","quorum":0,"sync_standby":null}"#);
    assert!(p1.clear_sync(first).await.unwrap_err().is_conflict());
    assert_eq!(p1.read().await.unwrap().sync.unwrap().value, alone);
    p1.clear_sync(second).await.unwrap();
    assert_eq!(bench.get("sync").await, None);
    let seen = p1.read().await.unwrap();
    assert_eq!(seen.sync, None);
    assert!(seen.sync_revision > second, "that it is gone is meant, and not an older copy of the store");
}

async fn the_switchover_intent_is_ours_and_changed_only_as_seen(bench: &Bench) {
    let p1 = bench.leader("p1").await;
    let first = p1.write_intent(&intent(), 0).await.unwrap();
    assert!(p1.write_intent(&intent(), 0).await.unwrap_err().is_conflict());
    let seen = p1.read().await.unwrap().intent.unwrap();
    assert_eq!((seen.revision, seen.value), (first, intent()));
    assert!(bench.get("outrider/switchover").await.is_some());
    p1.clear_intent(first).await.unwrap();
    assert_eq!(p1.read().await.unwrap().intent, None);
}

async fn what_others_wrote_is_kept(bench: &Bench) {
    let p1 = bench.agent("p1");
    bench.put("config", r#"{"ttl":30,"postgresql":{"use_pg_rewind":true},"of_a_newer_version":[1]}"#).await;
    bench
        .put("members/p9", r#"{"state":"running","role":"replica","timeline":3,"xlog_location":5,"new":{}}"#)
        .await;
    bench.put("members/p0", "postgres://h:5432/postgres").await;
    bench.put("optime/leader", "77").await;
    bench.put("nobody_knows", "x").await;
    let seen = p1.read().await.unwrap();
    assert_eq!(seen.config.unwrap().value["of_a_newer_version"], json!([1]));
    let p9 = &seen.members[1];
    assert_eq!((p9.state(), p9.role(), p9.timeline()), (Some("running"), Some("replica"), Some(3)));
    assert_eq!((p9.xlog_location(), p9.value["new"].clone()), (Some(Lsn::new(5)), json!({})));
    assert_eq!((seen.members[0].name.as_str(), seen.members[0].state()), ("p0", None));
    assert_eq!(seen.status.unwrap().value.optime, Lsn::new(77));
}

async fn the_order_of_keys_in_an_entry_is_kept(bench: &Bench) {
    let p1 = bench.agent("p1");
    let entry =
        r#"{"conn_url":"postgres://h:5432/postgres","api_url":"http://h:8008/patroni","state":"running"}"#;
    p1.touch_member(&serde_json::from_str(entry).unwrap()).await.unwrap();
    let (bytes, session) = bench.get("members/p1").await.unwrap();
    assert_eq!(bytes, entry);
    assert_ne!(session, 0);
}
