//! The ttl of the lease is changed while the cluster runs: every session follows it, and no Postgres is fenced or replaced.

use outrider_bed::process::Signal;
use outrider_bed::{Builder, Cluster, wait_until};
use serde_json::json;

use crate::parameters::patch;
use crate::story::{LIMIT, Story, logged, timeline, was_fenced};

async fn set(cluster: &Cluster, ttl: u64) {
    let (code, text) = patch(&cluster.members[0], &json!({"ttl": ttl})).await;
    assert_eq!(code, 200, "{text}");
    for member in &cluster.members {
        logged(member, &format!("has another ttl ttl={ttl}s")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ttl_that_changes_costs_no_failover_and_neither_does_an_agent_that_ends_under_a_long_one() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    let (postmaster, before) = (leader.postmaster_pid(), timeline(leader).await);
    set(&story.cluster, 40).await;
    story.writes(50).await;
    leader.end_agent(Signal::Terminate).unwrap();
    logged(leader, "another agent has this long to take over").await;
    leader.start().unwrap();
    wait_until("it leads again", LIMIT, async || leader.leads().await.then_some(())).await.unwrap();
    set(&story.cluster, 6).await;
    story.writes(50).await;
    assert_eq!((leader.postmaster_pid(), timeline(leader).await), (postmaster, before));
    assert!(!was_fenced(leader));
    story.end().await;
}
