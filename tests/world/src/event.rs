//! Everything that can happen next: a round, a step, a record that arrives, a fault. Each is one transition, so that
//! anything may come between any two of them. What each changes is in `apply`.

use outrider_ha::Step;

use crate::act::{Act, Acts};
use crate::ids::{NodeId, Nodes};
use crate::look;
use crate::mutant::decide_as;
use crate::node::{Hang, Postgres};
use crate::perform::may_reload;
use crate::rebuild;
use crate::setup::{Fuse, Setup};
use crate::state::rollback::{self, Turn};
use crate::state::{State, past, slots};

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An agent observes and decides. What it decided on is carried out later, step by step.
    Round {
        /// Whose.
        node: NodeId,
        /// What it decided.
        plan: Acts,
        /// The plan broke a rule of `invariant::check`.
        rule_broken: bool,
    },
    /// An agent reads the DCS, and is not yet done with its observation.
    Read(NodeId),
    /// The same without an answer from the DCS: a fault.
    BlindRound {
        /// Whose.
        node: NodeId,
        /// What it decided.
        plan: Acts,
        /// The plan broke a rule of `invariant::check`.
        rule_broken: bool,
    },
    /// An agent takes the next step of its plan. If it fails, the plan ends.
    Step(NodeId),
    /// The same, and the DCS or the supervisor did it, and the agent never hears of it: a fault.
    ReplyIsLost(NodeId),
    /// The entry of a member whose agent began stands in the DCS.
    Enter(NodeId),
    /// A member publishes what it is now.
    Publish(NodeId),
    /// A standby receives and flushes one record.
    Stream(NodeId),
    /// A standby replays one record.
    Replay(NodeId),
    /// A primary reads whom commits shall wait for.
    Reload(NodeId),
    /// A client sends a commit.
    Commit(NodeId),
    /// Somebody asks for a switchover.
    AskForSwitchover(NodeId),
    /// Somebody asks for a failover, and gives nothing up.
    AskForFailover(NodeId),
    /// Somebody shortens the ttl.
    ShortenTtl,
    /// Somebody takes back what was asked for, or its deadline passes.
    RequestEnds,
    /// A promotion or the start of a primary is done.
    Up(NodeId),
    /// A Postgres that did not answer does again.
    Answers(NodeId),
    /// A Postgres that was told to stop is gone.
    Stops(NodeId),
    /// A node is told to end.
    Terminate(NodeId),
    /// The supervisor of such a node does not wait for its agent any longer, and stops Postgres.
    SupervisorStops(NodeId),
    /// Such a node has ended, and is started again.
    Return(NodeId),
    /// The lease ends because its holder did not renew it: a fault, unless its fuse has blown, which was one.
    LeaseExpires,
    /// A fuse blows because its agent did not extend it: a fault.
    FuseBlows(NodeId),
    /// A Postgres dies: a fault.
    PostgresCrashes(NodeId),
    /// A Postgres answers nobody any more, and lives: a fault.
    Hangs(NodeId),
    /// Something is in the way of every promotion of a node from now on: a fault.
    PromotionsFail(NodeId),
    /// A promotion fails there, again and again: Postgres ends before recovery does.
    PromotionFails(NodeId),
    /// The rewind or the clone that is to be done breaks off in the middle: a fault.
    CopyBreaksOff(NodeId),
    /// A node loses its data directory: a fault.
    DataIsLost(NodeId),
    /// A node is lost for good: a fault.
    NodeIsLost(NodeId),
    /// An agent dies and its successor begins anew: a fault.
    AgentRestarts(NodeId),
    /// The leader publishes where its slots are.
    PublishSlots,
    /// A checkpoint or a restart point removes the WAL that no slot keeps.
    RemoveWal(NodeId),
    /// A member has been away for too long, and its slot is not kept any longer: a fault.
    SlotExpires(NodeId),
    /// Somebody empties the data directory of a member whose WAL is gone.
    EmptyData(NodeId),
    /// Somebody asks for a restart of all, or with the primary first.
    AskForRestart {
        /// The primary first.
        primary_first: bool,
    },
    /// Somebody asks for a rollback, and the data for it is ready.
    AskForRollback(NodeId),
    /// What that comes to.
    RollbackGoesOn(Turn),
    /// Somebody copies the data of the DCS.
    CopyDcs,
    /// The DCS is down for longer than a lease lives, and comes back with the copy.
    RestoreDcs,
    /// An agent is led to another, empty DCS. All of them one after the other: the DCS is wiped.
    LedElsewhere(NodeId),
    /// It is led back.
    LedBack(NodeId),
    /// Somebody has the keys rebuilt, and these nodes answer.
    Rebuild(Nodes),
}

/// What happens without a fault and without a client.
pub(crate) fn progress(setup: &Setup, state: &State, events: &mut Vec<Event>) {
    for (node, here) in state.numbered().filter(|(_, node)| !node.lost) {
        if here.plan.is_empty() {
            rounds(setup, state, node, events);
        } else {
            events.push(Event::Step(node));
        }
        if !here.entered {
            events.push(Event::Enter(node));
        }
        if here.published.is_some_and(|published| published != here.to_publish()) {
            events.push(Event::Publish(node));
        }
        if here.has_to_replay() {
            events.push(Event::Replay(node));
        }
        // Recovery ends when everything is replayed.
        let comes_up = matches!(here.postgres, Postgres::Promoting | Postgres::Starting);
        if comes_up && !here.has_to_replay() && here.hang == Hang::No {
            let fails = here.never_promoted && here.postgres == Postgres::Promoting;
            events.push(if fails { Event::PromotionFails(node) } else { Event::Up(node) });
        }
        match here.hang {
            Hang::No => {}
            Hang::Silent => events.push(Event::Answers(node)),
            Hang::Stopping { .. } => events.push(Event::Stops(node)),
        }
        if lets_go(setup, state, node) {
            events.push(Event::FuseBlows(node));
        }
        if here.terminating {
            let ends = if here.postgres.runs() { Event::SupervisorStops(node) } else { Event::Return(node) };
            events.push(ends);
        }
        if may_receive(state, node) {
            events.push(Event::Stream(node));
        }
        if may_reload(state, node) {
            events.push(Event::Reload(node));
        }
    }
    events.extend(rollback::next(state).map(Event::RollbackGoesOn));
    if slots::may_be_published(state) {
        events.push(Event::PublishSlots);
    }
    if expiry(setup, state) == Some(Cost::Paid) {
        events.push(Event::LeaseExpires);
    }
}

/// What may come and need not: clients, operators, and an agent that is slow with its observation.
pub(crate) fn demands(setup: &Setup, state: &State, events: &mut Vec<Event>) {
    if state.past.as_ref().is_some_and(|past| !past.copied) {
        events.push(Event::CopyDcs);
    }
    if past::may_be_restored(state) {
        events.push(Event::RestoreDcs);
    }
    if setup.rebuilds && rebuild::may_be_asked_for(state) {
        let all = state.ids().fold(Nodes::NONE, Nodes::with);
        let done = |heard: &Nodes| rebuild::rebuilding(setup, state, *heard).is_some();
        events.extend(all.subsets().filter(done).map(Event::Rebuild));
    }
    for (node, here) in state.numbered().filter(|(_, node)| !node.lost) {
        if past::may_be_led(state, node) {
            events.push(Event::LedElsewhere(node));
        }
        if past::may_be_led_back(state, node) {
            events.push(Event::LedBack(node));
        }
        if slots::may_remove(setup, state, node) {
            events.push(Event::RemoveWal(node));
        }
        if state.slots.is_some() && state.is_cut_off(node) {
            events.push(Event::EmptyData(node));
        }
        if setup.early_reads && here.plan.is_empty() && here.read.is_none() {
            events.push(Event::Read(node));
        }
        if state.left.commits > 0 && here.postgres == Postgres::Primary {
            events.push(Event::Commit(node));
        }
        if state.left.terminations > 0 && !here.terminating {
            events.push(Event::Terminate(node));
        }
        if state.left.requests > 0 && state.dcs.holder != Some(node) {
            events.push(Event::AskForSwitchover(node));
        }
        if rollback::may_be_asked(state, node) {
            events.push(Event::AskForRollback(node));
        }
        if state.left.failovers > 0 && state.dcs.holder != Some(node) {
            events.push(Event::AskForFailover(node));
        }
    }
    if setup.shortens && !state.dcs.short_ttl {
        events.push(Event::ShortenTtl);
    }
    if state.left.restarts > 0 {
        events.extend([true, false].map(|primary_first| Event::AskForRestart { primary_first }));
    }
    if rollback::may_be_late(state) {
        events.push(Event::RollbackGoesOn(Turn::GivesUp));
    }
    if setup.failovers + setup.restarts > 0 && state.dcs.request.is_some() {
        events.push(Event::RequestEnds);
    }
}

/// What goes wrong.
pub(crate) fn faults(setup: &Setup, state: &State, events: &mut Vec<Event>) {
    if state.left.faults == 0 {
        return;
    }
    for (node, here) in state.numbered().filter(|(_, node)| !node.lost) {
        if setup.losses {
            events.push(Event::NodeIsLost(node));
        }
        match here.plan.next() {
            Some(act) if act.is_write() => events.push(Event::ReplyIsLost(node)),
            Some(Act::Rewind(_) | Act::Clone(_)) if setup.broken_data => {
                events.push(Event::CopyBreaksOff(node))
            }
            Some(Act::Promote) if setup.slow => events.push(Event::ReplyIsLost(node)),
            Some(_) => {}
            None => blind_round(setup, state, node, events),
        }
        if here.fuse && setup.fuse == Fuse::Live && !lets_go(setup, state, node) {
            events.push(Event::FuseBlows(node));
        }
        if slots::may_expire(state, node) {
            events.push(Event::SlotExpires(node));
        }
        if setup.promotions_fail && !here.never_promoted {
            events.push(Event::PromotionsFail(node));
        }
        if setup.broken_data && here.postgres != Postgres::Empty {
            events.push(Event::DataIsLost(node));
        }
        if setup.slow && here.hang == Hang::No && here.postgres.may_hang() {
            events.push(Event::Hangs(node));
        }
        if here.postgres.runs() {
            events.push(Event::PostgresCrashes(node));
        }
        events.push(Event::AgentRestarts(node));
    }
    if expiry(setup, state) == Some(Cost::OneFault) {
        events.push(Event::LeaseExpires);
    }
}

/// A leader that decides to let its lease run out renews no longer, and one that was led to another store cannot: the fuse blows without
/// any other fault.
fn lets_go(setup: &Setup, state: &State, node: NodeId) -> bool {
    let lives = state.node(node).fuse && setup.fuse == Fuse::Live;
    lives && (state.keys_of(node).is_none() || lets_lease_run_out(setup, state, node))
}

fn lets_lease_run_out(setup: &Setup, state: &State, node: NodeId) -> bool {
    // Only one that does not answer is given up so; to ask of every other takes its time.
    let hangs = state.node(node).hang == Hang::Silent;
    let decides = |view| decide_as(setup.mutant, view).0.steps.contains(&Step::LetLeaseRunOut);
    hangs && look::views(setup, state, node).iter().any(decides)
}

#[derive(PartialEq, Eq)]
enum Cost {
    /// What made it possible was the fault.
    Paid,
    OneFault,
}

/// Whether the lease can expire now. A live fuse that was armed for this very term blows before, unless the lease was shortened under it.
fn expiry(setup: &Setup, state: &State) -> Option<Cost> {
    let holder = state.node(state.dcs.holder?);
    if holder.lost {
        return Some(Cost::Paid);
    }
    match (holder.held_this_term, holder.fuse, setup.fuse) {
        (true, true, Fuse::Live) => holder.fuse_outlives_lease().then_some(Cost::OneFault),
        (true, false, _) => Some(Cost::Paid),
        // Its agent never learnt that it holds the lease, and does not look for as long as the lease lasts.
        (false, _, _) | (true, true, Fuse::Dead) => Some(Cost::OneFault),
    }
}

fn rounds(setup: &Setup, state: &State, node: NodeId, events: &mut Vec<Event>) {
    let read = state.node(node).read.as_ref();
    let sync_is_last = read.is_none_or(|read| read.sync_is_last);
    let learns = past::teaches(state, node);
    let mut seen = Vec::new();
    for view in look::views(setup, state, node) {
        let (plan, rule_broken) = decide_as(setup.mutant, &view);
        let plan = Acts::of(&plan).with_sync_seen(sync_is_last);
        if (!plan.is_empty() || rule_broken || read.is_some() || learns) && !seen.contains(&plan) {
            seen.push(plan);
            events.push(Event::Round { node, plan, rule_broken });
        }
    }
}

fn blind_round(setup: &Setup, state: &State, node: NodeId, events: &mut Vec<Event>) {
    let (plan, rule_broken) = decide_as(setup.mutant, &look::silent_view(setup, state, node));
    let plan = Acts::of(&plan);
    if !plan.is_empty() || rule_broken {
        events.push(Event::BlindRound { node, plan, rule_broken });
    }
}

/// A primary that stops in good order sends its standbys all that it has before it is gone; here it may do so later.
fn may_receive(state: &State, node: NodeId) -> bool {
    let here = state.node(node);
    let Postgres::Standby { upstream: Some(upstream) } = here.postgres else { return false };
    let source = state.node(upstream);
    let sends = source.postgres.accepts_connections() || source.postgres == Postgres::StoppedClean;
    let follows = here.wal.is_prefix_of(source.wal) && here.wal != source.wal;
    sends && follows && state.keeps_what_follows(upstream, node)
}

/// Whether it is one of the faults that are counted.
pub(crate) fn is_fault(setup: &Setup, state: &State, event: &Event) -> bool {
    match event {
        Event::FuseBlows(node) => !lets_go(setup, state, *node),
        Event::BlindRound { .. }
        | Event::ReplyIsLost(_)
        | Event::Hangs(_)
        | Event::PromotionsFail(_)
        | Event::SlotExpires(_)
        | Event::CopyBreaksOff(_)
        | Event::DataIsLost(_)
        | Event::PostgresCrashes(_)
        | Event::NodeIsLost(_)
        | Event::AgentRestarts(_) => true,
        Event::LeaseExpires => expiry(setup, state) == Some(Cost::OneFault),
        Event::Round { .. }
        | Event::Read(_)
        | Event::Step(_)
        | Event::Enter(_)
        | Event::Publish(_)
        | Event::Stream(_)
        | Event::Reload(_)
        | Event::Commit(_)
        | Event::AskForSwitchover(_)
        | Event::AskForFailover(_)
        | Event::ShortenTtl
        | Event::RequestEnds
        | Event::Replay(_)
        | Event::Answers(_)
        | Event::Stops(_)
        | Event::Up(_)
        | Event::PromotionFails(_)
        | Event::PublishSlots
        | Event::RemoveWal(_)
        | Event::EmptyData(_)
        | Event::Terminate(_)
        | Event::SupervisorStops(_)
        | Event::CopyDcs
        | Event::RestoreDcs
        | Event::AskForRestart { .. }
        | Event::AskForRollback(_)
        | Event::RollbackGoesOn(_)
        | Event::LedElsewhere(_)
        | Event::LedBack(_)
        | Event::Rebuild(_)
        | Event::Return(_) => false,
    }
}
