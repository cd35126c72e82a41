//! Health checks: which member is what, judged on a look at Postgres and the last round.

use std::sync::Arc;

use outrider_dcs::{Entry, Snapshot, Status as LeaderStatus, SyncState};
use outrider_postgres::{Lacking, Observation, Role};
use outrider_wal::{Lsn, TimelineId};
use serde_json::Value;

use super::stage::Stage;
use crate::clock;
use crate::config::Config;
use crate::config::sample::config;
use crate::http::health;
use crate::http::status::Status;
use crate::report::Report;
use crate::report::sample::report;
use crate::sample;

fn observation(role: Role) -> Observation {
    Observation {
        postmaster_start_time: "2026-11-24 10:00:00+00".to_owned(),
        timeline: TimelineId::new(2),
        checkpoint_timeline: TimelineId::new(2),
        role,
        connections: 3,
        ..sample::observation()
    }
}

fn primary() -> Observation {
    observation(Role::Primary { flushed: Lsn::new(1000) })
}

fn standby(replayed: u64) -> Observation {
    observation(sample::standby(1000, replayed))
}

fn status(postgres: Option<Observation>, change: impl FnOnce(&mut Report)) -> Status {
    let mut report = report();
    change(&mut report);
    Status { report: Some(Arc::new(report)), postgres }
}

fn judge(path: &str, query: Option<&str>, status: &Status, config: &Config) -> bool {
    health::judge(path, query, status, config).unwrap().yes
}

fn verdicts(status: &Status, config: &Config) -> Vec<&'static str> {
    let asked = [
        "/primary",
        "/replica",
        "/read-only",
        "/health",
        "/sync",
        "/async",
        "/read-only-sync",
        "/standby-leader",
    ];
    asked.into_iter().filter(|path| judge(path, None, status, config)).collect()
}

fn leading(report: &mut Report) {
    report.lease_until_boottime_ns = Some(clock::boottime_ns() + 3_600_000_000_000);
}

fn recorded(report: &mut Report) {
    let sync = SyncState::parse(r#"{"leader":"p2","sync_standby":"p1"}"#);
    report.cluster = Some(Snapshot { sync: Some(Entry { value: sync, revision: 1 }), ..Snapshot::default() });
}

#[test]
fn a_primary_is_one_only_while_its_lease_lasts_and_it_accepts_writes() {
    let config = config(None);
    let leader = status(Some(primary()), leading);
    assert_eq!(verdicts(&leader, &config), ["/primary", "/read-only", "/health", "/read-only-sync"]);
    let over = status(Some(primary()), |report| report.lease_until_boottime_ns = Some(1));
    assert_eq!(verdicts(&over, &config), ["/health"]);
    let down = status(None, leading);
    assert!(verdicts(&down, &config).is_empty());
    let not_promoted = status(Some(standby(1000)), leading);
    assert!(!judge("/primary", None, &not_promoted, &config));
}

#[test]
fn a_standby_is_synchronous_when_it_is_recorded_so() {
    let config = config(None);
    let plain = status(Some(standby(1000)), |_| {});
    assert_eq!(verdicts(&plain, &config), ["/replica", "/read-only", "/health", "/async"]);
    let sync = status(Some(standby(1000)), recorded);
    assert_eq!(verdicts(&sync, &config), ["/replica", "/read-only", "/health", "/sync", "/read-only-sync"]);
}

#[test]
fn lag_is_measured_from_the_furthest_known_position() {
    let config = config(None);
    let behind = |optime: &str| {
        let optime = LeaderStatus::parse(optime);
        status(Some(standby(900)), |report| {
            report.cluster =
                Some(Snapshot { status: Some(Entry { value: optime, revision: 1 }), ..Snapshot::default() });
        })
    };
    for (optime, lag, usable) in
        [("950", 100, true), ("950", 99, false), ("2000", 1100, true), ("2000", 1099, false)]
    {
        assert_eq!(
            judge("/replica", Some(&format!("lag={lag}")), &behind(optime), &config),
            usable,
            "{optime} {lag}"
        );
    }
}

#[test]
fn a_standby_with_too_much_to_replay_is_no_replica_by_whoever_says_how_much_that_is() {
    let config = config(None);
    let behind = |limit: Option<u64>| {
        status(Some(standby(900)), |report| {
            recorded(report);
            report.maximum_lag_on_replica = limit;
        })
    };
    let of_standbys = ["/replica", "/read-only", "/sync", "/read-only-sync"];
    for path in of_standbys {
        assert!(judge(path, None, &behind(None), &config), "{path}");
        assert!(judge(path, None, &behind(Some(100)), &config), "{path}");
        let refused = health::judge(path, None, &behind(Some(99)), &config).unwrap();
        let words = "100 bytes still to replay, more than 99 (maximum_lag_on_replica)";
        assert!(!refused.yes && refused.too_far_behind.as_deref() == Some(words), "{path}");
        // What a request names counts instead.
        assert!(judge(path, Some("lag=1kB"), &behind(Some(99)), &config), "{path}");
        let refused = health::judge(path, Some("lag=99"), &behind(None), &config).unwrap();
        assert!(!refused.yes && refused.too_far_behind.unwrap().ends_with("(lag)"), "{path}");
    }
    let asynchronous = status(Some(standby(900)), |report| report.maximum_lag_on_replica = Some(99));
    assert!(!judge("/async", None, &asynchronous, &config) && judge("/health", None, &asynchronous, &config));
    let primary = status(Some(primary()), |report| {
        leading(report);
        report.maximum_lag_on_replica = Some(0);
    });
    assert!(judge("/read-only", Some("lag=0"), &primary, &config));
    // It is no primary for another reason.
    assert_eq!(
        health::judge("/primary", Some("lag=0"), &behind(None), &config).unwrap().too_far_behind,
        None
    );
}

#[test]
fn a_standby_that_lacks_parameters_says_so_when_it_is_too_far_behind() {
    let config = config(None);
    let mut seen = standby(900);
    if let Role::Standby { replay_paused, lacking, .. } = &mut seen.role {
        *replay_paused = true;
        *lacking = vec![Lacking { name: "max_wal_senders".to_owned(), here: 10, primary: 14 }];
    }
    let held = status(Some(seen), |report| report.maximum_lag_on_replica = Some(50));
    let words = health::judge("/replica", None, &held, &config).unwrap().too_far_behind.unwrap();
    assert!(words.contains("max_wal_senders is 10 here and was 14 there"), "{words}");
}

#[tokio::test]
async fn a_limit_that_is_none_is_refused() {
    let stage = Stage::new(None).await;
    stage.post(report());
    for path in
        ["/replica?lag=much", "/read-only?lag=16mb", "/async?lag=", "/readiness?lag=-1", "/primary?lag=x"]
    {
        let answer = stage.get(path).await;
        assert_eq!(answer.status().as_u16(), 400, "{path}");
        assert!(answer.text().await.unwrap().starts_with("lag="), "{path}");
    }
}

#[test]
fn tags_and_states_narrow_the_question() {
    let config = config(None);
    let standby = status(Some(standby(1000)), |_| {});
    for (query, usable) in [
        ("tag_zone=a", true),
        ("tag_zone=b", false),
        ("tag_other=a", false),
        ("replication_state=streaming", true),
        ("replication_state=in+archive+recovery", false),
    ] {
        assert_eq!(judge("/replica", Some(query), &standby, &config), usable, "{query}");
    }
    let unused = Config {
        tags: serde_json::Map::from_iter([("noloadbalance".to_owned(), Value::Bool(true))]),
        ..config
    };
    assert_eq!(verdicts(&standby, &unused), ["/health"]);
}

#[tokio::test]
async fn a_member_without_postgres_says_what_it_knows() {
    let stage = Stage::new(None).await;
    assert_eq!(stage.get("/cluster").await.status().as_u16(), 503);
    stage.post(report());
    let response = stage.get("/patroni").await;
    assert_eq!(response.status().as_u16(), 200);
    let status: Value = response.json().await.unwrap();
    assert_eq!(status["state"], "unknown");
    assert_eq!(status["role"], "replica");
    assert_eq!(status["patroni"]["scope"], "demo");
    assert_eq!(status["outrider"]["reason"], "following");
    assert_eq!(status.get("xlog"), None);
    assert_eq!(stage.get("/readiness").await.status().as_u16(), 503);
    assert_eq!(stage.get("/liveness").await.status().as_u16(), 200);
}

#[tokio::test]
async fn an_agent_whose_rounds_stand_still_is_not_alive() {
    let stage = Stage::new(None).await;
    let mut old = report();
    old.at = old.at.checked_sub(std::time::Duration::from_secs(60)).unwrap();
    stage.post(old);
    assert_eq!(stage.get("/liveness").await.status().as_u16(), 503);
}
