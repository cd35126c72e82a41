//! The leader lease: one holder, honest renewal, release, hand-over.

use outrider_dcs::{Error, SyncState};
use serde_json::json;

use super::bench::{Bench, TTL};

super::on_every_store!(
    of_many_that_race_one_gets_the_leader_lease,
    a_renewal_keeps_the_term_and_a_new_holder_gets_a_higher_one,
    renewing_a_leader_key_that_was_deleted_is_a_conflict,
    renewing_a_leader_key_that_was_stolen_is_a_conflict,
    a_leader_key_with_my_name_on_another_session_is_not_mine,
    a_member_without_an_entry_cannot_acquire,
    a_release_by_another_changes_nothing,
    a_release_frees_the_lease_at_once,
    a_hand_over_moves_the_key_to_the_session_of_the_heir,
    the_end_of_the_heirs_session_frees_a_lease_that_was_handed_over,
    a_hand_over_to_a_member_that_is_not_there_changes_nothing,
    acquiring_on_a_sync_record_that_has_changed_is_a_conflict,
    an_expired_session_loses_the_leader_lease,
);

fn is_conflict<T: std::fmt::Debug>(outcome: Result<T, Error>) -> bool {
    outcome.unwrap_err().is_conflict()
}

async fn of_many_that_race_one_gets_the_leader_lease(bench: &Bench) {
    let mut racing = tokio::task::JoinSet::new();
    for number in 0..6 {
        let member = bench.member(&format!("p{number}")).await;
        racing.spawn(async move { member.acquire_leader(Some(0)).await.map(|held| (member, held)) });
    }
    let mut winners = Vec::new();
    while let Some(outcome) = racing.join_next().await {
        match outcome.unwrap() {
            Ok(winner) => winners.push(winner),
            Err(error) => assert!(error.is_conflict(), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    let (winner, held) = &winners[0];
    let seen = winner.read().await.unwrap().leader.unwrap();
    assert_eq!((seen.name.as_str(), seen.mine, seen.term), (winner.name(), true, held.term));
}

async fn a_renewal_keeps_the_term_and_a_new_holder_gets_a_higher_one(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    let held = p1.acquire_leader(None).await.unwrap();
    assert_eq!((held.ttl, held.sent_at_boottime_ns), (TTL, 1));
    let renewed = p1.renew_leader().await.unwrap();
    assert_eq!(renewed.term, held.term);
    assert!(renewed.sent_at >= held.sent_at);
    p1.release_leader().await.unwrap();
    assert_eq!(p2.read().await.unwrap().term, held.term, "the term is known while the lease is free");
    assert!(p2.acquire_leader(None).await.unwrap().term > held.term);
}

async fn renewing_a_leader_key_that_was_deleted_is_a_conflict(bench: &Bench) {
    let p1 = bench.leader("p1").await;
    bench.delete("leader").await;
    assert!(is_conflict(p1.renew_leader().await));
    assert_eq!(bench.get("leader").await, None);
}

async fn renewing_a_leader_key_that_was_stolen_is_a_conflict(bench: &Bench) {
    let p1 = bench.leader("p1").await;
    bench.put("leader", "p2").await;
    assert!(is_conflict(p1.renew_leader().await));
    assert!(is_conflict(p1.write_history(&[]).await));
    assert_eq!(bench.get("leader").await, Some(("p2".to_owned(), 0)));
}

async fn a_leader_key_with_my_name_on_another_session_is_not_mine(bench: &Bench) {
    let p1 = bench.leader("p1").await;
    bench.put("leader", "p1").await;
    assert!(!p1.read().await.unwrap().leader.unwrap().mine);
    assert!(is_conflict(p1.renew_leader().await));
    assert!(is_conflict(p1.release_leader().await));
    // An agent that has no session at all does not take a key without one for its own either.
    let without_session = bench.agent("p1");
    assert!(!without_session.read().await.unwrap().leader.unwrap().mine);
    assert!(is_conflict(without_session.renew_leader().await));
    assert!(is_conflict(without_session.write_history(&[]).await));
}

async fn a_member_without_an_entry_cannot_acquire(bench: &Bench) {
    assert!(is_conflict(bench.agent("p1").acquire_leader(None).await));
    let p1 = bench.member("p1").await;
    bench.delete("members/p1").await;
    assert!(is_conflict(p1.acquire_leader(None).await));
    assert_eq!(bench.get("leader").await, None);
}

async fn a_release_by_another_changes_nothing(bench: &Bench) {
    let (p1, p2) = (bench.leader("p1").await, bench.member("p2").await);
    assert!(is_conflict(p2.release_leader().await));
    p1.renew_leader().await.unwrap();
}

async fn a_release_frees_the_lease_at_once(bench: &Bench) {
    let (p1, p2) = (bench.leader("p1").await, bench.member("p2").await);
    p1.release_leader().await.unwrap();
    p1.release_leader().await.unwrap();
    assert!(is_conflict(p1.renew_leader().await));
    p2.acquire_leader(None).await.unwrap();
    assert!(p1.read().await.unwrap().member("p1").is_some(), "the entry stays");
}

async fn a_hand_over_moves_the_key_to_the_session_of_the_heir(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    let held = p1.acquire_leader(None).await.unwrap();
    let term = p1.hand_over_leader("p2").await.unwrap();
    assert!(term > held.term);
    assert!(is_conflict(p1.renew_leader().await));
    assert!(is_conflict(p1.hand_over_leader("p2").await));
    let (_, session) = bench.get("members/p2").await.unwrap();
    assert_eq!(bench.get("leader").await, Some(("p2".to_owned(), session)));
    let seen = p2.read().await.unwrap().leader.unwrap();
    assert!(seen.mine && seen.term == term);
    assert_eq!(p2.renew_leader().await.unwrap().term, term);
}

async fn the_end_of_the_heirs_session_frees_a_lease_that_was_handed_over(bench: &Bench) {
    let (p1, p2) = (bench.leader("p1").await, bench.member("p2").await);
    p1.hand_over_leader("p2").await.unwrap();
    bench.expire("p1").await;
    p2.renew_leader().await.unwrap();
    bench.expire("p2").await;
    assert_eq!(bench.get("leader").await, None);
}

async fn a_hand_over_to_a_member_that_is_not_there_changes_nothing(bench: &Bench) {
    let p1 = bench.leader("p1").await;
    bench.put("members/p3", "{}").await;
    for heir in ["p2", "p3", "p1"] {
        assert!(is_conflict(p1.hand_over_leader(heir).await), "{heir}");
    }
    p1.renew_leader().await.unwrap();
}

async fn acquiring_on_a_sync_record_that_has_changed_is_a_conflict(bench: &Bench) {
    let (p1, p2) = (bench.leader("p1").await, bench.member("p2").await);
    let standby = ["p2".to_owned()].into();
    let sync = SyncState { leader: Some("p1".into()), sync_standby: standby, ..SyncState::default() };
    let first = p1.write_sync(&sync, 0).await.unwrap();
    let second = p1.write_sync(&SyncState { sync_standby: [].into(), ..sync }, first).await.unwrap();
    p1.release_leader().await.unwrap();
    assert!(is_conflict(p2.acquire_leader(Some(0)).await));
    assert!(is_conflict(p2.acquire_leader(Some(first)).await));
    assert_eq!(p2.read().await.unwrap().sync_revision, second);
    p2.acquire_leader(Some(second)).await.unwrap();
}

async fn an_expired_session_loses_the_leader_lease(bench: &Bench) {
    let (p1, p2) = (bench.leader("p1").await, bench.member("p2").await);
    bench.expire("p1").await;
    assert!(is_conflict(p1.renew_leader().await));
    assert_eq!(p1.touch_member(&json!({})).await.unwrap(), outrider_dcs::Session::New);
    assert!(is_conflict(p1.renew_leader().await));
    p2.acquire_leader(None).await.unwrap();
}
