//! What is not marked as ready and the archive lacks: left over by a primary that is gone, or lost from the archive.

use std::time::Duration;

use outrider_archive::Leadership;
use outrider_bed::Seed;
use outrider_store::{Metadata, Store};
use outrider_wal::TimelineId;
use tokio::time::sleep;

use super::bench::{Bench, gunzip, keys, read};
use super::embedded::{Embedded, Obedience};
use super::pg_wal::{PgWal, SERVER, SIZE, SYSTEM_IDENTIFIER, leadership, segment, shown};
use super::processes::AgentProcess;
use super::s3::{open, options};

super::on_every_store!(
    what_the_old_primary_had_not_shipped_the_new_one_ships,
    a_hole_is_filled_from_pg_wal_and_one_that_cannot_be_is_named,
    what_retention_removed_stays_away,
);

const HISTORY: &[u8] = b"1\t0/500148\tno recovery target specified\n";

fn name(timeline: u32, number: u32) -> String {
    format!("{timeline:08X}00000000{number:08X}")
}

fn key(name: &str) -> String {
    if name.ends_with(".history") {
        format!("{SERVER}/wals/{name}.gz")
    } else {
        format!("{SERVER}/wals/{}/{name}.gz", &name[..16])
    }
}

async fn archive(store: &dyn Store, names: impl IntoIterator<Item = String>) {
    for name in names {
        let content = bytes::Bytes::from_static(b"");
        store.put_if_absent(&key(&name), content.into(), &Metadata::new()).await.unwrap();
    }
}

/// The files below `wals/`, sorted, without what stands before and after their names.
async fn archived(store: &dyn Store) -> Vec<String> {
    let file = |key: String| {
        key.contains("/wals/").then(|| key.rsplit('/').next().unwrap().trim_end_matches(".gz").to_owned())
    };
    let mut files: Vec<String> = keys(store).await.into_iter().filter_map(file).collect();
    files.sort();
    files
}

async fn what_the_old_primary_had_not_shipped_the_new_one_ships(bench: &Bench) {
    let (pg_wal, store) = (PgWal::new(), bench.store());
    // The old one shipped 1 and 2 and finished 3 and 4; the new one received all, and was promoted in the middle of 5.
    let old = PgWal::new();
    for number in 1..=2 {
        old.add(&name(1, number), &segment(&name(1, number), 1));
    }
    let shipper = old.shipper_of("old", store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(1));
    shown(&mut status, "two archived", |status| status.counters.files == 2).await;
    shipper.disable();

    for number in 1..=4 {
        pg_wal.add_done(&name(1, number), &segment(&name(1, number), 1));
    }
    // What the old one wrote after the switch is in nobody's history.
    pg_wal.add_done(&name(1, 6), &segment(&name(1, 6), 1));
    pg_wal.add("00000002.history", HISTORY);
    let partial = format!("{}.partial", name(1, 5));
    pg_wal.add(&partial, &segment(&name(1, 5), 1));
    let mut first = segment(&name(2, 5), 1);
    first[4..8].copy_from_slice(&1u32.to_ne_bytes());
    pg_wal.add(&name(2, 5), &first);
    pg_wal.add(&name(2, 6), &segment(&name(2, 6), 1));
    std::fs::write(pg_wal.file(&name(2, 7)), segment(&name(2, 7), 1)).unwrap();

    let shipper = pg_wal.shipper_of("new", store.clone());
    let mut status = shipper.status();
    shipper.enable(Leadership { timeline: TimelineId::new(2), ..leadership(2) });
    let done = shown(&mut status, "all archived", |status| status.counters.files == 6 && status.waiting == 0);
    let done = done.await;
    assert_eq!((done.counters.refilled, done.gaps, done.refused), (2, Vec::new(), Vec::new()));
    let mut expected: Vec<String> = (1..=4).map(|number| name(1, number)).collect();
    expected.extend([partial, "00000002.history".to_owned(), name(2, 5), name(2, 6)]);
    expected.sort();
    assert_eq!(archived(&*store).await, expected);
    for number in 3..=4 {
        let object = read(&*store, &key(&name(1, number))).await.unwrap();
        assert!(gunzip(&object) == segment(&name(1, number), 1), "{number}");
    }
}

async fn a_hole_is_filled_from_pg_wal_and_one_that_cannot_be_is_named(bench: &Bench) {
    let (pg_wal, store) = (PgWal::new(), bench.store());
    archive(&*store, [1, 2, 7, 8, 10].map(|number| name(1, number))).await;
    for number in 7..=12 {
        pg_wal.add_done(&name(1, number), &segment(&name(1, number), 1));
    }
    std::fs::remove_file(pg_wal.file(&name(1, 9))).unwrap();
    let shipper = pg_wal.shipper(store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(1));
    let done = shown(&mut status, "compared and filled", |status| {
        status.compared_at.is_some() && status.counters.refilled == 1 && status.waiting == 0
    });
    let gaps = done.await.gaps;
    let gaps: Vec<(String, String)> =
        gaps.iter().map(|(first, last)| (first.to_string(), last.to_string())).collect();
    // What the archive lacks before pg_wal begins is lost too. The last one, 12, is being written.
    assert_eq!(gaps, [(name(1, 3), name(1, 6)), (name(1, 9), name(1, 9))]);
    assert_eq!(archived(&*store).await, [1, 2, 7, 8, 10, 11].map(|number| name(1, number)));

    // A later leader whose pg_wal begins after what the archive has.
    let later = PgWal::new();
    for number in 20..=21 {
        later.add_done(&name(1, number), &segment(&name(1, number), 1));
    }
    let shipper = later.shipper(store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(2));
    let done = shown(&mut status, "one filled", |status| status.counters.refilled == 1).await;
    let gaps: Vec<(String, String)> =
        done.gaps.iter().map(|(first, last)| (first.to_string(), last.to_string())).collect();
    // Those of before it did not see, and names all the same.
    let names = |first, last| (name(1, first), name(1, last));
    assert_eq!(gaps, [names(3, 6), names(9, 9), names(12, 19)]);
}

async fn what_retention_removed_stays_away(bench: &Bench) {
    let (pg_wal, store) = (PgWal::new(), bench.store());
    archive(&*store, [5, 7].map(|number| name(1, number))).await;
    for number in 1..=9 {
        pg_wal.add_done(&name(1, number), &segment(&name(1, number), 1));
    }
    let shipper = pg_wal.shipper(store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(1));
    let done = shown(&mut status, "two filled", |status| status.counters.refilled == 2);
    assert_eq!(done.await.gaps, []);
    assert_eq!(archived(&*store).await, (5..=8).map(|number| name(1, number)).collect::<Vec<_>>());
}

/// Kills at moments that a seed chooses, which is what the pauses are for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_twenty_times_ships_everything_once() {
    const KILLS: u32 = 20;
    let embedded = Embedded::start(Obedience::Full);
    let (pg_wal, store) = (PgWal::new(), open(&options(&embedded.endpoint())));
    let directory = tempfile::tempdir().unwrap();
    let mut seed = Seed::choose(20_261_124);
    let mut content = Vec::new();
    for kill in 0..KILLS {
        for _ in 0..=seed.below(4) {
            let name = name(1, u32::try_from(content.len()).unwrap() + 1);
            content.push((name.clone(), segment(&name, seed.below(256) as u8)));
            pg_wal.add(&name, &content[content.len() - 1].1);
        }
        let socket = directory.path().join("agent.sock");
        let agent =
            AgentProcess::start(&embedded.endpoint(), pg_wal.path(), &socket, SYSTEM_IDENTIFIER, SIZE);
        sleep(Duration::from_millis(20 + seed.below(400))).await;
        drop(agent);
        let found = archived(&*store).await.len();
        assert!(found <= content.len(), "kill {kill}: {found} files of {}", content.len());
    }
    let shipper = pg_wal.shipper_of("leader-1", store.clone());
    let mut status = shipper.status();
    shipper.enable(leadership(1));
    let all = content.len() as u64;
    let done = shown(&mut status, "all archived", |status| status.counters.files == all).await;
    assert_eq!((done.refused, done.conflict, done.gaps), (Vec::new(), None, Vec::new()));
    let names: Vec<String> = content.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(archived(&*store).await, names);
    for (name, plain) in &content {
        assert!(gunzip(&read(&*store, &key(name)).await.unwrap()) == *plain, "{name}");
    }
}
