//! The records of a rollback: asked for once, taken back until the swap begins, gone with its member, ended in one step.

use std::time::Duration;

use outrider_dcs::{Dcs, RollbackClaim, RollbackOutcome, RollbackRequest, RollbackSwap};
use tokio::time::timeout;

use super::PATIENCE;
use super::bench::{Bench, TTL};

super::on_every_store!(
    a_rollback_cannot_be_taken_back_once_the_swap_has_begun,
    a_swap_does_not_begin_without_the_request_or_the_claim,
    a_rollback_moves_with_its_session_and_goes_with_it,
    how_far_a_rollback_is_wakes_nobody_and_its_end_does,
);

fn request() -> RollbackRequest {
    RollbackRequest { id: "a".into(), by: "p1".into(), ..RollbackRequest::default() }
}

fn claim(member: &str) -> RollbackClaim {
    RollbackClaim { request: "a".into(), member: member.into(), ..RollbackClaim::default() }
}

fn swapping() -> RollbackRequest {
    RollbackRequest { begun: true, swap: Some(RollbackSwap::default()), ..request() }
}

/// Takes up the request that stands there.
async fn take(dcs: &dyn Dcs) -> i64 {
    let seen = dcs.read().await.unwrap().rollback_request.unwrap();
    let begun = RollbackRequest { begun: true, ..seen.value };
    dcs.claim_rollback(&claim(dcs.name()), &begun, seen.revision).await.unwrap()
}

async fn a_rollback_cannot_be_taken_back_once_the_swap_has_begun(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.agent("p2"));
    p2.request_rollback(&request()).await.unwrap();
    assert!(p2.request_rollback(&request()).await.unwrap_err().is_conflict());
    let begun = take(&*p1).await;
    let now = p1.begin_rollback_swap(&claim("p1"), &swapping(), begun).await.unwrap();
    assert!(p2.withdraw_rollback(begun).await.unwrap_err().is_conflict());
    let seen = p2.read().await.unwrap().rollback_request.unwrap();
    assert_eq!((seen.revision, seen.value), (now, swapping()));
    let outcome = RollbackOutcome { request: "a".into(), ..RollbackOutcome::default() };
    p1.finish_rollback(&outcome, now).await.unwrap();
    let seen = p2.read().await.unwrap();
    assert_eq!((seen.rollback_request, seen.rollback), (None, None));
    assert_eq!(seen.rollback_last.unwrap().value, outcome);
}

async fn a_swap_does_not_begin_without_the_request_or_the_claim(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    p2.request_rollback(&request()).await.unwrap();
    let begun = take(&*p1).await;
    assert!(p2.begin_rollback_swap(&claim("p2"), &swapping(), begun).await.unwrap_err().is_conflict());
    p2.withdraw_rollback(begun).await.unwrap();
    let found = p1.begin_rollback_swap(&claim("p1"), &swapping(), begun).await.unwrap_err();
    assert!(
        found.is_conflict() && found.to_string().contains("the request for this rollback has changed"),
        "{found}"
    );
    assert_eq!(p1.read().await.unwrap().rollback_request, None);
}

async fn a_rollback_moves_with_its_session_and_goes_with_it(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    p1.request_rollback(&request()).await.unwrap();
    take(&*p1).await;
    p1.set_ttl(TTL + Duration::from_secs(5)).await.unwrap();
    p1.report_rollback(&RollbackClaim { bytes_done: 9, ..claim("p1") }).await.unwrap();
    let taken = p2.read().await.unwrap().rollback.unwrap();
    assert_eq!((taken.claim.bytes_done, taken.mine), (9, false));
    p1.close().await.unwrap();
    let seen = p2.read().await.unwrap();
    assert_eq!(seen.rollback, None);
    assert!(seen.rollback_request.unwrap().value.begun, "whoever finds it knows that it was begun");
}

async fn how_far_a_rollback_is_wakes_nobody_and_its_end_does(bench: &Bench) {
    let (p1, p2) = (bench.member("p1").await, bench.member("p2").await);
    let mut seen = p2.watch();
    p1.request_rollback(&request()).await.unwrap();
    let begun = take(&*p1).await;
    p1.report_rollback(&RollbackClaim { bytes_done: 1, ..claim("p1") }).await.unwrap();
    let quiet = |changes: &outrider_dcs::Changes| changes.all - changes.urgent;
    timeout(PATIENCE, seen.wait_for(|changes| quiet(changes) == 1)).await.unwrap().unwrap();
    let before = seen.borrow().urgent;
    p1.finish_rollback(&RollbackOutcome::default(), begun).await.unwrap();
    // The outcome is new, claim and request are gone.
    timeout(PATIENCE, seen.wait_for(|changes| changes.urgent == before + 3)).await.unwrap().unwrap();
    assert_eq!(quiet(&seen.borrow()), 1);
}
