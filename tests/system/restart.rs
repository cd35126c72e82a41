//! Restarts that somebody asks for: one member after the other, a switchover instead of a restart of the primary, and nothing
//! lost on the way. What standbys must not have less of is raised on them first, and lowered on the primary first.

use outrider_bed::{Builder, Cluster, Member, wait_until};
use serde_json::{Value, json};

use crate::story::{LIMIT, Story, logs};

const LIMITED: &str = "max_worker_processes";

async fn set(story: &Story, value: u32) {
    let leader = story.leader().await;
    let change = json!({"postgresql": {"parameters": {LIMITED: value}}});
    let answer = leader.request(reqwest::Method::PATCH, "/config", Some(change.to_string())).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let wait = async || {
        for member in &story.cluster.members {
            if member.patroni().await?["pending_restart"] != true {
                return None;
            }
        }
        Some(())
    };
    wait_until("everybody waits for a restart", LIMIT, wait).await.unwrap();
    // The leader's entry too says how it would be.
    story.cluster.wait_until_synchronous().await.unwrap();
}

/// Asks by command; what it says, a line for each step.
fn restart(member: &Member, arguments: &[&str]) -> String {
    let output = member.outrider(&[&["restart", "--force"], arguments].concat()).unwrap();
    assert!(output.status.success(), "{output:?}; {}", member.log());
    String::from_utf8(output.stdout).unwrap()
}

async fn everybody_has(cluster: &Cluster, value: u32) {
    for endpoint in cluster.endpoints() {
        let has = async || {
            let connection = endpoint.connect().await.ok()?;
            let now = connection.text(&format!("SHOW {LIMITED}")).await.ok()?;
            (now == value.to_string()).then_some(())
        };
        wait_until(format!("{} has {value}", endpoint.name), LIMIT, has)
            .await
            .unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_restarted_one_after_the_other_and_nothing_is_lost() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await.name().to_owned();
    set(&story, 12).await;
    let told = restart(story.leader().await, &["--pending"]);
    everybody_has(&story.cluster, 12).await;
    let last = told.lines().last().unwrap();
    assert!(last.starts_with(&format!("{leader}: switched over to ")), "{told}");
    for member in &story.cluster.members {
        assert!(told.contains(&format!("{}: ", member.name())), "{told}");
    }
    assert_eq!(told.matches("restarted as a standby").count(), 3, "{told}");
    story.writes(20).await;

    // Less of it: the primary goes first, where it is.
    let leader = story.leader().await.name().to_owned();
    set(&story, 6).await;
    let told = restart(story.leader().await, &["--pending"]);
    everybody_has(&story.cluster, 6).await;
    let first = told.lines().find(|line| line.contains("restarted as")).unwrap();
    assert_eq!(first, format!("{leader}: restarted as the primary"), "{told}");
    assert_eq!(told.matches("restarted as a standby").count(), 2, "{told}");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_is_restarted_as_in_patroni() {
    let story = Story::begin(Builder::new()).await;
    let standby = story.cluster.standbys().await.unwrap().remove(0);
    let before = standby.postmaster_pid();
    let answer = standby.post("/restart", &json!({})).await.unwrap();
    assert_eq!((answer.status, answer.text.as_str()), (200, "restarted successfully"), "{}", standby.log());
    assert_ne!(standby.postmaster_pid(), before);
    let answer = standby.post("/restart", &json!({"restart_pending": true})).await.unwrap();
    assert_eq!((answer.status, answer.text.as_str()), (503, "restart conditions are not satisfied"));

    // The primary hands over, and comes back as a standby.
    let leader = story.leader().await;
    let answer = leader.post("/restart", &json!({"role": "primary"})).await.unwrap();
    assert_eq!((answer.status, answer.text.as_str()), (200, "restarted successfully"), "{}", leader.log());
    assert!(!leader.leads().await);
    let shown: Value = serde_json::from_str(&leader.get("/restart").await.unwrap().text).unwrap();
    assert!(
        shown["last"]["members"][0]["result"].as_str().unwrap().starts_with("switched over to"),
        "{shown}"
    );

    // Scheduled, shown, and taken back.
    assert_eq!(leader.request(reqwest::Method::DELETE, "/restart", None).await.unwrap().status, 404);
    let wish = json!({"schedule": "2999-01-01T00:00:00Z", "cluster": true});
    assert_eq!(leader.post("/restart", &wish).await.unwrap().status, 202);
    assert_eq!(leader.post("/restart", &json!({})).await.unwrap().status, 409);
    let shows = async || leader.get("/cluster").await.ok()?.text.contains("2999-01-01").then_some(());
    wait_until("the schedule is shown", LIMIT, shows).await.unwrap();
    let taken = leader.request(reqwest::Method::DELETE, "/restart", None).await.unwrap();
    assert_eq!((taken.status, taken.text.as_str()), (200, "scheduled restart deleted"));
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_come_back_ends_the_restart_and_one_alone_is_restarted_where_it_is() {
    let cluster = Builder::new().members(1).start().await.unwrap();
    let only = &cluster.members[0];
    let before = only.postmaster_pid();
    let told = restart(only, &[]);
    assert_eq!(told.lines().last(), Some("member1: restarted as the primary"), "{told}");
    assert_ne!(only.postmaster_pid(), before);
    // A setting with which Postgres does not start, past whatever would refuse it.
    let broken = only.data_directory().join("postgresql.base.conf");
    std::fs::write(&broken, "shared_preload_libraries = 'no_such_library'\n").unwrap();
    let output = only.outrider(&["restart", "--force", "--timeout", "3s"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("member1: Postgres did not come up and stream again in time"), "{said}");
    std::fs::write(&broken, "").unwrap();
    cluster.wait_for_leader().await.unwrap();
}
