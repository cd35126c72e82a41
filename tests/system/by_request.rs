//! Switchovers and failovers that a person asks for: to any standby, with reports running, too late, or with the loss of data.

use outrider_bed::{Builder, Connection, Member, wait_until};
use serde_json::{Value, json};

use crate::story::{LIMIT, Story, logged, logs, timeline};

/// A report on a member, by the server process that runs it: its transaction lasts as long as this.
pub(crate) async fn report(story: &Story, member: &str) -> (Connection, String) {
    let endpoints = story.cluster.endpoints();
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == member).unwrap();
    let connection = endpoint.connect().await.unwrap();
    connection.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM report").await.unwrap();
    let pid = connection.text("SELECT pg_backend_pid()::text").await.unwrap();
    (connection, pid)
}

/// Removes rows that the reports may still see, and vacuums them away.
pub(crate) async fn conflict(story: &Story) {
    let endpoints = story.cluster.endpoints();
    let leader = story.leader().await.name().to_owned();
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == leader).unwrap();
    let connection = endpoint.connect_to_primary().await.unwrap();
    connection.run("DELETE FROM report").await.unwrap();
    // Not while a transaction of the oracle's may still see them.
    let gone = async || {
        connection.run("VACUUM report").await.ok()?;
        let size = connection.text("SELECT pg_relation_size('report')::text").await.ok()?;
        (size == "0").then_some(())
    };
    wait_until("the rows are vacuumed away", LIMIT, gone).await.unwrap();
}

/// A cluster with a table that people report on, whose standbys let reports hold up replay for ever.
pub(crate) async fn with_reports(members: usize) -> Story {
    let forever = json!({"postgresql": {"parameters": {"max_standby_streaming_delay": "-1"}}});
    let story = Story::begin(Builder::new().members(members).dcs(forever)).await;
    let endpoints = story.cluster.endpoints();
    let leader = story.leader().await.name().to_owned();
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == leader).unwrap();
    let connection = endpoint.connect_to_primary().await.unwrap();
    connection.run("CREATE TABLE report AS SELECT generate_series(1, 1000) AS line").await.unwrap();
    let candidate = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
    let there = async || {
        let endpoint = endpoints.iter().find(|endpoint| endpoint.name == candidate)?;
        endpoint.connect().await.ok()?.text("SELECT count(*)::text FROM report").await.ok()
    };
    wait_until("the table is on the candidate", LIMIT, there).await.unwrap();
    story
}

/// Waits until a member shows in `GET /patroni` that this process holds its replay up.
async fn held_up_by(member: &Member, pid: &str) {
    let held = async || {
        let status = member.patroni().await?;
        let replay = &status["outrider"]["replay"];
        let named =
            replay["queries"].as_array()?.iter().any(|query| query["pid"].as_i64() == pid.parse().ok());
        (replay["hold"] == "conflict" && named).then_some(())
    };
    wait_until(format!("{} shows that {pid} holds replay up", member.name()), LIMIT, held).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_is_refused_or_waits_while_a_report_holds_up_replay_and_writes_go_on() {
    let story = with_reports(2).await;
    let leader = story.leader().await;
    let candidate = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
    let (connection, pid) = report(&story, &candidate).await;
    conflict(&story).await;
    held_up_by(story.cluster.member(&candidate), &pid).await;
    let wish = json!({"leader": leader.name(), "candidate": candidate});
    let answer = leader.post("/switchover", &wish).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(answer.text.contains(&format!("pid {pid} for ")), "{}", answer.text);
    story.writes(50).await;
    assert!(leader.leads().await);
    // Whoever is willing to wait has it when the report is done.
    let wait = json!({"leader": leader.name(), "candidate": candidate, "wait": 120});
    let done = async {
        logged(leader, "waiting until it can be done, for queries on the candidate").await;
        story.writes(50).await;
        drop(connection);
    };
    let (answer, ()) = tokio::join!(leader.post("/switchover", &wait), done);
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{}; {}", answer.text, logs(&story.cluster));
    // The new leader lets reports take their time again when it is a standby.
    let endpoints = story.cluster.endpoints();
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == candidate).unwrap();
    let relaxed = async || {
        let connection = endpoint.connect_to_primary().await.ok()?;
        let delay = connection.text("SHOW max_standby_streaming_delay").await.ok()?;
        (delay == "-1").then_some(())
    };
    wait_until("the delay is the operator's again", LIMIT, relaxed).await.unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_cancels_the_reports_that_hold_up_replay_and_resumes_a_paused_one() {
    let story = with_reports(2).await;
    let candidate = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
    let mut reports = Vec::new();
    for _ in 0..10 {
        reports.push(report(&story, &candidate).await);
        // Each sees more than the one before it.
        story.writes(1).await;
    }
    conflict(&story).await;
    held_up_by(story.cluster.member(&candidate), &reports[0].1).await;
    let lost = story.leader().await;
    lost.kill_postmaster();
    let leader = story.cluster.wait_for_another(lost.name()).await.unwrap();
    assert_eq!(leader.name(), candidate);
    story.cluster.wait_until_whole().await.unwrap();

    // The same for a standby whose replay somebody paused.
    let candidate = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
    let endpoints = story.cluster.endpoints();
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == candidate).unwrap();
    endpoint.connect().await.unwrap().run("SELECT pg_wal_replay_pause()").await.unwrap();
    story.writes(50).await;
    let leader = story.leader().await;
    let answer =
        leader.post("/switchover", &json!({"leader": leader.name(), "candidate": candidate})).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(answer.text.contains("replay is paused"), "{}", answer.text);
    leader.kill_postmaster();
    assert_eq!(story.cluster.wait_for_another(leader.name()).await.unwrap().name(), candidate);
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_to_any_standby_makes_it_synchronous_first() {
    let story = Story::begin(Builder::new()).await;
    for _ in 0..2 {
        let leader = story.leader().await;
        let synchronous = story.cluster.wait_until_synchronous().await.unwrap();
        let standbys = story.cluster.standbys().await.unwrap();
        let other = standbys.iter().find(|member| !synchronous.contains(&member.name().to_owned()));
        let other = other.unwrap_or_else(|| panic!("all are synchronous: {synchronous:?}")).name();
        let wish = json!({"leader": leader.name(), "candidate": other});
        let answer = leader.post("/switchover", &wish).await.unwrap();
        assert_eq!(answer.status, 200, "{}; {}", answer.text, logs(&story.cluster));
        assert_eq!(story.leader().await.name(), other);
        story.cluster.wait_until_whole().await.unwrap();
    }
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_member_that_may_lack_commits_is_refused_and_does_not_fire_later() {
    let story = Story::begin(Builder::new()).await;
    let (have_all, lacking) = story.who_has_all().await;
    have_all.iter().for_each(|member| member.kill_node());
    logged(lacking, "not recorded as synchronous").await;
    let answer = lacking.post("/failover", &json!({"candidate": lacking.name()})).await.unwrap();
    assert_eq!(answer.status, 412, "{}", answer.text);
    assert!(answer.text.contains("--accept-data-loss"), "{}", answer.text);
    // The same straight into etcd, as Patroni's command line writes it when nobody answers.
    let wish = json!({"member": lacking.name()}).to_string();
    story.cluster.etcd.put("/service/bed/failover", &wish).await.unwrap();
    let gone = async || {
        let text = story.cluster.etcd.get("/service/bed/failover").await.ok()??;
        (!text.contains("\"member\"")).then_some(())
    };
    wait_until("the request is taken away", LIMIT, gone).await.unwrap();
    for member in &have_all {
        member.start().unwrap();
    }
    let leader = story.cluster.wait_for_another(lacking.name()).await.unwrap();
    assert_ne!(leader.name(), lacking.name());
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_survivor_is_promoted_by_a_person_who_accepts_the_loss() {
    let story = Story::begin(Builder::new().members(2)).await;
    let lost = story.leader().await;
    let standbys = story.cluster.standbys().await.unwrap();
    let survivor = standbys[0];
    survivor.kill_node();
    story.writes(50).await;
    // It is rebooted, which begins another timeline, and then is gone.
    lost.kill_node();
    let free = async || story.cluster.etcd.get("/service/bed/leader").await.ok()?.is_none().then_some(());
    wait_until("its lease has run out", LIMIT, free).await.unwrap();
    lost.start().unwrap();
    let back = async || lost.leads().await.then_some(());
    wait_until("the leader is back", LIMIT, back).await.unwrap();
    story.writes(50).await;
    lost.kill_node();
    survivor.start().unwrap();
    logged(survivor, "on timeline 1 while the cluster was on 2").await;
    let refused = survivor.outrider(&["failover", "--candidate", survivor.name(), "--force"]).unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--accept-data-loss"), "{refused:?}");
    let word = ["failover", "--candidate", survivor.name(), "--accept-data-loss", "--force"];
    let told = survivor.outrider(&word).unwrap();
    assert!(told.status.success(), "{told:?}; {}", survivor.log());
    let told = String::from_utf8(told.stdout).unwrap();
    for words in
        ["is on timeline 1 at", "it lacks: timeline 2, begun at", "bytes up to", "its last commit is of"]
    {
        assert!(told.contains(words), "{told}");
    }
    // A number of its own, so that nobody takes it for the timeline that was lost.
    assert_eq!(timeline(survivor).await, 3);
    lost.start().unwrap();
    story.end_with_losses().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_scheduled_is_cancelled_by_command() {
    let story = Story::begin(Builder::new().members(2)).await;
    let leader = story.leader().await;
    let schedule = ["switchover", "--scheduled", "2999-01-01T00:00:00Z", "--force"];
    let scheduled = leader.outrider(&schedule).unwrap();
    assert!(scheduled.status.success(), "{scheduled:?}");
    let pending = async || {
        let cluster: Value = serde_json::from_str(&leader.get("/cluster").await.ok()?.text).ok()?;
        cluster["scheduled_switchover"]["at"].as_str().map(str::to_owned)
    };
    wait_until("the switchover is scheduled", LIMIT, pending).await.unwrap();
    let cancelled = leader.outrider(&["switchover", "--cancel"]).unwrap();
    assert!(cancelled.status.success(), "{cancelled:?}");
    assert!(String::from_utf8_lossy(&cancelled.stdout).contains("deleted"), "{cancelled:?}");
    let nothing = leader.outrider(&["failover", "--cancel"]).unwrap();
    assert_eq!(nothing.status.code(), Some(1), "{nothing:?}");
    story.end().await;
}

/// Patroni's command line writes into etcd when no member answers it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_that_is_written_into_etcd_gets_a_deadline_and_is_done() {
    let story = Story::begin(Builder::new().members(2)).await;
    let leader = story.leader().await;
    let candidate = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
    let wish = json!({"leader": leader.name(), "member": candidate}).to_string();
    story.cluster.etcd.put("/service/bed/failover", &wish).await.unwrap();
    logged(leader, "gave a deadline to a request that had none").await;
    assert_eq!(story.cluster.wait_for_another(leader.name()).await.unwrap().name(), candidate);
    story.cluster.wait_until_whole().await.unwrap();
    story.end().await;
}
