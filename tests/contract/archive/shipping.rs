//! A real PostgreSQL whose `archive_command` and `restore_command` are the clients: what it finished is in the
//! archive byte for byte, also when the agent is killed in between, and a copy of it replays from there.

use outrider_archive::store::Store;
use outrider_wal::SegmentSize;
use tokio_postgres::Client;

use super::bench::{gunzip, open, options, read, wait_until};
use super::embedded::{Embedded, Obedience};
use super::pg_wal::SERVER;
use super::postgres::Postgres;
use super::processes::{AgentProcess, archive_command, restore_command};

async fn fill(client: &Client, segments: u32) {
    for _ in 0..segments {
        client
            .batch_execute("INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 20000) i")
            .await
            .unwrap();
        client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
    }
}

async fn all_archived(primary: &Postgres, client: &Client) {
    wait_until("all is archived", async || {
        // Wakes the archiver, which naps for a minute after three failures.
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        primary.marked("ready").is_empty()
    })
    .await;
}

async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(client: &Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn primary(archive_command: &str) -> (Postgres, Client, u64) {
    let mut primary = Postgres::nowhere();
    primary.initdb();
    primary.configure(&format!("archive_mode = on\narchive_command = '{archive_command}'"));
    primary.start();
    let client = primary.connect().await;
    client.batch_execute("CREATE TABLE t (i int, x text)").await.unwrap();
    let identifier: i64 = one(&client, "SELECT system_identifier FROM pg_control_system()").await;
    (primary, client, identifier as u64)
}

/// Every file that PostgreSQL was told to be durable is in the archive as it is in pg_wal.
async fn compare(primary: &Postgres, store: &dyn Store) -> usize {
    let done = primary.marked("done");
    for name in &done {
        let folder = if name.ends_with(".history") { String::new() } else { format!("{}/", &name[..16]) };
        let object = read(store, &format!("{SERVER}/wals/{folder}{name}.gz")).await;
        let object = object.unwrap_or_else(|| panic!("{name} is marked as done and is not in the archive"));
        assert!(gunzip(&object) == std::fs::read(primary.pg_wal().join(name)).unwrap(), "{name}");
    }
    done.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_while_it_ships_loses_nothing_and_a_copy_replays_it_all() {
    let embedded = Embedded::start(Obedience::Full);
    let store = open(&options(&embedded.endpoint()));
    let nowhere = Postgres::nowhere();
    let socket = nowhere.socket();
    let (mut primary, client, identifier) = primary(&archive_command(&socket)).await;
    let agent = || {
        AgentProcess::start(
            &embedded.endpoint(),
            &primary.pg_wal(),
            &socket,
            identifier,
            SegmentSize::DEFAULT,
        )
    };

    let mut copy = Postgres::nowhere();
    let first_agent = agent();
    // pg_basebackup waits until the archive has its last segment.
    tokio::task::block_in_place(|| copy.clone_of(&primary));
    fill(&client, 3).await;
    wait_until("one of them is archived", async || primary.marked("done").len() > 1).await;
    drop(first_agent);
    fill(&client, 3).await;
    assert!(!primary.marked("ready").is_empty(), "nothing is done without an agent");
    compare(&primary, &*store).await;

    let second_agent = agent();
    all_archived(&primary, &client).await;
    assert!(compare(&primary, &*store).await >= 7);
    let rows: i64 = one(&client, "SELECT count(*) FROM t").await;
    drop(client);
    drop(second_agent);
    primary.stop().await;

    copy.configure(&format!("archive_mode = off\nrestore_command = '{}'", restore_command(&socket)));
    std::fs::write(copy.data().join("standby.signal"), "").unwrap();
    let _third_agent =
        AgentProcess::start(&embedded.endpoint(), &copy.pg_wal(), &socket, identifier, SegmentSize::DEFAULT);
    copy.start();
    let standby = copy.connect().await;
    wait_until("the copy has every row", async || {
        let found: Option<i64> =
            standby.query_one("SELECT count(*) FROM t", &[]).await.ok().map(|row| row.get(0));
        found == Some(rows)
    })
    .await;
}

#[tokio::test]
async fn writes_go_on_while_the_store_is_down_and_its_wal_leaves_later() {
    let mut embedded = Embedded::start(Obedience::Full);
    let endpoint = embedded.endpoint();
    embedded.stop();
    let nowhere = Postgres::nowhere();
    let socket = nowhere.socket();
    let (primary, client, identifier) = primary(&archive_command(&socket)).await;
    let _agent = AgentProcess::start(&endpoint, &primary.pg_wal(), &socket, identifier, SegmentSize::DEFAULT);
    fill(&client, 3).await;
    assert_eq!(primary.marked("done"), Vec::<String>::new());
    assert_eq!(primary.marked("ready").len(), 3);

    embedded.start_again();
    all_archived(&primary, &client).await;
    assert!(compare(&primary, &*open(&options(&endpoint))).await >= 3);
}
