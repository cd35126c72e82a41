//! The views that situations start from: three members a, b and c in a quiet round. No situation of its own.

use std::time::Duration;

use outrider_ha::{
    Answer, Cluster, Dcs, Initialize, Lease, Local, Member, MemberName, MemberState, Policy, Postgres,
    Promotion, Replay, Role, Shutdown, StoreId, Streaming, SyncState, Synchronous, SynchronousMode, SystemId,
    Tags, Term, View, WalSender, Watermark,
};
use outrider_wal::{Lsn, TimelineHistory, TimelineId, TimelineStarts};

const SYSTEM: SystemId = SystemId(7_000_000_000_000_000_001);
const POSITION: Lsn = Lsn::new(0x0300_0000);
const SEEN: Watermark = Watermark {
    store: Some(StoreId(0xe7cd)),
    generation: 0,
    term: Term(5),
    revision: 100,
    sync_revision: 40,
    lost: None,
};

/// The base view with this name.
pub(crate) fn named(name: &str) -> View {
    match name {
        "leader" => leader(),
        "standby" => standby(),
        "stopped" => with_postgres(stopped(Shutdown::Standby)),
        "crashed" => with_postgres(stopped(Shutdown::CrashedPrimary)),
        "empty" => View { local: Local { system: None, ..local(Postgres::Empty) }, ..standby() },
        "no cluster" => no_cluster(),
        "wiped" => wiped(),
        other => panic!("there is no base view {other:?}"),
    }
}

/// Member a leads; b is synchronous, c streams.
fn leader() -> View {
    let sender = |name, sync| WalSender { name, streaming: true, sync, flushed: POSITION };
    let postgres = Postgres::Primary {
        timeline: TimelineId::FIRST,
        position: POSITION,
        walsenders: vec![sender("b".into(), true), sender("c".into(), false)],
        synchronous: Synchronous { names: vec!["b".into()], since: Some(Lsn::new(0x0200_0000)) },
    };
    let mut local = local(postgres);
    local.fuse = Some(Duration::from_secs(4));
    local.held_term = Term(5);
    local.slots = vec!["b".into(), "c".into()];
    View {
        me: "a".into(),
        dcs: Dcs::Seen(cluster(Lease::Mine)),
        local,
        members: vec![member("b", Role::Standby), member("c", Role::Standby)],
        policy: policy(),
        job: None,
    }
}

/// Member b, the synchronous standby of a.
fn standby() -> View {
    let streaming = Streaming { upstream: Some("a".into()), active: true };
    with_postgres(Postgres::Standby {
        timeline: TimelineId::FIRST,
        position: POSITION,
        streaming,
        promoting: false,
        replay: Some(replayed(POSITION)),
    })
}

/// Member b of a cluster that a leads.
fn with_postgres(postgres: Postgres) -> View {
    View {
        me: "b".into(),
        dcs: Dcs::Seen(cluster(Lease::Theirs { holder: "a".into() })),
        local: local(postgres),
        members: vec![member("a", Role::Primary), member("c", Role::Standby)],
        policy: policy(),
        job: None,
    }
}

/// Member a with nothing, beside two others with nothing.
fn no_cluster() -> View {
    let nothing = |name: &str| {
        let mut member = member(name, Role::NotRunning);
        member.published = member.published.map(|state| MemberState {
            timeline: TimelineId::new(0),
            position: Lsn::INVALID,
            system: None,
            replay: None,
            ..state
        });
        member
    };
    let cluster = Cluster {
        term: Term(0),
        sync_revision: 0,
        blank: true,
        initialize: Initialize::Absent,
        sync: None,
        last_position: Lsn::INVALID,
        ..cluster(Lease::Free { since: Duration::ZERO })
    };
    View {
        me: "a".into(),
        dcs: Dcs::Seen(cluster),
        local: Local {
            system: None,
            watermark: Watermark::default(),
            last_position: Lsn::INVALID,
            ..local(Postgres::Empty)
        },
        members: vec![nothing("b"), nothing("c")],
        policy: policy(),
        job: None,
    }
}

/// Member a leads, and every key of the cluster is gone from the DCS; b and c answer that they find the same.
fn wiped() -> View {
    let Dcs::Seen(blank) = no_cluster().dcs else { panic!("no cluster is a cluster that was seen") };
    let mut view = leader();
    view.local.recorded = vec!["b".into()];
    view.dcs = Dcs::Seen(Cluster { revision: 7, ..blank });
    for member in &mut view.members {
        let state = member.published.take().expect("the base has it");
        let (watermark, finds_blank) = (SEEN, SEEN.store);
        member.answer = Answer::Answered(MemberState { watermark, finds_blank, ..state });
    }
    view
}

fn cluster(lease: Lease) -> Cluster {
    Cluster {
        lease,
        term: SEEN.term,
        store: SEEN.store,
        generation: SEEN.generation,
        revision: SEEN.revision,
        sync_revision: SEEN.sync_revision,
        blank: false,
        initialize: Initialize::Done(SYSTEM),
        sync: Some(SyncState {
            leader: Some("a".into()),
            standbys: vec!["b".into()],
            given_up: TimelineId::default(),
            revision: 40,
        }),
        last_position: POSITION,
        last_timeline: TimelineId::default(),
        history: TimelineHistory::default(),
        least_timeline: TimelineId::default(),
        swapping: None,
        request: None,
        switchover: None,
        restart: None,
    }
}

fn local(postgres: Postgres) -> Local {
    Local {
        postgres,
        system: Some(SYSTEM),
        entered: true,
        session_ttl: Some(policy().ttl),
        fuse: None,
        watermark: SEEN,
        recorded: Vec::new(),
        held_term: Term(0),
        last_position: POSITION,
        history: TimelineHistory::default(),
        starts: TimelineStarts::default(),
        frozen: None,
        shut_out: None,
        recent_crashes: 0,
        promotion: Promotion::default(),
        rewind_failed: false,
        cooling_down: false,
        backing_off: Vec::new(),
        hopeless: Vec::new(),
        trying_parameters: false,
        unrecorded: false,
        users_ready: true,
        awaiting_checkpoint: false,
        unsupervised: false,
        terminating: false,
        rollback_prepared: false,
        postmaster: Some("before".to_owned()),
        pending_restart: false,
        short_for: None,
        hastened: false,
        faulty_files: false,
        slots: Vec::new(),
    }
}

fn stopped(shutdown: Shutdown) -> Postgres {
    Postgres::Stopped { timeline: TimelineId::FIRST, end: POSITION, shutdown }
}

fn member(name: &str, role: Role) -> Member {
    let state = MemberState {
        role,
        timeline: TimelineId::FIRST,
        position: POSITION,
        streaming: role == Role::Standby,
        awaiting_checkpoint: false,
        lineage: TimelineStarts::default(),
        system: Some(SYSTEM),
        watermark: Watermark::default(),
        finds_blank: None,
        replay: (role == Role::Standby).then(|| replayed(POSITION)),
        short: false,
    };
    Member {
        name: MemberName::from(name),
        tags: Tags::default(),
        published: Some(state),
        answer: Answer::NotAsked,
    }
}

fn replayed(position: Lsn) -> Replay {
    Replay { position, delay: Duration::ZERO, hold: None }
}

fn policy() -> Policy {
    Policy {
        ttl: Duration::from_secs(5),
        loop_wait: Duration::from_secs(1),
        maximum_lag_on_failover: 1 << 20,
        primary_start_timeout: Duration::from_secs(30),
        switchover_timeout: Duration::from_secs(5),
        step_down_margin: Duration::from_millis(700),
        synchronous_mode: SynchronousMode::On,
        synchronous_node_count: 1,
        tags: Tags::default(),
    }
}
