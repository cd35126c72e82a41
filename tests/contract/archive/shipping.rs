//! A real PostgreSQL whose `archive_command` and `restore_command` are the clients: what it finished is in the
//! archive byte for byte, also when the agent is killed in between, and a copy of it replays from there.

use outrider_archive::Leadership;
use outrider_store::Store;
use outrider_wal::{SegmentSize, TimelineId};
use tokio_postgres::Client;

use super::bench::{gunzip, keys, read, wait_until};
use super::embedded::{Embedded, Obedience};
use super::pg_wal::SERVER;
use super::postgres::Postgres;
use super::processes::{AgentProcess, archive_command, restore_command};
use super::s3::{open, options};

pub(super) async fn fill(client: &Client, segments: u32) {
    for _ in 0..segments {
        client
            .batch_execute("INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 20000) i")
            .await
            .unwrap();
        client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
    }
}

pub(super) async fn all_archived(primary: &Postgres, client: &Client) {
    wait_until("all is archived", async || {
        // Wakes the archiver, which naps for a minute after three failures.
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        primary.marked("ready").is_empty()
    })
    .await;
}

pub(super) async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(client: &Client, sql: &str) -> T {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

pub(super) async fn primary(archive_command: &str) -> (Postgres, Client, u64) {
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

/// The store is down when the primary is lost, so the standby that takes over is the only one who has its last WAL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_ships_what_the_lost_primary_could_not_and_a_copy_replays_across() {
    let mut embedded = Embedded::start(Obedience::Full);
    let endpoint = embedded.endpoint();
    let store = open(&options(&endpoint));
    let nowhere = Postgres::nowhere();
    let socket = nowhere.socket();
    let (primary, client, identifier) = primary(&archive_command(&socket)).await;
    let agent = AgentProcess::start(&endpoint, &primary.pg_wal(), &socket, identifier, SegmentSize::DEFAULT);
    let (mut copy, mut standby) = (Postgres::nowhere(), Postgres::nowhere());
    tokio::task::block_in_place(|| {
        copy.clone_of(&primary);
        standby.clone_of(&primary);
    });
    fill(&client, 2).await;
    all_archived(&primary, &client).await;
    let commits = committed_between(&*store, &primary).await;

    embedded.stop();
    drop(agent);
    standby.configure(&format!(
        "archive_mode = on\narchive_command = '{}'\nprimary_conninfo = 'host={} user=postgres'",
        archive_command(&socket),
        primary.host(),
    ));
    std::fs::write(standby.data().join("standby.signal"), "").unwrap();
    standby.start();
    let heir = standby.connect().await;
    fill(&client, 3).await;
    client.batch_execute("INSERT INTO t VALUES (-1, 'last')").await.unwrap();
    let rows: i64 = one(&client, "SELECT count(*) FROM t").await;
    wait_until("the standby has every row", async || {
        let found: Option<i64> =
            heir.query_one("SELECT count(*) FROM t", &[]).await.ok().map(|row| row.get(0));
        found == Some(rows)
    })
    .await;
    drop(client);
    drop(primary);
    heir.batch_execute("SELECT pg_promote()").await.unwrap();
    heir.batch_execute("INSERT INTO t VALUES (-2, 'new timeline')").await.unwrap();
    heir.batch_execute("SELECT pg_switch_wal()").await.unwrap();

    embedded.start_again();
    let segment_size = SegmentSize::DEFAULT;
    let timeline = TimelineId::new(2);
    let leadership = Leadership { term: 2, system_identifier: identifier, segment_size, timeline };
    let agent = AgentProcess::leading(&endpoint, &standby.pg_wal(), &socket, leadership);
    all_archived(&standby, &heir).await;
    // It marked as done itself what it had received, and nobody asks for that.
    wait_until("what the lost primary had not shipped is archived", async || {
        let stored = keys(&*store).await;
        standby
            .marked("done")
            .iter()
            .all(|name| stored.iter().any(|key| key.ends_with(&format!("/{name}.gz"))))
    })
    .await;
    assert!(compare(&standby, &*store).await >= 6);
    drop(agent);
    let _third_agent =
        AgentProcess::start(&endpoint, &copy.pg_wal(), &socket, identifier, SegmentSize::DEFAULT);
    copy.configure(&format!("archive_mode = off\nrestore_command = '{}'", restore_command(&socket)));
    std::fs::write(copy.data().join("standby.signal"), "").unwrap();
    copy.start();
    let reader = copy.connect().await;
    wait_until("a copy that has only the archive has every row of both timelines", async || {
        let found: Option<i64> =
            reader.query_one("SELECT count(*) FROM t", &[]).await.ok().map(|row| row.get(0));
        found == Some(rows + 1)
    })
    .await;
    assert!(commits > 0);
}

/// How many archived segments name their commits, each within the life of this server.
async fn committed_between(store: &dyn Store, primary: &Postgres) -> usize {
    let mut found = 0;
    let mut before = 0_i64;
    let mut names = primary.marked("done");
    names.sort();
    for name in names.iter().filter(|name| name.len() == 24) {
        let key = format!("{SERVER}/wals/{}/{name}.gz", &name[..16]);
        let metadata = store.head(&key).await.unwrap().unwrap().metadata;
        let time = |key: &str| metadata.get(key).map(|text| text.parse::<i64>().unwrap());
        let (Some(first), Some(last)) = (time("outrider-first-commit"), time("outrider-last-commit")) else {
            continue;
        };
        assert!(before <= first && first <= last, "{name}: {before} {first} {last}");
        before = last;
        found += 1;
    }
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64;
    assert!(before <= now && now - before < 3_600_000_000, "{before} of {now}");
    found
}
