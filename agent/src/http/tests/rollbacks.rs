//! Asking for a rollback, watching it and taking it back, with a leader that is played here.

use outrider_dcs::{RollbackClaim, RollbackOutcome, RollbackRequest, RollbackSwap};
use serde_json::{Value, json};

use super::stage::Stage;

/// `p1` leads.
async fn led(password: Option<&str>) -> Stage {
    let stage = Stage::new(password).await;
    stage.dcs.touch_member(&json!({"role": "primary", "state": "running"})).await.unwrap();
    stage.dcs.acquire_leader(None).await.unwrap();
    stage
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_request_is_written_for_the_leader_and_taken_back_until_the_swap_begins() {
    let stage = led(None).await;
    assert_eq!(stage.ask("DELETE", "/rollback", "", None).await.0, 404);
    let (code, words) = stage.ask("POST", "/rollback", r#"{"target_time": "5 minutes ago"}"#, None).await;
    assert_eq!(code, 202, "{words}");
    let asked = stage.dcs.read().await.unwrap().rollback_request.unwrap();
    assert_eq!(json(&words), json!({"id": asked.value.id}));
    let time = asked.value.target.target_time.clone().unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok(), "the time counts from when it was asked: {time}");
    assert_eq!(stage.ask("POST", "/rollback", r#"{"immediate": true}"#, None).await.0, 409);
    assert_eq!(stage.ask("DELETE", "/rollback", "", None).await.0, 200);
    assert_eq!(stage.dcs.read().await.unwrap().rollback_request, None);

    assert_eq!(stage.ask("POST", "/rollback", r#"{"immediate": true}"#, None).await.0, 202);
    let asked = stage.dcs.read().await.unwrap().rollback_request.unwrap();
    let claim =
        RollbackClaim { request: asked.value.id.clone(), phase: "copying".to_owned(), ..Default::default() };
    let begun = RollbackRequest { begun: true, ..asked.value };
    let seen = stage.dcs.claim_rollback(&claim, &begun, asked.revision).await.unwrap();
    let (code, words) =
        stage.ask("POST", "/switchover", r#"{"leader": "p1", "candidate": "p2"}"#, None).await;
    assert!(code == 412 && words.contains("prepares a rollback (copying)"), "{code} {words}");
    let shown = json(&stage.get("/rollback").await.text().await.unwrap());
    assert_eq!(shown["running"]["phase"], "copying");
    let swap = Some(RollbackSwap::default());
    let swapping = RollbackRequest { swap, ..begun.clone() };
    let now = stage.dcs.begin_rollback_swap(&claim, &swapping, seen).await.unwrap();
    // Whoever read it before that does not take it back.
    assert!(stage.dcs.withdraw_rollback(seen).await.unwrap_err().is_conflict());
    assert_eq!(stage.ask("DELETE", "/rollback", "", None).await.0, 409);
    let outcome = RollbackOutcome { request: begun.id.clone(), ..Default::default() };
    stage.dcs.finish_rollback(&outcome, now).await.unwrap();
    let shown = json(&stage.get("/rollback").await.text().await.unwrap());
    assert_eq!((&shown["request"], &shown["running"]), (&Value::Null, &Value::Null));
    assert_eq!(shown["last"]["request"], begun.id.as_str());
}

#[tokio::test]
async fn a_swap_does_not_begin_when_the_request_was_taken_back() {
    let stage = led(None).await;
    assert_eq!(stage.ask("POST", "/rollback", r#"{"immediate": true}"#, None).await.0, 202);
    let asked = stage.dcs.read().await.unwrap().rollback_request.unwrap();
    let claim = RollbackClaim { request: asked.value.id.clone(), ..Default::default() };
    let seen = stage.dcs.claim_rollback(&claim, &asked.value, asked.revision).await.unwrap();
    assert_eq!(stage.ask("DELETE", "/rollback", "", None).await.0, 200);
    let refused = stage.dcs.begin_rollback_swap(&claim, &asked.value, seen).await.unwrap_err();
    assert!(refused.is_conflict(), "{refused}");
}

#[tokio::test]
async fn what_makes_no_sense_or_comes_without_the_password_is_refused() {
    let stage = led(Some("geheim")).await;
    assert_eq!(stage.ask("POST", "/rollback", r#"{"immediate": true}"#, None).await.0, 401);
    assert_eq!(stage.ask("DELETE", "/rollback", "", None).await.0, 401);
    for body in [
        "{}",
        r#"{"immediate": true, "latest": true}"#,
        r#"{"target_time": "yesterday"}"#,
        r#"{"target_time": "2026-01-01T00:00:00"}"#,
        r#"{"target_xid": "x"}"#,
        r#"{"immediate": true, "backup": "../x"}"#,
        r#"{"immediate": true, "dry_run": true}"#,
    ] {
        let (code, words) = stage.ask("POST", "/rollback", body, Some("geheim")).await;
        assert_eq!(code, 400, "{body}: {words}");
    }
    assert_eq!(stage.dcs.read().await.unwrap().rollback_request, None);
    let unled = Stage::new(None).await;
    assert_eq!(unled.ask("POST", "/rollback", r#"{"immediate": true}"#, None).await.0, 503);
}
