//! The session: one agent per name, resumed after a restart, moved to another ttl; and the watch.

use std::time::Duration;

use outrider_dcs::Session;
use serde_json::json;
use tokio::time::timeout;

use super::PATIENCE;
use super::bench::{Bench, TTL, identity, identity_with_file};

super::on_every_store!(
    a_second_agent_under_the_same_name_pushes_nobody_out,
    a_restarted_agent_goes_on_with_its_session,
    two_agents_do_not_share_a_session_file,
    a_session_that_expired_during_a_restart_is_begun_anew,
    a_new_ttl_moves_entry_and_leader_lease,
    an_ended_session_leaves_nothing_behind,
    the_watch_sees_what_others_do,
    a_refreshed_entry_is_no_urgent_change,
);

async fn a_second_agent_under_the_same_name_pushes_nobody_out(bench: &Bench) {
    let (first, second) = (bench.leader("p1").await, bench.agent("p1"));
    let entry = bench.get("members/p1").await;
    assert!(second.touch_member(&json!({"state": "intruder"})).await.unwrap_err().is_conflict());
    assert!(!second.read().await.unwrap().leader.unwrap().mine);
    assert!(second.renew_leader().await.unwrap_err().is_conflict());
    assert!(second.release_leader().await.unwrap_err().is_conflict());
    assert_eq!(bench.get("members/p1").await, entry);
    first.release_leader().await.unwrap();
    assert!(second.acquire_leader(None).await.unwrap_err().is_conflict(), "the name is the first one's");
    first.close().await.unwrap();
    second.touch_member(&json!({})).await.unwrap();
    second.acquire_leader(None).await.unwrap();
}

async fn a_restarted_agent_goes_on_with_its_session(bench: &Bench) {
    let directory = tempfile::tempdir().unwrap();
    let identity = identity_with_file("p1", directory.path().join("session"));
    let before = bench.agent_with(&identity);
    assert_eq!(before.touch_member(&json!({"a": 1})).await.unwrap(), Session::New);
    let held = before.acquire_leader(None).await.unwrap();
    drop(before);
    let after = bench.agent_with(&identity);
    assert!(after.read().await.unwrap().leader.unwrap().mine);
    assert_eq!(after.renew_leader().await.unwrap().term, held.term);
    assert_eq!(after.touch_member(&json!({"a": 2})).await.unwrap(), Session::Same);
}

async fn two_agents_do_not_share_a_session_file(bench: &Bench) {
    let directory = tempfile::tempdir().unwrap();
    let identity = identity_with_file("p1", directory.path().join("session"));
    let _first = bench.agent_with(&identity);
    match bench {
        Bench::Etcd(etcd) => {
            assert!(outrider_dcs::open_etcd(&identity, &super::bench::options(etcd.urls())).is_err())
        }
        Bench::Memory(memory) => assert!(memory.member(&identity).is_err()),
    }
}

async fn a_session_that_expired_during_a_restart_is_begun_anew(bench: &Bench) {
    let directory = tempfile::tempdir().unwrap();
    let identity = identity_with_file("p1", directory.path().join("session"));
    let before = bench.agent_with(&identity);
    before.touch_member(&json!({})).await.unwrap();
    before.acquire_leader(None).await.unwrap();
    drop(before);
    bench.expire("p1").await;
    let after = bench.agent_with(&identity);
    assert!(after.renew_leader().await.unwrap_err().is_conflict());
    assert_eq!(after.touch_member(&json!({})).await.unwrap(), Session::New);
    after.acquire_leader(None).await.unwrap();
}

async fn a_new_ttl_moves_entry_and_leader_lease(bench: &Bench) {
    let directory = tempfile::tempdir().unwrap();
    let identity = identity_with_file("p1", directory.path().join("session"));
    let p1 = bench.agent_with(&identity);
    p1.set_ttl(TTL).await.unwrap();
    p1.touch_member(&json!({"a": 1})).await.unwrap();
    let held = p1.acquire_leader(None).await.unwrap();
    let (entry, session) = bench.get("members/p1").await.unwrap();
    p1.set_ttl(TTL * 2).await.unwrap();
    let renewed = p1.renew_leader().await.unwrap();
    assert_eq!((renewed.ttl, renewed.term), (TTL * 2, held.term));
    let (moved_entry, new_session) = bench.get("members/p1").await.unwrap();
    assert_eq!(moved_entry, entry);
    assert_ne!(new_session, session);
    assert_eq!(bench.get("leader").await, Some(("p1".to_owned(), new_session)));
    drop(p1);
    // The successor has the normal ttl, and does not promise more than that.
    let after = bench.agent_with(&identity);
    assert_eq!(after.renew_leader().await.unwrap().ttl, TTL);
}

async fn an_ended_session_leaves_nothing_behind(bench: &Bench) {
    let (p1, p2) = (bench.leader("p1").await, bench.member("p2").await);
    p1.close().await.unwrap();
    p1.close().await.unwrap();
    let seen = p2.read().await.unwrap();
    assert!(seen.leader.is_none() && seen.member("p1").is_none());
    assert_eq!(p1.touch_member(&json!({})).await.unwrap(), Session::New);
}

async fn the_watch_sees_what_others_do(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    let mut changes = p2.watch();
    // The first turn of the counter says that the watch stands.
    if changes.borrow().all == 0 && matches!(bench, Bench::Etcd(_)) {
        timeout(PATIENCE, changes.changed()).await.unwrap().unwrap();
    }
    for step in 0..3 {
        let before = changes.borrow_and_update().urgent;
        match step {
            0 => drop(p1.acquire_leader(None).await.unwrap()),
            1 => drop(p1.create_config(&json!({})).await.unwrap()),
            _ => p1.close().await.unwrap(),
        }
        let seen = changes.wait_for(|changes| changes.urgent > before);
        assert!(timeout(PATIENCE, seen).await.unwrap().is_ok(), "step {step}");
    }
}

async fn a_refreshed_entry_is_no_urgent_change(bench: &Bench) {
    let p1 = bench.leader("p1").await;
    let watcher = bench.agent("p2");
    let mut changes = watcher.watch();
    if matches!(bench, Bench::Etcd(_)) {
        timeout(PATIENCE, changes.wait_for(|changes| changes.all > 0)).await.unwrap().unwrap();
    }
    let before = *changes.borrow_and_update();
    p1.touch_member(&json!({"xlog_location": 1})).await.unwrap();
    let after =
        *timeout(PATIENCE, changes.wait_for(|changes| changes.all > before.all)).await.unwrap().unwrap();
    assert_eq!(after.urgent, before.urgent);
    // The same value again is not even written.
    let (_, session) = bench.get("members/p1").await.unwrap();
    let seen = watcher.read().await.unwrap();
    p1.touch_member(&json!({"xlog_location": 1})).await.unwrap();
    let again = watcher.read().await.unwrap();
    assert_eq!(again.revision, seen.revision);
    assert_eq!(again.member("p1").unwrap().lease, session);
}

#[tokio::test]
async fn a_lease_is_free_once_its_holder_has_been_silent_for_the_ttl() {
    let bench = Bench::etcd().await;
    let short = outrider_dcs::Identity { ttl: Duration::from_secs(4), ..identity("p1") };
    let p1 = bench.agent_with(&short);
    p1.touch_member(&json!({})).await.unwrap();
    p1.acquire_leader(None).await.unwrap();
    let p2 = bench.member("p2").await;
    let mut changes = p2.watch();
    let freed = async {
        while p2.read().await.unwrap().leader.is_some() {
            changes.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, freed).await.unwrap();
    assert!(p1.renew_leader().await.unwrap_err().is_conflict());
}
