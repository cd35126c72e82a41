//! Who may ask for what: web pages, other names, and those without the password.

use std::os::unix::fs::PermissionsExt as _;

use reqwest::Client;
use serde_json::{Value, json};

use super::stage::Stage;
use crate::config::Rest;
use crate::http;

async fn code(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_web_page_gets_nothing_and_changes_nothing() {
    let stage = Stage::new(None).await;
    stage.dcs.create_config(&json!({"ttl": 5})).await.unwrap();
    let client = Client::builder().no_proxy().build().unwrap();
    let get = |path: &str| client.get(format!("{}{path}", stage.url));
    for path in ["/patroni", "/config", "/liveness"] {
        assert_eq!(code(get(path).header("host", "evil.example:8008")).await, 421, "{path}");
        assert_eq!(code(get(path).header("origin", "http://evil.example")).await, 403, "{path}");
    }
    assert_eq!(code(get("/patroni").header("host", "localhost:8008")).await, 200);
    let change = || client.patch(format!("{}/config", stage.url)).body("{\"ttl\": 7}");
    assert_eq!(code(change().header("origin", "http://evil.example")).await, 403);
    assert_eq!(code(change().header("host", "evil.example")).await, 421);
    assert_eq!(code(change().header("sec-fetch-site", "cross-site")).await, 403);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let ask = client.post(format!("{}/switchover", stage.url)).header("content-type", kind);
        assert_eq!(code(ask.body("{\"leader\": \"p1\"}")).await, 415, "{kind}");
    }
    assert_eq!(stage.dcs.read().await.unwrap().config.unwrap().value["ttl"], 5);
    // A browser asks before it sends any of these to another origin, so what curl sends is taken.
    assert_eq!(code(change().header("content-type", "application/x-www-form-urlencoded")).await, 200);
}

#[tokio::test]
async fn what_could_run_code_is_not_taken_without_authentication() {
    let privileged =
        json!({"postgresql": {"parameters": {"session_preload_libraries": "evil", "work_mem": "8MB"}}});
    let open = Stage::new(None).await;
    open.knows_parameters();
    open.dcs.create_config(&json!({"ttl": 5})).await.unwrap();
    for (method, body) in [
        ("PATCH", privileged.clone()),
        ("PUT", privileged.clone()),
        ("PATCH", json!({"postgresql": {"parameters": {"plperl.on_init": "x"}}})),
        ("PATCH", json!({"postgresql": {"pg_hba": ["host all all all trust"]}})),
        ("PATCH", json!({"postgresql": {"parameters": {"Archive_Command": "rm -rf /"}}})),
    ] {
        let (code, words) = open.ask(method, "/config", body.to_string(), None).await;
        assert_eq!(code, 403, "{method} {body}: {words}");
        assert!(words.contains("not taken without authentication"), "{words}");
    }
    assert_eq!(*open.dcs.read().await.unwrap().config.unwrap().value, json!({"ttl": 5}));
    let harmless = "{\"ttl\": 7, \"postgresql\": {\"parameters\": {\"work_mem\": \"8MB\"}}}";
    assert_eq!(open.ask("PATCH", "/config", harmless, None).await.0, 200);

    let closed = Stage::new(Some("geheim")).await;
    closed.knows_parameters();
    closed.dcs.create_config(&json!({"ttl": 5})).await.unwrap();
    assert_eq!(closed.ask("PATCH", "/config", privileged.to_string(), None).await.0, 401);
    assert_eq!(closed.ask("PATCH", "/config", privileged.to_string(), Some("geheim")).await.0, 200);
}

#[tokio::test]
async fn who_comes_by_the_socket_needs_no_password() {
    let stage = Stage::new(Some("geheim")).await;
    stage.knows_parameters();
    stage.dcs.create_config(&json!({"ttl": 5})).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let listener = http::listen_local(directory.path()).unwrap();
    let path = Rest::socket(directory.path());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let server = tokio::spawn(http::serve_local(stage.api.clone(), listener));
    let client = Client::builder().no_proxy().unix_socket(path).build().unwrap();
    let change = client
        .patch("http://localhost/config")
        .json(&json!({"postgresql": {"pg_hba": ["local all all peer"]}}));
    let answer = change.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let after: Value = answer.json().await.unwrap();
    assert_eq!(after["postgresql"]["pg_hba"][0], "local all all peer");
    server.abort();
    // One that an agent left behind is no obstacle.
    drop(http::listen_local(directory.path()).unwrap());
}
