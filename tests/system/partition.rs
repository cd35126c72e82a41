//! One member is cut off from etcd while everything else still reaches it, or its way there is slow.

use std::time::Duration;

use outrider_bed::{Builder, Passage, fault_lasts};

use crate::story::{Story, logged, timeline, was_fenced};

/// The leader cannot renew: it is to be gone before another may lead, and to follow when it is back.
async fn leader_without(passage: Passage) {
    let story = Story::begin(Builder::new().links()).await;
    let synchronous = story.cluster.wait_until_synchronous().await.unwrap();
    let cut_off = story.leader().await;
    story.cluster.link(cut_off).set(passage);
    let leader = story.cluster.wait_for_another(cut_off.name()).await.unwrap();
    assert!(synchronous.contains(&leader.name().to_owned()), "{} leads", leader.name());
    story.writes(100).await;
    assert!(!was_fenced(cut_off), "it did not stop by itself: {}", cut_off.log());
    story.cluster.link(cut_off).set(Passage::Whole);
    logged(cut_off, "a standby, following the leader").await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_from_etcd_is_gone_before_another_leads() {
    leader_without(Passage::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_never_hears_what_became_of_its_renewals_steps_down() {
    leader_without(Passage::Deaf).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standbys_that_are_cut_off_from_etcd_cost_nothing() {
    let story = Story::begin(Builder::new().links()).await;
    let leader = story.leader().await;
    let (before, postmaster) = (timeline(leader).await, leader.postmaster_pid());
    let standbys = story.cluster.standbys().await.unwrap();
    for standby in &standbys {
        story.cluster.link(standby).set(Passage::Cut);
    }
    // Longer than their sessions live, so that etcd forgets them.
    story.writes(700).await;
    for standby in &standbys {
        story.cluster.link(standby).set(Passage::Whole);
    }
    story.cluster.wait_until_synchronous().await.unwrap();
    assert!(leader.leads().await);
    assert_eq!((timeline(leader).await, leader.postmaster_pid()), (before, postmaster));
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_way_to_etcd_costs_nothing() {
    let story = Story::begin(Builder::new().links()).await;
    let leader = story.leader().await;
    let (before, postmaster) = (timeline(leader).await, leader.postmaster_pid());
    for member in &story.cluster.members {
        story.cluster.link(member).set(Passage::Slow(Duration::from_millis(100)));
    }
    fault_lasts(Duration::from_secs(10)).await;
    assert!(leader.leads().await);
    for member in &story.cluster.members {
        story.cluster.link(member).set(Passage::Whole);
    }
    assert_eq!((timeline(leader).await, leader.postmaster_pid()), (before, postmaster));
    story.end().await;
}
