//! Situations of base backups.

use std::time::Duration;

use expect_test::expect;
use outrider_jobs::backup::{ATTEMPTS_MAX, End, GivenUp, Hand, Job, Request, next};
use outrider_jobs::{Claim, Postgres, View};
use outrider_wal::TimelineId;

use crate::{primary, standby, told};

const GRACE: Duration = Duration::from_secs(3);

fn request() -> Option<Request> {
    Some(Request { id: "r".into(), attempts: 0, open_for: Duration::ZERO, declined_for: None })
}

/// Nobody wants one.
fn quiet() -> Job {
    Job {
        claim: Claim::Free,
        request: None,
        recorded: false,
        due: false,
        hand: Hand::Nothing,
        grace: GRACE,
        declined: Duration::from_secs(30),
    }
}

/// Somebody wants one, and nobody takes it, for so long.
fn asked(open_for: Duration) -> Job {
    let request = request().map(|request| Request { open_for, ..request });
    Job { request, ..quiet() }
}

/// This member takes it.
fn running() -> Job {
    let hand = Hand::Running { request: "r".into(), on_standby: true, given_up: false, news: false };
    Job { claim: Claim::Mine, request: request(), hand, ..quiet() }
}

/// It has ended here.
fn ended(end: End, given_up: Option<GivenUp>) -> Job {
    Job { hand: Hand::Ended { request: "r".into(), attempts: 1, end, given_up }, ..running() }
}

#[test]
fn whoever_is_next_takes_what_was_asked_for() {
    let silent = View { postgres: Postgres::Silent, ..standby() };
    let promoted = View { postgres: Postgres::Primary(TimelineId::new(2)), ..standby() };
    let unled = View { leader: None, ..standby() };
    let ending = View { terminating: true, ..standby() };
    let declined = |ago| {
        let request =
            request().map(|request| Request { declined_for: Some(Duration::from_secs(ago)), ..request });
        Job { request, ..quiet() }
    };
    let tried = |attempts| Job { request: request().map(|asked| Request { attempts, ..asked }), ..quiet() };
    let now = || asked(Duration::ZERO);
    let third = View { me: "c".into(), ..standby() };
    expect![[r#"
        nobody wants one: Wait
        the first standby, at once: Take
        the second one, at once: Wait
        the second one, when the first had its time: Take
        the leader, when the first had its time: Wait
        the leader, when both had theirs: Take
        its Postgres does not answer: Wait
        its Postgres is a primary without the lease: Wait
        nobody leads: Wait
        it is told to end: Wait
        it has just given it back: Wait
        it gave it back a while ago: Take
        another takes it: Wait
        begun with often: Take
        begun with too often: Refuse
        an earlier agent of this member left its claim: Own(GiveBack)
        it left its claim, and the request is gone: Own(GiveBack)
    "#]]
    .assert_eq(&told([
        ("nobody wants one", next(&standby(), &quiet())),
        ("the first standby, at once", next(&standby(), &now())),
        ("the second one, at once", next(&third, &now())),
        ("the second one, when the first had its time", next(&third, &asked(GRACE))),
        ("the leader, when the first had its time", next(&primary(), &asked(GRACE))),
        ("the leader, when both had theirs", next(&primary(), &asked(GRACE * 2))),
        ("its Postgres does not answer", next(&silent, &now())),
        ("its Postgres is a primary without the lease", next(&promoted, &now())),
        ("nobody leads", next(&unled, &now())),
        ("it is told to end", next(&ending, &now())),
        ("it has just given it back", next(&standby(), &declined(29))),
        ("it gave it back a while ago", next(&standby(), &declined(30))),
        ("another takes it", next(&standby(), &Job { claim: Claim::Others, ..now() })),
        ("begun with often", next(&standby(), &tried(ATTEMPTS_MAX - 1))),
        ("begun with too often", next(&standby(), &tried(ATTEMPTS_MAX))),
        (
            "an earlier agent of this member left its claim",
            next(&standby(), &Job { claim: Claim::Mine, ..now() }),
        ),
        (
            "it left its claim, and the request is gone",
            next(&standby(), &Job { claim: Claim::Mine, ..quiet() }),
        ),
    ]));
}

#[test]
fn the_leader_asks_for_what_is_due() {
    let due = || Job { due: true, ..quiet() };
    let unmade = View { made: false, ..primary() };
    expect![[r#"
        one is due: Own(Ask)
        one is due, and a standby sees it: Wait
        one is due, and one is wanted already: Take
        one is due, and one is being taken: Wait
        one is due, and the cluster is not made: Wait
        one is due, and the agent ends: Wait
    "#]]
    .assert_eq(&told([
        ("one is due", next(&primary(), &due())),
        ("one is due, and a standby sees it", next(&standby(), &due())),
        (
            "one is due, and one is wanted already",
            next(&standby(), &Job { due: true, ..asked(Duration::ZERO) }),
        ),
        ("one is due, and one is being taken", next(&primary(), &Job { claim: Claim::Others, ..due() })),
        ("one is due, and the cluster is not made", next(&unmade, &due())),
        ("one is due, and the agent ends", next(&View { leaving: true, ..primary() }, &due())),
    ]));
}

#[test]
fn a_backup_under_way_goes_on_while_it_is_wanted_and_this_members() {
    let with = |given_up, news| {
        let hand = Hand::Running { request: "r".into(), on_standby: true, given_up, news };
        Job { hand, ..running() }
    };
    let promoted = View { me: "b".into(), ..primary() };
    let silent = View { postgres: Postgres::Silent, ..standby() };
    let other = request().map(|request| Request { id: "s".into(), ..request });
    let ending = View { terminating: true, ..standby() };
    let leaving = View { leaving: true, ..standby() };
    expect![[r#"
        nothing new: Wait
        it has come further: Report
        taken back: GiveUp(Withdrawn)
        taken back, and another asked for: GiveUp(Withdrawn)
        promoted: GiveUp(RoleChanged)
        its Postgres does not answer: Wait
        told to end: GiveUp(Ending)
        the agent ends before it has seen its own claim: GiveUp(Ending)
        another has the claim: GiveUp(Lost)
        the session had run out: TakeAgain
        given up: Wait
    "#]]
    .assert_eq(&told([
        ("nothing new", next(&standby(), &running())),
        ("it has come further", next(&standby(), &with(false, true))),
        ("taken back", next(&standby(), &Job { request: None, ..running() })),
        ("taken back, and another asked for", next(&standby(), &Job { request: other, ..running() })),
        ("promoted", next(&promoted, &running())),
        ("its Postgres does not answer", next(&silent, &running())),
        ("told to end", next(&ending, &running())),
        (
            "the agent ends before it has seen its own claim",
            next(&leaving, &Job { request: None, ..running() }),
        ),
        ("another has the claim", next(&standby(), &Job { claim: Claim::Others, ..running() })),
        ("the session had run out", next(&standby(), &Job { claim: Claim::Free, ..running() })),
        ("given up", next(&ending, &with(true, true))),
    ]));
}

#[test]
fn what_has_ended_is_recorded_or_left_to_another() {
    let done = || ended(End::Done, None);
    let last =
        Hand::Ended { request: "r".into(), attempts: ATTEMPTS_MAX, end: End::FailedHere, given_up: None };
    let step = |job: Job| next(&standby(), &job);
    expect![[r#"
        done: Record
        failed: Record
        taken back: Record
        taken back as it was done: Record
        its Postgres broke it off: Own(GiveBack)
        its Postgres broke it off for the last time: Record
        promoted: Own(GiveBack)
        told to end: Own(GiveBack)
        promoted as it was done: Record
        another has the claim: Forget
        given back: Forget
        done, and the session had run out: TakeAgain
        done, and another has begun with it: LeaveUnrecorded
        done, and nobody wants it any more: LeaveUnrecorded
        recorded, without an answer: Forget
    "#]]
    .assert_eq(&told([
        ("done", step(done())),
        ("failed", step(ended(End::Failed, None))),
        ("taken back", step(Job { request: None, ..ended(End::Failed, Some(GivenUp::Withdrawn)) })),
        ("taken back as it was done", step(Job { request: None, ..done() })),
        ("its Postgres broke it off", step(ended(End::FailedHere, None))),
        ("its Postgres broke it off for the last time", step(Job { hand: last, ..running() })),
        ("promoted", step(ended(End::Failed, Some(GivenUp::RoleChanged)))),
        ("told to end", step(ended(End::Failed, Some(GivenUp::Ending)))),
        ("promoted as it was done", step(ended(End::Done, Some(GivenUp::RoleChanged)))),
        (
            "another has the claim",
            step(Job { claim: Claim::Others, ..ended(End::Failed, Some(GivenUp::Lost)) }),
        ),
        ("given back", step(Job { claim: Claim::Free, ..ended(End::FailedHere, None) })),
        ("done, and the session had run out", step(Job { claim: Claim::Free, ..done() })),
        ("done, and another has begun with it", step(Job { claim: Claim::Others, ..done() })),
        ("done, and nobody wants it any more", step(Job { claim: Claim::Free, request: None, ..done() })),
        (
            "recorded, without an answer",
            step(Job { claim: Claim::Free, request: None, recorded: true, ..done() }),
        ),
    ]));
}
