//! The slots that keep WAL for the archive and for other members, on a real PostgreSQL.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrider_postgres::{ArchiveSlot, HeldSlots, KeptSlots, Postgres as Instrument, SlotsHeld};
use outrider_wal::Lsn;
use tokio_postgres::Client;

use super::postgres::Postgres;

/// A Postgres with these settings, a session with it, and its instrument.
async fn started(settings: &str) -> (Postgres, Client, Instrument) {
    let mut postgres = Postgres::nowhere();
    postgres.initdb();
    postgres.configure(settings);
    postgres.start();
    let client = postgres.connect().await;
    let instrument = Instrument::new(Arc::new(postgres.settings()));
    (postgres, client, instrument)
}

async fn restart_lsn(client: &Client) -> Option<Lsn> {
    let asked = "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = 'outrider_archive'";
    let row = client.query_opt(asked, &[]).await.unwrap();
    row.and_then(|row| row.get::<_, Option<String>>(0)).map(|text| text.parse().unwrap())
}

async fn flushed(client: &Client) -> Lsn {
    let row = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
    row.get::<_, String>(0).parse().unwrap()
}

#[tokio::test]
async fn it_moves_on_with_the_archive_to_the_next_gap_and_never_back_nor_beyond_the_server() {
    let (_postgres, client, instrument) = started("").await;
    instrument.drop_archive_slot().await.unwrap();
    assert_eq!(instrument.hold_archive_slot(None, &[]).await.unwrap(), ArchiveSlot::Made);
    let begin = restart_lsn(&client).await.unwrap();
    assert_eq!(instrument.hold_archive_slot(None, &[]).await.unwrap(), ArchiveSlot::Kept { from: begin });

    client.batch_execute("CREATE TABLE filler AS SELECT generate_series(1, 1000)").await.unwrap();
    let archived = begin.advanced(100);
    assert_eq!(
        instrument.hold_archive_slot(Some(archived), &[]).await.unwrap(),
        ArchiveSlot::Kept { from: archived }
    );
    let back = instrument.hold_archive_slot(Some(begin), &[]).await.unwrap();
    assert_eq!((back, restart_lsn(&client).await), (ArchiveSlot::Kept { from: archived }, Some(archived)));

    // A gap that begins before it is nobody's here; at one that begins where it still has all it stays until that is filled.
    let [lost, first, second, end] = [50, 100, 200, 300].map(|more| begin.advanced(more));
    for gaps in [vec![lost, first, second], vec![first]] {
        let held = instrument.hold_archive_slot(Some(end), &gaps).await.unwrap();
        assert_eq!(held, ArchiveSlot::KeptForGap { from: first });
    }
    let held = instrument.hold_archive_slot(Some(end), &[lost, second]).await.unwrap();
    assert_eq!((held, restart_lsn(&client).await), (ArchiveSlot::KeptForGap { from: second }, Some(second)));
    let held = instrument.hold_archive_slot(Some(end), &[lost]).await.unwrap();
    assert_eq!((held, restart_lsn(&client).await), (ArchiveSlot::Kept { from: end }, Some(end)));

    let end = flushed(&client).await;
    let ArchiveSlot::Kept { from } =
        instrument.hold_archive_slot(Some(end.advanced(1 << 30)), &[]).await.unwrap()
    else {
        panic!("it was made anew")
    };
    assert!(end <= from && from <= flushed(&client).await, "{from}, the server is at {end}");
    assert_eq!(restart_lsn(&client).await, Some(from));

    instrument.drop_archive_slot().await.unwrap();
    let slots = client.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.unwrap();
    assert_eq!(slots.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn one_that_keeps_nothing_any_more_is_made_anew() {
    let settings =
        "wal_keep_size = 0\nmax_slot_wal_keep_size = '16MB'\nmax_wal_size = '32MB'\nmin_wal_size = '32MB'";
    let (_postgres, client, instrument) = started(settings).await;
    instrument.hold_archive_slot(None, &[]).await.unwrap();
    for _ in 0..5 {
        client.batch_execute("CREATE TABLE filler (); DROP TABLE filler").await.unwrap();
        client.execute("SELECT pg_switch_wal()", &[]).await.unwrap();
    }
    client.batch_execute("CHECKPOINT").await.unwrap();
    assert_eq!(restart_lsn(&client).await, None, "the store was down for longer than there is room");
    assert_eq!(instrument.hold_archive_slot(None, &[]).await.unwrap(), ArchiveSlot::MadeAnew);
    assert!(restart_lsn(&client).await.is_some());
}

#[tokio::test]
async fn a_primary_drops_the_slots_of_members_that_nobody_keeps_and_no_others() {
    let (_postgres, client, instrument) = started("").await;
    let names =
        |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    instrument.hold_archive_slot(None, &[]).await.unwrap();
    instrument.create_slots(&["p2".to_owned(), "P-3".to_owned()]).await.unwrap();
    client.execute("SELECT pg_create_physical_replication_slot('of_a_person')", &[]).await.unwrap();
    client.execute("SELECT pg_create_physical_replication_slot('p4')", &[]).await.unwrap();
    let reserved = "SELECT count(*) FROM pg_replication_slots WHERE slot_name IN ('p2', 'p_3') AND restart_lsn IS NOT NULL";
    assert_eq!(client.query_one(reserved, &[]).await.unwrap().get::<_, i64>(0), 2);

    let slots = async || -> Vec<String> {
        let asked = "SELECT slot_name::text FROM pg_replication_slots ORDER BY 1";
        client.query(asked, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let all = ["of_a_person", "outrider_archive", "p2", "p4", "p_3"];
    // p4 was never that of a member, whatever its name is.
    let kept = async |members: &[&str], declared: &[&str]| {
        let (present, declared) = (names(members), names(declared));
        instrument.keep_slots(&KeptSlots { retained: present.clone(), present, declared }).await.unwrap()
    };
    assert_eq!(
        (kept(&["p2", "p_3"], &[]).await, slots().await),
        (Vec::new(), all.map(str::to_owned).to_vec())
    );
    assert_eq!(kept(&["p2"], &[]).await, ["p_3"]);
    assert_eq!(slots().await, ["of_a_person", "outrider_archive", "p2", "p4"]);
    // What is declared is made, and dropped when it is no more; what was there before is not.
    assert_eq!(kept(&["p2"], &["declared", "of_a_person"]).await, [""; 0]);
    assert_eq!(slots().await, ["declared", "of_a_person", "outrider_archive", "p2", "p4"]);
    assert_eq!(kept(&["p2"], &[]).await, ["declared"]);
    assert_eq!(slots().await, ["of_a_person", "outrider_archive", "p2", "p4"]);
    assert_eq!(instrument.member_slots().unwrap(), names(&["p2"]));
    // What a standby would do, a server that was promoted meanwhile does not.
    assert_eq!(instrument.hold_slots(&HeldSlots::default()).await.unwrap(), SlotsHeld::default());
    assert_eq!(slots().await, ["of_a_person", "outrider_archive", "p2", "p4"]);
}
