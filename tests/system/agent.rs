//! Agent and supervisor come and go: Postgres stays, or is handed over in good order.

use outrider_bed::process::{self, Signal};
use outrider_bed::{Builder, wait_until};

use crate::story::{LIMIT, Story, logged, timeline};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_and_comes_back_does_not_touch_postgres() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    let (postmaster, before) = (leader.postmaster_pid(), timeline(leader).await);
    for signal in [Signal::Kill, Signal::Terminate] {
        leader.end_agent(signal).unwrap();
        leader.start().unwrap();
        wait_until("it leads again", LIMIT, async || leader.leads().await.then_some(())).await.unwrap();
        story.writes(100).await;
    }
    assert_eq!(leader.postmaster_pid(), postmaster);
    assert_eq!(timeline(leader).await, before);
    // Whom commits wait for was set and proven anew.
    story.cluster.wait_until_synchronous().await.unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_told_to_end_hands_over_first() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    let supervisor = leader.supervisor_pid().unwrap();
    leader.terminate_supervisor();
    story.cluster.wait_for_another(leader.name()).await.unwrap();
    story.writes(50).await;
    let gone = async || (!process::is_alive(supervisor)).then_some(());
    wait_until("the supervisor has ended", LIMIT, gone).await.unwrap();
    // Its agent starts another one, and the member follows.
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_that_is_killed_takes_its_postgres_along() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    process::send(leader.supervisor_pid().unwrap(), Signal::Kill);
    logged(leader, "the supervisor was restarted").await;
    story.end().await;
}
