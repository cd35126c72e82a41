//! What only the memory store can be asked for: faults on demand.

use serde_json::json;

use super::*;
use crate::dcs::Session;
use crate::error::Error;

const TTL: Duration = Duration::from_secs(2);

fn identity(name: &str) -> Identity {
    Identity {
        name: name.to_owned(),
        base_path: "/service/a/".to_owned(),
        ttl: TTL,
        session_file: None,
        boottime_ns: || 7,
    }
}

#[tokio::test]
async fn a_lease_that_is_not_kept_alive_is_free_after_its_ttl_and_the_others_see_it() {
    let cluster = MemoryCluster::new();
    let (p1, p2) = (cluster.member(&identity("p1")).unwrap(), cluster.member(&identity("p2")).unwrap());
    p1.touch_member(&json!({})).await.unwrap();
    let held = p1.acquire_leader(None).await.unwrap();
    assert_eq!((held.ttl, held.sent_at_boottime_ns), (TTL, 7));
    let mut seen = p2.watch();
    let before = seen.borrow_and_update().urgent;
    tokio::time::timeout_at(held.until() + Duration::from_secs(10), seen.changed()).await.unwrap().unwrap();
    assert!(Instant::now() >= held.until());
    assert!(seen.borrow().urgent > before);
    assert_eq!(p2.read().await.unwrap().leader, None);
    assert!(p1.renew_leader().await.unwrap_err().is_conflict());
    assert_eq!(p1.touch_member(&json!({})).await.unwrap(), Session::New);
}

#[tokio::test]
async fn a_cut_off_member_is_told_that_nothing_happened() {
    let cluster = MemoryCluster::new();
    let p1 = cluster.member(&identity("p1")).unwrap();
    p1.touch_member(&json!({})).await.unwrap();
    cluster.set_reachable("p1", false);
    assert!(matches!(p1.acquire_leader(None).await, Err(Error::Unreachable { .. })));
    cluster.set_reachable("p1", true);
    assert_eq!(p1.read().await.unwrap().leader, None);
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_write_may_stand() {
    let cluster = MemoryCluster::new();
    let p1 = cluster.member(&identity("p1")).unwrap();
    p1.touch_member(&json!({})).await.unwrap();
    cluster.lose_replies("p1", 1);
    assert!(matches!(p1.acquire_leader(None).await, Err(Error::Unknown { .. })));
    assert!(p1.read().await.unwrap().leader.unwrap().mine);
    p1.renew_leader().await.unwrap();
}

#[tokio::test]
async fn a_session_kept_alive_by_a_deposed_leader_of_the_store_is_not_believed() {
    let cluster = MemoryCluster::new();
    let p1 = cluster.member(&identity("p1")).unwrap();
    p1.touch_member(&json!({})).await.unwrap();
    cluster.keep_alive_by_a_deposed_leader("p1", 1);
    let held = p1.acquire_leader(None).await.unwrap();
    cluster.keep_alive_by_a_deposed_leader("p1", 1);
    let renewed = p1.renew_leader().await.unwrap();
    assert_eq!(renewed.term, held.term);
    cluster.keep_alive_by_a_deposed_leader("p1", u32::MAX);
    assert!(matches!(p1.renew_leader().await, Err(Error::Unknown { .. })));
}
