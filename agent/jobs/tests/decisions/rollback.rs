//! Situations of rollbacks.

use std::time::Duration;

use expect_test::expect;
use outrider_jobs::rollback::{Hand, Job, OFFER_LIMIT, Request, Stage, next};
use outrider_jobs::{Claim, Leader, Postgres, View};
use outrider_wal::TimelineId;

use crate::{primary, standby, told};

const OLD: TimelineId = TimelineId::new(1);
const NEW: TimelineId = TimelineId::new(2);

fn quiet() -> Job {
    Job {
        claim: Claim::Free,
        request: None,
        recorded: false,
        hand: Hand::Nothing,
        remains: false,
        swapped: None,
    }
}

fn asked(begun: bool) -> Job {
    Job { request: Some(Request { id: "r".into(), begun }), ..quiet() }
}

fn before(stage: Stage, given_up: bool, news: bool) -> Job {
    let hand = Hand::Before { request: "r".into(), term: 5, timeline: OLD, stage, given_up, news };
    Job { claim: Claim::Mine, hand, ..asked(true) }
}

fn swapped(news: bool) -> Job {
    Job { claim: Claim::Mine, hand: Hand::Swapped { timeline: NEW, news }, ..asked(true) }
}

fn ended() -> Job {
    Job { claim: Claim::Mine, hand: Hand::Ended { request: "r".into() }, ..asked(true) }
}

#[test]
fn the_leader_takes_a_request_up_once() {
    let silent = View { postgres: Postgres::Silent, ..primary() };
    let of_earlier = |job: Job| Job { swapped: Some("r".into()), ..job };
    expect![[r#"
        nobody wants one: Wait
        the leader: Take
        a standby: Wait
        its Postgres does not answer: Wait
        it is told to end: Wait
        the agent ends: Wait
        whoever began is gone: Refuse
        a standby sees that: Wait
        another does it: Wait
        an earlier agent of this member left it: Refuse
        it left something beside the data: Own(CleanUp)
        it has swapped the data: Own(Resume)
        it has, and left its claim: Own(Resume)
        it has, and another ends it: Wait
        it has, and another has ended it: Own(LetEnd)
    "#]]
    .assert_eq(&told([
        ("nobody wants one", next(&primary(), &quiet())),
        ("the leader", next(&primary(), &asked(false))),
        ("a standby", next(&standby(), &asked(false))),
        ("its Postgres does not answer", next(&silent, &asked(false))),
        ("it is told to end", next(&View { terminating: true, ..primary() }, &asked(false))),
        ("the agent ends", next(&View { leaving: true, ..primary() }, &asked(false))),
        ("whoever began is gone", next(&primary(), &asked(true))),
        ("a standby sees that", next(&standby(), &asked(true))),
        ("another does it", next(&primary(), &Job { claim: Claim::Others, ..asked(true) })),
        (
            "an earlier agent of this member left it",
            next(&standby(), &Job { claim: Claim::Mine, ..asked(true) }),
        ),
        ("it left something beside the data", next(&standby(), &Job { remains: true, ..asked(true) })),
        ("it has swapped the data", next(&standby(), &of_earlier(asked(true)))),
        (
            "it has, and left its claim",
            next(&primary(), &of_earlier(Job { claim: Claim::Mine, ..asked(true) })),
        ),
        (
            "it has, and another ends it",
            next(&standby(), &of_earlier(Job { claim: Claim::Others, ..asked(true) })),
        ),
        ("it has, and another has ended it", next(&standby(), &of_earlier(quiet()))),
    ]));
}

#[test]
fn until_the_swap_it_can_be_given_up() {
    let preparing = || before(Stage::Preparing, false, false);
    let offered = |since| before(Stage::Offered(since), false, false);
    let leader = |mine, term| View { leader: Some(Leader { name: "a".into(), mine, term }), ..primary() };
    let with = |postgres| View { postgres, ..primary() };
    let step = |job: Job| next(&primary(), &job);
    expect![[r#"
        nothing new: Wait
        it has come further: Report
        prepared: Own(Offer)
        offered: Wait
        offered for too long: GiveUp(Late)
        taken back: GiveUp(Withdrawn)
        taken back when it was prepared: GiveUp(Withdrawn)
        another leads: GiveUp(LeaseLost)
        it leads anew: GiveUp(LeaseLost)
        nobody leads: GiveUp(LeaseLost)
        told to end: GiveUp(Ending)
        the agent ends: GiveUp(Ending)
        its Postgres does not answer: Wait
        its Postgres is down: GiveUp(Down)
        it is on another timeline: GiveUp(Down)
        given up: Wait
    "#]]
    .assert_eq(&told([
        ("nothing new", step(preparing())),
        ("it has come further", step(before(Stage::Preparing, false, true))),
        ("prepared", step(before(Stage::Prepared, false, false))),
        ("offered", step(offered(OFFER_LIMIT))),
        ("offered for too long", step(offered(OFFER_LIMIT + Duration::from_secs(1)))),
        ("taken back", step(Job { request: None, ..preparing() })),
        (
            "taken back when it was prepared",
            step(Job { request: None, ..before(Stage::Prepared, false, false) }),
        ),
        ("another leads", next(&leader(false, 6), &preparing())),
        ("it leads anew", next(&leader(true, 6), &preparing())),
        ("nobody leads", next(&View { leader: None, ..primary() }, &preparing())),
        ("told to end", next(&View { terminating: true, ..primary() }, &preparing())),
        ("the agent ends", next(&View { leaving: true, ..primary() }, &preparing())),
        ("its Postgres does not answer", next(&with(Postgres::Silent), &preparing())),
        ("its Postgres is down", next(&with(Postgres::Down), &preparing())),
        ("it is on another timeline", next(&with(Postgres::Primary(NEW)), &preparing())),
        ("given up", step(Job { request: None, ..before(Stage::Preparing, true, true) })),
    ]));
}

#[test]
fn after_the_swap_it_only_ends() {
    let with = |postgres| View { postgres, ..primary() };
    let up = || with(Postgres::Primary(NEW));
    let nobody = View { leader: None, ..up() };
    expect![[r#"
        that is not written yet: Report
        Postgres starts: Wait
        Postgres is up: Own(Finish)
        Postgres is up with the old data: Wait
        Postgres is a standby of the new data: Wait
        nobody leads: Wait
        another leads: Own(EndSupplanted)
        taken back all the same: Own(Finish)
        the agent ends: Wait
    "#]]
    .assert_eq(&told([
        ("that is not written yet", next(&with(Postgres::Down), &swapped(true))),
        ("Postgres starts", next(&with(Postgres::Down), &swapped(false))),
        ("Postgres is up", next(&up(), &swapped(false))),
        ("Postgres is up with the old data", next(&primary(), &swapped(false))),
        ("Postgres is a standby of the new data", next(&with(Postgres::Standby), &swapped(false))),
        ("nobody leads", next(&nobody, &swapped(false))),
        ("another leads", next(&standby(), &swapped(false))),
        ("taken back all the same", next(&up(), &Job { request: None, ..swapped(false) })),
        ("the agent ends", next(&View { leaving: true, ..up() }, &swapped(false))),
    ]));
}

#[test]
fn what_has_ended_is_recorded() {
    let step = |job: Job| next(&primary(), &job);
    expect![[r#"
        ended: Record
        ended, with something beside the data: Record
        the session had run out: TakeAgain
        another has taken it up: LeaveUnrecorded
        nobody wants it any more: LeaveUnrecorded
        recorded, without an answer: Forget
    "#]]
    .assert_eq(&told([
        ("ended", step(ended())),
        ("ended, with something beside the data", step(Job { remains: true, ..ended() })),
        ("the session had run out", step(Job { claim: Claim::Free, ..ended() })),
        ("another has taken it up", step(Job { claim: Claim::Others, ..ended() })),
        ("nobody wants it any more", step(Job { claim: Claim::Free, request: None, ..ended() })),
        (
            "recorded, without an answer",
            step(Job { claim: Claim::Free, recorded: true, request: None, ..ended() }),
        ),
    ]));
}
