//! A Postgres that hangs: stopped by a signal, all of it or its postmaster alone, or one that takes no new connection while
//! those that are open go on. What is as good as lost is given up; what may only be slow has time.

use std::time::Duration;

use outrider_bed::process::{self, Signal};
use outrider_bed::{Builder, Member, fault_lasts, wait_until};
use serde_json::json;

use crate::story::{LIMIT, Story, logged};

/// Half a lifetime of a lease with the default ttl.
const HALF_TTL: Duration = Duration::from_millis(2500);
/// Three of them.
const THREE_TTL: Duration = Duration::from_secs(15);

/// Waits for one of the synchronous standbys to lead; nothing is left of the processes that were stopped, and their member comes
/// back as a standby.
async fn is_given_up(story: &Story, hanging: &Member, stopped: &[i32], synchronous: &[String]) {
    let leader = story.cluster.wait_for_another(hanging.name()).await.unwrap();
    let chosen = leader.name().to_owned();
    assert!(synchronous.contains(&chosen), "{chosen} leads, not one of {synchronous:?}");
    let gone = async || stopped.iter().all(|pid| !process::is_alive(*pid)).then_some(());
    wait_until("nothing is left of the former primary", LIMIT, gone).await.unwrap();
    logged(hanging, "Postgres hangs; stopping it in favour of a standby").await;
    story.cluster.wait_until_whole().await.unwrap();
    assert!(!hanging.leads().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_of_which_every_process_is_stopped_is_given_up_and_no_commit_is_lost() {
    let story = Story::begin(Builder::new()).await;
    let synchronous = story.cluster.wait_until_synchronous().await.unwrap();
    let leader = story.leader().await;
    let stopped = leader.signal_postgres(Signal::Stop);
    assert!(stopped.len() > 5, "{stopped:?}");
    is_given_up(&story, leader, &stopped, &synchronous).await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_postmaster_is_given_up_although_open_sessions_still_answer() {
    let story = Story::begin(Builder::new()).await;
    let synchronous = story.cluster.wait_until_synchronous().await.unwrap();
    let leader = story.leader().await;
    let postmaster = leader.postmaster_pid().unwrap();
    process::send(postmaster, Signal::Stop);
    is_given_up(&story, leader, &[postmaster], &synchronous).await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_postgres_is_given_up_in_asynchronous_mode_too() {
    let story = Story::begin_asynchronous(Builder::new().dcs(json!({"synchronous_mode": false}))).await;
    story.cluster.wait_until_whole().await.unwrap();
    let leader = story.leader().await;
    leader.signal_postgres(Signal::Stop);
    story.cluster.wait_for_another(leader.name()).await.unwrap();
    story.end_with_losses().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_stopped_for_a_moment_goes_on_where_it_was() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    let postmaster = leader.postmaster_pid();
    leader.signal_postgres(Signal::Stop);
    logged(leader, "the postmaster is stopped").await;
    fault_lasts(HALF_TTL).await;
    leader.signal_postgres(Signal::Continue);
    story.writes(50).await;
    assert!(leader.leads().await);
    assert_eq!(leader.postmaster_pid(), postmaster);
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_takes_no_new_connection_has_as_long_as_a_start_while_open_sessions_write() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    let postmaster = leader.postmaster_pid();
    // As a program does that tidies up /tmp. The agent comes in by this door alone.
    let socket = leader.directory().join("run").join(format!(".s.PGSQL.{}", leader.port()));
    std::fs::remove_file(&socket).unwrap();
    logged(leader, "Postgres accepts no new connections; open ones go on").await;
    fault_lasts(THREE_TTL).await;
    story.writes(50).await;
    assert!(leader.leads().await);
    assert_eq!(leader.postmaster_pid(), postmaster);
    let list = String::from_utf8(leader.outrider(&["list"]).unwrap().stdout).unwrap();
    assert!(list.contains("accepts no new connections"), "{list}");
    // The patience with a start is that with this.
    let change = json!({"primary_start_timeout": 5}).to_string();
    let answer = leader.request(reqwest::Method::PATCH, "/config", Some(change)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    story.cluster.wait_for_another(leader.name()).await.unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_restarted_takes_no_slow_answer_for_a_start_that_lasts_too_long() {
    let story = Story::begin(Builder::new().dcs(json!({"primary_start_timeout": 5}))).await;
    let leader = story.leader().await;
    let postmaster = leader.postmaster_pid();
    // It runs for longer than a start may last.
    fault_lasts(HALF_TTL * 2).await;
    leader.end_agent(Signal::Terminate).unwrap();
    leader.signal_postgres(Signal::Stop);
    leader.start().unwrap();
    logged(leader, "Postgres is not up yet").await;
    leader.signal_postgres(Signal::Continue);
    story.writes(50).await;
    assert!(leader.leads().await);
    assert_eq!(leader.postmaster_pid(), postmaster);
    story.end().await;
}
