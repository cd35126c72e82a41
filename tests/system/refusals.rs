//! Bad input and places that are not ours: refused, with a reason, and nothing is touched.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use outrider_bed::{Builder, Cluster, Link, Member, PROGRAM_LIMIT, Passage, finish, wait_until};
use serde_json::{Value, json};

use crate::story::{LIMIT, logged};

/// One more member for a running cluster, with these settings.
fn newcomer(cluster: &Cluster, settings: &Value) -> Member {
    Member::prepare(&cluster.guard, "newcomer", &cluster.etcd.hosts(), settings).unwrap()
}

/// A directory of the bed's user.
fn make(cluster: &Cluster, path: &Path, mode: u32) {
    cluster.guard.account().make_directory(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Every file below a directory with its content.
fn content(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_of_another_cluster_is_refused_and_not_touched() {
    let cluster = Builder::new().members(1).start().await.unwrap();
    let foreign = newcomer(&cluster, &json!({}));
    let initdb = cluster.guard.programs().postgres.join("initdb");
    let mut command = cluster.guard.command(&initdb, foreign.directory());
    command.arg("-D").arg(foreign.data_directory()).args(["--no-sync", "--username=postgres"]);
    assert!(finish(&mut command, PROGRAM_LIMIT).unwrap().status.success());
    let before = content(&foreign.data_directory());
    foreign.start().unwrap();
    logged(&foreign, "the data directory belongs to another cluster").await;
    assert!(content(&foreign.data_directory()) == before, "something was touched");
    assert_eq!(foreign.postmaster_pid(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_with_a_wrong_mode_or_other_files_is_refused() {
    let cluster = Builder::new().members(1).start().await.unwrap();
    let member = newcomer(&cluster, &json!({}));
    make(&cluster, &member.data_directory(), 0o700);
    fs::write(member.data_directory().join("holiday.txt"), "dear diary").unwrap();
    member.start().unwrap();
    logged(&member, "not a data directory").await;
    fs::rename(member.data_directory().join("holiday.txt"), member.data_directory().join("PG_VERSION"))
        .unwrap();
    fs::set_permissions(member.data_directory(), Permissions::from_mode(0o755)).unwrap();
    logged(&member, "chmod it").await;
    assert_eq!(content(&member.data_directory()).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_does_not_start_shows_its_last_words() {
    let settings = json!({"postgresql": {"parameters": {"shared_preload_libraries": "no_such_library"}}});
    let cluster = Builder::new().members(1).settings(settings).prepare().await.unwrap();
    cluster.members[0].start().unwrap();
    let member = &cluster.members[0];
    let words = "FATAL: could not access file \"no_such_library\"";
    logged(member, words).await;
    let told = async || {
        let listed = String::from_utf8_lossy(&member.outrider(&["list"]).ok()?.stdout).into_owned();
        let patroni = member.patroni().await?["outrider"]["start_failure"][0].clone();
        let metrics = member.get("/metrics").await.ok()?.text;
        let escaped = words.replace('"', "\\\"");
        let metric = metrics
            .lines()
            .any(|line| line.starts_with("outrider_postgres_start_failure{") && line.contains(&escaped));
        let all = listed.contains(words) && patroni.as_str()?.contains(words) && metric;
        all.then_some(())
    };
    wait_until("list, /patroni and the metrics say why", LIMIT, told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_named_and_used_once_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let settings = json!({"postgresql": {"listen": address, "connect_address": address}});
    let cluster = Builder::new().members(1).settings(settings).prepare().await.unwrap();
    let member = &cluster.members[0];
    member.start().unwrap();
    logged(member, "Address already in use").await;
    drop(taken);
    cluster.wait_for_leader().await.unwrap();

    let rest = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = rest.local_addr().unwrap().to_string();
    let second = newcomer(&cluster, &json!({"restapi": {"listen": listen, "connect_address": listen}}));
    second.start().unwrap();
    logged(&second, "is another agent running?").await;
    wait_until("the agent has ended", LIMIT, async || (!second.agent_runs()).then_some(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_flight_recorder_stops_nothing() {
    let cluster = Builder::new().members(1).prepare().await.unwrap();
    let member = &cluster.members[0];
    make(&cluster, &member.state_directory(), 0o700);
    symlink("/dev/full", member.state_directory().join("rounds.jsonl")).unwrap();
    member.start().unwrap();
    cluster.wait_for_leader().await.unwrap();
    logged(member, "cannot write the flight recorder").await;
    let metrics = member.get("/metrics").await.unwrap().text;
    let failures = metrics.lines().find(|line| line.starts_with("outrider_recorder_failures_total"));
    assert!(failures.is_some_and(|line| !line.ends_with(" 0")), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_lists_every_fault_and_starts_nothing() {
    let cluster = Builder::new().members(1).prepare().await.unwrap();
    let member = &cluster.members[0];
    let bad = json!({
        "scope": "not a name!", "name": member.name(), "etcd3": {"hosts": ["127.0.0.1:notaport"]}, "colour": "red",
        "bootstrap": {"dcs": {"ttl": 1}},
        "postgresql": {"listen": "nowhere:99999", "data_dir": "relative/path"},
    });
    member.write_configuration(&bad).unwrap();
    for command in ["agent", "check-config"] {
        let output = member.outrider(&[command, member.configuration().to_str().unwrap()]).unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        let words =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        for fault in ["scope", "etcd3", "colour", "ttl", "postgresql.listen", "data_dir", "password"] {
            assert!(words.contains(fault), "{command} does not name {fault}: {words}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_user_is_refused() {
    let cluster = Builder::new().members(1).start().await.unwrap();
    if !cluster.guard.account().we_are_root() {
        println!("skipped: only root can give a directory to another user");
        return;
    }
    let member = newcomer(&cluster, &json!({}));
    // Root's, as the tests run as root and the member does not.
    fs::create_dir(member.data_directory()).unwrap();
    fs::set_permissions(member.data_directory(), Permissions::from_mode(0o755)).unwrap();
    member.start().unwrap();
    logged(&member, "belongs to user 0").await;
    assert_eq!(content(&member.data_directory()).len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_supervisor_of_another_member_is_not_used() {
    let cluster = Builder::new().members(1).start().await.unwrap();
    let socket = cluster.members[0].directory().join("run/supervisor");
    let second = newcomer(&cluster, &json!({"supervisor": {"socket": socket}}));
    let output = second.outrider(&["check-config", second.configuration().to_str().unwrap()]).unwrap();
    let words = "it is another member's";
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    second.start().unwrap();
    logged(&second, words).await;
    wait_until("the agent has ended", LIMIT, async || (!second.agent_runs()).then_some(())).await.unwrap();
    assert!(cluster.members[0].leads().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_makes_the_slot_of_another_member_is_refused() {
    let cluster = Builder::new().members(1).start().await.unwrap();
    let first = &cluster.members[0];
    let words = "makes the replication slot member1, as that of member \"member1\" does";
    let second = newcomer(&cluster, &json!({"name": "Member1"}));
    let output = second.outrider(&["check-config", second.configuration().to_str().unwrap()]).unwrap();
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    second.start().unwrap();
    logged(&second, words).await;
    wait_until("the agent has ended", LIMIT, async || (!second.agent_runs()).then_some(())).await.unwrap();

    // One that learns of the other only later.
    let link = Link::open(&cluster.etcd.hosts()).await.unwrap();
    link.set(Passage::Cut);
    let third = Member::prepare(&cluster.guard, "third", link.hosts(), &json!({"name": "MEMBER1"})).unwrap();
    third.start().unwrap();
    logged(&third, "the DCS does not answer; waiting for it").await;
    link.set(Passage::Whole);
    logged(&third, words).await;
    wait_until("the agent has ended", LIMIT, async || (!third.agent_runs()).then_some(())).await.unwrap();

    let members = first.get("/cluster").await.unwrap().text;
    let members: Value = serde_json::from_str(&members).unwrap();
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members}");
    assert!(!second.data_directory().exists() && !third.data_directory().exists(), "they made nothing");
    assert!(first.leads().await);
    // Its own agent may come and go.
    first.kill_agent();
    first.start().unwrap();
    cluster.wait_for_leader().await.unwrap();
}
