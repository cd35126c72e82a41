//! etcd is wiped, comes back from an old copy, or is another one than before: nothing that was acknowledged is lost, and nobody
//! removes a file.

use outrider_bed::{Builder, Etcd, Member, wait_until};
use serde_json::{Value, json};

use crate::story::{LIMIT, Story, logged};

/// etcd is made anew within a lifetime of the lease, also on a busy machine.
fn patient() -> Builder {
    Builder::new().dcs(json!({"ttl": 30, "loop_wait": 1, "retry_timeout": 10}))
}

/// etcd is down while `change` is done to its data.
async fn with_etcd_down(story: &Story, change: impl FnOnce(&Etcd)) {
    let (etcd, guard) = (&story.cluster.etcd, &story.cluster.guard);
    etcd.kill(0);
    change(etcd);
    etcd.start_member(guard, 0).unwrap();
    etcd.wait_ready().await.unwrap();
}

async fn says(member: &Member, pointer: &str, expected: &Value) {
    let there = async || (member.patroni().await?.pointer(pointer)? == expected).then_some(());
    let outcome = wait_until(format!("{} says {pointer} {expected}", member.name()), LIMIT, there).await;
    assert!(outcome.is_ok(), "{outcome:?}; its log: {}", member.log());
}

fn rebuild(member: &Member, arguments: &[&str]) -> (Option<i32>, String) {
    let mut all = vec!["dcs", "rebuild"];
    all.extend(arguments);
    let output = member.outrider(&all).unwrap();
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), told)
}

/// One standby is promotable, then another; the DCS comes back from the time of the first, and the second has what was
/// acknowledged since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_etcd_promotes_nobody_who_lacks_what_was_acknowledged_since() {
    let story = Story::begin(patient()).await;
    let leader = story.leader().await;
    let first = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
    with_etcd_down(&story, |etcd| etcd.copy(&story.cluster.guard, 0).unwrap()).await;
    story.writes(20).await;
    let first = story.cluster.member(&first);
    first.kill_node();
    let another = async || {
        let names = story.cluster.wait_until_synchronous().await.ok()?;
        names.into_iter().find(|name| name != first.name())
    };
    let second = wait_until("another standby is synchronous", LIMIT, another).await.unwrap();
    let second = story.cluster.member(&second);
    story.writes(500).await;
    // Who is recorded has seen it.
    let knows = async || {
        let seen = second.patroni().await?.pointer("/outrider/watermark/sync_revision")?.as_i64()?;
        let led = leader.patroni().await?.pointer("/outrider/watermark/sync_revision")?.as_i64()?;
        (seen == led).then_some(())
    };
    wait_until("the second standby has seen the record of it", LIMIT, knows).await.unwrap();
    leader.kill_node();
    second.kill_node();
    with_etcd_down(&story, |etcd| etcd.restore(&story.cluster.guard, 0).unwrap()).await;

    first.start().unwrap();
    second.start().unwrap();
    logged(second, "the DCS went back").await;
    says(first, "/role", &json!("replica")).await;
    let waits = async || {
        let reason = first.patroni().await?.pointer("/outrider/reason")?.as_str()?.to_owned();
        matches!(reason.as_str(), "member_knows_more" | "dcs_went_back").then_some(())
    };
    let outcome = wait_until("the first standby does not stand", LIMIT, waits).await;
    assert!(outcome.is_ok(), "{outcome:?}; its log: {}", first.log());

    // The old leader may have more than anybody, and is not heard.
    let (status, told) = rebuild(first, &["--plan"]);
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains(leader.name()) && told.contains("--accept-data-loss"), "{told}");
    leader.start().unwrap();
    logged(leader, "the DCS went back").await;
    let (status, told) = rebuild(first, &["--yes"]);
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("is the leader"), "{told}");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_goes_on_and_writes_the_keys_anew_when_etcd_is_wiped() {
    let story = Story::begin(patient()).await;
    let leader = story.leader().await;
    let rules = leader.get("/config").await.unwrap().text;
    let postmasters: Vec<_> = story.cluster.members.iter().map(Member::postmaster_pid).collect();
    with_etcd_down(&story, |etcd| etcd.wipe(0).unwrap()).await;
    says(leader, "/outrider/watermark/generation", &json!(1)).await;
    story.cluster.wait_until_synchronous().await.unwrap();
    assert!(leader.leads().await, "{}", leader.log());
    assert_eq!(leader.get("/config").await.unwrap().text, rules);
    let now: Vec<_> = story.cluster.members.iter().map(Member::postmaster_pid).collect();
    assert_eq!(now, postmasters, "no Postgres was restarted");
    story.cluster.wait_until_whole().await.unwrap();
    // What was written anew is as good as what was there: the next failover goes by it.
    leader.kill_postmaster();
    story.cluster.wait_for_another(leader.name()).await.unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_etcd_and_a_silent_member_take_one_command() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    let silent = story.cluster.standbys().await.unwrap()[0];
    silent.kill_node();
    with_etcd_down(&story, |etcd| etcd.wipe(0).unwrap()).await;
    let stopped = async || leader.postmaster_pid().is_none().then_some(());
    let outcome = wait_until("the primary stops", LIMIT, stopped).await;
    assert!(outcome.is_ok(), "{outcome:?}; its log: {}", leader.log());
    // While etcd is down longer than the fuse lives, it stops for that, and finds out when etcd is back.
    logged(leader, "outrider dcs rebuild").await;
    let knows = async || {
        let said: Value = serde_json::from_str(&leader.get("/dcs").await.ok()?.text).ok()?;
        (said["role"] == "not_running").then_some(())
    };
    wait_until("the former primary says that it is none", LIMIT, knows).await.unwrap();
    silent.start().unwrap();
    logged(silent, "the DCS went back").await;
    let (status, told) = rebuild(silent, &["--plan", "--format", "json"]);
    assert_eq!(status, Some(0), "{told}");
    let plan: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(plan.as_array().map(Vec::len), Some(3), "{told}");
    let (status, told) = rebuild(silent, &["--yes"]);
    assert_eq!(status, Some(0), "{told}");
    story.end().await;
}

/// The leader's name for etcd leads to another, empty one all at once; the others go on in the right one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_led_to_another_etcd_makes_no_second_cluster_there() {
    let story = Story::begin(Builder::new().links()).await;
    let leader = story.leader().await;
    let elsewhere = Etcd::start_another(&story.cluster.guard).await.unwrap();
    story.cluster.link(leader).lead_to(&elsewhere.hosts());
    let next = story.cluster.wait_for_another(leader.name()).await.unwrap();
    story.writes(50).await;
    assert_eq!(elsewhere.get("/service/bed/initialize").await.unwrap(), None);
    assert_eq!(elsewhere.get("/service/bed/leader").await.unwrap(), None);
    assert!(next.leads().await);
    story.cluster.link(leader).lead_to(&story.cluster.etcd.hosts());
    story.end().await;
}
