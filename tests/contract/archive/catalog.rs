//! The catalog and the retention on every store: what is listed, what a person marks, and what goes in which order.

use std::sync::Arc;

use bytes::Bytes;
use outrider_archive::catalog::{self, BackupState, Catalog, Keep};
use outrider_archive::retention::{self, Removed, RetentionPlan, RetentionPolicy};
use outrider_archive::{
    BackupId, BackupInfo, BackupStatus, Compression, Layout, Owned, prove_by_hand, sweep_abandoned,
};
use outrider_restore::verify::{self, Record, VerifyOptions};
use outrider_restore::{Goal, RestoreOptions, Restorer, Target};
use outrider_store::{Metadata, Store, Stored};
use outrider_wal::{Lsn, SegmentName, TimelineId, WalFileName};

use super::bench::{Bench, keys};
use super::pg_wal::{SERVER, SIZE, SYSTEM_IDENTIFIER, segment};
use super::watched::Watched;

super::on_every_store!(
    the_catalog_tells_what_each_backup_is_good_for,
    retention_removes_what_nothing_needs_and_a_second_run_nothing,
    a_mark_keeps_a_backup_until_it_is_released,
    verification_names_what_is_damaged,
    what_another_cluster_took_is_neither_used_nor_counted_nor_removed,
    nothing_goes_by_a_clock_that_is_far_from_the_stores,
);

/// An archive made by hand: segments with true headers, backups of which only the form is right.
struct Archive {
    store: Arc<dyn Store>,
    layout: Layout,
}

impl Archive {
    fn new(bench: &Bench) -> Self {
        Archive { store: bench.store(), layout: Layout::new(SERVER).unwrap() }
    }

    async fn put(&self, key: &str, content: impl Into<Bytes>) {
        let stored = self.store.put_if_absent(key, content.into().into(), &Metadata::new()).await.unwrap();
        assert_eq!(stored, Stored::Created, "{key}");
    }

    async fn wal(&self, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let name = SegmentName::numbered(TimelineId::new(timeline), number, SIZE);
            let key = self.layout.wal(WalFileName::Segment(name), Compression::None);
            self.put(&key, segment(&name.to_string(), 7)).await;
        }
    }

    /// A backup that began and ended in this segment.
    async fn backup(&self, id: &str, timeline: u32, number: u64) -> BackupInfo {
        let id: BackupId = id.parse().unwrap();
        let wal = SegmentName::numbered(TimelineId::new(timeline), number, SIZE);
        let info = BackupInfo {
            status: BackupStatus::Done,
            begin_time: id.time(),
            end_time: id.time(),
            begin_wal: Some(wal),
            begin_lsn: Some(wal.start(SIZE).advanced(0x28)),
            end_wal: Some(wal),
            end_lsn: Some(wal.start(SIZE).advanced(0x100)),
            timeline: Some(wal.timeline),
            system_identifier: Some(SYSTEM_IDENTIFIER),
            version: Some(150_018),
            segment_size: SIZE,
            ..BackupInfo::new(id.clone())
        };
        self.put(&self.layout.backup(&id, "data.tar"), "no tar at all").await;
        self.put(&self.layout.backup(&id, "backup.info"), info.print()).await;
        info
    }

    async fn catalog(&self) -> Catalog {
        Catalog::read(&*self.store, &self.layout).await.unwrap()
    }

    async fn owned(&self) -> Owned {
        let own = Some(SYSTEM_IDENTIFIER);
        prove_by_hand(&*self.store, &self.layout, own, None).await.unwrap()
    }

    async fn remove(&self, plan: &RetentionPlan) -> Result<Removed, outrider_store::Error> {
        retention::remove_obsolete(&*self.store, &self.layout, self.owned().await, plan, SIZE).await
    }

    async fn states(&self) -> Vec<&'static str> {
        self.catalog().await.backups.iter().map(outrider_archive::catalog::Backup::state_word).collect()
    }
}

async fn the_catalog_tells_what_each_backup_is_good_for(bench: &Bench) {
    let archive = Archive::new(bench);
    assert!(archive.catalog().await.backups.is_empty());
    archive.wal(1, [2, 3, 4]).await;
    archive.wal(2, [4, 6]).await;
    archive.put("homepage/wals/00000002.history", "1\t0/480000\tx\n").await;
    archive.put("homepage/outrider/stream/000000020000000000000005/00000000-00000800.gz", "x").await;
    let good = archive.backup("20260101T000000", 1, 3).await;
    archive.backup("20260102T000000", 1, 9).await;
    archive.put("homepage/base/20260103T000000/data.tar.gz", "x").await;
    archive.put("homepage/base/20260104T000000/backup.info", "status=GREAT\n").await;
    archive.put("homepage/base/20260105T000000/backup.info", "status=FAILED\nerror=disk full\n").await;
    archive.put("homepage/base/lost+found/x", "x").await;

    let catalog = archive.catalog().await;
    let states: Vec<BackupState> = catalog.backups.iter().map(|backup| backup.state.clone()).collect();
    assert_eq!(states[0], BackupState::Good(good));
    let words: Vec<String> =
        catalog.backups.iter().map(|backup| backup.fault().unwrap_or_default()).collect();
    assert_eq!(
        words,
        [
            "",
            "its WAL 000000010000000000000009 is missing",
            "",
            "line 1 of backup.info: status cannot be \"GREAT\"",
            "disk full"
        ]
    );
    let window = catalog.window().unwrap();
    assert_eq!(window.oldest.to_string(), "20260101T000000");
    assert_eq!((window.chain.timeline.get(), window.chain.segments), (2, 3));
    let gaps: Vec<String> = window.chain.gaps.iter().map(ToString::to_string).collect();
    assert_eq!(gaps, ["000000020000000000000005"]);
    assert_eq!(window.chain.end, Lsn::new(5 << 20).advanced(0x800));
}

async fn retention_removes_what_nothing_needs_and_a_second_run_nothing(bench: &Bench) {
    let archive = Archive::new(bench);
    archive.wal(1, 1..=6).await;
    archive
        .put("homepage/wals/0000000100000000/000000010000000000000002.00000028.backup", "START WAL LOCATION")
        .await;
    archive.put("homepage/wals/00000002.history", "1\t0/680000\tx\n").await;
    archive.put("homepage/wals/notes.txt", "a person's").await;
    archive.wal(2, 6..=7).await;
    archive.backup("20260101T000000", 1, 2).await;
    archive.put("homepage/base/20260101T120000/data.tar.gz", "given up").await;
    archive.backup("20260102T000000", 1, 4).await;
    archive.backup("20260103T000000", 2, 7).await;
    let policy =
        RetentionPolicy { window: Some(std::time::Duration::from_secs(86400)), minimum: 1, count: None };
    let now = "2026-01-03T12:00:00Z".parse().unwrap();

    let plan = retention::plan(&archive.catalog().await, now, &policy);
    let removed = archive.remove(&plan).await.unwrap();
    let ids: Vec<String> = removed.backups.iter().map(ToString::to_string).collect();
    assert_eq!(ids, ["20260101T000000", "20260101T120000"]);
    // Segments 1 to 3 and a backup history.
    assert_eq!(removed.wal_files, 4);
    assert_eq!(archive.states().await, ["done", "done"]);
    let left = keys(&*archive.store).await;
    let wal: Vec<&str> = left.iter().filter_map(|key| key.strip_prefix("homepage/wals/")).collect();
    assert_eq!(
        wal,
        [
            "0000000100000000/000000010000000000000004",
            "0000000100000000/000000010000000000000005",
            "0000000100000000/000000010000000000000006",
            "00000002.history",
            "0000000200000000/000000020000000000000006",
            "0000000200000000/000000020000000000000007",
            "notes.txt",
        ]
    );
    let catalog = archive.catalog().await;
    let plan = retention::plan(&catalog, now, &policy);
    assert!(plan.is_empty(&catalog), "{plan:?}");
    archive.remove(&plan).await.unwrap();
    assert_eq!(keys(&*archive.store).await, left);
}

async fn a_mark_keeps_a_backup_until_it_is_released(bench: &Bench) {
    let archive = Archive::new(bench);
    archive.wal(1, 1..=4).await;
    let marked = archive.backup("20260101T000000", 1, 1).await;
    archive.backup("20260102T000000", 1, 4).await;
    let policy = RetentionPolicy { window: None, minimum: 1, count: Some(1) };
    let now = "2026-02-01T00:00:00Z".parse().unwrap();
    let plan = retention::plan(&archive.catalog().await, now, &policy);
    // The mark comes after the plan was made.
    let mark = async |keep| {
        catalog::mark(&*archive.store, &archive.layout, archive.owned().await, &marked.id, keep)
            .await
            .unwrap()
    };
    mark(Some(Keep::Standalone)).await;
    let removed = archive.remove(&plan).await.unwrap();
    assert_eq!((removed.backups.len(), removed.wal_files), (0, 0));
    mark(Some(Keep::Full)).await;
    assert_eq!(archive.catalog().await.backups[0].keep, Some(Keep::Full));
    mark(Some(Keep::Standalone)).await;
    let plan = retention::plan(&archive.catalog().await, now, &policy);
    let removed = archive.remove(&plan).await.unwrap();
    // Segments 2 and 3 lie between the two backups.
    assert_eq!((removed.backups.len(), removed.wal_files), (0, 2));
    assert_eq!(archive.states().await, ["done", "done"]);
    mark(None).await;
    let plan = retention::plan(&archive.catalog().await, now, &policy);
    archive.remove(&plan).await.unwrap();
    assert_eq!(archive.states().await, ["done"]);
}

async fn what_another_cluster_took_is_neither_used_nor_counted_nor_removed(bench: &Bench) {
    let archive = Archive::new(bench);
    archive.wal(1, 1..=6).await;
    archive.backup("20260101T000000", 1, 2).await;
    let own = archive.backup("20260102T000000", 1, 4).await;
    let stranger = SYSTEM_IDENTIFIER + 1;
    // Good by all that it says, and newer than ours; one that failed, one under way, and one that ours left.
    let foreign = |id: &str| BackupInfo {
        id: id.parse().unwrap(),
        system_identifier: Some(stranger),
        begin_time: id.parse::<BackupId>().unwrap().time(),
        ..own.clone()
    };
    for id in ["20260103T000000", "20260103T000001"] {
        let mut info = foreign(id);
        if id.ends_with('1') {
            info.status = BackupStatus::Failed;
        }
        archive.put(&archive.layout.backup(&info.id, "data.tar"), "no tar at all").await;
        archive.put(&archive.layout.backup(&info.id, "backup.info"), info.print()).await;
    }
    let claim = |whose: u64| format!("0123456789abcdef0123456789abcdef {whose}\n");
    archive.put("homepage/base/20260103T000002/outrider.claim", claim(stranger)).await;
    archive.put("homepage/base/20260103T000003/outrider.claim", claim(SYSTEM_IDENTIFIER)).await;
    let catalog = archive.catalog().await;
    // Nobody has claimed the archive: its WAL says whose it is.
    assert_eq!(catalog.owner, Some(SYSTEM_IDENTIFIER));
    let states = ["done", "done", "foreign", "foreign", "foreign", "unfinished"];
    assert_eq!(archive.states().await, states);
    let swept = sweep_abandoned(
        &*archive.store,
        &archive.layout,
        archive.owned().await,
        None,
        std::time::Duration::ZERO,
    );
    assert_eq!(swept.await.unwrap(), ["20260103T000003".parse().unwrap()]);
    let catalog = archive.catalog().await;

    let policy = RetentionPolicy { window: None, minimum: 1, count: Some(1) };
    let plan = retention::plan(&catalog, "2026-03-01T00:00:00Z".parse().unwrap(), &policy);
    let removed = archive.remove(&plan).await.unwrap();
    let ids: Vec<String> = removed.backups.iter().map(ToString::to_string).collect();
    assert_eq!((ids, removed.wal_files), (vec!["20260101T000000".to_owned()], 3));
    assert_eq!(archive.states().await, states[1..5]);
    let options = VerifyOptions::default();
    let (store, layout) = (&*archive.store, &archive.layout);
    let catalog = archive.catalog().await;
    let found =
        verify::verify(store, layout, &catalog, &options, "2026-03-01T00:00:00Z".parse().unwrap(), &|_| {});
    let found = found.await.unwrap();
    assert_eq!((found.backups.as_slice(), found.foreign.len()), ([own.id.clone()].as_slice(), 3));
    assert!(
        found.is_sound() && found.notes.iter().any(|note| note.contains(&stranger.to_string())),
        "{found:?}"
    );
    // A restore begins with ours, although theirs is newer.
    let restorer = Restorer::new(archive.store.clone(), archive.layout.clone(), RestoreOptions::default());
    let goal = Goal::to(Target::Immediate);
    let wanted: BackupId = "20260103T000000".parse().unwrap();
    let refused = restorer.plan(&goal, Some(&wanted)).await.unwrap_err();
    assert!(refused.to_string().contains("of another cluster"), "{refused}");
    assert!(prove_by_hand(store, layout, Some(stranger), None).await.is_err());
    assert!(prove_by_hand(store, layout, None, None).await.is_err());
}

async fn nothing_goes_by_a_clock_that_is_far_from_the_stores(bench: &Bench) {
    let archive = Archive::new(bench);
    archive.wal(1, 1..=5).await;
    let now = jiff::Timestamp::now();
    let days = |days: i64| jiff::SignedDuration::from_hours(24 * days);
    for number in 1..=5 {
        let id = BackupId::beginning_at(now - days(6 - number));
        archive.backup(&id.to_string(), 1, number.unsigned_abs()).await;
    }
    // A clock that was wrong once has named one, and what is newest is still seen.
    archive.backup("29991231T000000", 1, 1).await;
    let policy =
        RetentionPolicy { window: Some(std::time::Duration::from_secs(7 * 86_400)), minimum: 1, count: None };
    let catalog = archive.catalog().await;
    let planned = async |now, policy: &RetentionPolicy| {
        let newest_commit = outrider_restore::newest_commit(&archive.store, &archive.layout, &catalog.wal);
        retention::trusted_plan(&*archive.store, &catalog, now, policy, newest_commit).await.unwrap()
    };
    for wrong in [now + days(60), now - days(60)] {
        let plan = planned(wrong, &policy).await;
        assert!(plan.is_empty(&catalog), "{plan:?}");
        archive.remove(&plan).await.unwrap();
    }
    assert_eq!(archive.states().await.len(), 6);
    let plan = planned(now + days(60), &policy).await;
    let doubt = plan.doubt.unwrap();
    let year = |time: jiff::Timestamp| time.to_string()[..10].to_owned();
    assert!(doubt.contains(&year(now + days(60))) && doubt.contains(&year(now)), "{doubt}");
    // Without a doubt the same policy lets four of five go, and the newest is not the one from the future.
    let short = RetentionPolicy { window: None, ..policy };
    let plan = planned(now, &short).await;
    assert_eq!(plan.doubt, None);
    let stay: Vec<bool> = plan.backups.iter().map(|verdict| verdict.reason.keeps()).collect();
    assert_eq!(stay, [false, false, false, false, true, false]);
}

/// Between two lists a segment is finished, and what was streamed of it goes away.
#[tokio::test]
async fn a_segment_that_is_finished_meanwhile_is_not_missed() {
    let bench = Bench::directory();
    let archive = Archive::new(&bench);
    archive.wal(1, 1..=3).await;
    archive.backup("20260101T000000", 1, 2).await;
    let last = SegmentName::numbered(TimelineId::new(1), 4, SIZE);
    let chunk = archive.layout.stream_chunk(last, 0, 8192);
    archive.put(&chunk, "not read").await;
    let store = Watched::new(bench.store());
    let (layout, behind) = (archive.layout.clone(), bench.store());
    let finished = async move {
        archive.wal(1, [4]).await;
        behind.delete(&chunk).await.unwrap();
    };
    store.after_next_list(|prefix| !prefix.contains("/base/"), finished);
    let catalog = Catalog::read(&*store, &layout).await.unwrap();
    assert_eq!(catalog.window().unwrap().chain.last, Some(last));
}

async fn verification_names_what_is_damaged(bench: &Bench) {
    let archive = Archive::new(bench);
    archive.wal(1, [1, 2, 3, 5]).await;
    let mut damaged = segment("000000010000000000000004", 7);
    damaged[8] ^= 1;
    archive.put("homepage/wals/0000000100000000/000000010000000000000004", damaged).await;
    archive.put("homepage/wals/0000000100000000/000000010000000000000006", "short").await;
    archive.backup("20260101T000000", 1, 2).await;
    let (store, layout) = (&*archive.store, &archive.layout);
    let now = "2026-02-01T00:00:00Z".parse().unwrap();
    let check = async |full| {
        let catalog = archive.catalog().await;
        let options = VerifyOptions { backup: None, full };
        verify::verify(store, layout, &catalog, &options, now, &|_| {}).await.unwrap()
    };
    let listed = check(false).await;
    assert!(listed.is_sound() && listed.segments == 5, "{listed:?}");
    let read = check(true).await;
    let named = |part: &str| read.faults.iter().any(|fault| fault.contains(part));
    assert!(named("000000010000000000000004: 000000010000000000000004 holds the WAL of"), "{read:?}");
    assert!(named("000000010000000000000006: it has 5 bytes, a segment has 1048576"), "{read:?}");
    assert!(named("backup 20260101T000000: data.tar: "), "{read:?}");
    assert!(!named("000000010000000000000003"), "{read:?}");

    assert_eq!(verify::read_record(store, layout).await.unwrap(), None);
    let sound = Record::new(&listed, now, Some("20260101T000000".to_owned()), None);
    verify::write_record(store, layout, &sound).await.unwrap();
    let before = verify::read_record(store, layout).await.unwrap();
    assert_eq!(before, Some(sound));
    let worse = Record::new(&read, now, None, before.as_ref());
    verify::write_record(store, layout, &worse).await.unwrap();
    let after = verify::read_record(store, layout).await.unwrap().unwrap();
    assert_eq!((after.sound, after.restored_at), (false, Some(now)));
}
