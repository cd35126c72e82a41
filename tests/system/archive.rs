//! WAL goes to the archive, waits while the store is down, and can be had back.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use outrider_bed::process::Signal;
use outrider_bed::{
    Archive, Builder, Cluster, Connection, Endpoint, Member, ObjectStore, PROGRAM_LIMIT, finish, wait_until,
};

use crate::story::{LIMIT, Story};

/// For the first base backup, on a machine that does much else.
const BACKUP_LIMIT: Duration = Duration::from_secs(120);

/// Ends the current segment, and returns the name of its file.
pub(crate) async fn end_segment(story: &Story) -> String {
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
    let output = finish(&mut command, PROGRAM_LIMIT);
    let output = output.expect("faketime is one of the packages that `make setup` installs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{output:?}");
    assert!(said.contains("check the clock of this machine"), "{said}");
    story.end().await;
}

/// A session with the Postgres of a member, whatever it is.
async fn session(member: &Member) -> Connection {
    let endpoint = Endpoint { name: member.name().to_owned(), port: member.port() };
    let connected = async || endpoint.connect().await.ok();
    wait_until(format!("{} takes a connection", member.name()), LIMIT, connected).await.unwrap()
}

/// Waits until the cluster has its first base backup.
async fn backed_up(story: &Story) {
    let leader = story.leader().await;
    let good = async || {
        let listed = leader.get("/backups").await.ok()?;
        let listed: serde_json::Value = serde_json::from_str(&listed.text).ok()?;
        listed["backups"].as_array()?.iter().any(|backup| backup["state"] == "good").then_some(())
    };
    wait_until("there is a base backup", BACKUP_LIMIT, good).await.unwrap();
}

/// Waits until a standby does not need this segment any more to recover, nor an older one, and has removed what nobody keeps.
async fn needs_no_longer(leader: &Member, standby: &Member, segment: &str) {
    // A checkpoint of a standby, which removes WAL, is one of its primary's that it has replayed.
    session(leader).await.run("CHECKPOINT").await.unwrap();
    let on_standby = session(standby).await;
    let removed = async || {
        on_standby.run("CHECKPOINT").await.ok()?;
        let redo = "SELECT redo_wal_file FROM pg_control_checkpoint()";
        (on_standby.text(redo).await.ok()?.as_str() > segment).then_some(())
    };
    wait_until("the standby has removed the WAL that it does not need", LIMIT, removed).await.unwrap();
}

/// WAL of a member that nobody keeps but slots and recovery.
fn kept_for_slots_alone() -> serde_json::Value {
    serde_json::json!({"postgresql": {"parameters":
        {"wal_keep_size": "0", "max_wal_size": "32MB", "min_wal_size": "32MB"}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_while_the_store_is_down_leaves_no_hole_in_the_archive() {
    let settings = kept_for_slots_alone();
    let story = Story::begin(Builder::new().members(2).archive(Archive::Embedded).settings(settings)).await;
    backed_up(&story).await;
    store(&story.cluster).stop();
    let mut segments = Vec::new();
    for _ in 0..4 {
        story.writes(20).await;
        segments.push(end_segment(&story).await);
    }
    story.writes(20).await;
    let (leader, standby) = (story.leader().await, story.cluster.standbys().await.unwrap()[0]);
    needs_no_longer(leader, standby, segments.last().unwrap()).await;
    leader.kill_node();
    let successor = story.cluster.wait_for_another(leader.name()).await.unwrap();
    story.writes(20).await;
    store(&story.cluster).start_again(&story.cluster.guard).await.unwrap();
    for segment in &segments {
        let there = async || key_of(&story.cluster, segment);
        let waited = wait_until(format!("{segment} is in the store"), LIMIT, there).await;
        assert!(waited.is_ok(), "{waited:?}; the log of its member: {}", successor.log());
    }
    leader.start().unwrap();
    end_segment(&story).await;
    // Of the last segments some are still on their way.
    let sound = async || successor.outrider(&["verify"]).ok()?.status.success().then_some(());
    wait_until("the archive is whole", LIMIT, sound).await.unwrap();
    story.end().await;
}

/// The number of the first segment that a member keeps for the archive, as in names of files; empty when it has no slot for
/// it.
async fn kept_from(member: &Member) -> Option<String> {
    let from = "SELECT coalesce(max(lpad(upper(to_hex((pg_wal_lsn_diff(restart_lsn, '0/0') / 16777216)::bigint)), 8, '0')), '') \
        FROM pg_replication_slots WHERE slot_name = 'outrider_archive'";
    session(member).await.text(from).await.ok()
}

/// Waits until no member keeps this segment for the archive, nor an older one.
async fn let_go(cluster: &Cluster, segment: &str) {
    let number = &segment[16..];
    for member in &cluster.members {
        let moved_on = async || (kept_from(member).await?.as_str() > number).then_some(());
        let waited = wait_until(format!("{} lets {segment} go", member.name()), LIMIT, moved_on).await;
        assert!(waited.is_ok(), "{waited:?}; its log: {}", member.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_member_keeps_wal_that_the_archive_has() {
    let story = Story::begin(Builder::new().members(2).archive(Archive::Embedded)).await;
    let segment = end_segment(&story).await;
    let_go(&story.cluster, &segment).await;
    // The new primary goes on with it, and the old one on the new timeline.
    let former = story.leader().await;
    former.kill_node();
    story.cluster.wait_for_another(former.name()).await.unwrap();
    former.start().unwrap();
    story.cluster.wait_until_whole().await.unwrap();
    let segment = end_segment(&story).await;
    let_go(&story.cluster, &segment).await;
    // Somebody cleans up.
    let drop = "SELECT pg_drop_replication_slot('outrider_archive')";
    session(former).await.run(drop).await.unwrap();
    let again = async || (!kept_from(former).await?.is_empty()).then_some(());
    wait_until("the slot is made again", LIMIT, again).await.unwrap();
    // Without an archive nobody would ever move it on.
    former.end_agent(Signal::Terminate).unwrap();
    former.change_configuration(&serde_json::json!({"archive": null})).unwrap();
    former.start().unwrap();
    let gone = async || kept_from(former).await?.is_empty().then_some(());
    wait_until("a member without an archive keeps nothing for it", LIMIT, gone).await.unwrap();
    story.end().await;
}

/// What a member tells of its archive.
async fn told(member: &Member) -> Option<serde_json::Value> {
    serde_json::from_str(&member.get("/archive").await.ok()?.text).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_that_the_leader_cannot_fill_is_filled_by_a_standby_that_has_kept_it() {
    let settings = kept_for_slots_alone();
    let story = Story::begin(Builder::new().members(2).archive(Archive::Embedded).settings(settings)).await;
    backed_up(&story).await;
    let (leader, standby) = (story.leader().await, story.cluster.standbys().await.unwrap()[0]);
    store(&story.cluster).stop();
    story.writes(20).await;
    let lost = end_segment(&story).await;
    story.writes(20).await;
    let after = end_segment(&story).await;
    // Its agent knows nothing of what went from under it.
    leader.kill_agent();
    let pg_wal = leader.data_directory().join("pg_wal");
    std::fs::remove_file(pg_wal.join(&lost)).unwrap();
    std::fs::remove_file(pg_wal.join(format!("archive_status/{lost}.ready"))).unwrap();
    leader.start().unwrap();
    store(&story.cluster).start_again(&story.cluster.guard).await.unwrap();

    let gap = format!("{lost} to {lost}");
    let found = async || (told(leader).await?["shipping"]["gaps"] == serde_json::json!([gap])).then_some(());
    let waited = wait_until("the leader has found the gap", LIMIT, found).await;
    assert!(waited.is_ok(), "{waited:?}; its log: {}", leader.log());
    let keeps = async || told(standby).await?["kept_for_gap"].as_str().map(str::to_owned);
    let waited = wait_until("the standby keeps what is missing", LIMIT, keeps).await;
    assert!(waited.is_ok(), "{waited:?}; its log: {}", standby.log());
    story.writes(20).await;
    let next = end_segment(&story).await;
    needs_no_longer(leader, standby, &next).await;
    let moved_on = async || (kept_from(leader).await?.as_str() > &after[16..]).then_some(());
    wait_until("the leader has nothing to keep", LIMIT, moved_on).await.unwrap();
    assert_eq!(kept_from(standby).await.unwrap(), lost[16..]);

    story.cluster.wait_until_synchronous().await.unwrap();
    let answer = leader.post("/switchover", &serde_json::json!({"leader": leader.name()})).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let there = async || key_of(&story.cluster, &lost);
    let waited = wait_until(format!("{lost} is in the store"), LIMIT, there).await;
    assert!(waited.is_ok(), "{waited:?}; the log of its member: {}", standby.log());
    let_go(&story.cluster, &next).await;
    let sound = async || standby.outrider(&["verify"]).ok()?.status.success().then_some(());
    wait_until("the archive is whole", LIMIT, sound).await.unwrap();
    story.end().await;
}
