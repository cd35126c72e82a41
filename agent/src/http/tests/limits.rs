//! Silent, large and malformed requests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::stage::Stage;

/// More than there are places.
const CROWD: usize = 700;

/// So many lines that have sent this much.
fn connect_many(stage: &Stage, sent: &str) -> Vec<TcpStream> {
    let address = stage.url.strip_prefix("http://").unwrap();
    let come = || {
        let mut stream = TcpStream::connect(address).unwrap();
        // One that was sent away already is one of them all the same.
        let _ = stream.write_all(sent.as_bytes());
        stream
    };
    (0..CROWD).map(|_| come()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_crowd_keeps_a_health_check_out() {
    // Each line and its other end are files of this one process.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted).unwrap();
    let stage = Stage::new(None).await;
    let head = "Host: 127.0.0.1\r\n";
    for (who, sent) in [
        ("silent", String::new()),
        ("in the middle of a head", format!("GET /primary HTTP/1.1\r\n{head}")),
        ("done and still there", format!("GET /liveness HTTP/1.1\r\n{head}\r\n")),
        (
            "in the middle of a body",
            format!("POST /switchover HTTP/1.1\r\n{head}Content-Length: 9000\r\n\r\n{{"),
        ),
        ("not reading", format!("GET /liveness HTTP/1.1\r\n{head}\r\n").repeat(50)),
    ] {
        let inside = connect_many(&stage, &sent);
        for _ in 0..5 {
            // A line of its own, as a load balancer's checks have.
            let client =
                reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(15)).build().unwrap();
            let answer = client.get(format!("{}/liveness", stage.url)).send().await;
            assert_eq!(answer.expect(who).status().as_u16(), 200, "{who}");
        }
        drop(inside);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_are_not_many_at_one_time() {
    let stage = Stage::new(None).await;
    let inside =
        connect_many(&stage, "POST /switchover HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\n{");
    // Every place for those that wait is taken while they are held, so the first refusal is one of too many.
    let refused = inside.iter().find_map(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut answer = [0; 64];
        let read = stream.read(&mut answer).unwrap_or_default();
        answer[..read].starts_with(b"HTTP/1.1 503").then_some(())
    });
    assert!(refused.is_some(), "all of them wait");
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
