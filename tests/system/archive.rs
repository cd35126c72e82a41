//! WAL goes to the archive, waits while the store is down, and can be had back.

use std::io::Read as _;
use std::path::Path;

use outrider_bed::{Archive, Builder, Cluster, ObjectStore, wait_until};

use crate::story::{LIMIT, Story};

/// Ends the current segment, and returns the name of its file.
async fn end_segment(story: &Story) -> String {
    let leader = story.leader().await;
    let endpoints = story.cluster.endpoints();
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == leader.name()).unwrap();
    let connection = endpoint.connect_to_primary().await.unwrap();
    // Something must be in it.
    connection.text("SELECT pg_walfile_name(pg_switch_wal())").await.unwrap()
}

fn store(cluster: &Cluster) -> &ObjectStore {
    cluster.store.as_ref().unwrap()
}

fn key_of(cluster: &Cluster, segment: &str) -> Option<String> {
    store(cluster).keys().into_iter().find(|key| key.ends_with(&format!("{segment}.gz")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_segment_is_in_the_store_and_comes_back_the_same() {
    let story = Story::begin(Builder::new().members(2).archive(Archive::MinioIfThere)).await;
    let segment = end_segment(&story).await;
    let there = async || key_of(&story.cluster, &segment);
    let key = wait_until(format!("{segment} is in the store"), LIMIT, there).await.unwrap();
    assert!(
        key.contains(&format!("/wals/{}/", &segment[..16])),
        "barman-cloud looks for it elsewhere: {key}"
    );

    let leader = story.leader().await;
    let original = std::fs::read(leader.data_directory().join("pg_wal").join(&segment)).unwrap();
    // MinIO keeps its objects in a format of its own; what counts is what comes back.
    let fetched = leader.directory().join("fetched");
    let socket = leader.directory().join("run/archive.sock");
    let (socket, path) = (socket.to_str().unwrap(), fetched.to_str().unwrap());
    let output = leader.outrider(&["wal-fetch", "--socket", socket, &segment, path]).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read(&fetched).unwrap() == original, "{segment} came back different");

    let output =
        leader.outrider(&["wal-fetch", "--socket", socket, "0000000A0000000A0000000A", path]).unwrap();
    assert_eq!(output.status.code(), Some(1), "a file that is not there: {output:?}");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_holds_gzip_that_anybody_can_read() {
    let story = Story::begin(Builder::new().members(2).archive(Archive::Embedded)).await;
    let segment = end_segment(&story).await;
    let there = async || key_of(&story.cluster, &segment);
    let key = wait_until(format!("{segment} is in the store"), LIMIT, there).await.unwrap();
    let object = store(&story.cluster).object(&key).unwrap();
    let mut content = Vec::new();
    flate2::read::MultiGzDecoder::new(object.as_slice()).read_to_end(&mut content).unwrap();
    let original =
        std::fs::read(story.leader().await.data_directory().join("pg_wal").join(&segment)).unwrap();
    assert!(content == original, "{segment} is different in the store");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_while_the_store_is_down_and_what_waits_is_shown_and_shipped_later() {
    let story = Story::begin(Builder::new().archive(Archive::Embedded)).await;
    store(&story.cluster).stop();
    let segment = end_segment(&story).await;
    story.writes(100).await;
    let leader = story.leader().await;
    let waits = async || {
        let metrics = leader.get("/metrics").await.ok()?.text;
        let line = metrics.lines().find(|line| line.starts_with("outrider_archive_waiting_files"))?;
        (line.rsplit(' ').next()?.parse::<f64>().ok()? >= 1.0).then_some(())
    };
    wait_until("the metric shows what waits", LIMIT, waits).await.unwrap();
    store(&story.cluster).start_again(&story.cluster.guard).await.unwrap();
    let there = async || key_of(&story.cluster, &segment);
    wait_until(format!("{segment} is in the store after all"), LIMIT, there).await.unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_does_not_wait_for_a_store_that_is_down() {
    let story = Story::begin(Builder::new().archive(Archive::Embedded)).await;
    store(&story.cluster).stop();
    end_segment(&story).await;
    let leader = story.leader().await;
    let candidate = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
    let wish = serde_json::json!({"leader": leader.name(), "candidate": candidate});
    let answer = leader.post("/switchover", &wish).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    story.writes(50).await;
    store(&story.cluster).start_again(&story.cluster.guard).await.unwrap();
    let segment = end_segment(&story).await;
    let there = async || key_of(&story.cluster, &segment);
    wait_until(format!("{segment} of the new primary is in the store"), LIMIT, there).await.unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_gets_from_the_archive_what_the_primary_has_no_more() {
    let settings = serde_json::json!({"postgresql": {"parameters": {"wal_keep_size": "0", "max_slot_wal_keep_size": "16MB"}}});
    let story = Story::begin(Builder::new().archive(Archive::Directory).settings(settings)).await;
    let standby = story.cluster.standbys().await.unwrap()[0];
    let had = standby.patroni().await.unwrap()["xlog"]["replayed_location"].as_u64().unwrap();
    standby.kill_node();
    for _ in 0..5 {
        story.writes(20).await;
        end_segment(&story).await;
    }
    let leader = story.leader().await;
    let endpoints = story.cluster.endpoints();
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == leader.name()).unwrap();
    let connection = endpoint.connect_to_primary().await.unwrap();
    let oldest_is_gone = async || {
        connection.run("CHECKPOINT").await.ok()?;
        let oldest = connection
            .text("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'")
            .await
            .ok()?;
        let first_segment_it_needs = format!("{:08X}", had >> 24);
        (oldest.get(16..)? > first_segment_it_needs.as_str()).then_some(())
    };
    wait_until("the primary has removed what the standby needs", LIMIT, oldest_is_gone).await.unwrap();
    standby.start().unwrap();
    story.end().await;
}

/// The signature of a request carries the time, and a store refuses one that is too old: nobody guesses that from "403".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_whose_clock_is_wrong_is_told_so() {
    let story = Story::begin(Builder::new().members(2).archive(Archive::MinioIfThere)).await;
    let leader = story.leader().await;
    let (guard, configuration) = (&story.cluster.guard, leader.configuration());
    let outrider = guard.programs().outrider.clone();
    let mut command = guard.command(Path::new("faketime"), guard.directory());
    command.arg("2 hours ago").arg(outrider).arg("backups").arg("-c").arg(configuration);
    let output = command.output().expect("faketime is one of the packages that `make setup` installs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{output:?}");
    assert!(said.contains("check the clock of this machine"), "{said}");
    story.end().await;
}
