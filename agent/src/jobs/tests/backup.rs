//! Base backups with a DCS in memory, reports that are written here, and a taker that does as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use outrider_dcs::{BackupOutcome, BackupRequest, Dcs, MemoryCluster, Snapshot};
use outrider_postgres::{Observation, Role};
use outrider_wal::Lsn;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::backup::{Backup, Intervals};
use super::super::claimed::Claimed;
use super::super::runner::{Task, run};
use crate::backup::{BackupOrder, BackupProgress, FinishedBackup, TakeError, Taker};
use crate::report::Report;
use crate::report::sample::report;
use crate::sample::{member, observation};
use crate::schedule::{BY_SCHEDULE, Schedule};

const PATIENCE: Duration = Duration::from_secs(60);
const QUICK: Intervals = Intervals {
    progress: Duration::from_millis(5),
    grace: Duration::from_millis(200),
    declined: Duration::from_secs(3600),
};

/// A backup that was begun: to be ended by the test.
struct Begun {
    order: BackupOrder,
    progress: watch::Sender<BackupProgress>,
    end: oneshot::Sender<Result<FinishedBackup, TakeError>>,
}

/// Hands each backup to the test, and ends it when it is cancelled.
struct Played {
    begun: mpsc::Sender<Begun>,
    cancelled: Arc<Mutex<u32>>,
}

#[async_trait]
impl Taker for Played {
    async fn take(
        &self,
        order: BackupOrder,
        progress: watch::Sender<BackupProgress>,
        cancel: CancellationToken,
    ) -> Result<FinishedBackup, TakeError> {
        let (end, ended) = oneshot::channel();
        self.begun.send(Begun { order, progress, end }).await.unwrap();
        tokio::select! {
            ended = ended => ended.unwrap_or_else(|_| Err(TakeError::Here("Postgres went away".to_owned()))),
            () = cancel.cancelled() => {
                *self.cancelled.lock().unwrap() += 1;
                Err(TakeError::Cancelled)
            }
        }
    }
}

/// One member with its job.
struct TestMember {
    dcs: Arc<dyn Dcs>,
    reports: watch::Sender<Option<Arc<Report>>>,
    begun: mpsc::Receiver<Begun>,
    cancelled: Arc<Mutex<u32>>,
    job: Task,
    is_primary: bool,
}

impl TestMember {
    async fn new(cluster: &MemoryCluster, name: &str, is_primary: bool, schedule: Option<&str>) -> Self {
        let dcs = member(cluster, name);
        let entry = if is_primary {
            json!({"role": "primary", "state": "running", "xlog_location": 100})
        } else {
            json!({"role": "replica", "state": "running", "replication_state": "streaming", "xlog_location": 100})
        };
        let mut entry = entry;
        entry["conn_url"] = json!(format!("postgres://{name}:5432/postgres"));
        dcs.touch_member(&entry).await.unwrap();
        if is_primary {
            dcs.acquire_leader(None).await.unwrap();
            dcs.write_initialize("7").await.unwrap();
        }
        let (reports, seen) = watch::channel(None);
        let (told, begun) = mpsc::channel(8);
        let cancelled = Arc::new(Mutex::new(0));
        let taker = Arc::new(Played { begun: told, cancelled: cancelled.clone() });
        let schedule = schedule.map(|text| text.parse::<Schedule>().unwrap());
        let job = run(Claimed::new(Backup::new(schedule, taker, QUICK), dcs.clone()), seen);
        TestMember { dcs, reports, begun, cancelled, job, is_primary }
    }

    /// What a round would hang up now.
    async fn look(&self) {
        let mut seen = report();
        seen.cluster = Some(self.dcs.read().await.unwrap());
        seen.postgres = Some(postgres(self.is_primary));
        self.reports.send_replace(Some(Arc::new(seen)));
    }

    /// The backup that it begins, within a bounded time of rounds of all.
    async fn begins(&mut self, others: &[&TestMember]) -> Begun {
        let rounds = async {
            loop {
                self.look().await;
                for other in others {
                    other.look().await;
                }
                if let Ok(begun) = self.begun.try_recv() {
                    return begun;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, rounds).await.expect("this member takes it up")
    }

    /// Rounds until the cluster is as wished.
    async fn until(&self, wished: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let rounds = async {
            loop {
                self.look().await;
                let seen = self.dcs.read().await.unwrap();
                if wished(&seen) {
                    return seen;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, rounds).await.expect("it comes to that")
    }
}

fn postgres(is_primary: bool) -> Observation {
    let standby = observation();
    let role = if is_primary { Role::Primary { flushed: Lsn::new(100) } } else { standby.role };
    Observation { role, ..standby }
}

fn request() -> BackupRequest {
    BackupRequest { id: "r1".into(), by: "p1".into(), at: "2026-01-01T00:00:00Z".into(), attempts: 0 }
}

fn taken() -> FinishedBackup {
    FinishedBackup { backup: "20260101T000000".to_owned(), bytes: 10, bytes_stored: 4 }
}

#[tokio::test]
async fn a_standby_takes_what_was_asked_for_and_its_progress_and_outcome_are_recorded() {
    let cluster = MemoryCluster::new();
    let leader = TestMember::new(&cluster, "p1", true, None).await;
    let mut standby = TestMember::new(&cluster, "p2", false, None).await;
    leader.dcs.request_backup(&request()).await.unwrap();
    let begun = standby.begins(&[&leader]).await;
    assert_eq!(begun.order.label, "r1");
    assert!(begun.order.on_standby);
    begun.progress.send_replace(BackupProgress {
        phase: "copying".into(),
        bytes_done: 5,
        ..BackupProgress::default()
    });
    let seen =
        standby.until(|seen| seen.backup.as_ref().is_some_and(|taken| taken.claim.bytes_done == 5)).await;
    assert_eq!(seen.backup.unwrap().claim.phase, "copying");
    begun.end.send(Ok(taken())).unwrap();
    let seen = standby.until(|seen| seen.backup_last.is_some()).await;
    let last = seen.backup_last.unwrap().value;
    assert_eq!((last.request.as_str(), last.member.as_str(), last.failures), ("r1", "p2", 0));
    assert_eq!((last.backup.as_deref(), last.bytes, last.bytes_stored), (Some("20260101T000000"), 10, 4));
    assert_eq!((seen.backup, seen.backup_request), (None, None));
}

#[tokio::test]
async fn the_leader_takes_it_when_no_standby_does() {
    let cluster = MemoryCluster::new();
    let mut leader = TestMember::new(&cluster, "p1", true, None).await;
    leader.dcs.request_backup(&request()).await.unwrap();
    assert!(!leader.begins(&[]).await.order.on_standby);
}

#[tokio::test]
async fn another_takes_over_when_the_member_that_takes_it_dies() {
    let cluster = MemoryCluster::new();
    let leader = TestMember::new(&cluster, "p1", true, None).await;
    let mut first = TestMember::new(&cluster, "p2", false, None).await;
    let mut second = TestMember::new(&cluster, "p3", false, None).await;
    leader.dcs.request_backup(&request()).await.unwrap();
    first.begins(&[&leader, &second]).await;
    drop(first);
    cluster.expire_sessions("p2");
    let begun = second.begins(&[&leader]).await;
    begun.end.send(Ok(taken())).unwrap();
    let seen = second.until(|seen| seen.backup_last.is_some()).await;
    assert_eq!(seen.backup_last.unwrap().value.member, "p3");
}

#[tokio::test]
async fn a_member_that_is_promoted_gives_it_back_to_another() {
    let cluster = MemoryCluster::new();
    let leader = TestMember::new(&cluster, "p1", true, None).await;
    let mut first = TestMember::new(&cluster, "p2", false, None).await;
    let mut second = TestMember::new(&cluster, "p3", false, None).await;
    leader.dcs.request_backup(&request()).await.unwrap();
    let _begun = first.begins(&[&leader, &second]).await;
    leader.dcs.hand_over_leader("p2").await.unwrap();
    first.is_primary = true;
    let begun = second.begins(&[&first]).await;
    assert!(begun.order.on_standby);
    assert_eq!(*first.cancelled.lock().unwrap(), 1);
    assert_eq!(second.dcs.read().await.unwrap().backup_last, None);
}

#[tokio::test]
async fn what_is_taken_back_is_cancelled_and_recorded_as_such() {
    let cluster = MemoryCluster::new();
    let mut leader = TestMember::new(&cluster, "p1", true, None).await;
    leader.dcs.request_backup(&request()).await.unwrap();
    let _begun = leader.begins(&[]).await;
    let asked = leader.dcs.read().await.unwrap().backup_request.unwrap();
    leader.dcs.withdraw_backup(asked.revision).await.unwrap();
    let seen = leader.until(|seen| seen.backup_last.is_some()).await;
    let last = seen.backup_last.unwrap().value;
    assert!(last.cancelled && last.error.is_some() && last.failures == 0, "{last:?}");
    assert_eq!(seen.backup, None);
    assert_eq!(*leader.cancelled.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_fault_of_the_store_is_recorded_and_one_of_this_postgres_is_left_to_another() {
    let cluster = MemoryCluster::new();
    let mut leader = TestMember::new(&cluster, "p1", true, None).await;
    let mut standby = TestMember::new(&cluster, "p2", false, None).await;
    leader.dcs.request_backup(&request()).await.unwrap();
    let begun = standby.begins(&[&leader]).await;
    begun.end.send(Err(TakeError::Here("Postgres ended".into()))).unwrap();
    let begun = leader.begins(&[&standby]).await;
    begun.end.send(Err(TakeError::Failed("the store is full".into()))).unwrap();
    let seen = leader.until(|seen| seen.backup_last.is_some()).await;
    let last = seen.backup_last.unwrap().value;
    assert_eq!((last.error.as_deref(), last.failures), (Some("the store is full"), 1));
    assert_eq!((seen.backup, seen.backup_request), (None, None));
}

#[tokio::test]
async fn an_agent_that_ends_gives_its_backup_back() {
    let cluster = MemoryCluster::new();
    let mut leader = TestMember::new(&cluster, "p1", true, None).await;
    leader.dcs.request_backup(&request()).await.unwrap();
    let _begun = leader.begins(&[]).await;
    leader.job.end().await;
    let seen = leader.dcs.read().await.unwrap();
    assert!(seen.backup.is_none() && seen.backup_request.is_some() && seen.backup_last.is_none());
}

#[tokio::test]
async fn a_claim_that_an_earlier_agent_left_is_given_back_and_taken_up_anew() {
    let cluster = MemoryCluster::new();
    let mut leader = TestMember::new(&cluster, "p1", true, None).await;
    let revision = leader.dcs.request_backup(&request()).await.unwrap();
    let claim = outrider_dcs::BackupClaim { request: "r1".into(), member: "p1".into(), ..Default::default() };
    leader.dcs.claim_backup(&claim, &request(), revision).await.unwrap();
    let begun = leader.begins(&[]).await;
    begun.end.send(Ok(taken())).unwrap();
    leader.until(|seen| seen.backup_last.is_some()).await;
}

#[tokio::test]
async fn a_request_on_which_members_die_is_given_up() {
    let cluster = MemoryCluster::new();
    let leader = TestMember::new(&cluster, "p1", true, None).await;
    leader.dcs.request_backup(&BackupRequest { attempts: 5, ..request() }).await.unwrap();
    let seen = leader.until(|seen| seen.backup_last.is_some()).await;
    let error = seen.backup_last.unwrap().value.error.unwrap();
    assert!(error.contains("5 attempts"), "{error}");
    assert_eq!((seen.backup, seen.backup_request), (None, None));
}

#[tokio::test]
async fn the_leader_asks_once_for_the_backup_that_is_due() {
    let cluster = MemoryCluster::new();
    let mut leader = TestMember::new(&cluster, "p1", true, Some("0 0 1 1 *")).await;
    let begun = leader.begins(&[]).await;
    let asked = leader.dcs.read().await.unwrap().backup_request.unwrap().value;
    assert_eq!((asked.by.as_str(), asked.attempts), (BY_SCHEDULE, 1));
    begun.end.send(Ok(taken())).unwrap();
    let recorded =
        |seen: &Snapshot| -> Option<BackupOutcome> { Some(seen.backup_last.as_ref()?.value.clone()) };
    let first = recorded(&leader.until(|seen| seen.backup_last.is_some()).await);
    // The next is due in a year. One more that a person asks for is the proof that nothing came between.
    leader.dcs.request_backup(&request()).await.unwrap();
    let begun = leader.begins(&[]).await;
    assert_eq!(begun.order.label, "r1");
    begun.end.send(Ok(taken())).unwrap();
    let second = recorded(&leader.until(|seen| recorded(seen) != first).await);
    assert_eq!(second.unwrap().request, "r1");
}

#[tokio::test]
async fn a_standby_does_not_ask_for_what_is_due() {
    let cluster = MemoryCluster::new();
    let mut leader = TestMember::new(&cluster, "p1", true, None).await;
    let standby = TestMember::new(&cluster, "p2", false, Some("* * * * *")).await;
    for _ in 0..50 {
        standby.look().await;
        tokio::task::yield_now().await;
    }
    assert_eq!(leader.dcs.read().await.unwrap().backup_request, None);
    leader.dcs.request_backup(&request()).await.unwrap();
    drop(standby);
    cluster.expire_sessions("p2");
    assert_eq!(leader.begins(&[]).await.order.label, "r1");
}

/// Records a backup of the schedule's that was asked for at this time.
async fn had_one(dcs: &dyn Dcs, at: &str) {
    let asked = BackupRequest { id: "r0".into(), by: BY_SCHEDULE.into(), at: at.into(), attempts: 1 };
    let seen = dcs.request_backup(&asked).await.unwrap();
    let claim = outrider_dcs::BackupClaim { request: "r0".into(), member: "p1".into(), ..Default::default() };
    let seen = dcs.claim_backup(&claim, &asked, seen).await.unwrap();
    let last = BackupOutcome { request: "r0".into(), by: asked.by, asked: asked.at, ..Default::default() };
    dcs.finish_backup(&last, seen).await.unwrap();
}

#[tokio::test]
async fn what_was_missed_while_no_member_ran_is_made_up_for_once_in_the_cluster() {
    let cluster = MemoryCluster::new();
    let yearly = Some("0 0 1 1 *");
    let mut former = TestMember::new(&cluster, "p1", true, yearly).await;
    let mut leader = TestMember::new(&cluster, "p2", false, yearly).await;
    let mut standby = TestMember::new(&cluster, "p3", false, yearly).await;
    had_one(&*former.dcs, "2020-06-01T00:00:00Z").await;
    let begun = leader.begins(&[&former, &standby]).await;
    assert!(begun.order.label.starts_with(BY_SCHEDULE), "{}", begun.order.label);
    begun.end.send(Ok(taken())).unwrap();
    leader.until(|seen| seen.backup_last.as_ref().is_some_and(|last| last.value.request != "r0")).await;
    // Neither the one that asked asks again, nor the one that leads after it.
    for _ in 0..2 {
        for _ in 0..50 {
            for member in [&former, &leader, &standby] {
                member.look().await;
                tokio::task::yield_now().await;
            }
            assert_eq!(former.dcs.read().await.unwrap().backup_request, None);
        }
        if !leader.is_primary {
            former.dcs.hand_over_leader("p2").await.unwrap();
            (former.is_primary, leader.is_primary) = (false, true);
        }
    }
    leader.dcs.request_backup(&request()).await.unwrap();
    assert_eq!(standby.begins(&[&former, &leader]).await.order.label, "r1");
}
