//! A recovery of a real PostgreSQL from an archive that is down, damaged, or ends in the middle of a segment: it stops
//! and opens nothing, and it goes on where it stopped once the archive is well.

use bytes::Bytes;
use outrider_archive::Layout;
use outrider_store::{Metadata, Store};
use outrider_wal::{SegmentSize, WalFileName};

use super::bench::{gunzip, read};
use super::embedded::{Embedded, Obedience};
use super::pg_wal::SERVER;
use super::postgres::Postgres;
use super::processes::{AgentProcess, archive_command, recovery_command};
use super::s3::{open, options};
use super::shipping::{all_archived, fill, one, primary};

async fn replace(store: &dyn Store, key: &str, body: &[u8]) {
    store.delete(key).await.unwrap();
    let body = Bytes::copy_from_slice(body);
    store.put_if_absent(key, body.into(), &Metadata::new()).await.unwrap();
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_stops_at_a_fault_of_the_archive_and_ends_only_where_it_ends() {
    let mut embedded = Embedded::start(Obedience::Full);
    let store = open(&options(&embedded.endpoint()));
    let nowhere = Postgres::nowhere();
    let socket = nowhere.socket();
    let (mut primary, client, identifier) = primary(&archive_command(&socket)).await;
    let size = SegmentSize::DEFAULT;
    let agent = AgentProcess::start(&embedded.endpoint(), &primary.pg_wal(), &socket, identifier, size);
    let mut copy = Postgres::nowhere();
    tokio::task::block_in_place(|| copy.clone_of(&primary));
    fill(&client, 3).await;
    let damaged: String = one(&client, "SELECT pg_walfile_name(pg_current_wal_lsn())").await;
    fill(&client, 2).await;
    all_archived(&primary, &client).await;

    // What comes now was streamed and never finished.
    client.batch_execute("INSERT INTO t VALUES (-1, 'the last row')").await.unwrap();
    let rows: i64 = one(&client, "SELECT count(*) FROM t").await;
    let last: String = one(&client, "SELECT pg_walfile_name(pg_current_wal_lsn())").await;
    let end: i64 =
        one(&client, "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint % 16777216").await;
    let written = std::fs::read(primary.pg_wal().join(&last)).unwrap();
    let Ok(WalFileName::Segment(segment)) = last.parse() else { panic!("{last}") };
    let chunk = Layout::new(SERVER).unwrap().stream_chunk(segment, 0, end as u64);
    drop((client, agent));
    primary.stop().await;
    replace(&*store, &chunk, &gzip(&written[..end as usize])).await;

    copy.configure(&format!("archive_mode = off\nrestore_command = '{}'", recovery_command(&socket)));
    std::fs::write(copy.data().join("recovery.signal"), "").unwrap();
    let _agent = AgentProcess::start(&embedded.endpoint(), &copy.pg_wal(), &socket, identifier, size);

    embedded.stop();
    copy.start();
    let log = copy.ended().await;
    assert!(log.contains("Connection refused"), "{log}");
    embedded.start_again();

    let key = format!("{SERVER}/wals/{}/{damaged}.gz", &damaged[..16]);
    let whole = read(&*store, &key).await.unwrap();
    assert_eq!(gunzip(&whole).len() as u64, size.bytes());
    for bad in [&whole[..whole.len() / 2], &whole[..0], b"no gzip at all"] {
        replace(&*store, &key, bad).await;
        copy.start();
        let log = copy.ended().await;
        assert!(log.contains(&key) && log.contains("damaged"), "{log}");
        assert!(copy.data().join("recovery.signal").exists(), "it has not been opened");
    }

    replace(&*store, &key, &whole).await;
    copy.start();
    let opened = copy.connect().await;
    super::bench::wait_until("it is opened", async || {
        let open = opened.query_one("SELECT NOT pg_is_in_recovery()", &[]).await;
        open.is_ok_and(|row| row.get(0))
    })
    .await;
    assert_eq!(one::<i64>(&opened, "SELECT count(*) FROM t").await, rows);
}
