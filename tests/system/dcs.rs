//! etcd is down, slow or cut in half, and two agents have one name.

use std::time::Duration;

use outrider_bed::{Builder, Member, fault_lasts, wait_until};
use serde_json::json;

use crate::story::{LIMIT, Story, logged, timeline, was_fenced};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_at_the_start_the_agents_wait_and_say_so() {
    let cluster = Builder::new().members(2).prepare().await.unwrap();
    cluster.etcd.kill(0);
    for member in &cluster.members {
        member.start().unwrap();
    }
    for member in &cluster.members {
        logged(member, "the DCS does not answer; waiting for it").await;
        assert!(!member.data_directory().exists(), "nothing is made without the DCS");
    }
    cluster.etcd.start_member(&cluster.guard, 0).unwrap();
    cluster.wait_until_whole().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_the_primary_steps_down_before_its_fuse_blows() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    story.cluster.etcd.kill(0);
    logged(leader, "the DCS does not answer; stopping before the fuse blows").await;
    wait_until("no primary is left", LIMIT, async || {
        for endpoint in story.cluster.endpoints() {
            if endpoint.connect_to_primary().await.is_ok() {
                return None;
            }
        }
        Some(())
    })
    .await
    .unwrap();
    assert!(!was_fenced(leader), "it did not stop by itself: {}", leader.log());
    story.cluster.etcd.start_member(&story.cluster.guard, 0).unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_etcd_and_the_loss_of_one_of_three_cost_nothing() {
    let story = Story::begin(Builder::new().etcd(3)).await;
    let leader = story.leader().await;
    let (before, postmaster) = (timeline(leader).await, leader.postmaster_pid());
    let etcd = &story.cluster.etcd;
    for index in 0..3 {
        etcd.freeze(index);
    }
    fault_lasts(Duration::from_millis(1500)).await;
    for index in 0..3 {
        etcd.thaw(index);
    }
    story.writes(100).await;
    etcd.kill(etcd.raft_leader().await.unwrap());
    // Longer than a lease lives.
    story.writes(700).await;
    assert!(leader.leads().await);
    assert_eq!((timeline(leader).await, leader.postmaster_pid()), (before, postmaster));
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_of_the_same_name_takes_no_part() {
    let story = Story::begin(Builder::new().members(2)).await;
    let name = story.leader().await.name().to_owned();
    let hosts = story.cluster.etcd.hosts();
    let twin = Member::prepare(&story.cluster.guard, "twin", &hosts, &json!({"name": name})).unwrap();
    twin.start().unwrap();
    logged(&twin, "cannot publish this member").await;
    story.writes(200).await;
    assert!(!twin.data_directory().exists(), "it made or cloned nothing");
    assert!(!twin.leads().await);
    twin.kill_node();
    story.end().await;
}
