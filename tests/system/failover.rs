//! The leader is frozen, crashes or is lost, and comes back.

use std::time::Duration;

use outrider_bed::process::Signal;
use outrider_bed::{Archive, Builder, Member, fault_lasts};
use serde_json::json;

use crate::story::{Story, logged, timeline};

/// Three lifetimes of a lease with the default ttl.
const THREE_TTL: Duration = Duration::from_secs(15);

fn asynchronous() -> Builder {
    Builder::new().dcs(json!({"synchronous_mode": false}))
}

async fn freeze_agent(story: &Story) -> &Member {
    let frozen = story.leader().await;
    frozen.signal_agent(Signal::Stop);
    fault_lasts(THREE_TTL).await;
    story.cluster.wait_for_another(frozen.name()).await.unwrap();
    story.writes(50).await;
    frozen.signal_agent(Signal::Continue);
    frozen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_agent_costs_a_failover_and_no_commit() {
    let story = Story::begin(Builder::new()).await;
    let frozen = freeze_agent(&story).await;
    logged(frozen, "a standby, following the leader").await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_agent_never_makes_two_primaries_in_asynchronous_mode() {
    let story = Story::begin_asynchronous(asynchronous()).await;
    freeze_agent(&story).await;
    story.end_with_losses().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_costs_a_failover_and_no_commit() {
    let story = Story::begin(Builder::new()).await;
    let frozen = story.leader().await;
    frozen.signal_node(Signal::Stop);
    fault_lasts(THREE_TTL).await;
    story.cluster.wait_for_another(frozen.name()).await.unwrap();
    story.writes(50).await;
    frozen.signal_node(Signal::Continue);
    // For an instant its old Postgres still runs; nothing that it does then is acknowledged, which the count shows.
    story.cluster.wait_until_whole().await.unwrap();
    let verdict = story.oracle.finish().await.unwrap();
    assert!(verdict.is_good(), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_moves_the_leader_to_the_synchronous_standby() {
    let story = Story::begin(Builder::new()).await;
    let synchronous = story.cluster.wait_until_synchronous().await.unwrap();
    let crashed = story.leader().await;
    let before = timeline(crashed).await;
    crashed.kill_postmaster();
    let leader = story.cluster.wait_for_another(crashed.name()).await.unwrap();
    assert!(
        synchronous.contains(&leader.name().to_owned()),
        "{} leads, not one of {synchronous:?}",
        leader.name()
    );
    assert_eq!(timeline(leader).await, before + 1);
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_asynchronous_mode_is_mended_in_place() {
    let story = Story::begin_asynchronous(asynchronous()).await;
    let crashed = story.leader().await;
    let before = timeline(crashed).await;
    let postmaster = crashed.postmaster_pid();
    crashed.kill_postmaster();
    logged(crashed, "Postgres is down; starting it here").await;
    story.writes(50).await;
    assert!(crashed.leads().await);
    assert_ne!(crashed.postmaster_pid(), postmaster);
    assert_eq!(timeline(crashed).await, before);
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_comes_back_as_a_standby() {
    let story = Story::begin(Builder::new()).await;
    let lost = story.leader().await;
    lost.kill_node();
    story.cluster.wait_for_another(lost.name()).await.unwrap();
    story.writes(100).await;
    lost.start().unwrap();
    logged(lost, "rewinding to where the primary's timeline began").await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_archive_has_of_the_last_segment_never_replaces_what_a_standby_has_more() {
    let story = Story::begin(Builder::new().members(2).archive(Archive::Embedded)).await;
    let lost = story.leader().await;
    story.writes(200).await;
    lost.kill_node();
    story.cluster.wait_for_another(lost.name()).await.unwrap();
    story.writes(50).await;
    lost.start().unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_without_any_standby() {
    let story = Story::begin(Builder::new()).await;
    let standbys = story.cluster.standbys().await.unwrap();
    for standby in &standbys {
        standby.kill_node();
    }
    story.writes(100).await;
    for standby in &standbys {
        standby.start().unwrap();
    }
    story.cluster.wait_until_synchronous().await.unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_may_lack_commits_waits_for_one_that_has_them() {
    let story = Story::begin(Builder::new()).await;
    let (have_all, lacking) = story.who_has_all().await;
    for member in &have_all {
        member.kill_node();
    }
    logged(lacking, "not recorded as synchronous").await;
    assert!(!lacking.leads().await);
    for member in &have_all {
        member.start().unwrap();
    }
    story.end().await;
}
