//! Changing the configuration, and switching over with members that are played here.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use outrider_dcs::Dcs;
use outrider_ha::{Plan, Reason};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::stage::Stage;
use crate::report::sample::report;
use crate::sample::member;

/// Serves `GET /patroni` of a healthy standby until it is dropped.
struct Standby {
    url: String,
    server: JoinHandle<()>,
}

impl Standby {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/patroni", listener.local_addr().unwrap());
        let status = json!({"state": "running", "role": "replica", "xlog": {"received_location": 1}});
        let router = Router::new().route("/patroni", get(move || async move { Json(status) }));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Standby { url, server }
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// `p1` leads and `p2` is its standby.
async fn pair(stage: &Stage, standby: &Standby) -> Arc<dyn Dcs> {
    let second = member(&stage.cluster, "p2");
    stage.dcs.touch_member(&json!({"role": "primary", "state": "running"})).await.unwrap();
    second
        .touch_member(&json!({"role": "replica", "state": "running", "api_url": standby.url}))
        .await
        .unwrap();
    stage.dcs.acquire_leader(None).await.unwrap();
    second
}

/// Waits until somebody asks for a change; its revision.
async fn asked(dcs: &Arc<dyn Dcs>) -> i64 {
    let mut changes = dcs.watch();
    loop {
        changes.mark_unchanged();
        if let Some(entry) = dcs.read().await.unwrap().failover {
            return entry.revision;
        }
        changes.changed().await.unwrap();
    }
}

#[tokio::test]
async fn a_switchover_is_answered_when_the_new_leader_accepts_writes() {
    let stage = Stage::new(None).await;
    let standby = Standby::new().await;
    let second = pair(&stage, &standby).await;
    let cluster = async {
        asked(&stage.dcs).await;
        stage.dcs.hand_over_leader("p2").await.unwrap();
        // The old leader measures, and the new one says when it is ready.
        let mut measured = report();
        measured.counters.last_write_gap = Some(std::time::Duration::from_millis(87));
        stage.post(measured);
        second.touch_member(&json!({"role": "primary", "state": "running"})).await.unwrap();
    };
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request =
        client.post(format!("{}/switchover", stage.url)).json(&json!({"leader": "p1", "candidate": "p2"}));
    let (response, ()) = tokio::join!(request.send(), cluster);
    let response = response.unwrap();
    assert_eq!(response.headers()["outrider-write-gap-seconds"], "0.087");
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.text().await.unwrap(), "Successfully switched over to \"p2\"");
}

#[tokio::test]
async fn a_switchover_that_was_refused_says_why() {
    let stage = Stage::new(None).await;
    let standby = Standby::new().await;
    pair(&stage, &standby).await;
    let cluster = async {
        let revision = asked(&stage.dcs).await;
        stage.dcs.clear_failover(revision).await.unwrap();
        let mut refused = report();
        refused.plan =
            Plan::wait(Reason::SwitchoverRefused { to: None, why: outrider_ha::Unfit::NotStreaming });
        stage.post(refused);
    };
    let ((code, words), ()) =
        tokio::join!(stage.ask("POST", "/switchover", "{\"leader\": \"p1\"}", None), cluster);
    assert_eq!(code, 503);
    assert!(words.starts_with("Switchover failed: ") && words.contains("does not stream"), "{words}");
}

#[tokio::test]
async fn whoever_takes_a_request_away_tells_why_and_which_word_it_lacks() {
    let stage = Stage::new(None).await;
    let standby = Standby::new().await;
    pair(&stage, &standby).await;
    let refuse = async |lacks_data: bool| {
        let revision = asked(&stage.dcs).await;
        let id = stage.dcs.read().await.unwrap().failover.unwrap().value.id().unwrap().to_owned();
        let answer = outrider_dcs::FailoverAnswer { id, why: "it lacks data".to_owned(), lacks_data };
        stage.dcs.answer_failover(&answer, revision).await.unwrap();
    };
    for (lacks_data, code) in [(true, 412), (false, 503)] {
        let request = stage.ask("POST", "/failover", "{\"candidate\": \"p2\"}", None);
        let (answer, ()) = tokio::join!(request, refuse(lacks_data));
        assert_eq!(answer, (code, "Failover failed: it lacks data".to_owned()));
    }
}

#[tokio::test]
async fn what_is_pending_is_taken_back_and_whoever_waits_for_it_is_told() {
    let stage = Stage::new(None).await;
    let standby = Standby::new().await;
    pair(&stage, &standby).await;
    for (path, request, deleted) in [
        ("/switchover", "{\"leader\": \"p1\", \"candidate\": \"p2\"}", "switchover deleted"),
        ("/failover", "{\"candidate\": \"p2\"}", "failover deleted"),
    ] {
        let cancel = async {
            asked(&stage.dcs).await;
            assert_eq!(stage.ask("DELETE", path, "", None).await, (200, deleted.to_owned()));
        };
        let ((code, words), ()) = tokio::join!(stage.ask("POST", path, request, None), cancel);
        assert_eq!(code, 503);
        assert!(words.contains("failed"), "{words}");
        assert_eq!(stage.dcs.read().await.unwrap().failover, None);
        assert_eq!(stage.ask("DELETE", path, "", None).await.0, 404);
    }
}

#[tokio::test]
async fn what_has_begun_is_not_said_to_be_taken_back() {
    let stage = Stage::new(None).await;
    let standby = Standby::new().await;
    pair(&stage, &standby).await;
    let request = outrider_dcs::Failover {
        leader: Some("p1".to_owned()),
        member: Some("p2".to_owned()),
        ..outrider_dcs::Failover::default()
    };
    let revision = stage.dcs.write_failover(&request).await.unwrap();
    let stopping = outrider_dcs::SwitchoverIntent {
        id: "1".to_owned(),
        from: "p1".to_owned(),
        to: "p2".to_owned(),
        deadline_unix_ms: 1,
        stopping: true,
    };
    stage.dcs.write_intent_on_request(&stopping, 0, revision).await.unwrap();
    let (code, words) = stage.ask("DELETE", "/switchover", "", None).await;
    assert_eq!((code, words.as_str()), (409, "too late: p1 is being stopped, and p2 takes over"));
}

#[tokio::test]
async fn a_plan_tells_what_would_be_given_up_and_writes_nothing() {
    let stage = Stage::new(None).await;
    let standby = Standby::new().await;
    pair(&stage, &standby).await;
    let plan = "{\"candidate\": \"p2\", \"accept_data_loss\": true, \"plan\": true}";
    let (code, words) = stage.ask("POST", "/failover", plan, None).await;
    assert_eq!(code, 200);
    assert!(words.starts_with("p2 is on timeline 0 at 0/1"), "{words}");
    assert_eq!(stage.dcs.read().await.unwrap().failover, None);
}

#[tokio::test]
async fn what_cannot_be_done_is_not_even_written() {
    let stage = Stage::new(None).await;
    let standby = Standby::new().await;
    let second = pair(&stage, &standby).await;
    let ask = |body: &'static str| stage.ask("POST", "/switchover", body, None);
    assert_eq!(ask("{\"leader\": \"p9\"}").await, (412, "leader name does not match".to_owned()));
    second.touch_member(&json!({"role": "replica", "api_url": "http://127.0.0.1:1/patroni"})).await.unwrap();
    let words = "switchover is not possible: no good candidates have been found (p2 does not answer)";
    assert_eq!(ask("{\"leader\": \"p1\", \"candidate\": \"p2\"}").await, (412, words.to_owned()));
    let fail_over = |body: &'static str| stage.ask("POST", "/failover", body, None);
    for (body, code, words) in [
        ("{\"candidate\": \"p1\"}", 412, "p1 leads already"),
        ("{\"candidate\": \"p9\"}", 412, "no member is called p9; the members are p1, p2"),
        ("{\"candidate\": \"p2\"}", 412, "p2 does not answer"),
        ("{\"candidate\": [\"p2\"]}", 400, "is not a text"),
        ("{\"candidate\": \"p2\", \"accept_data_los\": true}", 400, "accept_data_los is unknown"),
    ] {
        let (given, said) = fail_over(body).await;
        assert!(given == code && said.contains(words), "{body}: {given} {said}");
    }
    assert_eq!(stage.dcs.read().await.unwrap().failover, None);
}

#[tokio::test]
async fn a_scheduled_switchover_is_written_and_can_be_taken_back() {
    let stage = Stage::new(None).await;
    let standby = Standby::new().await;
    pair(&stage, &standby).await;
    let request = "{\"leader\": \"p1\", \"scheduled_at\": \"2999-01-01T12:00+00:00\"}";
    assert_eq!(
        stage.ask("POST", "/switchover", request, None).await,
        (202, "Switchover scheduled".to_owned())
    );
    let request = stage.dcs.read().await.unwrap().failover.unwrap().value;
    assert_eq!(request.scheduled_at.as_deref(), Some("2999-01-01T12:00+00:00"));
    assert_eq!(
        stage.ask("DELETE", "/switchover", "", None).await,
        (200, "scheduled switchover deleted".to_owned())
    );
    assert_eq!(
        stage.ask("DELETE", "/switchover", "", None).await,
        (404, "no switchover is scheduled".to_owned())
    );
}

#[tokio::test]
async fn the_configuration_is_merged_and_what_nobody_could_follow_is_refused() {
    let stage = Stage::new(None).await;
    assert_eq!(stage.ask("PATCH", "/config", "{\"ttl\": 9}", None).await.0, 503);
    stage
        .dcs
        .create_config(&json!({"ttl": 5, "postgresql": {"parameters": {"work_mem": "4MB"}}}))
        .await
        .unwrap();
    let (code, words) =
        stage.ask("PATCH", "/config", "{\"postgresql\": {\"parameters\": {\"jit\": 1}}}", None).await;
    assert!(code == 503 && words.contains("ask another member"), "{code} {words}");
    stage.knows_parameters();
    let (code, words) = stage.ask("PATCH", "/config", "{\"ttl\": 1}", None).await;
    assert_eq!((code, words.as_str()), (400, "ttl: 1: must be 2 seconds or more"));
    let change = "{\"ttl\": 9, \"postgresql\": {\"parameters\": {\"work_mem\": null, \"jit\": false}}}";
    let (code, after) = stage.ask("PATCH", "/config", change, None).await;
    let wanted = json!({"ttl": 9, "postgresql": {"parameters": {"jit": false}}});
    assert_eq!((code, serde_json::from_str::<Value>(&after).unwrap()), (200, wanted.clone()));
    assert_eq!(*stage.dcs.read().await.unwrap().config.unwrap().value, wanted);
}

#[tokio::test]
async fn a_dcs_that_is_silent_is_told_as_such() {
    let stage = Stage::new(None).await;
    stage.cluster.set_reachable("p1", false);
    let (code, words) = stage.ask("POST", "/switchover", "{\"leader\": \"p1\"}", None).await;
    assert_eq!(code, 503);
    assert!(words.contains("unreachable"), "{words}");
}
