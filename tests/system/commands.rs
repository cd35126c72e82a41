//! The commands that people type, against a running cluster.

use outrider_bed::{Builder, Member};
use serde_json::Value;

use crate::story::Story;

#[track_caller]
fn run(member: &Member, arguments: &[&str]) -> String {
    let output = member.outrider(arguments).unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_look_and_act_by_command() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    let table = run(leader, &["list"]);
    for member in &story.cluster.members {
        assert!(table.contains(member.name()), "{table}");
    }
    assert!(table.contains("leader") || table.contains("Leader"), "{table}");
    let listed: Value = serde_json::from_str(&run(leader, &["list", "--format", "json"])).unwrap();
    assert!(listed.to_string().contains("member3"), "{listed}");

    let rules = run(leader, &["show-config"]);
    assert!(rules.contains("ttl"), "{rules}");
    let candidate = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
    let told = run(leader, &["switchover", "--leader", leader.name(), "--candidate", &candidate, "--force"]);
    assert!(told.contains(&candidate), "{told}");
    story.cluster.wait_until_whole().await.unwrap();
    let history = run(leader, &["history"]);
    assert!(history.contains(&candidate), "{history}");

    let output = leader
        .outrider(&["switchover", "--leader", leader.name(), "--candidate", "nobody", "--force"])
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flight_recorder_replays_to_the_same_plans() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    leader.kill_postmaster();
    story.cluster.wait_for_another(leader.name()).await.unwrap();
    story.cluster.wait_until_whole().await.unwrap();
    for member in &story.cluster.members {
        let file = member.state_directory().join("rounds.jsonl");
        run(member, &["replay", file.to_str().unwrap()]);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.lines().count() > 5, "{text}");
    }
    // A plan that was not decided is noticed.
    let file = leader.state_directory().join("rounds.jsonl");
    let changed = leader.directory().join("changed.jsonl");
    let text = std::fs::read_to_string(&file).unwrap().replace("\"renew_lease\"", "\"promote\"");
    std::fs::write(&changed, text).unwrap();
    let output = leader.outrider(&["replay", changed.to_str().unwrap()]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    story.end().await;
}
