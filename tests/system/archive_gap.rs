//! WAL that PostgreSQL recycled while nobody archived is a gap of the archive, and is shown as one wherever people look, by
//! whoever leads later, too.

use outrider_bed::process::Signal;
use outrider_bed::{Archive, Builder, Member, wait_until};
use serde_json::{Value, json};

use crate::archive::end_segment;
use crate::kept::{WORK_LIMIT, archived, back_up};
use crate::story::{LIMIT, Story, logs};

/// The section of a member's file.
fn archive_of(member: &Member) -> Value {
    let file: Value = serde_json::from_slice(&std::fs::read(member.configuration()).unwrap()).unwrap();
    file["archive"].clone()
}

/// Postgres goes on, and its agent begins anew with this in its file.
fn restart_agent(member: &Member, archive: &Value) {
    member.end_agent(Signal::Terminate).unwrap();
    member.change_configuration(&json!({"archive": archive})).unwrap();
    member.start().unwrap();
}

/// Goes on writing until no member has this segment any more: a standby that has it would fill the gap when it leads.
async fn until_recycled(story: &Story, segment: &str) {
    let recycled = async || {
        end_segment(story).await;
        for endpoint in story.cluster.endpoints() {
            endpoint.connect().await.ok()?.run("CHECKPOINT").await.ok()?;
        }
        let has = |member: &Member| member.data_directory().join("pg_wal").join(segment).exists();
        (!story.cluster.members.iter().any(has)).then_some(())
    };
    wait_until(format!("{segment} is recycled"), WORK_LIMIT, recycled).await.unwrap();
}

async fn gaps(member: &Member) -> Option<Vec<String>> {
    let told: Value = serde_json::from_str(&member.get("/archive").await.ok()?.text).ok()?;
    let gaps = told["shipping"]["gaps"].as_array()?;
    told["shipping"]["compared_at"].as_str()?;
    Some(gaps.iter().filter_map(|gap| gap.as_str().map(str::to_owned)).collect())
}

/// The one gap that holds the segment, as `GET /archive`, the list and the metric of this leader show it.
async fn shown(story: &Story, leader: &Member, segment: &str) -> String {
    let held = |gap: &String| {
        gap.split(" to ").next().unwrap() <= segment && gap.split(" to ").nth(1).unwrap() >= segment
    };
    let found = async || gaps(leader).await?.into_iter().find(held);
    let found = wait_until(format!("{} shows the gap", leader.name()), WORK_LIMIT, found).await;
    let gap = found.unwrap_or_else(|fault| panic!("{fault}; {}", logs(&story.cluster)));
    let listed = async || {
        let list = String::from_utf8(leader.outrider(&["list"]).ok()?.stdout).ok()?;
        (list.contains("1 gap") && list.contains(&format!("take a base backup: {gap}"))).then_some(())
    };
    wait_until("the list shows the gap", LIMIT, listed).await.unwrap();
    let metrics = leader.get("/metrics").await.unwrap().text;
    assert!(
        metrics.lines().any(|line| line.starts_with("outrider_archive_wal_gaps{") && line.ends_with(" 1")),
        "{metrics}"
    );
    gap
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recycled_while_there_was_no_archive_is_a_gap_for_every_later_leader() {
    let settings = json!({"archive": {"schedule": "never"}});
    let story = Story::begin(Builder::new().members(2).archive(Archive::Embedded).settings(settings)).await;
    back_up(&story.cluster).await;
    archived(&story.cluster, "bed").await;
    let archives: Vec<Value> = story.cluster.members.iter().map(archive_of).collect();
    for member in &story.cluster.members {
        restart_agent(member, &Value::Null);
    }
    story.writes(50).await;
    let lost = end_segment(&story).await;
    until_recycled(&story, &lost).await;
    for (member, archive) in story.cluster.members.iter().zip(&archives) {
        restart_agent(member, archive);
    }
    let leader = story.leader().await;
    let gap = shown(&story, leader, &lost).await;

    // What comes behind it is archived, and neither the window nor the check passes over the gap.
    story.writes(20).await;
    archived(&story.cluster, "bed").await;
    let backups = String::from_utf8(leader.outrider(&["backups"]).unwrap().stdout).unwrap();
    let first = gap.split(" to ").next().unwrap();
    assert!(backups.contains(&format!("Missing WAL: {first}")), "{backups}");
    let verified = leader.outrider(&["verify"]).unwrap();
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    assert!(String::from_utf8_lossy(&verified.stdout).contains(&format!("WAL {first}")), "{verified:?}");

    // Long after, when no pg_wal begins where the gap ends.
    let later = end_segment(&story).await;
    until_recycled(&story, &later).await;
    archived(&story.cluster, "bed").await;
    story.cluster.wait_until_synchronous().await.unwrap();
    let switched = async || {
        let answer = leader.post("/switchover", &json!({"leader": leader.name()})).await.ok()?;
        (answer.status == 200).then_some(())
    };
    wait_until("the candidate has caught up and leads", LIMIT, switched).await.unwrap();
    let successor = story.cluster.wait_for_another(leader.name()).await.unwrap();
    assert_eq!(shown(&story, successor, &lost).await, gap);
    story.end().await;
}
