//! The keys of a cluster written anew in a store that lost them: by the primary that still runs, and by hand.

use outrider_dcs::{Error, Generation, HistoryRow, RebuiltKeys, SyncState};
use outrider_wal::Lsn;
use serde_json::json;

use super::bench::Bench;

super::on_every_store!(
    a_primary_recreates_the_keys_and_holds_the_lease_in_one_transaction,
    nothing_is_recreated_where_anything_of_a_cluster_stands,
    keys_are_rebuilt_while_nobody_leads_and_what_was_under_way_is_gone,
    nothing_is_rebuilt_under_a_leader_or_over_another_cluster,
    terms_go_on_from_where_they_were_in_the_store_that_was_lost,
    a_store_has_one_identity_for_everybody,
);

fn keys(generation: u64) -> RebuiltKeys {
    RebuiltKeys {
        generation: Generation {
            generation,
            term_base: 1_000_000,
            by: "p1".into(),
            at: "2026-11-29T00:00:00Z".into(),
        },
        system_identifier: "7".into(),
        config: Some(json!({"ttl": 5})),
        sync: Some(SyncState {
            leader: Some("p1".into()),
            quorum: 0,
            sync_standby: ["p2".to_owned()].into(),
            ..SyncState::default()
        }),
        history: vec![HistoryRow {
            timeline: 1,
            lsn: Lsn::new(77),
            reason: "no recovery target specified".into(),
            timestamp: None,
            new_leader: None,
        }],
        rollback_last: None,
    }
}

fn is_conflict<T>(outcome: Result<T, Error>) -> bool {
    outcome.err().is_some_and(|error| error.is_conflict())
}

async fn a_primary_recreates_the_keys_and_holds_the_lease_in_one_transaction(bench: &Bench) {
    let p1 = bench.member("p1").await;
    assert!(p1.read().await.unwrap().is_blank());
    let held = p1.recreate_cluster(&keys(1)).await.unwrap();
    let seen = p1.read().await.unwrap();
    let leader = seen.leader.as_ref().unwrap();
    assert!(leader.mine && !seen.is_blank());
    assert_eq!((leader.term, seen.term), (held.term, held.term));
    assert!(held.term > 1_000_000, "{}", held.term);
    assert_eq!(p1.renew_leader().await.unwrap().term, held.term);
    assert_eq!(seen.generation.unwrap().value, keys(1).generation);
    assert_eq!(seen.initialize.unwrap().value, "7");
    assert_eq!(*seen.config.unwrap().value, json!({"ttl": 5}));
    assert_eq!(Some(seen.sync.unwrap().value), keys(1).sync);
    assert_eq!(seen.history.unwrap().value, keys(1).history);
}

async fn nothing_is_recreated_where_anything_of_a_cluster_stands(bench: &Bench) {
    let p1 = bench.member("p1").await;
    for key in ["initialize", "leader", "config", "sync", "history", "outrider/term", "outrider/generation"] {
        bench.put(key, "").await;
        assert!(is_conflict(p1.recreate_cluster(&keys(1)).await), "{key}");
        bench.delete(key).await;
    }
    assert!(is_conflict(bench.agent("p2").recreate_cluster(&keys(1)).await), "it has no entry");
    p1.recreate_cluster(&keys(1)).await.unwrap();
}

async fn keys_are_rebuilt_while_nobody_leads_and_what_was_under_way_is_gone(bench: &Bench) {
    let (p1, by_hand) = (bench.leader("p1").await, bench.agent("p2"));
    p1.write_initialize("7").await.unwrap();
    p1.create_config(&json!({"ttl": 30})).await.unwrap();
    bench.put("failover", r#"{"member":"p3"}"#).await;
    for key in ["outrider/switchover", "outrider/rollback-request", "outrider/backup-request", "failsafe"] {
        bench.put(key, "{}").await;
    }
    p1.release_leader().await.unwrap();
    by_hand.rebuild_cluster(&keys(1), 0).await.unwrap();
    let seen = p1.read().await.unwrap();
    assert_eq!(*seen.config.as_ref().unwrap().value, json!({"ttl": 5}));
    assert_eq!(Some(seen.sync.as_ref().unwrap().value.clone()), keys(1).sync);
    assert_eq!((&seen.failover, &seen.intent, &seen.failsafe), (&None, &None, &None));
    assert_eq!((&seen.rollback_request, &seen.backup_request), (&None, &None));
    // In asynchronous mode there is no record of who may be promoted.
    let seen = seen.generation.unwrap().revision;
    let asynchronous = RebuiltKeys { sync: None, config: None, ..keys(2) };
    assert!(is_conflict(by_hand.rebuild_cluster(&asynchronous, 0).await), "it was rebuilt meanwhile");
    by_hand.rebuild_cluster(&asynchronous, seen).await.unwrap();
    let seen = p1.read().await.unwrap();
    assert_eq!((seen.sync, &*seen.config.unwrap().value), (None, &json!({"ttl": 5})));
}

async fn nothing_is_rebuilt_under_a_leader_or_over_another_cluster(bench: &Bench) {
    let (p1, by_hand) = (bench.leader("p1").await, bench.agent("p2"));
    assert!(is_conflict(by_hand.rebuild_cluster(&keys(1), 0).await));
    p1.release_leader().await.unwrap();
    for other in ["8", ""] {
        bench.put("initialize", other).await;
        assert!(is_conflict(by_hand.rebuild_cluster(&keys(1), 0).await), "{other:?}");
    }
    assert_eq!(p1.read().await.unwrap().generation, None);
}

async fn terms_go_on_from_where_they_were_in_the_store_that_was_lost(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    p1.rebuild_cluster(&keys(1), 0).await.unwrap();
    let free = p1.read().await.unwrap().term;
    assert!(free > 1_000_000);
    let first = p1.acquire_leader(None).await.unwrap().term;
    assert_eq!(p2.read().await.unwrap().leader.unwrap().term, first);
    let second = p1.hand_over_leader("p2").await.unwrap();
    assert!(free < first && first < second, "{free} {first} {second}");
    assert_eq!(p2.renew_leader().await.unwrap().term, second);
    assert_eq!(p1.read().await.unwrap().term, second);
}

async fn a_store_has_one_identity_for_everybody(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    let store = p1.read().await.unwrap().store;
    assert_ne!(store, 0);
    assert_eq!(p2.read().await.unwrap().store, store);
}
