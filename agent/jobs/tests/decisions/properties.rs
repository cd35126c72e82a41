//! What holds for every view, however odd.

use std::time::Duration;

use outrider_jobs::{Claim, Leader, Member, Postgres, View, backup, drill, rollback};
use outrider_wal::{Lsn, TimelineId};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::any::{age, any_view, claim, name, timeline};

fn any_backup() -> impl Strategy<Value = backup::Job> {
    use backup::{End, GivenUp, Hand, Job, Request};
    let request = (name(), 0_u32..7, age(), option::of(age()))
        .prop_map(|(id, attempts, open_for, declined_for)| Request { id, attempts, open_for, declined_for });
    let given_up = select(vec![GivenUp::Withdrawn, GivenUp::Lost, GivenUp::RoleChanged, GivenUp::Ending]);
    let end = select(vec![End::Done, End::FailedHere, End::Failed]);
    let hand = prop_oneof![
        Just(Hand::Nothing),
        (name(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(request, on_standby, given_up, news)| Hand::Running { request, on_standby, given_up, news }
        ),
        (name(), 1_u32..7, end, option::of(given_up)).prop_map(|(request, attempts, end, given_up)| {
            Hand::Ended { request, attempts, end, given_up }
        }),
    ];
    (claim(), option::weighted(0.8, request), any::<bool>(), any::<bool>(), hand).prop_map(
        |(claim, request, recorded, due, hand)| Job {
            claim,
            request,
            recorded,
            due,
            hand,
            grace: Duration::from_secs(3),
            declined: Duration::from_secs(30),
        },
    )
}

fn any_drill() -> impl Strategy<Value = drill::Job> {
    use drill::Job;
    let bytes = || select(vec![0_u64, 1 << 29, 1 << 30, 3 << 30, 1 << 40, u64::MAX]);
    prop_oneof![
        Just(Job::NotDue),
        Just(Job::Due),
        (bytes(), option::of(bytes())).prop_map(|(size, free)| Job::Confirmed { size, free }),
        (bytes(), option::of(bytes())).prop_map(|(size, free)| Job::Running { size, free }),
    ]
}

fn any_rollback() -> impl Strategy<Value = rollback::Job> {
    use rollback::{Hand, Job, Request, Stage};
    let request = (name(), any::<bool>()).prop_map(|(id, begun)| Request { id, begun });
    let stage = prop_oneof![Just(Stage::Preparing), Just(Stage::Prepared), age().prop_map(Stage::Offered)];
    let flags = || (any::<bool>(), any::<bool>());
    let hand = prop_oneof![
        Just(Hand::Nothing),
        (name(), 4_u64..6, timeline(), stage, flags()).prop_map(
            |(request, term, timeline, stage, (given_up, news))| Hand::Before {
                request,
                term,
                timeline,
                stage,
                given_up,
                news
            }
        ),
        (timeline(), any::<bool>()).prop_map(|(timeline, news)| Hand::Swapped { timeline, news }),
        name().prop_map(|request| Hand::Ended { request }),
    ];
    let request = option::weighted(0.8, request);
    (claim(), request, flags(), hand, option::weighted(0.2, name())).prop_map(
        |(claim, request, (recorded, remains), hand, swapped)| Job {
            claim,
            request,
            recorded,
            hand,
            remains,
            swapped,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_backup_is_claimed_only_where_nobody_has_the_claim_and_written_only_under_ones_own(
        view in any_view(), job in any_backup(),
    ) {
        use backup::{Own, Step};
        match backup::next(&view, &job) {
            Step::Take | Step::Refuse | Step::TakeAgain => prop_assert_eq!(job.claim, Claim::Free),
            Step::Report | Step::Record | Step::Own(Own::GiveBack) => prop_assert_eq!(job.claim, Claim::Mine),
            Step::Own(Own::Ask) => prop_assert!(job.claim == Claim::Free && job.request.is_none() && view.leads()),
            Step::Wait | Step::GiveUp(_) | Step::Forget | Step::LeaveUnrecorded => {}
        }
    }

    #[test]
    fn a_backup_is_begun_only_with_empty_hands_by_who_goes_on(view in any_view(), job in any_backup()) {
        use backup::{Hand, Step};
        if let Step::Take | Step::Refuse = backup::next(&view, &job) {
            prop_assert_eq!(&job.hand, &Hand::Nothing);
            prop_assert!(!view.terminating && !view.leaving);
            prop_assert!(view.leader.is_some());
            prop_assert!(matches!(view.postgres, Postgres::Primary(_)) == view.leads());
        }
    }

    /// What has ended is let go only when another has to do with it, or nobody.
    #[test]
    fn a_whole_backup_is_recorded_while_its_request_is_there_to_answer(view in any_view(), job in any_backup()) {
        use backup::{End, Hand, Step};
        let Hand::Ended { request, end: End::Done, .. } = &job.hand else { return Ok(()) };
        let asked = job.request.as_ref().is_some_and(|asked| asked.id == *request);
        match backup::next(&view, &job) {
            Step::Forget => prop_assert!(job.recorded && job.claim != Claim::Mine),
            Step::LeaveUnrecorded => prop_assert!(job.claim == Claim::Others || job.claim == Claim::Free && !asked),
            step => prop_assert!(matches!(step, Step::Record | Step::TakeAgain), "{step:?}"),
        }
    }

    #[test]
    fn one_that_was_told_to_stop_is_only_waited_for(view in any_view(), mut job in any_backup()) {
        use backup::{Hand, Step};
        let Hand::Running { given_up, .. } = &mut job.hand else { return Ok(()) };
        *given_up = true;
        prop_assert_eq!(backup::next(&view, &job), Step::Wait);
    }

    #[test]
    fn nobody_drills_who_ends_or_is_not_what_the_others_think(view in any_view(), job in any_drill()) {
        use drill::{Job, Step};
        let step = drill::next(&view, &job);
        if view.terminating || view.leaving || !view.is_what_others_think() {
            let running = matches!(job, Job::Running { .. });
            prop_assert_eq!(step, if running { Step::GiveUp(drill::GivenUp::Anothers) } else { Step::Wait });
        }
    }

    /// Each member sees itself as it is, and all see the same cluster.
    #[test]
    fn at_the_most_one_member_drills(
        streams in prop::collection::vec(any::<bool>(), 3), leader in 0_usize..3, due in any_drill(),
    ) {
        let names = ["a", "b", "c"];
        let members: Vec<Member> = (0..3)
            .map(|place| Member { name: names[place].into(), streams: streams[place], position: Lsn::new(1) })
            .collect();
        let begins = (0..3).filter(|me| {
            let mine = *me == leader;
            let view = View {
                me: names[*me].into(),
                leader: Some(Leader { name: names[leader].into(), mine, term: 1 }),
                members: members.clone(),
                end: Lsn::new(1),
                made: true,
                postgres: if mine { Postgres::Primary(TimelineId::new(1)) } else { Postgres::Standby },
                terminating: false,
                leaving: false,
            };
            !matches!(drill::next(&view, &due), drill::Step::Wait | drill::Step::GiveUp(_))
        });
        prop_assert!(begins.count() <= 1);
    }

    #[test]
    fn a_rollback_is_claimed_only_where_nobody_has_the_claim_and_written_only_under_ones_own(
        view in any_view(), job in any_rollback(),
    ) {
        use rollback::{Own, Step};
        match rollback::next(&view, &job) {
            Step::Take | Step::TakeAgain => prop_assert_eq!(job.claim, Claim::Free),
            Step::Refuse | Step::Own(Own::Resume) => prop_assert_ne!(job.claim, Claim::Others),
            Step::Report | Step::Record => prop_assert_eq!(job.claim, Claim::Mine),
            Step::Wait | Step::GiveUp(_) | Step::Forget | Step::LeaveUnrecorded | Step::Own(_) => {}
        }
    }

    #[test]
    fn a_rollback_is_begun_once_by_a_running_leader(view in any_view(), job in any_rollback()) {
        if rollback::next(&view, &job) == rollback::Step::Take {
            prop_assert!(job.request.is_some_and(|request| !request.begun));
            prop_assert!(view.leads() && matches!(view.postgres, Postgres::Primary(_)));
            prop_assert!(!view.terminating && !view.leaving);
        }
    }

    /// The swap is the one thing that cannot be taken back.
    #[test]
    fn data_is_offered_for_the_swap_only_while_it_is_wanted_by_the_leader_that_prepared_it(
        view in any_view(), job in any_rollback(),
    ) {
        use rollback::{Hand, Own, Step};
        let Step::Own(Own::Offer) = rollback::next(&view, &job) else { return Ok(()) };
        let Hand::Before { request, term, given_up: false, .. } = &job.hand else {
            return Err(TestCaseError::fail("nothing is prepared"));
        };
        prop_assert!(job.request.as_ref().is_some_and(|asked| asked.id == *request));
        prop_assert!(view.leader.as_ref().is_some_and(|leader| leader.mine && leader.term == *term));
        prop_assert!(!view.terminating && !view.leaving);
    }

    #[test]
    fn what_is_swapped_is_never_given_up(view in any_view(), job in any_rollback()) {
        use rollback::{Hand, Step};
        if let Hand::Swapped { .. } = job.hand {
            let step = rollback::next(&view, &job);
            prop_assert!(matches!(step, Step::Wait | Step::Report | Step::Own(_)), "{step:?}");
        }
    }
}
