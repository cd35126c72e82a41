//! What the shipper makes of the files of a `pg_wal`, on every store: barman's keys, once, in order, never replaced.

use std::collections::BTreeMap;

use bytes::Bytes;
use outrider_archive::{Compression, NotDurable, ShipOptions, Shipper};
use outrider_store::{Metadata, Store};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::PATIENCE;
use super::bench::{Bench, gunzip, keys, read, wait_until};
use super::pg_wal::{PgWal, SERVER, leadership, segment, ship_options, shown};

super::on_every_store!(
    files_lie_under_the_keys_of_barman_cloud,
    the_same_content_again_is_success,
    other_content_is_refused_and_the_object_unchanged,
    an_object_that_someone_else_compressed_is_compared_by_its_content,
    a_broken_segment_stays_and_is_named_while_the_others_leave,
    a_history_with_other_content_holds_its_timeline,
    a_member_that_does_not_lead_ships_nothing,
    a_new_file_leaves_without_being_asked_for,
    a_name_is_taken_once_however_it_is_compressed,
);

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const THIRD: &str = "000000010000000000000003";
const HISTORY: &[u8] = b"1\t0/300148\tno recovery target specified\n";

fn key(name: &str) -> String {
    if name.ends_with(".history") {
        format!("{SERVER}/wals/{name}.gz")
    } else {
        format!("{SERVER}/wals/{}/{name}.gz", &name[..16])
    }
}

async fn archived(store: &dyn Store, name: &str) -> Option<Vec<u8>> {
    read(store, &key(name)).await.map(|bytes| gunzip(&bytes))
}

async fn files_lie_under_the_keys_of_barman_cloud(bench: &Bench) {
    let (pg_wal, store) = (PgWal::new(), bench.store());
    let backup = b"START WAL LOCATION: 0/200028 (file 000000010000000000000002)\n";
    let files: BTreeMap<&str, Vec<u8>> = BTreeMap::from([
        (FIRST, segment(FIRST, 1)),
        (SECOND, segment(SECOND, 2)),
        ("000000010000000000000002.00000028.backup", backup.to_vec()),
        ("000000010000000000000003.partial", segment(THIRD, 3)),
        ("00000002.history", HISTORY.to_vec()),
        ("000000020000000000000003", segment("000000020000000000000003", 4)),
    ]);
    for (name, content) in &files {
        pg_wal.add(name, content);
    }
    let shipper = pg_wal.shipper(store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(7));
    let shown = shown(&mut status, "six files archived", |status| status.counters.files == 6).await;
    assert_eq!((shown.term, shown.waiting, shown.waiting_bytes), (Some(7), 0, 0));
    assert_eq!(shown.counters.segments, 3);
    assert_eq!(shown.counters.bytes_in, files.values().map(|content| content.len() as u64).sum::<u64>());
    assert!(shown.counters.bytes_out < shown.counters.bytes_in);
    assert_eq!(shown.last_failure, None);

    let mut expected: Vec<String> = files.keys().map(|name| key(name)).collect();
    // Of each timeline, how it is compressed.
    expected
        .extend(["00000001", "00000002"].map(|timeline| format!("{SERVER}/outrider/compression/{timeline}")));
    expected.push(format!("{SERVER}/outrider/probe"));
    expected.push(format!("{SERVER}/outrider/writer.json"));
    expected.sort();
    assert_eq!(keys(&*store).await, expected);
    for (name, content) in &files {
        assert!(archived(&*store, name).await.unwrap() == *content, "{name}");
        let metadata = store.head(&key(name)).await.unwrap().unwrap().metadata;
        if bench.keeps_metadata() {
            let sha256 = format!("{:x}", Sha256::digest(content));
            assert_eq!(metadata, Metadata::from([("outrider-sha256".to_owned(), sha256)]), "{name}");
        }
    }
}

async fn the_same_content_again_is_success(bench: &Bench) {
    let pg_wal = PgWal::new();
    pg_wal.add(FIRST, &segment(FIRST, 1));
    // The second one is an agent that was started again and remembers nothing.
    for _ in 0..2 {
        let shipper = pg_wal.shipper(bench.store());
        shipper.enable(leadership(1));
        // Twice: then it is remembered.
        for _ in 0..2 {
            let durable = timeout(PATIENCE, shipper.durable(FIRST.parse().unwrap())).await;
            assert_eq!(durable.unwrap(), Ok(()));
        }
        assert_eq!(shipper.status().borrow().conflict, None);
    }
}

async fn other_content_is_refused_and_the_object_unchanged(bench: &Bench) {
    let (ours, theirs) = (PgWal::new(), PgWal::new());
    theirs.add(FIRST, &segment(FIRST, 9));
    for name in [FIRST, SECOND] {
        ours.add(name, &segment(name, 1));
    }
    let shipper = theirs.shipper(bench.store());
    shipper.enable(leadership(1));
    timeout(PATIENCE, shipper.durable(FIRST.parse().unwrap())).await.unwrap().unwrap();

    let shipper = ours.shipper(bench.store());
    let mut status = shipper.status();
    shipper.enable(leadership(2));
    let refused = timeout(PATIENCE, shipper.durable(FIRST.parse().unwrap())).await.unwrap();
    let Err(NotDurable::Conflict(text)) = refused else { panic!("{refused:?}") };
    assert!(
        text.contains(FIRST) && text.contains(&key(FIRST)) && text.contains("nothing was overwritten"),
        "{text}"
    );
    let shown = shown(&mut status, "a conflict", |status| status.conflict.is_some()).await;
    let conflict = shown.conflict.unwrap();
    assert_eq!(conflict.ours, format!("{:x}", Sha256::digest(segment(FIRST, 1))));
    assert_eq!(conflict.theirs, format!("{:x}", Sha256::digest(segment(FIRST, 9))));
    assert!(archived(&*bench.store(), FIRST).await.unwrap() == segment(FIRST, 9));
}

async fn an_object_that_someone_else_compressed_is_compared_by_its_content(bench: &Bench) {
    let (pg_wal, store) = (PgWal::new(), bench.store());
    let foreign = |content: &[u8]| {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        Bytes::from(encoder.finish().unwrap())
    };
    for (name, theirs) in [(FIRST, 1), (SECOND, 9)] {
        pg_wal.add(name, &segment(name, 1));
        store
            .put_if_absent(&key(name), foreign(&segment(name, theirs)).into(), &Metadata::new())
            .await
            .unwrap();
    }
    let shipper = pg_wal.shipper(store);
    shipper.enable(leadership(1));
    let durable = async |name: &str| timeout(PATIENCE, shipper.durable(name.parse().unwrap())).await.unwrap();
    assert_eq!(durable(FIRST).await, Ok(()));
    assert!(matches!(durable(SECOND).await, Err(NotDurable::Conflict(_))));
}

/// Two servers that believe to have begun the timeline, of which one was given another compression meanwhile.
async fn a_name_is_taken_once_however_it_is_compressed(bench: &Bench) {
    const HISTORY_NAME: &str = "00000002.history";
    let other: &[u8] = b"1\t0/300200\tno recovery target specified\n";
    let servers =
        [(Compression::GZIP, HISTORY, 1), (Compression::ZSTD, other, 2), (Compression::None, other, 2)];
    let servers = servers.map(|(compression, history, fill)| {
        let pg_wal = PgWal::new();
        pg_wal.add(HISTORY_NAME, history);
        pg_wal.add(FIRST, &segment(FIRST, fill));
        let options = ShipOptions { compression, ..ship_options(pg_wal.path()) };
        (Shipper::start(options, bench.store()), pg_wal)
    });
    // At one time, and of one term: nothing but the name itself keeps them apart.
    servers.iter().for_each(|(shipper, _)| {
        shipper.enable(leadership(1));
    });
    for name in [HISTORY_NAME, FIRST] {
        let ask = async |server: usize| {
            timeout(PATIENCE, servers[server].0.durable(name.parse().unwrap())).await.unwrap()
        };
        let (first, second, third) = tokio::join!(ask(0), ask(1), ask(2));
        let answers = [first, second, third];
        let durable = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!((1..3).contains(&durable), "{name}: {answers:?}");
        let there = keys(&*bench.store()).await;
        let there: Vec<&String> = there.iter().filter(|key| key.contains(&format!("/{name}"))).collect();
        assert_eq!(there.len(), 1, "{there:?}");
    }
}

async fn a_broken_segment_stays_and_is_named_while_the_others_leave(bench: &Bench) {
    let (pg_wal, store) = (PgWal::new(), bench.store());
    let short = &segment(FIRST, 1)[..1 << 19];
    let mut foreign = segment(SECOND, 2);
    foreign[24] ^= 1;
    let misnamed = segment(FIRST, 3);
    pg_wal.add(FIRST, short);
    pg_wal.add(SECOND, &foreign);
    pg_wal.add(THIRD, &misnamed);
    pg_wal.add("000000010000000000000004", &segment("000000010000000000000004", 4));
    let shipper = pg_wal.shipper(store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(1));
    let settled = shown(&mut status, "one archived, three refused", |status| {
        status.counters.files == 1 && status.refused.len() == 3
    });
    let settled = settled.await;
    let texts: Vec<&str> = settled.refused.iter().map(|(_, text)| text.as_str()).collect();
    for (text, (name, fault)) in texts.iter().zip([
        (FIRST, "524288 bytes"),
        (SECOND, "system identifier"),
        (THIRD, "holds the WAL of"),
    ]) {
        assert!(text.contains(name) && text.contains(fault), "{texts:?}");
    }
    assert_eq!(settled.waiting, 3);
    for name in [FIRST, SECOND, THIRD] {
        assert_eq!(archived(&*store, name).await, None, "{name}");
    }

    // Whole again, as after a file system that was repaired: PostgreSQL's next question finds it so.
    std::fs::write(pg_wal.file(FIRST), segment(FIRST, 1)).unwrap();
    assert_eq!(timeout(PATIENCE, shipper.durable(FIRST.parse().unwrap())).await.unwrap(), Ok(()));
}

async fn a_history_with_other_content_holds_its_timeline(bench: &Bench) {
    let (pg_wal, store) = (PgWal::new(), bench.store());
    let theirs = Bytes::from_static(b"someone else's");
    store.put_if_absent(&key("00000002.history"), theirs.into(), &Metadata::new()).await.unwrap();
    // PostgreSQL has marked the history as done long ago; it still decides whose timeline this is.
    std::fs::write(pg_wal.file("00000002.history"), HISTORY).unwrap();
    pg_wal.add(FIRST, &segment(FIRST, 1));
    let name = "000000020000000000000003";
    pg_wal.add(name, &segment(name, 1));
    let shipper = pg_wal.shipper(store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(1));
    let shown = shown(&mut status, "a conflict and one archived", |status| {
        status.conflict.is_some() && status.counters.files == 1 && status.in_flight == 0
    });
    assert_eq!(shown.await.conflict.unwrap().name.to_string(), "00000002.history");
    assert_eq!(archived(&*store, name).await, None);
    assert!(archived(&*store, FIRST).await.is_some());
}

async fn a_member_that_does_not_lead_ships_nothing(bench: &Bench) {
    let (pg_wal, store) = (PgWal::new(), bench.store());
    pg_wal.add(FIRST, &segment(FIRST, 1));
    let shipper = pg_wal.shipper(store.clone());
    let mut status = shipper.status();
    let asked = tokio::spawn({
        let shipper = shipper.clone();
        async move { shipper.durable(FIRST.parse().unwrap()).await }
    });
    assert!(keys(&*store).await.is_empty());
    shipper.enable(leadership(1));
    // Whoever asked before the member led is answered now.
    assert_eq!(timeout(PATIENCE, asked).await.unwrap().unwrap(), Ok(()));
    shipper.disable();
    shown(&mut status, "no longer shipping", |status| status.term.is_none()).await;
    let before = keys(&*store).await;
    pg_wal.add(SECOND, &segment(SECOND, 1));
    // What is durable stays known; anything else is not shipped.
    assert_eq!(timeout(PATIENCE, shipper.durable(FIRST.parse().unwrap())).await.unwrap(), Ok(()));
    assert_eq!(keys(&*store).await, before);
}

async fn a_new_file_leaves_without_being_asked_for(bench: &Bench) {
    let (pg_wal, store) = (PgWal::new(), bench.store());
    let shipper = pg_wal.shipper(store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(1));
    shown(&mut status, "the store was probed", |status| status.conditions.is_some()).await;
    for (count, name) in [(1, FIRST), (2, SECOND), (3, THIRD)] {
        pg_wal.add(name, &segment(name, 1));
        shown(&mut status, name, |status| status.counters.files == count).await;
    }
    // Beside the probe, the writer, and how the timeline is compressed.
    wait_until("all three are listed", async || keys(&*store).await.len() == 6).await;
}
