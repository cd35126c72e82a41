//! Situations of restore drills.

use expect_test::expect;
use outrider_jobs::drill::{Job, next};
use outrider_jobs::{Member, Postgres, View};
use outrider_wal::{Lsn, TimelineId};

use crate::{primary, standby, told};

const GIB: u64 = 1 << 30;

#[test]
fn the_first_standby_by_name_drills_and_the_leader_where_there_is_none() {
    let third = View { me: "c".into(), ..standby() };
    let alone = View { members: vec![], ..primary() };
    let idle = |mut view: View| {
        view.members[1] = Member { name: "b".into(), streams: false, position: Lsn::new(100) };
        view
    };
    let promoted = View { postgres: Postgres::Primary(TimelineId::new(2)), ..standby() };
    expect![[r#"
        the first standby: Look
        the second one: Wait
        the second one, where the first does not stream: Look
        the leader: Wait
        the leader, alone: Look
        none is due: Wait
        promoted: Wait
        silent: Wait
        nobody leads: Wait
        told to end: Wait
    "#]]
    .assert_eq(&told([
        ("the first standby", next(&standby(), &Job::Due)),
        ("the second one", next(&third, &Job::Due)),
        ("the second one, where the first does not stream", next(&idle(third), &Job::Due)),
        ("the leader", next(&primary(), &Job::Due)),
        ("the leader, alone", next(&alone, &Job::Due)),
        ("none is due", next(&standby(), &Job::NotDue)),
        ("promoted", next(&promoted, &Job::Due)),
        ("silent", next(&View { postgres: Postgres::Silent, ..standby() }, &Job::Due)),
        ("nobody leads", next(&View { leader: None, ..standby() }, &Job::Due)),
        ("told to end", next(&View { terminating: true, ..standby() }, &Job::Due)),
    ]));
}

#[test]
fn a_drill_is_made_only_where_there_is_room_and_given_up_where_that_becomes_scarce() {
    let confirmed = |size, free| next(&standby(), &Job::Confirmed { size, free });
    let running = |size, free| next(&standby(), &Job::Running { size, free });
    let third = View { me: "c".into(), ..standby() };
    expect![[r#"
        room for it, and a tenth: Begin
        a byte less: Skip
        a small one leaves a GiB: Skip
        nobody knows how much there is: Skip
        another member's by now: Wait
        under way, with half of that tenth left: Wait
        a byte less: GiveUp(Scarce)
        under way, and nobody knows: Wait
        under way, and another member's by now: GiveUp(Anothers)
    "#]]
    .assert_eq(&told([
        ("room for it, and a tenth", confirmed(20 * GIB, Some(22 * GIB))),
        ("a byte less", confirmed(20 * GIB, Some(22 * GIB - 1))),
        ("a small one leaves a GiB", confirmed(GIB, Some(2 * GIB - 1))),
        ("nobody knows how much there is", confirmed(GIB, None)),
        ("another member's by now", next(&third, &Job::Confirmed { size: GIB, free: Some(9 * GIB) })),
        ("under way, with half of that tenth left", running(20 * GIB, Some(GIB))),
        ("a byte less", running(20 * GIB, Some(GIB - 1))),
        ("under way, and nobody knows", running(20 * GIB, None)),
        ("under way, and another member's by now", next(&third, &Job::Running { size: GIB, free: None })),
    ]));
}
