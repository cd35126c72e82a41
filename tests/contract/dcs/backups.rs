//! The records of a base backup: asked for once, taken by one member, gone with that member, ended in one step.

use std::time::Duration;

use outrider_dcs::{BackupClaim, BackupOutcome, BackupRequest, Dcs};
use tokio::time::timeout;

use super::PATIENCE;
use super::bench::{Bench, TTL};

super::on_every_store!(
    a_backup_is_asked_for_once_until_it_has_ended,
    one_member_takes_a_backup_and_counts_the_attempt,
    a_claim_goes_with_its_member_and_another_takes_over,
    only_the_taker_writes_how_far_it_is,
    a_backup_ends_in_one_step,
    a_request_that_came_meanwhile_outlives_the_end,
    a_request_that_was_taken_back_cannot_be_taken_up,
    a_claim_moves_with_its_session,
    progress_is_no_urgent_change_but_beginning_and_end_are,
);

fn request(id: &str) -> BackupRequest {
    BackupRequest { id: id.into(), by: "p1".into(), at: "2026-01-01T00:00:00Z".into(), attempts: 0 }
}

fn claim(member: &str) -> BackupClaim {
    BackupClaim { request: "a".into(), member: member.into(), ..BackupClaim::default() }
}

fn outcome() -> BackupOutcome {
    BackupOutcome { request: "a".into(), member: "p2".into(), bytes: 7, ..BackupOutcome::default() }
}

/// Takes up the request that stands there.
async fn take(dcs: &dyn Dcs) -> Result<i64, outrider_dcs::Error> {
    let seen = dcs.read().await.unwrap().backup_request.unwrap();
    let again = BackupRequest { attempts: seen.value.attempts + 1, ..seen.value };
    dcs.claim_backup(&claim(dcs.name()), &again, seen.revision).await
}

async fn a_backup_is_asked_for_once_until_it_has_ended(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.agent("p2"));
    let revision = p2.request_backup(&request("a")).await.unwrap();
    assert!(p1.request_backup(&request("b")).await.unwrap_err().is_conflict());
    let seen = p1.read().await.unwrap().backup_request.unwrap();
    assert_eq!((seen.revision, seen.value), (revision, request("a")));
    assert_eq!(
        bench.get("outrider/backup-request").await,
        Some((r#"{"id":"a","by":"p1","at":"2026-01-01T00:00:00Z","attempts":0}"#.to_owned(), 0))
    );
    p1.withdraw_backup(revision).await.unwrap();
    assert!(p1.withdraw_backup(revision).await.unwrap_err().is_conflict());
    p1.request_backup(&request("b")).await.unwrap();
}

async fn one_member_takes_a_backup_and_counts_the_attempt(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    p1.request_backup(&request("a")).await.unwrap();
    take(&*p1).await.unwrap();
    let found = take(&*p2).await.unwrap_err();
    assert!(found.is_conflict() && found.to_string().contains("a backup is being taken"), "{found}");
    let seen = p2.read().await.unwrap();
    assert_eq!(seen.backup_request.unwrap().value.attempts, 1);
    let taken = seen.backup.unwrap();
    assert_eq!((taken.claim, taken.mine), (claim("p1"), false));
    assert!(p1.read().await.unwrap().backup.unwrap().mine);
    let stranger = bench.agent("p3");
    p1.release_backup().await.unwrap();
    assert!(
        take(&*stranger).await.unwrap_err().is_conflict(),
        "it has no entry that its claim could go with"
    );
}

async fn a_claim_goes_with_its_member_and_another_takes_over(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    p1.request_backup(&request("a")).await.unwrap();
    take(&*p1).await.unwrap();
    bench.expire("p1").await;
    assert_eq!(p2.read().await.unwrap().backup, None);
    take(&*p2).await.unwrap();
    assert_eq!(p2.read().await.unwrap().backup_request.unwrap().value.attempts, 2);
    assert!(p1.finish_backup(&outcome(), 1).await.unwrap_err().is_conflict());
    assert_eq!(bench.get("outrider/backup-last").await, None);
}

async fn only_the_taker_writes_how_far_it_is(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    p1.request_backup(&request("a")).await.unwrap();
    assert!(p1.report_backup(&claim("p1")).await.unwrap_err().is_conflict());
    assert!(p1.release_backup().await.unwrap_err().is_conflict());
    take(&*p1).await.unwrap();
    let further = BackupClaim { bytes_done: 5, seconds_left: Some(3), ..claim("p1") };
    p1.report_backup(&further).await.unwrap();
    assert_eq!(p2.read().await.unwrap().backup.unwrap().claim, further);
    assert!(p2.report_backup(&claim("p2")).await.unwrap_err().is_conflict());
    assert!(p2.release_backup().await.unwrap_err().is_conflict());
    p1.release_backup().await.unwrap();
    assert!(p2.read().await.unwrap().backup_request.is_some(), "it is for another to take");
}

async fn a_backup_ends_in_one_step(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    p1.request_backup(&request("a")).await.unwrap();
    let revision = take(&*p2).await.unwrap();
    assert!(p1.finish_backup(&outcome(), revision).await.unwrap_err().is_conflict());
    p2.finish_backup(&outcome(), revision).await.unwrap();
    let seen = p1.read().await.unwrap();
    assert_eq!((seen.backup, seen.backup_request), (None, None));
    assert_eq!(seen.backup_last.unwrap().value, outcome());
}

async fn a_request_that_came_meanwhile_outlives_the_end(bench: &Bench) {
    let p1 = bench.member("p1").await;
    p1.request_backup(&request("a")).await.unwrap();
    let revision = take(&*p1).await.unwrap();
    p1.withdraw_backup(revision).await.unwrap();
    p1.request_backup(&request("b")).await.unwrap();
    p1.finish_backup(&outcome(), revision).await.unwrap();
    let seen = p1.read().await.unwrap();
    assert_eq!(seen.backup_request.unwrap().value, request("b"));
    assert_eq!(seen.backup, None);
}

async fn a_request_that_was_taken_back_cannot_be_taken_up(bench: &Bench) {
    let p1 = bench.member("p1").await;
    let revision = p1.request_backup(&request("a")).await.unwrap();
    p1.withdraw_backup(revision).await.unwrap();
    let again = BackupRequest { attempts: 1, ..request("a") };
    assert!(p1.claim_backup(&claim("p1"), &again, revision).await.unwrap_err().is_conflict());
    assert_eq!(p1.read().await.unwrap().backup, None);
}

async fn a_claim_moves_with_its_session(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    p1.request_backup(&request("a")).await.unwrap();
    take(&*p1).await.unwrap();
    p1.set_ttl(TTL + Duration::from_secs(5)).await.unwrap();
    p1.report_backup(&BackupClaim { bytes_done: 9, ..claim("p1") }).await.unwrap();
    assert_eq!(p2.read().await.unwrap().backup.unwrap().claim.bytes_done, 9);
    p1.close().await.unwrap();
    assert_eq!(p2.read().await.unwrap().backup, None);
}

async fn progress_is_no_urgent_change_but_beginning_and_end_are(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    let mut seen = p2.watch();
    p1.request_backup(&request("a")).await.unwrap();
    let revision = take(&*p1).await.unwrap();
    p1.report_backup(&BackupClaim { bytes_done: 1, ..claim("p1") }).await.unwrap();
    // The request with one more attempt, and the progress.
    let quiet = |changes: &outrider_dcs::Changes| changes.all - changes.urgent;
    timeout(PATIENCE, seen.wait_for(|changes| quiet(changes) == 2)).await.unwrap().unwrap();
    let before = seen.borrow().urgent;
    p1.finish_backup(&outcome(), revision).await.unwrap();
    // The outcome is new, claim and request are gone.
    timeout(PATIENCE, seen.wait_for(|changes| changes.urgent == before + 3)).await.unwrap().unwrap();
    assert_eq!(quiet(&seen.borrow()), 2);
}
