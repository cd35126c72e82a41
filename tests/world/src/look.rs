//! What a node's agent sees of the world: the `View` that the shipped `decide` gets. Changes nothing.

use std::time::Duration;

use outrider_ha::{
    Answer, Cluster, Dcs, Initialize, Job, Lease, Local, Member, MemberName, MemberState, Policy, Promotion,
    Replay, Request, RequestKind, Restart, Shutdown, StoreId, Streaming, Switchover, SyncState, Synchronous,
    SynchronousMode, SystemId, Tags, Term, Unusable, View, WalSender, Watermark, whom_to_ask,
};
use outrider_wal::{Lsn, TimelineHistory, TimelineId, TimelineStarts};

use crate::ids::{NodeId, Nodes, name, names, number};
use crate::node::{Hang, Node, Postgres, Published};
use crate::restart;
use crate::setup::Setup;
use crate::state::past::{self, Mark, Seen};
use crate::state::rollback::Stage;
use crate::state::{State, slots};
use crate::store::Sync;

const SYSTEM: SystemId = SystemId(7);
/// Terms are not counted, so that all are this one; the last one held may be an earlier one.
const TERM: Term = Term(2);
const TERM_BEFORE: Term = Term(1);
/// Revisions are not counted either: the acts know whether theirs is still the last.
const REVISION: i64 = 1;
/// As many failures in a row as are not put down to chance.
const FAILURES: u32 = 3;
/// The empty store.
const BLANK: StoreId = StoreId(2);

/// How long things have lasted, of which the world keeps no count: short or long enough for whatever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Briefly,
    /// Long enough to give a Postgres up that does not answer, and not for giving up on killing it.
    AWhile,
    Long,
}

impl Waited {
    fn age(self) -> Duration {
        match self {
            Waited::Briefly => Duration::ZERO,
            Waited::AWhile => Duration::from_secs(12),
            Waited::Long => Duration::from_secs(3600),
        }
    }
}

/// Every view that `node` can have now: whoever answers or does not, however long things have lasted.
pub(crate) fn views(setup: &Setup, state: &State, node: NodeId) -> Vec<View> {
    let mut views = Vec::new();
    let hangs = state.node(node).hang == Hang::Silent;
    let ages = [Waited::Briefly, Waited::AWhile, Waited::Long];
    for waited in ages.into_iter().filter(|waited| hangs || *waited != Waited::AWhile) {
        let view = view(setup, state, node, waited);
        if whom_to_ask(&view).is_empty() {
            views.push(view);
            // Nothing else that lasts matters when nobody needs to be asked.
            if state.dcs.restart.is_none() {
                break;
            }
            continue;
        }
        let others = state.ids().filter(|other| *other != node).fold(Nodes::NONE, Nodes::with);
        // Whoever would know that the DCS went back, and is not heard, cannot help.
        let heard = others.subsets().filter(|heard| !setup.restores || *heard == others);
        views.extend(heard.map(|heard| with_answers(view.clone(), state, heard)));
    }
    views
}

/// The view of `node` when the DCS does not answer until the fuse is about to blow.
pub(crate) fn silent_view(setup: &Setup, state: &State, node: NodeId) -> View {
    let mut view = view(setup, state, node, Waited::Briefly);
    view.dcs = Dcs::Silent { since: Waited::Long.age() };
    view.local.fuse = view.local.fuse.map(|_| Duration::from_millis(1));
    view
}

fn view(setup: &Setup, state: &State, node: NodeId, waited: Waited) -> View {
    View {
        me: name(node),
        dcs: Dcs::Seen(cluster(state, node, waited)),
        local: local(setup, state, node, waited),
        members: state.ids().filter(|other| *other != node).map(|other| member(state, other, node)).collect(),
        policy: policy(setup, state),
        job: match state.node(node).hang {
            _ if state.rollback_of(node).is_some_and(|rollback| rollback.stage == Stage::Stopping) => {
                Some(Job::Rollback)
            }
            Hang::Stopping { awaited: true, .. } => Some(Job::Stop),
            Hang::Stopping { awaited: false, .. } | Hang::No | Hang::Silent => None,
        },
    }
}

fn with_answers(mut view: View, state: &State, heard: Nodes) -> View {
    for member in &mut view.members {
        let other = number(&member.name);
        let answers = heard.has(other) && !state.node(other).lost;
        member.answer = if answers { Answer::Answered(member_state(state, other)) } else { Answer::NoAnswer };
    }
    view
}

/// What the agent sees where nothing of the cluster stands.
fn blank(waited: Waited) -> Cluster {
    Cluster {
        lease: Lease::Free { since: waited.age() },
        term: Term(0),
        store: Some(BLANK),
        generation: 0,
        revision: REVISION,
        sync_revision: 0,
        blank: true,
        initialize: Initialize::Absent,
        sync: None,
        last_position: Lsn::INVALID,
        last_timeline: TimelineId::default(),
        history: TimelineHistory::default(),
        least_timeline: TimelineId::default(),
        swapping: None,
        request: None,
        switchover: None,
        restart: None,
    }
}

fn cluster(state: &State, node: NodeId, waited: Waited) -> Cluster {
    let Some((keys, mark)) = state.keys_of(node) else { return blank(waited) };
    let dcs = state.node(node).read.as_ref().map_or(keys, |read| &read.store);
    let now = shown(state, mark);
    Cluster {
        lease: match dcs.holder {
            None => Lease::Free { since: waited.age() },
            Some(holder) if holder == node => Lease::Mine,
            Some(holder) => Lease::Theirs { holder: name(holder) },
        },
        term: now.term,
        store: now.store,
        generation: now.generation,
        revision: now.revision,
        sync_revision: now.sync_revision,
        blank: false,
        initialize: Initialize::Done(SYSTEM),
        sync: dcs.sync.map(sync_state),
        last_position: Lsn::new(dcs.last_position.into()),
        last_timeline: TimelineId::default(),
        history: dcs.branches.history(),
        least_timeline: dcs.least_timeline,
        swapping: dcs.swapping.map(name),
        request: dcs.request.map(|request| Request {
            kind: if request.failover { RequestKind::Failover } else { RequestKind::Switchover },
            from: request.from.map(name),
            to: request.to.map(name),
            due_in: Duration::ZERO,
            expires_in: Duration::MAX,
            dated: true,
            accept_data_loss: false,
            wait: false,
            revision: REVISION,
        }),
        switchover: dcs.announced.map(|(from, to)| Switchover {
            id: String::new(),
            from: name(from),
            to: name(to),
            stopping_for: waited.age(),
            checkpointed: state.node(node).checkpointed,
            stopping: false,
        }),
        restart: dcs.restart.map(|restart| Restart {
            due_in: Duration::ZERO,
            pending_only: false,
            members: restart.members(state.nodes.len()),
            primary_first: restart.primary_first,
            turn_for: waited.age(),
            timeout: Duration::from_secs(300),
            revision: REVISION,
        }),
    }
}

fn local(setup: &Setup, state: &State, node: NodeId, waited: Waited) -> Local {
    let here = state.node(node);
    Local {
        postgres: postgres(state, node, waited),
        system: system(here.postgres),
        entered: here.entered,
        session_ttl: Some(ttl(setup, here.short_session)),
        fuse: (here.fuse && here.knows_lease).then_some(Duration::from_secs(4)),
        watermark: past::after_a_look(state, node)
            .map_or(Watermark { term: TERM, ..Watermark::default() }, Seen::watermark),
        recorded: recorded(state, node),
        held_term: held_term(state, node),
        last_position: here.wal.lsn(),
        history: here.wal.branches().history(),
        starts: TimelineStarts::default(),
        frozen: None,
        shut_out: None,
        recent_crashes: 0,
        promotion: Promotion {
            failures: if here.promotion_failed { FAILURES } else { 0 },
            lasts: Duration::ZERO,
            struck: here.struck.map(sync_state),
        },
        rewind_failed: false,
        cooling_down: false,
        backing_off: Vec::new(),
        hopeless: Vec::new(),
        trying_parameters: false,
        unrecorded: false,
        users_ready: true,
        awaiting_checkpoint: false,
        unsupervised: false,
        terminating: here.terminating,
        rollback_prepared: state.rollback_of(node).is_some_and(|rollback| rollback.stage == Stage::Offered),
        postmaster: Some(restart::postmaster(state, node)),
        pending_restart: false,
        short_for: None,
        hastened: false,
        faulty_files: false,
        slots: names(slots::present(state, node)),
    }
}

/// Where nothing of the cluster stands.
fn recorded(state: &State, node: NodeId) -> Vec<MemberName> {
    let past = state.past.as_ref().filter(|_| state.keys_of(node).is_none());
    let sync = past.and_then(|past| past.seen(node).record?.sync);
    names(sync.map_or(Nodes::NONE, |sync| sync.standbys))
}

/// As it was last written.
fn sync_state(sync: Sync) -> SyncState {
    SyncState {
        leader: Some(name(sync.leader)),
        standbys: names(sync.standbys),
        given_up: TimelineId::default(),
        revision: REVISION,
    }
}

fn held_term(state: &State, node: NodeId) -> Term {
    let here = state.node(node);
    let past = state.past.as_ref();
    let remembered = past
        .and_then(|past| past.seen(node).record)
        .map(|record| Mark { term: record.held, ..Mark::default() });
    let held = here.read.as_ref().map_or(here.held_this_term, |read| read.held_its_term);
    match remembered {
        Some(mark) if here.knows_lease => mark.watermark().term,
        None if held && here.knows_lease => past.map_or(TERM, |past| past.now.watermark().term),
        Some(_) | None => TERM_BEFORE,
    }
}

fn postgres(state: &State, node: NodeId, waited: Waited) -> outrider_ha::Postgres {
    let here = state.node(node);
    if here.hang != Hang::No {
        let writable = here.postgres.is_writable();
        return outrider_ha::Postgres::Unresponsive { writable, since: waited.age() };
    }
    let (timeline, position) = (here.wal.timeline(), here.wal.lsn());
    let stopped = |shutdown| outrider_ha::Postgres::Stopped { timeline, end: position, shutdown };
    match here.postgres {
        Postgres::Primary => outrider_ha::Postgres::Primary {
            timeline,
            position,
            walsenders: walsenders(state, node),
            synchronous: Synchronous {
                names: names(here.set),
                since: here.since.map(|since| Lsn::new(since.into())),
            },
        },
        Postgres::Standby { upstream } => outrider_ha::Postgres::Standby {
            timeline,
            position,
            streaming: Streaming { upstream: upstream.map(name), active: state.streams_from(node).is_some() },
            promoting: false,
            replay: None,
        },
        Postgres::Promoting => outrider_ha::Postgres::Standby {
            timeline,
            position,
            streaming: Streaming { upstream: None, active: false },
            promoting: true,
            replay: None,
        },
        Postgres::Starting => outrider_ha::Postgres::Starting { writable: true, since: waited.age() },
        Postgres::StoppedClean => stopped(Shutdown::CleanPrimary),
        Postgres::Crashed => stopped(Shutdown::CrashedPrimary),
        Postgres::StoppedStandby => stopped(Shutdown::Standby),
        Postgres::HalfRewound => outrider_ha::Postgres::Unusable(Unusable::HalfRewound),
        Postgres::HalfCloned => outrider_ha::Postgres::Unusable(Unusable::HalfCloned),
        Postgres::Empty => outrider_ha::Postgres::Empty,
    }
}

fn walsenders(state: &State, primary: NodeId) -> Vec<WalSender> {
    let waits_for = state.node(primary).waits_for;
    let connected = state.ids().filter(|standby| state.streams_from(*standby) == Some(primary));
    connected
        .map(|standby| WalSender {
            name: name(standby),
            streaming: true,
            sync: waits_for.has(standby),
            flushed: state.node(standby).wal.lsn(),
        })
        .collect()
}

/// As `looker` sees it.
fn member(state: &State, node: NodeId, looker: NodeId) -> Member {
    Member {
        name: name(node),
        tags: Tags::default(),
        // Elsewhere its key is not.
        published: (state.looks_here(node) == state.looks_here(looker) && state.keys_of(looker).is_some())
            .then(|| published(state, node)),
        answer: Answer::NotAsked,
    }
}

/// Only the role and the timeline can be old: at nothing else does `decide` look without asking.
fn published(state: &State, node: NodeId) -> MemberState {
    let now = member_state(state, node);
    match state.node(node).published {
        Some(Published { role, timeline }) => MemberState { role, timeline, ..now },
        None => now,
    }
}

pub(crate) fn member_state(state: &State, node: NodeId) -> MemberState {
    let here @ Node { wal, replayed, .. } = state.node(node);
    let Published { role, timeline } = here.to_publish();
    let answers = here.hang == Hang::No;
    let replayed = replayed.map_or(wal.lsn(), |replayed| Lsn::new(replayed.into()));
    MemberState {
        role,
        timeline,
        position: if answers { wal.lsn() } else { Lsn::INVALID },
        streaming: answers && state.streams_from(node).is_some(),
        awaiting_checkpoint: false,
        lineage: TimelineStarts::default(),
        system: system(here.postgres),
        watermark: state.past.as_ref().map_or(Watermark::default(), |past| past.seen(node).watermark()),
        finds_blank: state.keys_of(node).is_none().then_some(BLANK),
        replay: answers.then_some(Replay { position: replayed, delay: Duration::ZERO, hold: None }),
        short: false,
    }
}

/// Whose data is there. A clone begins with taking away what was.
fn system(postgres: Postgres) -> Option<SystemId> {
    (!matches!(postgres, Postgres::Empty | Postgres::HalfCloned)).then_some(SYSTEM)
}

/// How far the DCS is; where it never goes back, always as far.
fn shown(state: &State, mark: Mark) -> Watermark {
    let same = Watermark { term: TERM, revision: REVISION, sync_revision: REVISION, ..Watermark::default() };
    state.past.as_ref().map_or(same, |_| mark.watermark())
}

/// Of a session or of the cluster; where nobody shortens it the same for all.
fn ttl(setup: &Setup, shortened: bool) -> Duration {
    Duration::from_secs(if setup.shortens && !shortened { 6 } else { 5 })
}

fn policy(setup: &Setup, state: &State) -> Policy {
    Policy {
        ttl: ttl(setup, state.dcs.short_ttl),
        loop_wait: Duration::from_secs(1),
        maximum_lag_on_failover: 16,
        primary_start_timeout: Duration::from_secs(30),
        switchover_timeout: Duration::from_secs(5),
        step_down_margin: Duration::from_millis(700),
        synchronous_mode: if setup.synchronous { SynchronousMode::On } else { SynchronousMode::Off },
        synchronous_node_count: setup.synchronous_node_count,
        tags: Tags::default(),
    }
}
