//! Replication slots that must outlive a change of the leader, where they stand: of a member that is away, and those that
//! somebody made by hand.

use std::collections::BTreeMap;

use outrider_bed::{Builder, Cluster, Connection, Member, wait_until};
use serde_json::json;

use crate::kept::{insert, primary, rows};
use crate::story::{LIMIT, Story, logged, logs};

/// Postgres keeps no more WAL than it must.
fn sparing(builder: Builder) -> Builder {
    let parameters = json!({
        "wal_keep_size": "0", "min_wal_size": "32MB", "max_wal_size": "32MB",
    });
    builder.settings(json!({"postgresql": {"parameters": parameters}, "bootstrap": {"initdb": ["no-sync"]}}))
}

async fn connect(cluster: &Cluster, member: &Member) -> Option<Connection> {
    let endpoint = cluster.endpoints().into_iter().find(|one| one.name == member.name())?;
    endpoint.connect().await.ok()
}

/// The physical slots of a member, each with the position from which on it keeps WAL.
async fn slots(cluster: &Cluster, member: &Member) -> Option<BTreeMap<String, u64>> {
    const SLOTS: &str = "SELECT coalesce(string_agg(slot_name || ' ' || \
        coalesce(pg_wal_lsn_diff(restart_lsn, '0/0'), 0)::bigint, ','), '') FROM pg_replication_slots";
    let text = connect(cluster, member).await?.text(SLOTS).await.ok()?;
    let slot = |slot: &str| {
        let (name, restart) = slot.split_once(' ')?;
        Some((name.to_owned(), restart.parse().ok()?))
    };
    text.split(',').filter(|slot| !slot.is_empty()).map(slot).collect()
}

/// Waits until the slots of a member are as they should be.
async fn slots_are(
    cluster: &Cluster,
    member: &Member,
    what: &str,
    wanted: impl Fn(&BTreeMap<String, u64>) -> bool,
) -> BTreeMap<String, u64> {
    let mut last = None;
    let mut there = async || {
        last = slots(cluster, member).await;
        last.clone().filter(&wanted)
    };
    let outcome = wait_until(format!("{} {what}", member.name()), LIMIT, &mut there).await;
    outcome.unwrap_or_else(|fault| panic!("{fault}: it has {last:?}; {}", logs(cluster)))
}

/// Kills a member, and waits until its key is gone.
async fn away(cluster: &Cluster, member: &Member) {
    member.kill_node();
    let name = format!("\"name\":\"{}\"", member.name());
    let gone = async || {
        let shown = cluster.leader().await?.get("/cluster").await.ok()?.text;
        (!shown.contains(&name)).then_some(())
    };
    wait_until("the member is gone from the DCS", LIMIT, gone).await.unwrap();
}

/// Fills several segments, and has every server remove what it need not keep.
async fn rotate(cluster: &Cluster) {
    for _ in 0..4 {
        primary(cluster).await.run("SELECT pg_switch_wal(); CHECKPOINT").await.unwrap();
        insert(cluster, "(0)").await;
    }
    let end = primary(cluster).await.text("SELECT pg_current_wal_lsn()::text").await.unwrap();
    primary(cluster).await.run("CHECKPOINT").await.unwrap();
    for member in &cluster.members {
        let Some(connection) = connect(cluster, member).await else { continue };
        let replayed =
            format!("SELECT (NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() >= '{end}')::text");
        let caught_up = async || (connection.text(&replayed).await.ok()? == "true").then_some(());
        wait_until("everybody has replayed it", LIMIT, caught_up).await.unwrap();
        // A restart point, on a standby.
        connection.run("CHECKPOINT").await.unwrap();
    }
}

/// The member comes back and streams with the data that it had.
async fn comes_back_without_a_copy(cluster: &Cluster, member: &Member) {
    let before = member.log().len();
    member.start().unwrap();
    let outcome = cluster.wait_until_whole().await;
    assert!(outcome.is_ok(), "{outcome:?}; {}", logs(cluster));
    let log = member.log();
    assert!(!log[before..].contains("job=cloning"), "it was copied anew: {}", &log[before..]);
    let wanted = rows(cluster).await;
    let caught_up = async || {
        let has = connect(cluster, member).await?.text(crate::kept::ROWS).await.ok()?;
        (has == wanted).then_some(())
    };
    wait_until("it has every row", LIMIT, caught_up).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_members_that_are_away_and_of_others_stay() {
    let story = Story::begin(Builder::new()).await;
    let cluster = &story.cluster;
    let leader = story.leader().await;
    let synchronous = cluster.wait_until_synchronous().await.unwrap().remove(0);
    let lost = cluster.standbys().await.unwrap().into_iter().find(|one| one.name() != synchronous).unwrap();
    primary(cluster)
        .await
        .run("SELECT pg_create_physical_replication_slot('of_a_person', true), pg_create_physical_replication_slot('unused')")
        .await
        .unwrap();
    away(cluster, lost).await;
    let candidate = cluster.member(&synchronous);
    slots_are(cluster, candidate, "has copies of them", |slots| {
        slots.get("of_a_person").is_some_and(|at| *at > 0) && slots.get("unused") == Some(&0)
    })
    .await;
    let wish = json!({"leader": leader.name(), "candidate": synchronous});
    let answer = leader.post("/switchover", &wish).await.unwrap();
    assert_eq!(answer.status, 200, "{}; {}", answer.text, logs(cluster));
    cluster.wait_until_streaming(1).await.unwrap();
    for member in [leader, candidate] {
        let stand = slots_are(cluster, member, "has the slots", |slots| {
            slots.contains_key(lost.name()) && slots.contains_key("of_a_person")
        });
        let stand = stand.await;
        assert!(stand[lost.name()] > 0 && stand["of_a_person"] > 0 && stand["unused"] == 0, "{stand:?}");
    }

    // Back again, it streams from the new leader. A copy goes with the slot, what a person made stays.
    lost.start().unwrap();
    cluster.wait_until_whole().await.unwrap();
    let copied = |slots: &BTreeMap<String, u64>| slots.contains_key("of_a_person");
    slots_are(cluster, lost, "has a copy of the person's slot", copied).await;
    primary(cluster).await.run("SELECT pg_drop_replication_slot('of_a_person')").await.unwrap();
    slots_are(cluster, lost, "has dropped the copy", |slots| !slots.contains_key("of_a_person")).await;
    slots_are(cluster, leader, "keeps what a person made there", copied).await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_finds_its_wal_at_another_leader() {
    let cluster = sparing(Builder::new()).start().await.unwrap();
    insert(&cluster, "(1)").await;
    let candidate = cluster.wait_until_synchronous().await.unwrap().remove(0);
    let leader = cluster.wait_for_leader().await.unwrap();
    let standbys = cluster.standbys().await.unwrap();
    let lost = standbys.into_iter().find(|one| one.name() != candidate).unwrap();
    away(&cluster, lost).await;
    rotate(&cluster).await;
    let wish = json!({"leader": leader.name(), "candidate": candidate});
    let answer = leader.post("/switchover", &wish).await.unwrap();
    assert_eq!(answer.status, 200, "{}; {}", answer.text, logs(&cluster));
    cluster.wait_until_streaming(1).await.unwrap();
    rotate(&cluster).await;
    comes_back_without_a_copy(&cluster, lost).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_finds_its_wal_after_a_reboot_of_the_leader() {
    let cluster = sparing(Builder::new()).start().await.unwrap();
    insert(&cluster, "(1)").await;
    let synchronous = cluster.wait_until_synchronous().await.unwrap().remove(0);
    let leader = cluster.wait_for_leader().await.unwrap();
    let standbys = cluster.standbys().await.unwrap();
    let lost = standbys.into_iter().find(|one| one.name() != synchronous).unwrap();
    away(&cluster, lost).await;
    rotate(&cluster).await;
    leader.kill_node();
    let outcome = cluster.wait_for_another(leader.name()).await;
    assert!(outcome.is_ok(), "{outcome:?}; {}", logs(&cluster));
    leader.start().unwrap();
    cluster.wait_until_streaming(1).await.unwrap();
    rotate(&cluster).await;
    comes_back_without_a_copy(&cluster, lost).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_of_a_member_goes_after_member_slots_ttl_and_that_of_a_person_stays() {
    let rules = json!({"member_slots_ttl": "2s", "slots": {"declared": {"type": "physical"}}});
    let cluster = Builder::new().dcs(rules).start().await.unwrap();
    insert(&cluster, "(1)").await;
    let candidate = cluster.wait_until_synchronous().await.unwrap().remove(0);
    let leader = cluster.wait_for_leader().await.unwrap();
    let standbys = cluster.standbys().await.unwrap();
    let lost = standbys.into_iter().find(|one| one.name() != candidate).unwrap();
    let make = "SELECT pg_create_physical_replication_slot('of_a_person', true)";
    primary(&cluster).await.run(make).await.unwrap();
    lost.kill_node();
    for member in [leader, cluster.member(&candidate)] {
        let slots = slots_are(&cluster, member, "has dropped the slot", |slots| {
            let people = slots.contains_key("of_a_person") && slots.get("declared").is_some_and(|at| *at > 0);
            people && !slots.contains_key(lost.name())
        });
        slots.await;
    }
    logged(leader, "as long as member_slots_ttl").await;
    // Back again, it has one.
    lost.start().unwrap();
    cluster.wait_until_whole().await.unwrap();
    slots_are(&cluster, leader, "has its slot again", |slots| slots.contains_key(lost.name())).await;
    let nothing = json!({"slots": null}).to_string();
    let answer = leader.request(reqwest::Method::PATCH, "/config", Some(nothing)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    for member in &cluster.members {
        let gone = |slots: &BTreeMap<String, u64>| {
            !slots.contains_key("declared") && slots.contains_key("of_a_person")
        };
        slots_are(&cluster, member, "has dropped what is not declared any more", gone).await;
    }
}
