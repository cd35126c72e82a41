//! The first start, broken off at every moment: what is half made is made anew, and nothing is left running.

use outrider_bed::Builder;
use outrider_bed::process::Signal;

use crate::story::logged;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_interrupted_anywhere_is_taken_up_again() {
    let moments = [
        "starting the supervisor",
        "the agent is running",
        "begins job=initdb",
        "begins job=starting Postgres",
        "begins job=creating the users",
        // Not "the cluster is made": one that was ended between the key and that line never writes it.
        "the leader with the lease",
    ];
    for signal in [Signal::Interrupt, Signal::Kill] {
        let cluster = Builder::new().members(2).prepare().await.unwrap();
        let first = &cluster.members[0];
        for moment in moments {
            first.start().unwrap();
            logged(first, moment).await;
            first.end_agent(signal).unwrap();
        }
        first.start().unwrap();
        cluster.wait_for_leader().await.unwrap();
        let second = &cluster.members[1];
        for moment in
            ["begins job=cloning", "begins job=starting Postgres", "a standby, following the leader"]
        {
            second.start().unwrap();
            logged(second, moment).await;
            second.end_agent(signal).unwrap();
        }
        second.start().unwrap();
        cluster.wait_until_whole().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_in_the_background_of_a_script_can_be_interrupted_before_it_runs() {
    let cluster = Builder::new().members(1).prepare().await.unwrap();
    let member = &cluster.members[0];
    member.start_in_the_background().unwrap();
    logged(member, "starting the supervisor").await;
    member.end_agent(Signal::Interrupt).unwrap();
}
