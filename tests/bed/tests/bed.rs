//! The bed itself: an oracle that finds no loss proves nothing unless it finds one that is there. No agent takes part.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outrider_bed::process::is_alive;
use outrider_bed::{
    Connection, Endpoint, Etcd, Guard, Link, Options, Oracle, PASSWORD, PROGRAM_LIMIT, Passage, Port,
    Watcher, finish, wait_until,
};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

/// A Postgres without an agent.
struct Server {
    endpoint: Endpoint,
    postmaster: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dead already; then it is only reaped.
        let _ = self.postmaster.kill();
        let _ = self.postmaster.wait();
    }
}

async fn server(guard: &Guard, name: &str) -> Server {
    let directory = guard.make_directory(name).unwrap();
    let port = Port::free().unwrap();
    let number = port.number().to_string();
    let password = directory.join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    guard.account().own(&password).unwrap();
    let mut initdb = guard.command(&guard.programs().postgres.join("initdb"), &directory);
    initdb.args(["-D", "data", "--username=postgres", "--auth=scram-sha-256", "--no-sync"]);
    let made = finish(initdb.arg("--pwfile").arg(&password), PROGRAM_LIMIT).unwrap();
    assert!(made.status.success(), "{made:?}");
    port.release();
    let mut postgres = guard.command(&guard.programs().postgres.join("postgres"), &directory);
    postgres.args(["-D", "data", "-c", "listen_addresses=127.0.0.1", "-p", &number]);
    postgres.arg("-c").arg(format!("unix_socket_directories={}", directory.display()));
    let postmaster = postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let endpoint = Endpoint { name: name.to_owned(), port: port.number() };
    let server = Server { endpoint, postmaster };
    let answers = async || server.endpoint.connect_to_primary().await.ok().map(drop);
    wait_until("Postgres answers", LIMIT, answers).await.unwrap();
    server
}

/// A server, an oracle that has begun to write to it, and a session behind the oracle's back.
async fn at_work(guard: &Guard) -> (Server, Oracle, Connection) {
    let server = server(guard, "one").await;
    let oracle = Oracle::start(vec![server.endpoint.clone()], Options::default()).await.unwrap();
    oracle.wait_for_commits(20).await.unwrap();
    let connection = server.endpoint.connect().await.unwrap();
    (server, oracle, connection)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_finds_what_is_lost_and_what_is_there_twice() {
    let guard = Guard::new().unwrap();
    let (_server, oracle, connection) = at_work(&guard).await;
    connection.run("DELETE FROM oracle WHERE serial IN (3, 5); INSERT INTO oracle VALUES (7)").await.unwrap();
    let verdict = oracle.finish().await.unwrap();
    assert_eq!((&verdict.lost[..], &verdict.doubled[..]), (&[3, 5][..], &[7][..]));
    assert!(!verdict.is_good());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_books_refusals_and_measures_the_gap() {
    let guard = Guard::new().unwrap();
    let (_server, oracle, connection) = at_work(&guard).await;
    connection.run("ALTER TABLE oracle ADD CONSTRAINT no_more CHECK (serial < 0) NOT VALID").await.unwrap();
    let since = tokio::time::Instant::now();
    let refused = async || (oracle.errors() >= 3).then_some(());
    wait_until("commits are refused", LIMIT, refused).await.unwrap();
    let lasted = since.elapsed();
    connection.run("ALTER TABLE oracle DROP CONSTRAINT no_more").await.unwrap();
    oracle.wait_for_commits(20).await.unwrap();
    let gap = oracle.longest_gap(since);
    assert!(gap >= lasted, "{gap:?} is less than the {lasted:?} in which nothing was acknowledged");
    let verdict = oracle.finish().await.unwrap();
    assert!(verdict.is_good(), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watcher_sees_two_primaries() {
    let guard = Guard::new().unwrap();
    let servers = [server(&guard, "one").await, server(&guard, "two").await];
    let watcher = Watcher::start(servers.iter().map(|server| server.endpoint.clone()).collect());
    let seen = async || watcher.overlaps().into_iter().next();
    let overlap = wait_until("two primaries are seen", LIMIT, seen).await.unwrap();
    assert_eq!(overlap.members, ["one", "two"]);
}

#[test]
fn a_program_that_does_not_end_is_killed_with_what_it_started_and_its_last_words_are_told() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo its last words; sleep 1000 & sleep 1000"]);
    let fault = finish(&mut shell, Duration::from_millis(500)).unwrap_err().to_string();
    assert!(fault.contains("did not end") && fault.contains("its last words"), "{fault}");
    let ended = finish(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), LIMIT).unwrap();
    assert_eq!(
        (ended.status.code(), &ended.stdout[..], &ended.stderr[..]),
        (Some(3), &b"out\n"[..], &b"err\n"[..])
    );
}

#[test]
fn a_test_program_that_does_not_end_is_ended_and_its_logs_are_shown() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("deps/stuck");
    std::fs::create_dir(program.parent().unwrap()).unwrap();
    let script = "#!/bin/sh\nmkdir \"$TMPDIR/outrider-$$-bed\"\n\
        echo 'what the agent said last' > \"$TMPDIR/outrider-$$-bed/agent.log\"\nexec sleep 1000\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut runner = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deadline.sh"));
    runner.arg(&program).env("TMPDIR", directory.path()).env("OUTRIDER_TEST_LIMIT", "1");
    let ended = finish(&mut runner, LIMIT).unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains("what the agent said last"), "{ended:?}");
}

/// As in a clone in root's home.
#[test]
fn a_program_where_only_its_owner_comes_is_copied_to_where_others_can_run_it() {
    let guard = Guard::new().unwrap();
    let closed = tempfile::tempdir().unwrap();
    let program = closed.path().join("program");
    std::fs::write(&program, "#!/bin/sh\necho it runs\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let reachable = guard.account().reachable(&program, guard.directory()).unwrap();
    let said = finish(&mut guard.command(&reachable, guard.directory()), LIMIT).unwrap();
    assert_eq!(said.stdout, b"it runs\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outlives_its_guard() {
    let guard = Guard::new().unwrap();
    let _server = server(&guard, "one").await;
    let _etcd = Etcd::start(&guard, 1).await.unwrap();
    let (processes, directory) = (guard.processes(), guard.directory().to_owned());
    assert!(processes.len() > 2, "{processes:?}");
    drop(guard);
    assert!(!processes.iter().any(|pid| is_alive(*pid)), "{processes:?}");
    assert!(!Path::new(&directory).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_its_keys_over_a_kill() {
    let guard = Guard::new().unwrap();
    let etcd = Etcd::start(&guard, 3).await.unwrap();
    etcd.put("/key", "value").await.unwrap();
    etcd.kill(etcd.raft_leader().await.unwrap());
    let there = async || etcd.get("/key").await.ok().flatten();
    assert_eq!(wait_until("two of three answer", LIMIT, there).await.unwrap(), "value");
    assert_eq!(etcd.get("/no/key").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_holds_back_what_it_is_told_to() {
    let guard = Guard::new().unwrap();
    let etcd = Etcd::start(&guard, 1).await.unwrap();
    let link = Link::open(&etcd.hosts()).await.unwrap();
    let url = format!("http://{}/v3/kv/put", link.hosts()[0]);
    let put = async |key: &str| {
        // The key in base64.
        let request = reqwest::Client::builder().no_proxy().build().unwrap().post(&url);
        let request = request.timeout(Duration::from_millis(500)).json(&json!({"key": key, "value": ""}));
        request.send().await.is_ok()
    };
    assert!(put("YQ==").await);
    link.set(Passage::Cut);
    assert!(!put("Yg==").await);
    assert_eq!(etcd.get("b").await.unwrap(), None);
    link.set(Passage::Deaf);
    assert!(!put("Yw==").await);
    assert!(etcd.get("c").await.unwrap().is_some(), "the request itself passes");
    link.set(Passage::Slow(Duration::from_millis(50)));
    assert!(put("ZA==").await);
}
