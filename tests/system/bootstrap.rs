//! Clusters and members that begin with what the archive has: after all members are lost, at a point in time from another
//! cluster's archive, and a new standby.

use std::collections::BTreeSet;

use outrider_bed::{Archive, Builder, Cluster, Member, wait_until};
use outrider_wal::{Lsn, SegmentSize, WalFileName};
use serde_json::{Value, json};

use crate::by_hand::{MARK, files};
use crate::kept::{WORK_LIMIT, archived, back_up, insert, primary, rows, streamed, three_rows_archived};
use crate::story::{LIMIT, Story, logs};

/// Every member with its data, and what the DCS knows of them.
pub(crate) async fn lose_everything(cluster: &Cluster) {
    cluster.members.iter().for_each(Member::kill_node);
    cluster.members.iter().for_each(|member| member.lose_disk().unwrap());
    cluster.etcd.delete_all("/service/bed/").await.unwrap();
}

pub(crate) fn restart(cluster: &Cluster, settings: &Value) {
    for member in &cluster.members {
        member.change_configuration(settings).unwrap();
        member.start().unwrap();
    }
}

pub(crate) fn with_archive() -> Builder {
    Builder::new()
        .members(2)
        .archive(Archive::MinioIfThere)
        .settings(json!({"archive": {"schedule": "never"}}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lost_every_member_and_its_dcs_comes_back_from_its_archive() {
    let cluster = with_archive().start().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    let system = cluster.etcd.get("/service/bed/initialize").await.unwrap().unwrap();
    three_rows_archived(&cluster).await;
    lose_everything(&cluster).await;
    restart(&cluster, &json!({"bootstrap": {"method": "archive"}}));
    assert_eq!(rows(&cluster).await, "1,2,3");
    cluster.wait_until_whole().await.unwrap();
    let named =
        async || cluster.etcd.get("/service/bed/initialize").await.ok()?.filter(|name| *name == system);
    wait_until("the DCS names the same system", LIMIT, named).await.unwrap();
    // It goes on, on a timeline of its own, into the same archive.
    insert(&cluster, "(4)").await;
    archived(&cluster, "bed").await;
    back_up(&cluster).await;
}

/// Nobody ended the segment: what is not in the archive as a whole was streamed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_streamed_of_an_unfinished_segment_survives_the_loss_of_every_member() {
    let often = json!({"archive": {"stream_interval": "200ms"}});
    let cluster = with_archive().settings(often).start().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    insert(&cluster, "(0)").await;
    back_up(&cluster).await;
    for row in 1..=300 {
        insert(&cluster, &format!("({row})")).await;
    }
    streamed(&cluster).await;
    lose_everything(&cluster).await;
    restart(&cluster, &json!({"bootstrap": {"method": "archive"}}));
    let counted = primary(&cluster).await.text("SELECT count(DISTINCT row)::text FROM kept").await.unwrap();
    assert_eq!(counted, "301", "{}", logs(&cluster));
}

/// Up to where a member shows that all is safe in the archive: finished segments without a hole, and what was streamed of the
/// one behind them; and whether the store takes no more at the moment.
async fn shown_as_safe(member: &Member) -> Option<(Lsn, bool)> {
    let told: Value = serde_json::from_str(&member.get("/archive").await.ok()?.text).ok()?;
    let lsn = |value: &Value| value.as_str()?.parse::<Lsn>().ok();
    let archived = lsn(&told["shipping"]["archived_to"]["lsn"])?;
    let WalFileName::Segment(segment) = told["streaming"]["segment"].as_str()?.parse().ok()? else {
        return None;
    };
    let unbroken = segment.start(SegmentSize::DEFAULT) <= archived;
    let safe = if unbroken { lsn(&told["streaming"]["streamed_to"])? } else { archived };
    Some((safe, told["streaming"]["store_failing"] == true))
}

/// What was acknowledged until now, and where it ends in the WAL.
async fn moment(story: &Story) -> (BTreeSet<i64>, Lsn) {
    let acknowledged = story.oracle.acknowledged_serials();
    let end = primary(&story.cluster).await.text("SELECT pg_current_wal_flush_lsn()::text").await.unwrap();
    (acknowledged, end.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_as_safe_before_and_after_a_failover_survives_the_loss_of_every_member() {
    let often = json!({"archive": {"stream_interval": "200ms"}});
    let story = Story::begin(with_archive().archive(Archive::Embedded).settings(often)).await;
    back_up(&story.cluster).await;
    story.writes(50).await;
    let former = story.leader().await;
    // What it acknowledged in its last moments it has not streamed any more.
    former.kill_node();
    let before = story.oracle.acknowledged();
    let successor = story.cluster.wait_for_another(former.name()).await.unwrap();
    story.writes(50).await;
    let mut moments = vec![moment(&story).await];
    assert!(moments[0].0.len() >= before + 50);
    let all = async || (shown_as_safe(successor).await?.0 >= moments[0].1).then_some(());
    let shown = wait_until("all of it is shown as safe", LIMIT, all).await;
    shown.unwrap_or_else(|fault| panic!("{fault}; {}", logs(&story.cluster)));
    // What comes now is not safe, and must not be shown so.
    story.cluster.store.as_ref().unwrap().stop();
    for _ in 0..3 {
        moments.push(moment(&story).await);
        story.writes(20).await;
    }
    let fails = async || shown_as_safe(successor).await.filter(|(_, fails)| *fails);
    let (shown, _) = wait_until("the store is shown as failing", LIMIT, fails).await.unwrap();
    lose_everything(&story.cluster).await;
    story.cluster.store.as_ref().unwrap().start_again(&story.cluster.guard).await.unwrap();
    restart(&story.cluster, &json!({"bootstrap": {"method": "archive"}}));
    let (safe, _) = moments.iter().rfind(|(_, end)| *end <= shown).unwrap();
    story.end_keeping(safe).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_restores_a_backup_for_proof_and_the_members_show_when() {
    let cluster = with_archive().start().await.unwrap();
    insert(&cluster, "(1)").await;
    back_up(&cluster).await;
    archived(&cluster, "bed").await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let scratch = leader.directory().join("drill");
    let arguments =
        ["verify", "--full", "--drill", "--scratch", scratch.to_str().unwrap(), "--format", "json"];
    let output = leader.outrider(&arguments).unwrap();
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["sound"], &said["drill"]["pages_checked"]), (&json!(true), &json!(true)), "{said}");
    assert!(!scratch.exists());
    let shown = async || {
        let metrics = leader.get("/metrics").await.ok()?.text;
        let name = "outrider_last_verified_restore_timestamp_seconds";
        let line = metrics.lines().find(|line| line.starts_with(name))?;
        (line.rsplit(' ').next()?.parse::<f64>().ok()? > 0.0).then_some(())
    };
    wait_until("the metric shows the drill", WORK_LIMIT, shown).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_begins_at_a_point_of_anothers_archive_and_writes_into_its_own() {
    let cluster = with_archive().start().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    insert(&cluster, "(1)").await;
    back_up(&cluster).await;
    insert(&cluster, "(2)").await;
    let until = primary(&cluster).await.text("SELECT pg_current_wal_lsn()::text").await.unwrap();
    insert(&cluster, "(3)").await;
    archived(&cluster, "bed").await;
    let before = cluster.store.as_ref().unwrap().keys();
    lose_everything(&cluster).await;
    let settings = json!({
        "archive": {"server": "second"},
        "bootstrap": {"method": "archive", "archive": {"server": "bed", "target_lsn": until}},
    });
    restart(&cluster, &settings);
    assert_eq!(rows(&cluster).await, "1,2");
    cluster.wait_until_whole().await.unwrap();
    insert(&cluster, "(4)").await;
    archived(&cluster, "second").await;
    let of_the_first =
        |keys: Vec<String>| keys.into_iter().filter(|key| key.starts_with("bed/bed/")).collect::<Vec<_>>();
    let after = cluster.store.as_ref().unwrap().keys();
    assert_eq!(of_the_first(after), of_the_first(before), "the other's archive was written to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_takes_its_data_from_the_archive_and_then_streams() {
    let methods = json!({"postgresql": {"create_replica_methods": ["archive", "basebackup"]}});
    let cluster = with_archive().settings(methods).start().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    // The copy has no history of its timeline until it is started.
    let leader = cluster.wait_for_leader().await.unwrap();
    cluster.wait_until_synchronous().await.unwrap();
    let answer = leader.post("/switchover", &json!({"leader": leader.name()})).await.unwrap();
    assert_eq!(answer.status, 200, "{}; {}", answer.text, logs(&cluster));
    cluster.wait_until_whole().await.unwrap();
    insert(&cluster, "(1)").await;
    back_up(&cluster).await;
    insert(&cluster, "(2)").await;
    archived(&cluster, "bed").await;
    insert(&cluster, "(3)").await;
    let standby = cluster.standbys().await.unwrap()[0];
    standby.kill_node();
    standby.lose_disk().unwrap();
    standby.start().unwrap();
    // Lost once more when half of it is there.
    let half = async || {
        let data = standby.data_directory();
        (data.join(MARK).exists() && files(&data).len() > 200).then_some(())
    };
    wait_until("half of it is there", LIMIT, half).await.unwrap();
    standby.kill_node();
    standby.start().unwrap();
    cluster.wait_until_whole().await.unwrap_or_else(|fault| panic!("{fault}; {}", logs(&cluster)));
    let log = standby.log();
    let newest = log.rsplit("copying the data of this member from the archive").next().unwrap();
    assert!(
        newest.contains("the files are there") && !newest.contains("copying the data of the primary"),
        "{log}"
    );
    let endpoints = cluster.endpoints();
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == standby.name()).unwrap();
    let replayed = async || {
        let connection = endpoint.connect().await.ok()?;
        let rows = connection.text("SELECT string_agg(row::text, ',' ORDER BY row) FROM kept").await.ok()?;
        (rows == "1,2,3").then_some(())
    };
    wait_until("the new member has every row", LIMIT, replayed).await.unwrap();
}
