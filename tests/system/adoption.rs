//! A Postgres that was there before: the agent leads with its data, keeps its settings, and others clone it.

use std::fs;

use outrider_bed::process;
use outrider_bed::{Builder, Member, PASSWORD, PROGRAM_LIMIT, finish, wait_until};

use crate::story::LIMIT;

/// A server of the operator's own, with a table, stopped.
async fn server_before(member: &Member, cluster: &outrider_bed::Cluster) {
    let programs = &cluster.guard.programs().postgres;
    let password = member.directory().join("password");
    fs::write(&password, PASSWORD).unwrap();
    cluster.guard.account().own(&password).unwrap();
    let mut initdb = cluster.guard.command(&programs.join("initdb"), member.directory());
    initdb.arg("-D").arg(member.data_directory()).arg("--pwfile").arg(&password);
    initdb.args(["--username=postgres", "--auth=scram-sha-256", "--no-sync"]);
    assert!(finish(&mut initdb, PROGRAM_LIMIT).unwrap().status.success());
    let conf = member.data_directory().join("postgresql.conf");
    let text = fs::read_to_string(&conf).unwrap() + "work_mem = '7MB'\n";
    fs::write(&conf, text).unwrap();
    let script = "echo 'CREATE TABLE before AS SELECT 42 AS answer' | \"$0\" --single -D \"$1\" postgres";
    let mut single = cluster.guard.command("/bin/sh".as_ref(), member.directory());
    single.args(["-c", script]).arg(programs.join("postgres")).arg(member.data_directory());
    assert!(finish(&mut single, PROGRAM_LIMIT).unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_postgres_leads_with_its_data_and_settings() {
    let cluster = Builder::new().members(2).prepare().await.unwrap();
    let [first, second] = &cluster.members[..] else { panic!("two members") };
    server_before(first, &cluster).await;
    // The empty one is there first, and must not make a cluster of its own once the other has shown itself.
    first.start().unwrap();
    wait_until("the old data leads", LIMIT, async || first.leads().await.then_some(())).await.unwrap();
    second.start().unwrap();
    cluster.wait_until_whole().await.unwrap();
    for endpoint in cluster.endpoints() {
        let connection = endpoint.connect().await.unwrap();
        assert_eq!(connection.text("SELECT answer::text FROM before").await.unwrap(), "42");
        assert_eq!(connection.text("SHOW work_mem").await.unwrap(), "7MB");
        assert_eq!(connection.text("SHOW restart_after_crash").await.unwrap(), "off");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_password_is_on_a_command_line_or_in_a_log() {
    let cluster = Builder::new().members(2).start().await.unwrap();
    for member in &cluster.members {
        assert!(!member.log().contains(PASSWORD), "in {}", member.name());
        let postgres_log = fs::read_to_string(member.state_directory().join("postgres.log")).unwrap();
        assert!(!postgres_log.contains(PASSWORD), "in Postgres' log of {}", member.name());
        let file = fs::metadata(member.state_directory().join("pgpass")).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777, 0o600);
    }
    for pid in cluster.guard.processes() {
        assert!(!process::arguments(pid).join(" ").contains(PASSWORD), "{:?}", process::arguments(pid));
    }
}
