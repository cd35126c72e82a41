//! Silent, large and malformed requests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_visitors_do_not_keep_a_health_check_out() {
    let stage = Stage::new(None).await;
    let address = stage.url.strip_prefix("http://").unwrap().to_owned();
    let silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert_eq!(stage.get("/liveness").await.status().as_u16(), 200);
    drop(silent);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let stage = Stage::new(None).await;
    let (code, _) = stage.ask("POST", "/switchover", "x".repeat((1 << 20) + 1), None).await;
    assert_eq!(code, 413);
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused_with_a_reason() {
    let stage = Stage::new(None).await;
    for (path, body) in [("/switchover", "{\"leader\""), ("/failover", "[]"), ("/switchover", "")] {
        let (code, words) = stage.ask("POST", path, body, None).await;
        assert_eq!(code, 400, "{path} {body}");
        assert!(words.contains("JSON"), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_without_end_is_cut_off() {
    let stage = Stage::new(None).await;
    let mut stream = TcpStream::connect(stage.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /patroni HTTP/1.1\r\n").unwrap();
    // The server may close before all of it is written.
    let _ = stream.write_all(format!("x: {}", "y".repeat(1 << 20)).as_bytes());
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    assert!(
        read.is_err() || answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn paths_that_are_unknown_are_no_and_methods_that_are_unknown_are_refused() {
    let stage = Stage::new(None).await;
    assert_eq!(stage.get("/favicon.ico").await.status().as_u16(), 503);
    assert_eq!(stage.ask("POST", "/reinitialize", "{}", None).await.0, 501);
    assert_eq!(stage.ask("DELETE", "/config", "", None).await.0, 405);
}

#[tokio::test]
async fn without_the_password_nothing_changes() {
    let stage = Stage::new(Some("geheim")).await;
    for (method, path) in
        [("POST", "/switchover"), ("PATCH", "/config"), ("PUT", "/config"), ("DELETE", "/switchover")]
    {
        assert_eq!(stage.ask(method, path, "{\"ttl\": 7}", None).await.0, 401, "{method} {path}");
        assert_eq!(stage.ask(method, path, "{\"ttl\": 7}", Some("falsch")).await.0, 401, "{method} {path}");
    }
    assert_eq!(stage.dcs.read().await.unwrap().config, None);
    assert_eq!(stage.ask("PUT", "/config", "{\"ttl\": 7}", Some("geheim")).await.0, 200);
    assert_eq!(stage.get("/config").await.json::<serde_json::Value>().await.unwrap()["ttl"], 7);
}
