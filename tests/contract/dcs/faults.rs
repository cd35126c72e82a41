//! What etcd suffers: dead, frozen, compacted, answers lost. In the worst case the agent is told that it cannot know.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::CompactionOptions;
use outrider_dcs::{Dcs, Error, EtcdOptions, open_etcd};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::PATIENCE;
use super::bench::{TTL, base, count_keys, identity, identity_with_file, options};
use super::etcd_process::EtcdCluster;
use super::proxy::Proxy;

async fn leader(endpoints: Vec<String>) -> Arc<dyn Dcs> {
    let p1 = open_etcd(&identity("p1"), &options(endpoints)).unwrap();
    p1.touch_member(&json!({})).await.unwrap();
    p1.acquire_leader(None).await.unwrap();
    p1
}

/// As the agent does: again and again until the lease is renewed or lost.
async fn renewed(p1: &Arc<dyn Dcs>) {
    let deadline = Instant::now() + TTL;
    loop {
        match p1.renew_leader().await {
            Ok(_) => return,
            Err(Error::Unreachable { .. } | Error::Unknown { .. }) if Instant::now() < deadline => {}
            Err(error) => panic!("the lease was lost: {error}"),
        }
    }
}

#[tokio::test]
async fn a_killed_endpoint_does_not_cost_the_lease() {
    let mut etcd = EtcdCluster::start(3, &[]).await;
    let p1 = leader(etcd.urls()).await;
    for dead in 0..3 {
        etcd.kill(dead);
        renewed(&p1).await;
        p1.read().await.unwrap();
        etcd.restart(dead).await;
    }
}

#[tokio::test]
async fn a_frozen_endpoint_does_not_cost_the_lease() {
    let etcd = EtcdCluster::start(3, &[]).await;
    let p1 = leader(etcd.urls()).await;
    for frozen in 0..3 {
        etcd.freeze(frozen);
        renewed(&p1).await;
        p1.read().await.unwrap();
        etcd.thaw(frozen);
        renewed(&p1).await;
    }
}

#[tokio::test]
async fn a_renewal_at_a_frozen_follower_succeeds_in_one_call() {
    let etcd = EtcdCluster::start(3, &[]).await;
    let raft_leader = etcd.raft_leader().await;
    let followers = [(raft_leader + 1) % 3, (raft_leader + 2) % 3];
    let p1 = leader(followers.map(|follower| etcd.url(follower)).into()).await;
    // One of the two is the endpoint in use.
    for frozen in followers {
        etcd.freeze(frozen);
        p1.renew_leader().await.unwrap();
        p1.renew_leader().await.unwrap();
        etcd.thaw(frozen);
    }
}

#[tokio::test]
async fn with_every_endpoint_dead_nothing_happened_and_that_is_said_in_time() {
    let mut etcd = EtcdCluster::start(3, &[]).await;
    let limits = || EtcdOptions { retry_timeout: Duration::from_secs(3), ..options(etcd.urls()) };
    let p1 = open_etcd(&identity("p1"), &limits()).unwrap();
    let p2 = open_etcd(&identity("p2"), &limits()).unwrap();
    let never_connected = open_etcd(&identity("p3"), &limits()).unwrap();
    p1.touch_member(&json!({})).await.unwrap();
    p2.touch_member(&json!({})).await.unwrap();
    (0..3).for_each(|dead| etcd.kill(dead));
    let all = async {
        assert!(matches!(p1.read().await, Err(Error::Unreachable { .. })));
        assert!(matches!(p2.acquire_leader(None).await, Err(Error::Unreachable { .. })));
        assert!(matches!(never_connected.create_config(&json!({})).await, Err(Error::Unreachable { .. })));
    };
    timeout(PATIENCE, all).await.expect("each operation ends by itself");
}

#[tokio::test]
async fn an_agent_that_starts_before_etcd_waits_for_it() {
    let mut etcd = EtcdCluster::start(1, &[]).await;
    etcd.kill(0);
    let p1 = open_etcd(&identity("p1"), &options(etcd.urls())).unwrap();
    assert!(matches!(p1.touch_member(&json!({})).await, Err(Error::Unreachable { .. })));
    etcd.respawn(0);
    let up = async { while p1.touch_member(&json!({})).await.is_err() {} };
    timeout(PATIENCE, up).await.unwrap();
    p1.acquire_leader(None).await.unwrap();
}

#[tokio::test]
async fn a_lost_answer_to_a_write_is_unknown() {
    let etcd = EtcdCluster::start(1, &[]).await;
    let proxy = Proxy::to(etcd.port(0)).await;
    let limits = |url| EtcdOptions {
        request_timeout: Some(Duration::from_secs(1)),
        retry_timeout: Duration::from_secs(3),
        ..options(vec![url])
    };
    let p1 = open_etcd(&identity("p1"), &limits(proxy.url())).unwrap();
    p1.touch_member(&json!({})).await.unwrap();
    p1.acquire_leader(None).await.unwrap();
    let mut client = etcd.client().await;
    let before = count_keys(&mut client).await;
    proxy.swallow_answers(true);
    assert!(matches!(p1.create_config(&json!({"ttl": 5})).await, Err(Error::Unknown { .. })));
    assert_eq!(count_keys(&mut client).await, before + 1, "it was carried out all the same");
    // The connection that swallowed an answer is gone, and a new one does not pass the first look.
    assert!(matches!(p1.create_config(&json!({})).await, Err(Error::Unreachable { .. })));
    assert!(matches!(p1.read().await, Err(Error::Unreachable { .. })));
    proxy.swallow_answers(false);
    assert_eq!(*p1.read().await.unwrap().config.unwrap().value, json!({"ttl": 5}));
    p1.renew_leader().await.unwrap();
    proxy.swallow_answers(true);
    assert!(matches!(p1.release_leader().await, Err(Error::Unknown { .. })));
    proxy.swallow_answers(false);
    assert_eq!(p1.read().await.unwrap().leader, None, "it was carried out all the same");
}

#[tokio::test]
async fn a_compaction_does_not_stop_the_watch() {
    let etcd = EtcdCluster::start(1, &[]).await;
    let (p1, p2) = (leader(etcd.urls()).await, open_etcd(&identity("p2"), &options(etcd.urls())).unwrap());
    let mut changes = p2.watch();
    timeout(PATIENCE, changes.wait_for(|changes| changes.all > 0)).await.unwrap().unwrap();
    for round in 0..3 {
        let before = changes.borrow_and_update().urgent;
        let revision = p1.write_failover(&Default::default()).await.unwrap();
        let compaction = CompactionOptions::new().with_physical();
        etcd.client().await.compact(revision, Some(compaction)).await.unwrap();
        let seen = changes.wait_for(|changes| changes.urgent > before);
        assert!(timeout(PATIENCE, seen).await.unwrap().is_ok(), "round {round}");
    }
}

#[tokio::test]
async fn the_watch_survives_the_death_and_the_freeze_of_its_endpoint() {
    let mut etcd = EtcdCluster::start(3, &[]).await;
    let watcher = open_etcd(&identity("p2"), &options(etcd.urls())).unwrap();
    let mut changes = watcher.watch();
    timeout(PATIENCE, changes.wait_for(|changes| changes.all > 0)).await.unwrap().unwrap();
    // Each endpoint in turn, so that the watch's own is among them.
    for index in 0..3 {
        etcd.freeze(index);
        sees_writes(&watcher, &mut changes).await;
        etcd.thaw(index);
        etcd.kill(index);
        sees_writes(&watcher, &mut changes).await;
        etcd.restart(index).await;
    }
}

/// A change made from now on is seen, or the watch began anew after it.
async fn sees_writes(dcs: &Arc<dyn Dcs>, changes: &mut tokio::sync::watch::Receiver<outrider_dcs::Changes>) {
    let before = changes.borrow_and_update().urgent;
    let written = async { while dcs.write_failover(&Default::default()).await.is_err() {} };
    timeout(PATIENCE, written).await.unwrap();
    timeout(PATIENCE, changes.wait_for(|changes| changes.urgent > before)).await.unwrap().unwrap();
}

#[tokio::test]
async fn after_an_unknown_change_of_ttl_the_agent_finds_its_keys() {
    let etcd = EtcdCluster::start(1, &[]).await;
    let directory = tempfile::tempdir().unwrap();
    let session_file = directory.path().join("session");
    let p1 = open_etcd(&identity_with_file("p1", session_file.clone()), &options(etcd.urls())).unwrap();
    p1.touch_member(&json!({})).await.unwrap();
    let held = p1.acquire_leader(None).await.unwrap();
    drop(p1);
    // As a crash between the two halves leaves it: the new session is named, the keys are still on the old one.
    let mut client = etcd.client().await;
    let old = client.get(format!("{}leader", base()), None).await.unwrap().kvs()[0].lease();
    let new = client.lease_grant(60, None).await.unwrap().id();
    std::fs::write(&session_file, json!({"leases": [old, new]}).to_string()).unwrap();
    let after = open_etcd(&identity_with_file("p1", session_file.clone()), &options(etcd.urls())).unwrap();
    assert_eq!(after.renew_leader().await.unwrap().term, held.term);
    drop(after);
    // And the other way round: the keys are on the session that is named second.
    let gone = client.lease_grant(60, None).await.unwrap().id();
    std::fs::write(&session_file, json!({"leases": [gone, old]}).to_string()).unwrap();
    let after = open_etcd(&identity_with_file("p1", session_file), &options(etcd.urls())).unwrap();
    assert!(after.read().await.unwrap().leader.unwrap().mine);
    assert_eq!(after.renew_leader().await.unwrap().term, held.term);
}
