//! What a backup and a running member hold starts by itself: without our arguments, whatever was changed and waits for a
//! restart, and whatever was raised after the backup.

use std::path::Path;

use outrider_bed::{Archive, Builder, Cluster, PROGRAM_LIMIT, finish, wait_until};
use serde_json::{Value, json};

use crate::by_hand;
use crate::kept::{ROWS, archived, back_up, insert, primary};
use crate::story::{LIMIT, logs};

async fn set(cluster: &Cluster, parameters: Value) {
    let leader = cluster.wait_for_leader().await.unwrap();
    let body = json!({"postgresql": {"parameters": parameters}}).to_string();
    // A cluster that has just begun has no configuration yet.
    let taken = async || {
        let answer = leader.request(reqwest::Method::PATCH, "/config", Some(body.clone())).await.ok()?;
        (answer.status == 200).then_some(())
    };
    wait_until("the configuration is changed", LIMIT, taken).await.unwrap();
}

/// A setting in the generated file.
fn in_file(cluster: &Cluster, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(cluster.members[0].data_directory().join("postgresql.conf")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))?;
    Some(line.trim_matches('\'').to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_before_or_after_a_backup_keeps_no_copy_from_starting() {
    let settings = json!({"archive": {"schedule": "never"}, "bootstrap": {"initdb": ["no-sync"]}});
    let builder = Builder::new().members(1).archive(Archive::Embedded).settings(settings);
    let cluster = builder.start().await.unwrap();
    insert(&cluster, "(1)").await;
    // It has no effect, since the agent gives its own as an argument; nor may it have one without.
    primary(&cluster).await.run("ALTER SYSTEM SET max_worker_processes = 3").await.unwrap();
    // Lowered, and not in effect before the next start: WAL is written with what is in effect.
    let (locks, workers) = ("max_locks_per_transaction", "max_worker_processes");
    set(&cluster, json!({locks: "20", workers: "4", "work_mem": "5MB"})).await;
    let written = async || (in_file(&cluster, "work_mem")? == "5MB").then_some(());
    wait_until("the change is in the file", LIMIT, written).await.unwrap();
    assert_eq!((in_file(&cluster, locks), in_file(&cluster, workers)), (Some("64".into()), Some("8".into())));
    let connection = primary(&cluster).await;
    // With the tablespace in the data directory itself no recovery ends unless it is told that this is meant.
    for statement in [
        "SET allow_in_place_tablespaces = on",
        "CREATE TABLESPACE inside LOCATION ''",
        "CREATE TABLE within (row int) TABLESPACE inside",
        "INSERT INTO within VALUES (7)",
    ] {
        connection.run(statement).await.unwrap();
    }
    drop(connection);
    back_up(&cluster).await;
    // Raised after the backup, and in effect: a hot standby with less would stop where the WAL says so.
    set(&cluster, json!({locks: "200", workers: "20", "max_connections": "150"})).await;
    let waits = async || {
        let state = cluster.members[0].patroni().await?;
        // Since it was lowered it waits for one with another value.
        (state["pending_restart_reason"][workers]["new_value"] == "20").then_some(())
    };
    let waited = wait_until("what was raised waits for a restart", LIMIT, waits).await;
    assert!(waited.is_ok(), "{waited:?}; {}", logs(&cluster));
    cluster.members[0].kill_node();
    cluster.members[0].start().unwrap();
    insert(&cluster, "(2)").await;
    let raised = primary(&cluster).await.text("SHOW max_worker_processes").await.unwrap();
    assert_eq!(
        (raised.as_str(), in_file(&cluster, workers)),
        ("20", Some("20".into())),
        "{}",
        logs(&cluster)
    );
    archived(&cluster, "bed").await;
    let member = &cluster.members[0];
    let into = cluster.guard.directory().join("restored");
    let output = member.outrider(&["restore", "--into", into.to_str().unwrap()]).unwrap();
    assert!(output.status.success(), "{output:?}");
    let restored = by_hand::start(&cluster, &into).await;
    assert_eq!(restored.text(ROWS).await.unwrap(), "1,2");
    assert_eq!(restored.text("SELECT row::text FROM within").await.unwrap(), "7");
    // Nobody waits for a standby that the copy does not have.
    restored.run("INSERT INTO kept VALUES (3)").await.unwrap();
    // It answers queries on the way to where it waits, and the WAL on the way wants more than the backup had.
    let look = cluster.guard.directory().join("look");
    let end = primary(&cluster).await.text("SELECT pg_current_wal_insert_lsn()::text").await.unwrap();
    primary(&cluster).await.run("CREATE TABLE later (row int)").await.unwrap();
    archived(&cluster, "bed").await;
    let output =
        member.outrider(&["restore", "--lsn", &end, "--then", "pause", "--into", look.to_str().unwrap()]);
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(by_hand::start_paused(&cluster, &look).await.text(ROWS).await.unwrap(), "1,2");
    let scratch = member.directory().join("drill");
    let output = member.outrider(&["verify", "--drill", "--scratch", scratch.to_str().unwrap()]).unwrap();
    assert!(output.status.success(), "{output:?}");
    // The data of the member itself, after a crash and by hand.
    member.kill_node();
    let copy = cluster.guard.directory().join("copy");
    let mut copying = cluster.guard.command(Path::new("/bin/cp"), cluster.guard.directory());
    let copied = finish(copying.arg("-a").arg(member.data_directory()).arg(&copy), PROGRAM_LIMIT).unwrap();
    assert!(copied.status.success(), "{copied:?}");
    // The number of a process that was killed may not be free yet.
    std::fs::remove_file(copy.join("postmaster.pid")).unwrap();
    let crashed = by_hand::start(&cluster, &copy).await;
    assert_eq!(crashed.text("SELECT row::text FROM within").await.unwrap(), "7");
    assert_eq!(crashed.text("SHOW max_worker_processes").await.unwrap(), "20");
}
