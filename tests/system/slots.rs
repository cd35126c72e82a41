//! Replication slots that must outlive a change of the leader: of a member that is away, and those that somebody made by hand.

use outrider_bed::{Builder, wait_until};

use crate::kept::primary;
use crate::story::{LIMIT, Story, logs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_members_that_are_away_and_of_others_stay() {
    let story = Story::begin(Builder::new()).await;
    let cluster = &story.cluster;
    let leader = story.leader().await;
    let synchronous = cluster.wait_until_synchronous().await.unwrap().remove(0);
    let away = cluster.standbys().await.unwrap().into_iter().find(|one| one.name() != synchronous).unwrap();
    primary(cluster)
        .await
        .run("SELECT pg_create_physical_replication_slot('of_a_person', true)")
        .await
        .unwrap();
    away.kill_node();
    let gone = async || {
        let shown = leader.get("/cluster").await.ok()?.text;
        (!shown.contains(&format!("\"name\":\"{}\"", away.name()))).then_some(())
    };
    wait_until("the member is gone from the DCS", LIMIT, gone).await.unwrap();
    let wish = serde_json::json!({"leader": leader.name(), "candidate": synchronous});
    let answer = leader.post("/switchover", &wish).await.unwrap();
    assert_eq!(answer.status, 200, "{}; {}", answer.text, logs(cluster));
    cluster.wait_until_streaming(1).await.unwrap();
    // The old leader has made the slots of a standby by now.
    let endpoint = cluster.endpoints().into_iter().find(|one| one.name == leader.name()).unwrap();
    let slots = async || {
        let connection = endpoint.connect().await.ok()?;
        let free =
            format!("SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = '{synchronous}'");
        let made = connection.text(&free).await.ok()?;
        let kept = "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') FROM pg_replication_slots \
            WHERE restart_lsn IS NOT NULL";
        (made == "1").then_some(connection.text(kept).await.ok()?)
    };
    let kept = wait_until("the old leader has the slots of a standby", LIMIT, slots).await.unwrap();
    assert_eq!(kept, format!("{},of_a_person", away.name()), "{}", leader.log());

    // Back again, it streams from the new leader, and nothing is held back for it elsewhere.
    away.start().unwrap();
    cluster.wait_until_whole().await.unwrap();
    let freed = async || (slots().await? == "of_a_person").then_some(());
    wait_until("the old leader holds nothing back for it", LIMIT, freed).await.unwrap();
    story.end().await;
}
