//! Two who would write to one archive: a former primary beside the new one, and two clusters. One of them is refused,
//! says why, and nothing is overwritten.

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use outrider_archive::{Leadership, NotDurable, ShipOptions, Shipper};
use outrider_store::{Metadata, Store};
use tokio::time::timeout;

use super::PATIENCE;
use super::bench::{Bench, gunzip, keys, read};
use super::pg_wal::{PgWal, SERVER, SYSTEM_IDENTIFIER, leadership, segment, ship_options, shown};

super::on_every_store!(
    a_former_primary_finds_out_and_ships_no_more,
    a_former_primary_sends_nothing_after_the_first_conflict,
    a_later_leader_keeps_an_earlier_one_from_the_first_file_on,
    another_cluster_writes_nothing_to_this_archive,
    an_archive_that_barman_wrote_is_asked_whose_it_is,
    a_writer_that_a_person_removed_lets_the_member_in,
);

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const THIRD: &str = "000000010000000000000003";

fn key(name: &str) -> String {
    format!("{SERVER}/wals/{}/{name}.gz", &name[..16])
}

fn writer() -> String {
    format!("{SERVER}/outrider/writer.json")
}

/// The former primary has archived the first segment, and the new one, which is returned, the second.
async fn overtaken(former: &Shipper, old: &PgWal, new: &PgWal, store: &Arc<dyn Store>) -> Shipper {
    old.add(FIRST, &segment(FIRST, 1));
    former.enable(leadership(1));
    shown(&mut former.status(), "one archived", |status| status.counters.files == 1).await;
    new.add(SECOND, &segment(SECOND, 2));
    let leader = new.shipper_of("new", store.clone());
    leader.enable(leadership(2));
    timeout(PATIENCE, leader.durable(SECOND.parse().unwrap())).await.unwrap().unwrap();
    leader
}

async fn a_former_primary_finds_out_and_ships_no_more(bench: &Bench) {
    let (old, new, store) = (PgWal::new(), PgWal::new(), bench.store());
    let former = old.shipper_of("old", store.clone());
    let _leader = overtaken(&former, &old, &new, &store).await;
    let mut seen = former.status();

    // The former one has not heard of it and writes the same segment with other content.
    old.add(SECOND, &segment(SECOND, 9));
    let refused = shown(&mut seen, "a conflict and another writer", |status| {
        status.conflict.is_some() && status.writer_conflict.is_some() && status.in_flight == 0
    });
    let refused = refused.await;
    let text = refused.writer_conflict.unwrap();
    assert!(text.contains("a later leader") && text.contains("new with term 2"), "{text}");
    old.add(THIRD, &segment(THIRD, 9));
    let answer = timeout(PATIENCE, former.durable(THIRD.parse().unwrap())).await.unwrap();
    assert_eq!(answer, Err(NotDurable::Writer(text)));
    assert!(gunzip(&read(&*store, &key(SECOND)).await.unwrap()) == segment(SECOND, 2));
    assert_eq!(read(&*store, &key(THIRD)).await, None);
    assert_eq!(seen.borrow().counters.files, 1);
}

/// What lies ready behind the file that is refused stays where it is, although nobody has told the former primary yet.
async fn a_former_primary_sends_nothing_after_the_first_conflict(bench: &Bench) {
    let (old, new, store) = (PgWal::new(), PgWal::new(), bench.store());
    let one = NonZeroUsize::MIN;
    let options = ShipOptions { member: "old".to_owned(), parallelism: one, ..ship_options(old.path()) };
    let former = Shipper::start(options, store.clone());
    let _leader = overtaken(&former, &old, &new, &store).await;
    let mut seen = former.status();

    old.add(SECOND, &segment(SECOND, 9));
    old.add(THIRD, &segment(THIRD, 9));
    let refused = shown(&mut seen, "another writer", |status| {
        status.writer_conflict.is_some() && status.in_flight == 0
    });
    refused.await;
    assert_eq!(read(&*store, &key(THIRD)).await, None);
}

async fn a_later_leader_keeps_an_earlier_one_from_the_first_file_on(bench: &Bench) {
    let (pg_wal, others, store) = (PgWal::new(), PgWal::new(), bench.store());
    let later = others.shipper_of("b", store.clone());
    let mut seen = later.status();
    later.enable(leadership(7));
    shown(&mut seen, "compared", |status| status.compared_at.is_some()).await;
    let before = keys(&*store).await;

    pg_wal.add(FIRST, &segment(FIRST, 1));
    let earlier = pg_wal.shipper_of("a", store.clone());
    // Also who asked before it was known is told.
    let asked = tokio::spawn({
        let earlier = earlier.clone();
        async move { earlier.durable(FIRST.parse().unwrap()).await }
    });
    earlier.enable(leadership(6));
    let answer = timeout(PATIENCE, asked).await.unwrap().unwrap();
    assert!(matches!(&answer, Err(NotDurable::Writer(text)) if text.contains("b with term 7")), "{answer:?}");
    assert_eq!(keys(&*store).await, before);

    // Elected again, it takes over.
    earlier.enable(leadership(8));
    assert_eq!(timeout(PATIENCE, earlier.durable(FIRST.parse().unwrap())).await.unwrap(), Ok(()));
    let text = String::from_utf8(read(&*store, &writer()).await.unwrap()).unwrap();
    assert!(text.contains(r#""term":8"#) && text.contains(r#""member":"a""#), "{text}");
    assert_eq!(earlier.status().borrow().writer_conflict, None);
}

/// Whoever is refused must name both clusters and say what to do, and leave the archive as it was.
async fn refused(bench: &Bench, says_so: &str) {
    let (pg_wal, store) = (PgWal::new(), bench.store());
    pg_wal.add(THIRD, &segment(THIRD, 1));
    let shipper = pg_wal.shipper(store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(100));
    let shown = shown(&mut status, "another cluster's", |status| status.writer_conflict.is_some()).await;
    let text = shown.writer_conflict.unwrap();
    let other = (SYSTEM_IDENTIFIER + 1).to_string();
    for word in
        ["belongs to another cluster", &SYSTEM_IDENTIFIER.to_string(), &other, "archive.server", says_so]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(shown.counters.files, 0);
    assert_eq!(read(&*store, &key(THIRD)).await, None);
}

fn foreign(name: &str) -> Vec<u8> {
    let mut foreign = segment(name, 1);
    foreign[24..32].copy_from_slice(&(SYSTEM_IDENTIFIER + 1).to_ne_bytes());
    foreign
}

async fn another_cluster_writes_nothing_to_this_archive(bench: &Bench) {
    let other = PgWal::new();
    other.add(FIRST, &foreign(FIRST));
    let shipper = other.shipper(bench.store());
    shipper.enable(Leadership { system_identifier: SYSTEM_IDENTIFIER + 1, ..leadership(1) });
    timeout(PATIENCE, shipper.durable(FIRST.parse().unwrap())).await.unwrap().unwrap();
    refused(bench, "writer.json").await;
}

async fn an_archive_that_barman_wrote_is_asked_whose_it_is(bench: &Bench) {
    use std::io::Write as _;
    let store = bench.store();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&foreign(FIRST)).unwrap();
    let object = Bytes::from(encoder.finish().unwrap());
    store.put_if_absent(&key(FIRST), object.into(), &Metadata::new()).await.unwrap();
    refused(bench, FIRST).await;
    assert_eq!(read(&*store, &writer()).await, None);
}

async fn a_writer_that_a_person_removed_lets_the_member_in(bench: &Bench) {
    let (pg_wal, store) = (PgWal::new(), bench.store());
    let broken = Bytes::from_static(b"not JSON");
    store.put_if_absent(&writer(), broken.into(), &Metadata::new()).await.unwrap();
    pg_wal.add(FIRST, &segment(FIRST, 1));
    let shipper = pg_wal.shipper(store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(1));
    let refused = shown(&mut status, "refused", |status| status.writer_conflict.is_some()).await;
    assert!(refused.writer_conflict.unwrap().contains("writer.json does not say"));
    store.delete(&writer()).await.unwrap();
    let done = shown(&mut status, "archived", |status| status.counters.files == 1).await;
    assert_eq!(done.writer_conflict, None);
}
