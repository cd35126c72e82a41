//! Members that were promoted apart from one another, from the same place and to the same timeline number: nothing but what
//! they wrote tells their timelines apart.

use outrider_bed::process::{self, Signal};
use outrider_bed::{Builder, Cluster, Member, wait_until};
use serde_json::json;

use crate::by_hand;
use crate::kept::{everybody_has, insert};
use crate::story::{LIMIT, logged, logs, timeline};

/// Every server stops at once, all with the same WAL.
async fn stop_all(cluster: &Cluster, leader: &Member) {
    cluster.members.iter().for_each(Member::kill_agent);
    process::send(leader.postmaster_pid().unwrap(), Signal::Interrupt);
    let gone = async || leader.postmaster_pid().is_none().then_some(());
    wait_until("the primary has sent its last record and is gone", LIMIT, gone).await.unwrap();
    cluster.members.iter().for_each(Member::kill_node);
    let running = |member: &Member| !process::postgres_in(&member.data_directory()).is_empty();
    let none = async || (!cluster.members.iter().any(running)).then_some(());
    wait_until("no process of a server is left", LIMIT, none).await.unwrap();
}

/// The history file of timeline 2, without the words in it.
fn history(member: &Member) -> String {
    let path = member.data_directory().join("pg_wal/00000002.history");
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// A cluster on timeline 2, whose former leader follows, and a member that was promoted alone, to a timeline 2 of its own, with
/// one row that nobody else has.
async fn twins() -> (Cluster, [usize; 3]) {
    let (cluster, [former, heir, twin]) = apart(None).await;
    let histories = (history(&cluster.members[heir]), history(&cluster.members[twin]));
    assert_eq!(
        (timeline(&cluster.members[heir]).await, &histories.0),
        (2, &histories.1),
        "they are no twins"
    );
    (cluster, [former, heir, twin])
}

/// The former leader, the one that leads now, and the one that was promoted alone. `taken`: a history file that keeps the leader from
/// taking that number.
async fn apart(taken: Option<&str>) -> (Cluster, [usize; 3]) {
    let cluster = Builder::new().dcs(json!({"synchronous_mode": false})).start().await.unwrap();
    insert(&cluster, "(1)").await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let at = |name: &str| cluster.members.iter().position(|member| member.name() == name).unwrap();
    let standbys = cluster.standbys().await.unwrap();
    let places @ [former, heir, twin] = [leader, standbys[0], standbys[1]].map(|member| at(member.name()));
    stop_all(&cluster, leader).await;
    let [former, heir, twin] = [former, heir, twin].map(|place| &cluster.members[place]);
    by_hand::promote_alone(&cluster, &twin.data_directory(), None, "INSERT INTO kept VALUES (100)").await;
    if taken.is_some() {
        by_hand::promote_alone(&cluster, &heir.data_directory(), taken, "SELECT").await;
    }
    heir.start().unwrap();
    let leads = async || heir.leads().await.then_some(());
    let outcome = wait_until("the other standby leads", LIMIT, leads).await;
    assert!(outcome.is_ok(), "{outcome:?}; {}", logs(&cluster));
    insert(&cluster, "(2), (3), (4)").await;
    former.start().unwrap();
    let outcome = cluster.wait_until_streaming(1).await;
    assert!(outcome.is_ok(), "{outcome:?}; {}", logs(&cluster));
    (cluster, places)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_on_a_timeline_whose_number_the_leader_passed_over_is_rewound() {
    let (cluster, [_, heir, twin]) = apart(Some("00000002.history")).await;
    // Promoted to 3, and once more by its agent.
    assert_eq!(timeline(&cluster.members[heir]).await, 4);
    let twin = &cluster.members[twin];
    twin.start().unwrap();
    everybody_has(&cluster, "1,2,3,4").await;
    logged(twin, "rewinding to where the leader's timeline began").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_promoted_alone_from_the_same_place_is_copied_anew() {
    let (cluster, [_, _, twin]) = twins().await;
    let twin = &cluster.members[twin];
    twin.start().unwrap();
    everybody_has(&cluster, "1,2,3,4").await;
    logged(twin, "timeline 2 was begun twice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_one_whose_timeline_the_leader_has_left_since() {
    let (cluster, [former, heir, twin]) = twins().await;
    let [former, heir, twin] = [former, heir, twin].map(|place| &cluster.members[place]);
    let wish = json!({"leader": heir.name(), "candidate": former.name()});
    let answer = heir.post("/switchover", &wish).await.unwrap();
    assert_eq!(answer.status, 200, "{}; {}", answer.text, logs(&cluster));
    assert_eq!(timeline(former).await, 3);
    insert(&cluster, "(5)").await;
    twin.start().unwrap();
    everybody_has(&cluster, "1,2,3,4,5").await;
    logged(twin, "timeline 2 was begun twice").await;
}
