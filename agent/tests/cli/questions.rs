//! `list`, `switchover` and the others against a member that is played here.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::program::{Run, run};

/// What was asked: the body, and the header with the password.
type Asked = Arc<Mutex<Vec<(Value, Option<String>)>>>;

/// A member that leads, and answers each request for a change alike. It ends with its runtime.
struct Played {
    url: String,
    asked: Asked,
    _runtime: Runtime,
}

impl Played {
    fn new(code: u16, words: &'static str) -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let cluster = json!({"scope": "demo", "members": [
            {"name": "p1", "role": "leader", "state": "running", "timeline": 2, "api_url": format!("http://{address}/patroni")},
            {"name": "p2", "role": "sync_standby", "state": "streaming", "timeline": 2, "replay_lag": 0, "api_url": "http://127.0.0.1:1/patroni"},
        ]});
        let asked = Asked::default();
        let change = move |State(asked): State<Asked>, headers: HeaderMap, Json(body): Json<Value>| async move {
            let password =
                headers.get("authorization").and_then(|header| header.to_str().ok()).map(str::to_owned);
            asked.lock().expect("nobody panics with it").push((body, password));
            let answer: Response = (
                StatusCode::from_u16(code).expect("it is a code"),
                [("outrider-write-gap-seconds", "0.090")],
                words,
            )
                .into_response();
            answer
        };
        let router = Router::new()
            .route("/cluster", get(move || async move { Json(cluster) }))
            .route(
                "/history",
                get(|| async { Json(json!([[1, 67_108_960, "x", "2026-01-01T00:00:00Z", "p2"]])) }),
            )
            .route(
                "/config",
                get(|| async { (StatusCode::BAD_GATEWAY, "the cluster has no configuration yet") }),
            )
            .route("/switchover", post(change))
            .route("/failover", post(change))
            .route(
                "/rollback",
                get(|| async { Json(json!({"request": null, "running": null, "last": rolled_back()})) })
                    .post(change)
                    .delete(|| async { (StatusCode::CONFLICT, "the data is being swapped") }),
            )
            .with_state(asked.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Played { url: format!("http://{address}"), asked, _runtime: runtime }
    }

    fn run(&self, arguments: &[&str]) -> Run {
        run(&[arguments, &["--url", &self.url]].concat())
    }
}

#[test]
fn the_members_are_listed_in_each_form() {
    let played = Played::new(200, "");
    let table = played.run(&["list"]);
    assert_eq!(table.code, 0, "{table:?}");
    assert!(table.out.starts_with("Cluster: demo\n") && table.out.contains("| p2     |"), "{}", table.out);
    assert!(!table.out.contains('\x1b'), "no colours in a pipe: {:?}", table.out);
    let rows: Value = serde_json::from_str(&played.run(&["list", "--format", "json"]).out).unwrap();
    assert_eq!(
        (&rows[1]["Member"], &rows[1]["Role"], &rows[1]["Replay Lag"]),
        (&json!("p2"), &json!("Sync Standby"), &json!(0))
    );
    assert!(played.run(&["list", "-f", "yaml"]).out.starts_with("- Member: p1\n"));
    assert!(
        played.run(&["history"]).out.contains("| 1  | 0/4000060 | x "),
        "{}",
        played.run(&["history"]).out
    );
}

#[test]
fn a_switchover_tells_how_long_nobody_could_write() {
    let played = Played::new(200, "Successfully switched over to \"p2\"");
    let run = played.run(&["switchover", "--candidate", "p2", "--force"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.out, "Successfully switched over to \"p2\"; nobody could write for 0.090 s\n");
    let request = json!({"leader": "p1", "candidate": "p2", "scheduled_at": null});
    assert_eq!(*played.asked.lock().unwrap(), [(request, None)]);
}

#[test]
fn nothing_is_asked_for_without_a_confirmation() {
    let played = Played::new(200, "");
    for command in [vec!["switchover"], vec!["failover", "--candidate", "p2"]] {
        let run = played.run(&command);
        assert_eq!(run.code, 64, "{run:?}");
        assert!(run.err.contains("add --force"), "{}", run.err);
    }
    assert!(played.asked.lock().unwrap().is_empty());
}

fn rolled_back() -> Value {
    json!({
        "request": "p1-7", "member": "p1", "target": "the LSN 0/3000148", "backup": "20261124T150405",
        "old_timeline": 2, "old_lsn": "0/9000000", "new_timeline": 3, "new_lsn": "0/3000148",
        "old_data": "/srv/pg/data.before-rollback-20261124T151000Z", "write_gap_seconds": 0.4321,
    })
}

#[test]
fn a_rollback_is_confirmed_waited_for_and_says_where_the_old_data_lies() {
    let played = Played::new(202, r#"{"id": "p1-7"}"#);
    let run = played.run(&["rollback", "--target-lsn", "0/3000148"]);
    assert!(run.code == 64 && run.err.contains("discards everything after that: add --yes"), "{run:?}");
    let run = played.run(&["rollback", "--yes"]);
    assert!(run.code == 64 && run.err.contains("up to where?"), "{run:?}");
    let run = played.run(&["rollback", "--immediate", "--plan"]);
    assert!(run.code == 64 && run.err.contains("give a member's file with -c"), "{run:?}");
    assert!(played.asked.lock().unwrap().is_empty(), "nothing was asked for");
    let run = played.run(&["rollback", "--lsn", "0/3000148", "--exclusive", "--yes"]);
    assert_eq!(run.code, 0, "{run:?}");
    let expected = "rolled back to the LSN 0/3000148 from the backup 20261124T150405; nobody could write for 0.43 s\n\
        timeline 3 began at 0/3000148; timeline 2 was left at 0/9000000\n\
        the old data is on p1 in /srv/pg/data.before-rollback-20261124T151000Z: remove it when it is no longer needed\n";
    assert_eq!(run.out, expected);
    let request = json!({"target_lsn": "0/3000148", "exclusive": true});
    assert_eq!(*played.asked.lock().unwrap(), [(request, None)]);
    let run = played.run(&["rollback", "--immediate", "--yes", "--no-wait"]);
    assert_eq!((run.code, run.out.as_str()), (0, "requested a rollback: p1-7\n"));
    let run = played.run(&["rollback", "--cancel"]);
    assert!(run.code == 1 && run.err.contains("the data is being swapped (409)"), "{run:?}");
}

#[test]
fn a_refusal_is_1_and_comes_with_its_reason() {
    let played = Played::new(412, "leader name does not match");
    let run = played.run(&["switchover", "--leader", "p9", "--force"]);
    assert_eq!((run.code, run.err.as_str()), (1, "outrider: leader name does not match (412)\n"));
    let run = played.run(&["show-config"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("/config answers 502: the cluster has no configuration yet"), "{}", run.err);
}

#[test]
fn the_file_of_a_member_says_where_to_ask_and_with_which_password() {
    let played = Played::new(200, "Successfully failed over to \"p2\"");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("p1.yaml");
    let address = played.url.strip_prefix("http://").unwrap();
    let text = format!(
        "scope: demo\nname: p1\netcd3: {{hosts: \"127.0.0.1:1\"}}\n\
         restapi: {{listen: \"{address}\", authentication: {{username: admin, password: geheim}}}}\n\
         postgresql:\n  data_dir: /srv/pg/data\n  bin_dir: /x\n\
         \x20 authentication: {{superuser: {{password: s}}, replication: {{password: r}}}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let run = run(&["failover", "--candidate", "p2", "--force", "-c", file.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{run:?}");
    let asked = played.asked.lock().unwrap();
    assert_eq!(*asked, [(json!({"candidate": "p2"}), Some("Basic YWRtaW46Z2VoZWlt".to_owned()))]);
}

#[test]
fn a_member_that_does_not_answer_is_named() {
    let run = run(&["list", "--url", "127.0.0.1:1"]);
    assert_eq!(run.code, 1);
    assert!(
        run.err.contains("cannot ask the member at http://127.0.0.1:1/cluster; is its agent running"),
        "{}",
        run.err
    );
    assert!(run.err.contains("Connection refused"), "{}", run.err);
}
