//! A primary that has more than its standbys of what they must not have less of, because it was restarted by itself: they are
//! restarted with as much, one after the other, and nothing is lost.

use outrider_bed::process::{self, Signal};
use outrider_bed::{Builder, Cluster, Member, wait_until};
use serde_json::{Value, json};

use crate::story::{LIMIT, Story, logs};

const RAISING: &str = "restarting Postgres with the primary's value";

async fn setting(cluster: &Cluster, member: &Member, name: &str) -> Option<u32> {
    let endpoint = cluster.endpoints().into_iter().find(|endpoint| endpoint.name == member.name())?;
    let connection = endpoint.connect().await.ok()?;
    connection.text(&format!("SELECT current_setting('{name}')")).await.ok()?.parse().ok()
}

/// Changes the rules of the cluster, and waits until the leader waits for a restart with them.
async fn rule(story: &Story, parameters: &[(&str, u32)]) {
    let leader = story.leader().await;
    let parameters: Value = parameters.iter().map(|(name, value)| (*name, json!(value))).collect();
    let change = json!({"postgresql": {"parameters": parameters}});
    let answer = leader.request(reqwest::Method::PATCH, "/config", Some(change.to_string())).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let waits = async || {
        let reasons = leader.patroni().await?["pending_restart_reason"].take();
        parameters.as_object()?.keys().all(|name| reasons.get(name).is_some()).then_some(())
    };
    wait_until("the leader waits for a restart", LIMIT, waits).await.unwrap();
}

/// Its Postgres is ended, as by a crash or by `pg_ctl stop`, and is started where it is, as nobody may take over.
async fn restart_in_place(leader: &Member, how: Signal) {
    let before = leader.postmaster_pid();
    process::send(before.unwrap(), how);
    let back = async || {
        (leader.postmaster_pid().is_some_and(|pid| Some(pid) != before) && leader.leads().await).then_some(())
    };
    let outcome = wait_until("the leader is back where it was", LIMIT, back).await;
    assert!(outcome.is_ok(), "{outcome:?}: {}", leader.log());
}

/// Waits until all members have that much in effect, and everybody replays.
async fn everybody_has(story: &Story, parameters: &[(&str, u32)]) {
    for member in &story.cluster.members {
        let has = async || {
            for (name, value) in parameters {
                if setting(&story.cluster, member, name).await? < *value {
                    return None;
                }
            }
            let status = member.patroni().await?;
            status["outrider"]["replay"].get("hold").is_none().then_some(())
        };
        let outcome =
            wait_until(format!("{} has {parameters:?} and replays", member.name()), LIMIT, has).await;
        assert!(outcome.is_ok(), "{outcome:?}: {}", logs(&story.cluster));
    }
}

/// When a member began to stop for it, and when it followed again, by its log; `None` before that.
fn turn(member: &Member) -> Option<(String, String)> {
    let log = member.log();
    let lines: Vec<&str> = log.lines().collect();
    let begun = lines.iter().rposition(|line| line.contains(RAISING))?;
    let ended = lines[begun..].iter().find(|line| line.contains("a standby, following the leader"))?;
    let time = |line: &str| Some(line.split_whitespace().next()?.to_owned());
    Some((time(lines[begun])?, time(ended)?))
}

/// Never were two of them down at a time.
async fn one_after_the_other(story: &Story, standbys: &[&Member]) {
    let mut turns = Vec::new();
    for standby in standbys {
        let over = async || turn(standby);
        let outcome = wait_until(format!("{} has had its turn", standby.name()), LIMIT, over).await;
        turns.push(outcome.unwrap_or_else(|fault| panic!("{fault}: {}", logs(&story.cluster))));
    }
    turns.sort();
    assert!(turns.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{turns:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standbys_of_a_primary_that_crashed_into_higher_limits_are_raised_one_after_the_other() {
    let asynchronous = json!({"synchronous_mode": false});
    let story = Story::begin_asynchronous(Builder::new().dcs(asynchronous)).await;
    let leader = story.leader().await;
    // One by its own file, in which the others have less; two by the rules of the cluster.
    leader.change_configuration(&json!({"postgresql": {"parameters": {"max_connections": 60}}})).unwrap();
    leader.end_agent(Signal::Terminate).unwrap();
    leader.start().unwrap();
    rule(&story, &[("max_worker_processes", 12), ("max_prepared_transactions", 7)]).await;
    restart_in_place(leader, Signal::Kill).await;
    let raised = [("max_connections", 60), ("max_worker_processes", 12), ("max_prepared_transactions", 7)];
    everybody_has(&story, &raised).await;
    one_after_the_other(&story, &story.cluster.standbys().await.unwrap()).await;
    assert!(leader.leads().await);
    // What they owe to their primary would be the same after another restart, whatever their own files say.
    for standby in story.cluster.standbys().await.unwrap() {
        let waits = async || standby.patroni().await?.get("pending_restart").is_none().then_some(());
        let outcome = wait_until(format!("nothing waits at {}", standby.name()), LIMIT, waits).await;
        assert!(outcome.is_ok(), "{outcome:?}: {:?}", standby.patroni().await);
    }
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_synchronous_standby_is_raised_too_and_nothing_is_lost() {
    let story = Story::begin(Builder::new()).await;
    let leader = story.leader().await;
    let standbys = story.cluster.standbys().await.unwrap();
    // Nobody answers who could take over, so the leader comes back where it was.
    for standby in &standbys {
        standby.end_agent(Signal::Terminate).unwrap();
    }
    rule(&story, &[("max_wal_senders", 14), ("max_locks_per_transaction", 80)]).await;
    restart_in_place(leader, Signal::Interrupt).await;
    story.writes(20).await;
    for standby in &standbys {
        standby.start().unwrap();
    }
    everybody_has(&story, &[("max_wal_senders", 14), ("max_locks_per_transaction", 80)]).await;
    one_after_the_other(&story, &standbys).await;
    story.cluster.wait_until_synchronous().await.unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_replay_stands_for_it_takes_over_all_the_same() {
    // In asynchronous mode a standby takes over that nobody answers for.
    let rules = json!({"synchronous_mode": false, "maximum_lag_on_failover": 1 << 30});
    let story = Story::begin_asynchronous(Builder::new().members(2).dcs(rules)).await;
    let leader = story.leader().await;
    let standby = story.cluster.standbys().await.unwrap().remove(0);
    standby.signal_agent(Signal::Stop);
    rule(&story, &[("max_worker_processes", 12), ("max_wal_senders", 14)]).await;
    restart_in_place(leader, Signal::Kill).await;
    story.writes(20).await;
    let endpoint = story.cluster.endpoints().into_iter().find(|one| one.name == standby.name()).unwrap();
    let stands = async || {
        let connection = endpoint.connect().await.ok()?;
        let state = "SELECT (pg_is_wal_replay_paused() AND pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn())::text";
        (connection.text(state).await.ok()? == "true").then_some(())
    };
    wait_until("replay stands on the standby", LIMIT, stands).await.unwrap();
    leader.kill_node();
    let free = async || story.cluster.etcd.get("/service/bed/leader").await.ok()?.is_none().then_some(());
    wait_until("the lease has run out", LIMIT, free).await.unwrap();
    standby.signal_agent(Signal::Continue);
    let took_over = story.cluster.wait_for_another(leader.name()).await;
    assert!(took_over.is_ok_and(|member| member.name() == standby.name()), "{}", logs(&story.cluster));
    assert!(standby.log().contains(RAISING), "{}", standby.log());
    let log = std::fs::read_to_string(standby.state_directory().join("postgres.log")).unwrap();
    assert!(!log.contains("recovery aborted"), "it was resumed instead: {log}");
    leader.start().unwrap();
    story.end_with_losses().await;
}
