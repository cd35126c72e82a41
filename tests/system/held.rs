//! A standby that receives all and replays nothing: how far it is behind and why is told everywhere, and it is not called well.

use outrider_bed::{Builder, Connection, Member, wait_until};
use serde_json::{Value, json};

use crate::by_request::{conflict, report, with_reports};
use crate::story::{LIMIT, Story, logs};

async fn on(story: &Story, member: &str) -> Connection {
    let endpoints = story.cluster.endpoints();
    endpoints.iter().find(|endpoint| endpoint.name == member).unwrap().connect().await.unwrap()
}

/// The sample of a metric whose line has these words.
async fn metric(member: &Member, name: &str, words: &str) -> Option<f64> {
    let text = member.get("/metrics").await.ok()?.text;
    let line = text.lines().find(|line| line.starts_with(name) && line.contains(words))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn listed(member: &Member, format: &str) -> String {
    String::from_utf8(member.outrider(&["list", "--format", format]).unwrap().stdout).unwrap()
}

/// Waits until a standby's replay is shown as held up by `cause`, in these words, wherever somebody may look.
async fn told(story: &Story, standby: &Member, cause: &str, words: &str) {
    let leader = story.leader().await;
    let (mut status, mut cluster) = (Value::Null, Value::Null);
    let everywhere = async || {
        status = standby.patroni().await?;
        let ours = &status["outrider"];
        cluster = serde_json::from_str(&leader.get("/cluster").await.ok()?.text).ok()?;
        let row = cluster["members"].as_array()?.iter().find(|row| row["name"] == standby.name())?;
        let holds = [
            ours["replay"]["why"].as_str()?.contains(words),
            ours["replay_lag"].as_u64()? > ours["receive_lag"].as_u64()?,
            row["outrider"]["replay"]["why"].as_str()?.contains(words),
            row["replay_lag"].as_u64()? > row["receive_lag"].as_u64()?,
            row["lag"] == row["receive_lag"],
            row["replay_lsn"].as_str()? != row["receive_lsn"].as_str()?,
            metric(standby, "outrider_replay_held", &format!("cause=\"{cause}\"")).await? == 1.0,
            metric(standby, "outrider_replay_lag_bytes", "").await? > 0.0,
            metric(standby, "outrider_receive_lag_bytes", "").await.is_some(),
        ];
        holds.iter().all(|holds| *holds).then_some(())
    };
    let outcome =
        wait_until(format!("{} is told to be held up: {cause}", standby.name()), LIMIT, everywhere).await;
    assert!(outcome.is_ok(), "{outcome:?}: {status} {cluster} {}", logs(&story.cluster));
    let table = listed(leader, "table");
    let line = format!("{}: ", standby.name());
    assert!(table.lines().any(|one| one.starts_with(&line) && one.contains(words)), "{table}");
    assert!(!table.contains("| streaming |"), "{table}");
    let rows: Value = serde_json::from_str(&listed(leader, "json")).unwrap();
    let row = rows.as_array().unwrap().iter().find(|row| row["Member"] == standby.name()).unwrap();
    assert!(row["Trouble"][0].as_str().unwrap().contains(words), "{rows}");
    assert!(row["Receive LSN"].is_string() && row["Replay Lag"].is_u64(), "{rows}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_stands_is_told_with_its_lag_and_its_cause() {
    let story = with_reports(2).await;
    let name = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
    let standby = story.cluster.member(&name);
    let session = on(&story, &name).await;
    session.run("SELECT pg_wal_replay_pause()").await.unwrap();
    story.writes(20).await;
    told(&story, standby, "paused", "replay is paused").await;
    session.run("SELECT pg_wal_replay_resume()").await.unwrap();

    let (reporting, pid) = report(&story, &name).await;
    conflict(&story).await;
    told(&story, standby, "conflict", &format!("pid {pid} for ")).await;
    drop(reporting);

    session.run("ALTER SYSTEM SET recovery_min_apply_delay = '1h'").await.unwrap();
    session.run("SELECT pg_reload_conf()").await.unwrap();
    story.writes(20).await;
    told(&story, standby, "delayed", "late on purpose by 3600 s").await;
    session.run("ALTER SYSTEM RESET recovery_min_apply_delay").await.unwrap();
    session.run("SELECT pg_reload_conf()").await.unwrap();

    let well = async || {
        let none = metric(standby, "outrider_replay_held", "cause=").await.is_none();
        (none && listed(standby, "table").contains("| streaming |")).then_some(())
    };
    wait_until("nothing is said of a replay that goes on", LIMIT, well).await.unwrap();
    story.end().await;
}

/// Waits until a path is answered with this code, and why.
async fn answered(member: &Member, path: &str, code: u16) -> Value {
    let answered = async || {
        let answer = member.get(path).await.ok()?;
        (answer.status == code).then(|| serde_json::from_str(&answer.text).unwrap_or_default())
    };
    let outcome = wait_until(format!("{} answers {code} to {path}", member.name()), LIMIT, answered).await;
    outcome.unwrap_or_else(|fault| panic!("{fault}: {}", member.log()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_replays_nothing_is_no_replica_beyond_what_the_request_or_the_rules_allow() {
    let story = Story::begin(Builder::new().members(2)).await;
    let name = story.cluster.wait_until_synchronous().await.unwrap().remove(0);
    let (leader, standby) = (story.leader().await, story.cluster.member(&name));
    let rule = async |value: Value| {
        let change = json!({"maximum_lag_on_replica": value}).to_string();
        leader.request(reqwest::Method::PATCH, "/config", Some(change)).await.unwrap()
    };
    let session = on(&story, &name).await;
    session.run("SELECT pg_wal_replay_pause()").await.unwrap();
    story.writes(20).await;
    let paths = ["/replica", "/read-only", "/synchronous", "/read-only-sync"];
    for path in paths {
        // Nobody has said how much is too much.
        answered(standby, path, 200).await;
        let shown = answered(standby, &format!("{path}?lag=1"), 503).await;
        let why = shown["outrider"]["too_far_behind"].as_str().unwrap();
        assert!(why.contains("more than 1 (lag): replay is paused"), "{shown}");
        answered(standby, &format!("{path}?lag=1GB"), 200).await;
        answered(standby, &format!("{path}?lag=1gb"), 400).await;
    }
    assert_eq!(rule(json!("16 megabytes")).await.status, 400);
    assert_eq!(rule(json!(1)).await.status, 200);
    for path in paths {
        let shown = answered(standby, path, 503).await;
        let why = shown["outrider"]["too_far_behind"].as_str().unwrap();
        assert!(why.contains("more than 1 (maximum_lag_on_replica)"), "{shown}");
        answered(standby, &format!("{path}?lag=1GB"), 200).await;
    }
    answered(leader, "/read-only", 200).await;
    answered(standby, "/health", 200).await;
    assert_eq!(rule(json!("1GB")).await.status, 200);
    answered(standby, "/replica", 200).await;
    assert_eq!(rule(json!("8kB")).await.status, 200);
    answered(standby, "/replica", 503).await;
    session.run("SELECT pg_wal_replay_resume()").await.unwrap();
    answered(standby, "/replica", 200).await;
    story.end().await;
}
