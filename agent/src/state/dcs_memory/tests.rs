//! Units of `dcs_memory.rs`.

use outrider_dcs::{Entry, Leader};
use outrider_ha::StoreId;

use super::*;

fn snapshot(revision: i64, sync_revision: i64) -> Snapshot {
    let leader = Leader { name: "n1".into(), term: 5, revision: 5, lease: 1, mine: false };
    let initialize = Some(Entry { value: "7".to_owned(), revision: 1 });
    Snapshot { revision, sync_revision, term: 5, leader: Some(leader), initialize, ..Snapshot::default() }
}

fn watermark(snapshot: &Snapshot) -> Watermark {
    Watermark {
        term: Term(snapshot.term),
        revision: snapshot.revision,
        sync_revision: snapshot.sync_revision,
        ..Watermark::default()
    }
}

async fn see(memory: &mut DcsMemory, snapshot: &Snapshot) {
    memory.saw(snapshot, &watermark(snapshot)).unwrap();
    // What is on its way is not awaited by a round; here it is.
    if let Some(writing) = memory.writing.take() {
        writing.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_was_seen_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut memory = DcsMemory::open(directory.path()).unwrap();
    see(&mut memory, &snapshot(100, 40)).await;
    see(&mut memory, &snapshot(120, 40)).await;
    let again = DcsMemory::open(directory.path()).unwrap();
    assert_eq!(again.watermark(), watermark(&snapshot(120, 40)));
    assert_eq!(again.record().system_identifier, "7");
    assert_eq!(again.record().leader.as_deref(), Some("n1"));
}

#[tokio::test]
async fn a_store_that_went_back_is_remembered_however_far_it_comes_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let mut memory = DcsMemory::open(directory.path()).unwrap();
    see(&mut memory, &snapshot(100, 40)).await;
    see(&mut memory, &snapshot(60, 40)).await;
    see(&mut memory, &snapshot(200, 150)).await;
    let again = DcsMemory::open(directory.path()).unwrap().watermark();
    assert!(again.lost_by(&watermark(&snapshot(300, 150))).is_some());
    let rebuilt = Watermark { generation: 1, term: Term(6), revision: 2, ..Watermark::default() };
    assert_eq!(again.lost_by(&rebuilt), None);
}

#[tokio::test]
async fn a_new_member_that_was_led_to_an_empty_store_first_has_seen_nothing_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut memory = DcsMemory::open(directory.path()).unwrap();
    let of_store = |store| move |mark| Watermark { store: Some(StoreId(store)), ..mark };
    let empty = Snapshot { revision: 900, ..Snapshot::default() };
    memory.saw(&empty, &of_store(1)(watermark(&empty))).unwrap();
    let right = of_store(2)(watermark(&snapshot(100, 40)));
    assert_eq!(memory.watermark().lost_by(&right), None);
    memory.saw(&snapshot(100, 40), &right).unwrap();
    assert_eq!(memory.watermark(), right);
}

#[tokio::test]
async fn keys_that_are_gone_do_not_take_the_memory_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut memory = DcsMemory::open(directory.path()).unwrap();
    see(&mut memory, &snapshot(100, 40)).await;
    see(&mut memory, &Snapshot { revision: 110, ..Snapshot::default() }).await;
    assert_eq!(DcsMemory::open(directory.path()).unwrap().record().system_identifier, "7");
}

/// The DCS may be lost before this member looks again, and whoever it named may have led since.
#[tokio::test]
async fn who_was_recorded_as_promotable_is_remembered_with_the_revision() {
    let directory = tempfile::tempdir().unwrap();
    let mut memory = DcsMemory::open(directory.path()).unwrap();
    see(&mut memory, &snapshot(100, 40)).await;
    let both = SyncState {
        leader: Some("n1".into()),
        sync_standby: ["n2".to_owned()].into(),
        ..SyncState::default()
    };
    memory.changed_sync(&both, 101);
    memory.writing.take().unwrap().await.unwrap().unwrap();
    let again = DcsMemory::open(directory.path()).unwrap();
    assert_eq!((again.watermark().sync_revision, again.record().sync()), (101, both));
}

#[tokio::test]
async fn to_whom_the_lease_was_handed_is_remembered_without_another_look() {
    let directory = tempfile::tempdir().unwrap();
    let mut memory = DcsMemory::open(directory.path()).unwrap();
    see(&mut memory, &snapshot(100, 40)).await;
    memory.hands_over("n2");
    memory.writing.take().unwrap().await.unwrap().unwrap();
    let again = DcsMemory::open(directory.path()).unwrap();
    assert_eq!(again.record().leader.as_deref(), Some("n2"));
}

#[tokio::test]
async fn a_damaged_term_is_taken_from_the_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut memory = DcsMemory::open(directory.path()).unwrap();
    see(&mut memory, &snapshot(100, 40)).await;
    fs::write(directory.path().join("term"), "five").unwrap();
    assert_eq!(DcsMemory::open(directory.path()).unwrap().watermark().term, Term(5));
    assert_eq!(fs::read_to_string(directory.path().join("term")).unwrap(), "5\n");
}

#[tokio::test]
async fn a_damaged_record_leaves_the_term() {
    let directory = tempfile::tempdir().unwrap();
    let mut memory = DcsMemory::open(directory.path()).unwrap();
    see(&mut memory, &snapshot(100, 40)).await;
    fs::write(directory.path().join(RECORD), "{").unwrap();
    let again = DcsMemory::open(directory.path()).unwrap().watermark();
    assert_eq!((again.term, again.revision), (Term(5), 0));
}
