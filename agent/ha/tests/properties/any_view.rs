//! Random views: few names, few positions, few ages, so that they meet often. Nothing is ruled out as impossible but
//! what the shell cannot build: an own name among the others, members and lists out of order.

use std::time::Duration;

use outrider_ha::{
    Answer, Cluster, Dcs, Hold, Initialize, Job, Lacking, Lease, Local, Lost, Member, MemberName,
    MemberState, Policy, Postgres, Promotion, Query, Replay, Request, RequestKind, Restart, RestartTurn,
    Role, Shutdown, StoreId, Streaming, Switchover, SyncState, Synchronous, SynchronousMode, SystemId, Tags,
    Term, TurnState, Unusable, View, WalSender, Watermark,
};
use outrider_wal::{Lsn, TimelineHistory, TimelineId, TimelineStarts};
use proptest::collection::{btree_set, vec as list};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// Any view of member b, among up to three others.
pub(crate) fn any_view() -> impl Strategy<Value = View> {
    (dcs(), local(), members(), policy(), option::weighted(0.2, job())).prop_map(
        |(dcs, local, members, policy, job)| View { me: "b".into(), dcs, local, members, policy, job },
    )
}

fn name() -> impl Strategy<Value = MemberName> {
    select(vec!["a", "b", "c", "d"]).prop_map(MemberName::from)
}

fn names() -> impl Strategy<Value = Vec<MemberName>> {
    btree_set(name(), 0..3).prop_map(|names| names.into_iter().collect())
}

fn position() -> impl Strategy<Value = Lsn> {
    (0_u64..6).prop_map(Lsn::new)
}

fn timeline() -> impl Strategy<Value = TimelineId> {
    (0_u32..4).prop_map(TimelineId::new)
}

fn age() -> impl Strategy<Value = Duration> {
    select(vec![0, 1, 700, 1000, 2000, 5000, 10_001, 60_000]).prop_map(Duration::from_millis)
}

fn system() -> impl Strategy<Value = SystemId> {
    prop_oneof![9 => Just(SystemId(7)), 1 => Just(SystemId(8))]
}

fn history() -> impl Strategy<Value = TimelineHistory> {
    prop::collection::vec(0_u64..6, 0..3).prop_map(|ends| {
        let line = |(index, end): (usize, u64)| format!("{}\t0/{end}\tpromoted\n", index + 1);
        let text: String = ends.into_iter().enumerate().map(line).collect();
        text.parse().expect("its timelines ascend")
    })
}

fn starts() -> impl Strategy<Value = TimelineStarts> {
    list((1_u32..4, option::of(1_i64..3)), 0..3).prop_map(|starts| {
        let mut all = TimelineStarts::default();
        starts.into_iter().for_each(|(timeline, start)| all.set(TimelineId::new(timeline), start));
        all
    })
}

fn dcs() -> impl Strategy<Value = Dcs> {
    prop_oneof![1 => age().prop_map(|since| Dcs::Silent { since }), 9 => cluster().prop_map(Dcs::Seen)]
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let lease = prop_oneof![
        2 => age().prop_map(|since| Lease::Free { since }),
        3 => Just(Lease::Mine),
        2 => name().prop_map(|holder| Lease::Theirs { holder }),
    ];
    let initialize = prop_oneof![
        1 => Just(Initialize::Absent),
        1 => Just(Initialize::Bootstrapping),
        5 => system().prop_map(Initialize::Done),
    ];
    let last_timeline = prop_oneof![3 => Just(TimelineId::default()), 1 => timeline()];
    let keys = (
        option::of(sync()),
        (position(), last_timeline),
        history(),
        option::of(request()),
        option::of(switchover()),
    );
    let rolled_back = (0_u32..3, option::weighted(0.2, name()), option::weighted(0.3, restart()));
    (lease, watermark(), prop::bool::weighted(0.1), initialize, keys, rolled_back).prop_map(
        |(lease, watermark, blank, initialize, keys, rolled_back)| {
            let Watermark { store, generation, term, revision, sync_revision, lost: _ } = watermark;
            let (sync, (last_position, last_timeline), history, request, switchover) = keys;
            let (least, swapping, restart) = rolled_back;
            let least_timeline = TimelineId::new(least);
            Cluster {
                lease,
                term,
                store,
                generation,
                revision,
                sync_revision,
                blank,
                initialize,
                sync,
                last_position,
                last_timeline,
                history,
                least_timeline,
                swapping,
                request,
                switchover,
                restart,
            }
        },
    )
}

fn sync() -> impl Strategy<Value = SyncState> {
    let given_up = prop_oneof![3 => Just(TimelineId::default()), 1 => timeline()];
    (option::weighted(0.9, name()), names(), given_up, 1_i64..4)
        .prop_map(|(leader, standbys, given_up, revision)| SyncState { leader, standbys, given_up, revision })
}

fn request() -> impl Strategy<Value = Request> {
    let kind = select(vec![RequestKind::Switchover, RequestKind::Failover]);
    let life = (age(), age(), prop::bool::weighted(0.9), any::<bool>(), any::<bool>());
    (kind, option::of(name()), option::of(name()), life, 1_i64..4).prop_map(
        |(kind, from, to, (due_in, expires_in, dated, accept_data_loss, wait), revision)| Request {
            kind,
            from,
            to,
            due_in,
            expires_in,
            dated,
            accept_data_loss,
            wait,
            revision,
        },
    )
}

fn restart() -> impl Strategy<Value = Restart> {
    let begun =
        (started(), any::<bool>()).prop_map(|(started, switching)| TurnState::Begun { started, switching });
    let state = prop_oneof![3 => Just(TurnState::Waiting), 3 => begun, 1 => Just(TurnState::Ended)];
    let turn = (name(), state).prop_map(|(name, state)| RestartTurn { name, state });
    let flags = (any::<bool>(), any::<bool>());
    (age(), flags, list(turn, 0..4), age()).prop_map(
        |(due_in, (pending_only, primary_first), members, turn_for)| Restart {
            due_in,
            pending_only,
            members,
            primary_first,
            turn_for,
            timeout: Duration::from_secs(5),
            revision: 3,
        },
    )
}

fn started() -> impl Strategy<Value = String> {
    select(vec!["before".to_owned(), "since".to_owned()])
}

fn switchover() -> impl Strategy<Value = Switchover> {
    (name(), name(), age(), any::<bool>(), any::<bool>()).prop_map(
        |(from, to, stopping_for, checkpointed, stopping)| Switchover {
            id: "1".to_owned(),
            from,
            to,
            stopping_for,
            checkpointed,
            stopping,
        },
    )
}

fn local() -> impl Strategy<Value = Local> {
    let numbers = (option::of(age()), watermark(), 0_u64..4, position(), (history(), starts()), 0_u32..5);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let restarts = (option::of(started()), any::<bool>(), option::weighted(0.2, age()));
    let hangs = (option::weighted(0.1, age()), option::weighted(0.1, age()));
    let failing =
        || list(select(vec![Job::Start, Job::Clone, Job::Stop, Job::Initdb, Job::PostBootstrap]), 0..2);
    let failed = (failing(), failing(), prop::bool::weighted(0.2), prop::bool::weighted(0.1), promotion());
    let postgres_flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.2));
    let session_ttl = prop_oneof![2 => Just(Some(Duration::from_secs(5))), 1 => option::of(age())];
    let connected = (prop::bool::weighted(0.9), prop::bool::weighted(0.05), session_ttl);
    let marks = ((names(), names()), postgres_flags, restarts, failed, hangs);
    (postgres(), option::weighted(0.9, system()), numbers, flags, marks, connected).prop_map(
        |(
            postgres,
            system,
            numbers,
            flags,
            ((slots, recorded), postgres_flags, restarts, failed, hangs),
            connected,
        )| {
            let (frozen, shut_out) = hangs;
            let (entered, unsupervised, session_ttl) = connected;
            let (backing_off, hopeless, unrecorded, trying_parameters, promotion) = failed;
            let (rollback_prepared, faulty_files, hastened) = postgres_flags;
            let (fuse, watermark, held_term, last_position, (history, starts), recent_crashes) = numbers;
            let (postmaster, pending_restart, short_for) = restarts;
            let (rewind_failed, cooling_down, users_ready, awaiting_checkpoint, terminating) = flags;
            Local {
                postgres,
                system,
                entered,
                session_ttl,
                fuse,
                watermark,
                recorded,
                held_term: Term(held_term),
                last_position,
                history,
                starts,
                frozen,
                shut_out,
                recent_crashes,
                promotion,
                rewind_failed,
                cooling_down,
                backing_off,
                hopeless,
                trying_parameters,
                unrecorded,
                users_ready,
                awaiting_checkpoint,
                unsupervised,
                terminating,
                rollback_prepared,
                postmaster,
                pending_restart,
                short_for,
                hastened,
                faulty_files,
                slots,
            }
        },
    )
}

fn promotion() -> impl Strategy<Value = Promotion> {
    (0_u32..5, age(), option::of(sync())).prop_map(|(failures, lasts, struck)| Promotion {
        failures,
        lasts,
        struck,
    })
}

fn postgres() -> impl Strategy<Value = Postgres> {
    let fault = select(vec![
        Unusable::HalfInitialized,
        Unusable::HalfCloned,
        Unusable::HalfRewound,
        Unusable::Refused,
    ]);
    let shutdown = select(vec![Shutdown::CleanPrimary, Shutdown::CrashedPrimary, Shutdown::Standby]);
    prop_oneof![
        1 => Just(Postgres::Empty),
        1 => fault.prop_map(Postgres::Unusable),
        3 => (timeline(), position(), shutdown)
            .prop_map(|(timeline, end, shutdown)| Postgres::Stopped { timeline, end, shutdown }),
        1 => (any::<bool>(), age()).prop_map(|(writable, since)| Postgres::Starting { writable, since }),
        1 => (any::<bool>(), age()).prop_map(|(writable, since)| Postgres::Unresponsive { writable, since }),
        4 => primary(),
        4 => standby(),
    ]
}

fn primary() -> impl Strategy<Value = Postgres> {
    let sender = |name: &'static str| {
        (any::<bool>(), any::<bool>(), position()).prop_map(move |(streaming, sync, flushed)| WalSender {
            name: name.into(),
            streaming,
            sync,
            flushed,
        })
    };
    let walsenders = (option::of(sender("a")), option::of(sender("c")), option::of(sender("x")));
    let synchronous =
        (names(), option::of(position())).prop_map(|(names, since)| Synchronous { names, since });
    (timeline(), position(), walsenders, synchronous).prop_map(
        |(timeline, position, senders, synchronous)| {
            let walsenders = [senders.0, senders.1, senders.2].into_iter().flatten().collect();
            Postgres::Primary { timeline, position, walsenders, synchronous }
        },
    )
}

fn standby() -> impl Strategy<Value = Postgres> {
    let streaming =
        (option::of(name()), any::<bool>()).prop_map(|(upstream, active)| Streaming { upstream, active });
    (timeline(), position(), streaming, prop::bool::weighted(0.2), option::of(replay())).prop_map(
        |(timeline, position, streaming, promoting, replay)| Postgres::Standby {
            timeline,
            position,
            streaming,
            promoting,
            replay,
        },
    )
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    (
        option::weighted(0.8, member("a")),
        option::weighted(0.8, member("c")),
        option::weighted(0.2, member("d")),
    )
        .prop_map(|(a, c, d)| [a, c, d].into_iter().flatten().collect())
}

fn member(name: &'static str) -> impl Strategy<Value = Member> {
    let answer = prop_oneof![
        Just(Answer::NotAsked),
        Just(Answer::NoAnswer),
        state().prop_map(Answer::Answered),
        state().prop_map(Answer::Answered),
    ];
    (tags(), option::weighted(0.8, state()), answer).prop_map(move |(tags, published, answer)| Member {
        name: name.into(),
        tags,
        published,
        answer,
    })
}

fn state() -> impl Strategy<Value = MemberState> {
    let role = select(vec![Role::Primary, Role::Standby, Role::NotRunning]);
    let short = prop::bool::weighted(0.2);
    let marks = (any::<bool>(), any::<bool>(), option::of(system()), option::weighted(0.8, replay()), short);
    let seen = (watermark(), option::of(store()), starts());
    (role, timeline(), position(), marks, seen).prop_map(
        |(role, timeline, position, marks, (watermark, finds_blank, lineage))| {
            let (streaming, awaiting_checkpoint, system, replay, short) = marks;
            MemberState {
                role,
                timeline,
                position,
                streaming,
                awaiting_checkpoint,
                lineage,
                system,
                watermark,
                finds_blank,
                replay,
                short,
            }
        },
    )
}

fn store() -> impl Strategy<Value = StoreId> {
    prop_oneof![9 => Just(StoreId(1)), 1 => Just(StoreId(2))]
}

/// Mostly the same, so that not every view is one of a DCS that went back.
fn watermark() -> impl Strategy<Value = Watermark> {
    let often = |usual: i64| prop_oneof![7 => Just(usual), 1 => 0..usual + 1];
    let lost = option::weighted(0.05, Just(Lost::Revision { seen: 2, now: 1 }));
    let generation = prop_oneof![9 => Just(0_u64), 1 => Just(1)];
    (
        option::weighted(0.9, store()),
        generation,
        prop_oneof![2 => Just(2_u64), 1 => 0_u64..4],
        often(2),
        often(1),
        lost,
    )
        .prop_map(|(store, generation, term, revision, sync_revision, lost)| Watermark {
            store,
            generation,
            term: Term(term),
            revision,
            sync_revision,
            lost,
        })
}

fn replay() -> impl Strategy<Value = Replay> {
    let queries = prop::collection::vec((1_i32..3, age()).prop_map(|(pid, age)| Query { pid, age }), 0..3);
    let lacking = Lacking { name: "max_connections".to_owned(), here: 40, primary: 60 };
    let hold = prop_oneof![
        Just(Hold::Paused),
        Just(Hold::Parameters { lacking: vec![lacking] }),
        queries.prop_map(|queries| Hold::Conflict { queries })
    ];
    let delay = prop_oneof![3 => Just(Duration::ZERO), 1 => age()];
    (position(), delay, option::weighted(0.3, hold)).prop_map(|(position, delay, hold)| Replay {
        position,
        delay,
        hold,
    })
}

fn tags() -> impl Strategy<Value = Tags> {
    (prop::bool::weighted(0.1), prop::bool::weighted(0.1), 0_u32..3)
        .prop_map(|(nofailover, nosync, failover_priority)| Tags { nofailover, nosync, failover_priority })
}

fn policy() -> impl Strategy<Value = Policy> {
    let mode = select(vec![SynchronousMode::Off, SynchronousMode::On, SynchronousMode::On]);
    (mode, 1_u32..3, 0_u64..3, tags()).prop_map(
        |(synchronous_mode, synchronous_node_count, maximum_lag_on_failover, tags)| Policy {
            ttl: Duration::from_secs(5),
            loop_wait: Duration::from_secs(1),
            maximum_lag_on_failover,
            primary_start_timeout: Duration::from_secs(30),
            switchover_timeout: Duration::from_secs(5),
            step_down_margin: Duration::from_millis(700),
            synchronous_mode,
            synchronous_node_count,
            tags,
        },
    )
}

fn job() -> impl Strategy<Value = Job> {
    select(vec![
        Job::Initdb,
        Job::PostBootstrap,
        Job::Start,
        Job::Stop,
        Job::Clone,
        Job::Rewind,
        Job::Checkpoint,
        Job::Rollback,
    ])
}
