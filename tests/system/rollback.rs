//! A running cluster rolled back in its place: the rows, the timelines, the standbys, the archive; and every way in which it
//! does not come to that, after which nothing has changed.

use std::path::PathBuf;

use outrider_bed::process::{Signal, postgres_in};
use outrider_bed::{Archive, Builder, Cluster, Member, wait_until};
use serde_json::{Value, json};

use crate::kept::{WORK_LIMIT, back_up, everybody_has, insert, primary, rows};
use crate::story::{LIMIT, logged, logs, records, timeline};

async fn position(cluster: &Cluster) -> String {
    primary(cluster).await.text("SELECT pg_current_wal_insert_lsn()::text").await.unwrap()
}

/// Asks for a rollback; the id of the request.
async fn ask(member: &Member, target: &Value) -> String {
    let answer = member.post("/rollback", target).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text);
    let document: Value = serde_json::from_str(&answer.text).unwrap();
    document["id"].as_str().unwrap().to_owned()
}

/// Waits until it has ended; how.
async fn ended(cluster: &Cluster, id: &str) -> Value {
    let ended = async || {
        let last = records(cluster, "/rollback").await?["last"].clone();
        (last["request"] == id).then_some(last)
    };
    wait_until(format!("the rollback {id} has ended"), WORK_LIMIT, ended)
        .await
        .unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)))
}

fn prepared(member: &Member) -> PathBuf {
    member.directory().join("data.rollback")
}

async fn is_removed(cluster: &Cluster, path: PathBuf) {
    let gone = async || (!path.exists()).then_some(());
    wait_until(format!("{} is removed", path.display()), LIMIT, gone)
        .await
        .unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)));
}

/// Two members with a backup, row 1 before it, row 2 up to the position that comes back, row 3 after it.
async fn with_history(builder: Builder) -> (Cluster, String) {
    let never = json!({"archive": {"schedule": "never"}});
    let cluster = builder.settings(never).start().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    let until = history(&cluster).await;
    cluster.wait_until_synchronous().await.unwrap();
    (cluster, until)
}

async fn history(cluster: &Cluster) -> String {
    insert(cluster, "(1)").await;
    back_up(cluster).await;
    insert(cluster, "(2)").await;
    let until = position(cluster).await;
    insert(cluster, "(3)").await;
    until
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_back_to_a_position_and_on_from_there() {
    let (cluster, until) = with_history(Builder::new().archive(Archive::MinioIfThere)).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let before = timeline(leader).await;
    let standby = cluster.standbys().await.unwrap()[0];
    let output = standby.outrider(&["rollback", "--target-lsn", &until, "--exclusive", "--yes"]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}; {}", logs(&cluster));
    println!("{said}");
    assert!(said.contains("nobody could write for") && said.contains("the old data is on"), "{said}");
    let last = records(&cluster, "/rollback").await.unwrap()["last"].clone();
    assert_eq!((&last["member"], &last["error"]), (&json!(leader.name()), &Value::Null), "{last}");
    assert!(last["new_timeline"].as_u64().unwrap() > before, "{last}");
    assert!(leader.leads().await && timeline(leader).await > before);
    everybody_has(&cluster, "1,2").await;
    // The old data lies beside, whole.
    let old = PathBuf::from(last["old_data"].as_str().unwrap());
    assert!(old.join("global/pg_control").exists() && !prepared(leader).exists(), "{last}");
    insert(&cluster, "(4)").await;
    everybody_has(&cluster, "1,2,4").await;
    // The archive goes on with the new timeline.
    back_up(&cluster).await;
    cluster.wait_until_synchronous().await.unwrap();
    let again =
        ended(&cluster, &ask(leader, &json!({"latest": true, "timeline": before.to_string()})).await).await;
    assert_eq!(
        again["error"],
        Value::Null,
        "what was thrown away can be had back: {again}; {}",
        logs(&cluster)
    );
    everybody_has(&cluster, "1,2,3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_asynchronous_mode_a_cluster_goes_back_beyond_a_failover() {
    let rules = json!({"synchronous_mode": "off", "maximum_lag_on_failover": 1 << 20});
    let never = json!({"archive": {"schedule": "never"}});
    let builder = Builder::new().members(2).archive(Archive::MinioIfThere).dcs(rules).settings(never);
    let cluster = builder.start().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    insert(&cluster, "(1)").await;
    back_up(&cluster).await;
    let until = position(&cluster).await;
    insert(&cluster, "(2)").await;
    let former = cluster.wait_for_leader().await.unwrap();
    let answer = former.post("/switchover", &json!({"leader": former.name()})).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    cluster.wait_until_whole().await.unwrap();
    insert(&cluster, "(3)").await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let before = timeline(leader).await;
    let last = ended(&cluster, &ask(former, &json!({"target_lsn": until, "exclusive": true})).await).await;
    assert_eq!(
        (&last["member"], &last["error"]),
        (&json!(leader.name()), &Value::Null),
        "{last}; {}",
        logs(&cluster)
    );
    // The standby's timeline is no ancestor of the new one: it has to find out that it diverged all the same.
    everybody_has(&cluster, "1").await;
    let back = json!({"latest": true, "timeline": before.to_string()});
    let last = ended(&cluster, &ask(leader, &back).await).await;
    assert_eq!(last["error"], Value::Null, "{last}; {}", logs(&cluster));
    everybody_has(&cluster, "1,2,3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_reached_is_refused_and_nothing_is_touched() {
    let (cluster, _) = with_history(Builder::new().members(2).archive(Archive::Embedded)).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let pid = leader.postmaster_pid();
    let id = ask(leader, &json!({"target_time": "2020-01-01T00:00:00Z"})).await;
    let last = ended(&cluster, &id).await;
    let error = last["error"].as_str().unwrap();
    assert!(error.contains("2020-01-01") && error.contains("first"), "it names the nearest: {last}");
    for target in
        [json!({"target_xid": 3, "immediate": true}), json!({}), json!({"target_lsn": "0/1", "x": 1})]
    {
        let answer = leader.post("/rollback", &target).await.unwrap();
        assert_eq!(answer.status, 400, "{target}: {}", answer.text);
    }
    let spaces = primary(&cluster).await;
    let place = cluster.guard.make_directory("space").unwrap();
    spaces.run(&format!("CREATE TABLESPACE apart LOCATION '{}'", place.display())).await.unwrap();
    let last = ended(&cluster, &ask(leader, &json!({"immediate": true})).await).await;
    assert!(last["error"].as_str().unwrap().contains("tablespaces"), "{last}");
    assert_eq!(leader.postmaster_pid(), pid);
    assert!(!prepared(leader).exists());
    assert_eq!(rows(&cluster).await, "1,2,3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_taken_back_while_it_is_prepared() {
    let (cluster, until) = with_history(Builder::new().members(2).archive(Archive::Embedded)).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let pid = leader.postmaster_pid();
    let store = cluster.store.as_ref().unwrap();
    // The last WAL does not get there, and the planning waits for it.
    store.stop();
    let id = ask(leader, &json!({"target_lsn": until})).await;
    let begun =
        async || (records(&cluster, "/rollback").await?["running"]["request"] == id.as_str()).then_some(());
    wait_until("the leader prepares it", LIMIT, begun).await.unwrap();
    let second = leader.post("/rollback", &json!({"immediate": true})).await.unwrap();
    assert_eq!(second.status, 409, "{}", second.text);
    let switchover = leader.post("/switchover", &json!({"leader": leader.name()})).await.unwrap();
    assert!(switchover.status == 412 && switchover.text.contains("rollback"), "{}", switchover.text);
    let output = cluster.standbys().await.unwrap()[0].outrider(&["rollback", "--cancel"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    let last = ended(&cluster, &id).await;
    assert_eq!(last["cancelled"], true, "{last}");
    store.start_again(&cluster.guard).await.unwrap();
    assert_eq!((leader.postmaster_pid(), rows(&cluster).await.as_str()), (pid, "1,2,3"));
    is_removed(&cluster, prepared(leader)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_while_it_prepares_changes_nothing_and_its_remains_are_removed() {
    let (cluster, until) = with_history(Builder::new().members(2).archive(Archive::Embedded)).await;
    // So that the recovery has something to do.
    for row in 4..=9 {
        insert(&cluster, &format!("({row})")).await;
        primary(&cluster).await.text("SELECT pg_switch_wal()::text").await.unwrap();
    }
    let leader = cluster.wait_for_leader().await.unwrap();
    let pid = leader.postmaster_pid();
    let id = ask(leader, &json!({"latest": true})).await;
    let recovers = async || (!postgres_in(&prepared(leader)).is_empty()).then_some(());
    wait_until("it recovers beside the data", WORK_LIMIT, recovers).await.unwrap();
    leader.kill_agent();
    leader.start().unwrap();
    let last = ended(&cluster, &id).await;
    assert!(last["error"].as_str().unwrap().contains("nothing was changed"), "{last}; {}", logs(&cluster));
    is_removed(&cluster, prepared(leader)).await;
    assert!(postgres_in(&prepared(leader)).is_empty());
    assert_eq!((leader.postmaster_pid(), rows(&cluster).await.as_str()), (pid, "1,2,3,4,5,6,7,8,9"));
    // A person decides anew.
    let last = ended(&cluster, &ask(leader, &json!({"target_lsn": until, "exclusive": true})).await).await;
    assert_eq!(last["error"], Value::Null, "{last}; {}", logs(&cluster));
    everybody_has(&cluster, "1,2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_in_the_swap_finishes_it_or_has_undone_it() {
    let (cluster, until) = with_history(Builder::new().members(2).archive(Archive::Embedded)).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let id = ask(leader, &json!({"target_lsn": until, "exclusive": true})).await;
    let journal = leader.state_directory().join("rollback.json");
    let swapping = async || std::fs::read_to_string(&journal).ok()?.contains("before-rollback").then_some(());
    wait_until("the data is being swapped", WORK_LIMIT, swapping).await.unwrap();
    leader.kill_agent();
    leader.start().unwrap();
    let last = ended(&cluster, &id).await;
    let wanted = if last["error"].is_null() { "1,2" } else { "1,2,3" };
    everybody_has(&cluster, wanted).await;
    is_removed(&cluster, journal).await;
    is_removed(&cluster, prepared(leader)).await;
}

/// Two members in asynchronous mode whose leader is lost in the swap, with row 3 to go; the leader and the id of the request.
async fn lost_in_the_swap() -> (Cluster, String, String) {
    let rules = json!({"synchronous_mode": "off", "maximum_lag_on_failover": 1 << 20});
    let never = json!({"archive": {"schedule": "never"}});
    let builder = Builder::new().members(2).archive(Archive::Embedded).dcs(rules).settings(never);
    let cluster = builder.start().await.unwrap();
    let until = history(&cluster).await;
    everybody_has(&cluster, "1,2,3").await;
    let lost = cluster.wait_for_leader().await.unwrap();
    let id = ask(lost, &json!({"target_lsn": until, "exclusive": true})).await;
    let journal = lost.state_directory().join("rollback.json");
    let swapping = async || std::fs::read_to_string(&journal).ok()?.contains("before-rollback").then_some(());
    wait_until("the data is being swapped", WORK_LIMIT, swapping).await.unwrap();
    // At once: it must not come to record the end.
    lost.signal_agent(Signal::Stop);
    lost.kill_node();
    let lost = lost.name().to_owned();
    // The other one has all that was published, and the lease is free; but it has what was to go.
    for standby in cluster.members.iter().filter(|member| member.name() != lost) {
        logged(standby, "was lost while a rollback swapped its data").await;
        assert!(!standby.leads().await);
    }
    (cluster, lost, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_asynchronous_mode_a_leader_lost_in_the_swap_finishes_it_when_it_is_back() {
    let (cluster, lost, id) = lost_in_the_swap().await;
    cluster.member(&lost).start().unwrap();
    let last = ended(&cluster, &id).await;
    assert_eq!(last["member"], lost.as_str(), "{last}");
    let wanted = if last["error"].is_null() { "1,2" } else { "1,2,3" };
    everybody_has(&cluster, wanted).await;
    is_removed(&cluster, prepared(cluster.member(&lost))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_asynchronous_mode_a_person_names_who_takes_the_place_of_a_leader_lost_in_the_swap() {
    let (cluster, lost, id) = lost_in_the_swap().await;
    let standby = cluster.members.iter().find(|member| member.name() != lost).unwrap();
    let refused = standby.outrider(&["failover", "--candidate", standby.name(), "--force"]).unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    let word = ["failover", "--candidate", standby.name(), "--accept-data-loss", "--force"];
    let output = standby.outrider(&word).unwrap();
    assert!(output.status.success(), "{output:?}; {}", logs(&cluster));
    assert_eq!(rows(&cluster).await, "1,2,3");
    let last = ended(&cluster, &id).await;
    assert!(last["error"].as_str().unwrap().contains("lost during the swap"), "{last}");
    let lost = cluster.member(&lost);
    lost.start().unwrap();
    everybody_has(&cluster, "1,2,3").await;
    is_removed(&cluster, lost.state_directory().join("rollback.json")).await;
}

/// As it is between the two renames: nothing is in the place of the data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_lost_between_the_renames_gets_its_old_data_back_and_is_no_empty_member() {
    let (cluster, _) = with_history(Builder::new().members(2).archive(Archive::Embedded)).await;
    cluster.members.iter().for_each(Member::kill_node);
    for member in &cluster.members {
        let aside = member.directory().join("data.before-rollback-20260101T000000Z");
        std::fs::rename(member.data_directory(), &aside).unwrap();
        let journal = member.state_directory().join("rollback.json");
        let text = json!({"id": "lost", "aside": aside}).to_string();
        std::fs::write(&journal, text).unwrap();
        cluster.guard.account().own(&journal).unwrap();
        cluster.guard.make_directory(&format!("{}/data.rollback", member.name())).unwrap();
    }
    for member in &cluster.members {
        member.start().unwrap();
    }
    everybody_has(&cluster, "1,2,3").await;
    for member in &cluster.members {
        logged(member, "the old data is back in place").await;
        is_removed(&cluster, prepared(member)).await;
    }
}
