//! What must always hold, and what must be reachable so that the rest does not hold for nothing. One function each,
//! with its source.

use stateright::{Model as _, Property};

use crate::World;
use crate::event;
use crate::ids::NodeId;
use crate::node::{Hang, Node, Postgres};
use crate::property_names::{
    ALL_BACK, BORN_ONCE, COMES_TO_REST_WHOLE, COPIED_ANEW, ELIGIBLE, FAILOVER, HANDED_OVER_READY, IN_ORDER,
    NOTHING_LOST, ONE_AT_A_TIME, ONE_CLUSTER, ONLY_WHOLE_DATA, ROLLBACK, ROLLED_BACK, RULES_KEPT,
    SINGLE_WRITER, SWITCHED_FIRST, SWITCHOVER, TERMS_ASCEND, WAL_KEPT,
};
use crate::setup::Fuse;
use crate::state::{State, Wrong, slots};
use crate::wal::Record;

/// What holds in this world.
pub(crate) fn properties(world: &World) -> Vec<Property<World>> {
    let setup = &world.setup;
    let mut properties = vec![
        Property::always(RULES_KEPT, |_, state: &State| no_plan_breaks_a_rule(state)),
        Property::sometimes(FAILOVER, |_, state| a_failover_completes(state)),
    ];
    if setup.fuse == Fuse::Live {
        properties.push(Property::always(SINGLE_WRITER, |_, state| at_most_one_writable_primary(state)));
        properties.push(Property::always(TERMS_ASCEND, |_, state| terms_never_go_back(state)));
    }
    if setup.synchronous {
        properties.push(Property::always(COMES_TO_REST_WHOLE, comes_to_rest_whole));
        properties.push(Property::always(NOTHING_LOST, |_, state| no_acknowledged_commit_is_lost(state)));
        properties.push(Property::always(ELIGIBLE, |_, state| only_the_eligible_are_promoted(state)));
        properties.push(Property::always(BORN_ONCE, |_, state| a_timeline_is_born_once(state)));
    }
    if setup.late_replay {
        properties.push(Property::always(HANDED_OVER_READY, |_, state| hands_over_ready(state)));
    }
    if setup.broken_data {
        properties.push(Property::always(ONLY_WHOLE_DATA, |_, state| only_whole_data_is_started(state)));
        properties.push(Property::always(ONE_CLUSTER, |_, state| no_second_cluster_is_made(state)));
    }
    if setup.rollbacks > 0 {
        properties.push(Property::always(ROLLED_BACK, |_, state| what_was_rolled_back_stays_so(state)));
        properties.push(Property::sometimes(ROLLBACK, |_, state| a_rollback_completes(state)));
    }
    if setup.slots {
        properties.push(Property::always(WAL_KEPT, |_, state| slots::promises_are_kept(state)));
        properties.push(Property::sometimes(COPIED_ANEW, |_, state| was_copied_anew(state)));
    }
    if setup.restarts > 0 {
        properties.push(Property::always(ONE_AT_A_TIME, |_, state| one_is_restarted_at_a_time(state)));
        properties.push(Property::always(SWITCHED_FIRST, |_, state| a_restart_moves_the_primary(state)));
        properties.push(Property::always(IN_ORDER, |_, state| a_restart_keeps_its_order(state)));
    }
    if setup.requests > 0 {
        properties.push(Property::sometimes(SWITCHOVER, |_, state| a_switchover_completes(state)));
    }
    if setup.faults >= setup.nodes {
        properties.push(Property::sometimes(ALL_BACK, |_, state| everything_down_and_up_again(state)));
    }
    properties
}

/// Invariant 4 of ARCHITECTURE.md: writes only while a live deadline is armed, and one lease arms one fuse. (A dead fuse
/// cannot promise it; there, `no_acknowledged_commit_is_lost` must do alone.)
fn at_most_one_writable_primary(state: &State) -> bool {
    state.nodes.iter().filter(|node| node.postgres == Postgres::Primary).count() <= 1
}

/// README.md: in synchronous mode no failover loses an acknowledged commit. The timeline that was born last is the one
/// that remains, so it must hold every commit that any primary ever acknowledged, before its birth or after; and so must
/// whoever leads, holds the lease and has recorded itself, on whatever timeline: the others will be made like it.
fn no_acknowledged_commit_is_lost(state: &State) -> bool {
    let lacks_none = |primary: &Node| state.oracle.acknowledged & !primary.wal.commits() == 0;
    let leads = |node: NodeId| {
        state.dcs.holder == Some(node) && state.dcs.sync.is_some_and(|sync| sync.leader == node)
    };
    state
        .numbered()
        .filter(|(_, node)| node.postgres == Postgres::Primary)
        .filter(|(id, node)| leads(*id) || node.wal.newest_birth() == state.oracle.births)
        .all(|(_, node)| lacks_none(node))
}

/// ha.md, "Failover: who may stand": in synchronous modes only members recorded in `/sync`; and it strikes all others
/// from it before it is promoted.
fn only_the_eligible_are_promoted(state: &State) -> bool {
    state.oracle.wrong != Some(Wrong::NotEligible)
}

/// ha.md, "Words": a term has one holder, so at most one promotion, and none when it is over.
fn terms_never_go_back(state: &State) -> bool {
    state.oracle.wrong != Some(Wrong::TermWentBack)
}

/// PostgreSQL documentation, 26.3.6 "Timelines": a new timeline gets an ID of its own. Two with one number, and former
/// primaries could not tell that they diverged.
fn a_timeline_is_born_once(state: &State) -> bool {
    state.oracle.wrong != Some(Wrong::TimelineBornTwice)
}

/// `outrider_ha::invariant`: what no plan may ever do, which the agent checks before it acts, too.
fn no_plan_breaks_a_rule(state: &State) -> bool {
    state.oracle.wrong != Some(Wrong::RuleBroken)
}

/// Issue 12, item 6: before the hand-over the candidate has replayed the shutdown checkpoint.
fn hands_over_ready(state: &State) -> bool {
    state.oracle.wrong != Some(Wrong::HandedOverUnreplayed)
}

/// PostgreSQL documentation, pg_rewind: when it fails, the data folder of the target is likely not in a state that can be recovered.
fn only_whole_data_is_started(state: &State) -> bool {
    state.oracle.wrong != Some(Wrong::UnusableStarted)
}

/// README.md: everything after the target is gone from the cluster, and everything before is there. So whoever leads once the data is in
/// its place has it on the timeline that the rollback began.
fn what_was_rolled_back_stays_so(state: &State) -> bool {
    let leads = |node: NodeId| state.dcs.holder == Some(node);
    let has = |node: &Node, birth| node.wal.records().any(|record| record == Record::Birth(birth));
    state.oracle.rolled_back.is_none_or(|birth| {
        let mut primaries =
            state.numbered().filter(|(id, node)| node.postgres == Postgres::Primary && leads(*id));
        primaries.all(|(_, node)| has(node, birth))
    })
}

/// It must be reachable.
fn was_copied_anew(state: &State) -> bool {
    slots::was_copied_anew(state) && is_whole(state)
}

/// It must be reachable.
fn a_rollback_completes(state: &State) -> bool {
    state.oracle.rolled_back.is_some() && state.dcs.swapping.is_none() && is_whole(state)
}

/// Issue 12, item 17: rolling, one member after the other, and none while another is down.
fn one_is_restarted_at_a_time(state: &State) -> bool {
    state.oracle.wrong != Some(Wrong::RestartedTogether)
}

/// The same: a switchover instead of a restart of the primary.
fn a_restart_moves_the_primary(state: &State) -> bool {
    state.oracle.wrong != Some(Wrong::PrimaryRestarted)
}

/// The same: standbys first; but what standbys must not have less of is lowered on the primary first (PostgreSQL documentation, 26.4.5).
fn a_restart_keeps_its_order(state: &State) -> bool {
    state.oracle.wrong != Some(Wrong::RestartedOutOfOrder)
}

/// ha.md, "Bootstrap": a cluster is made once.
fn no_second_cluster_is_made(state: &State) -> bool {
    state.oracle.wrong != Some(Wrong::SecondCluster)
}

/// testing.md, level 4: after the faults the cluster converges. Where nothing can happen any more without a new fault
/// or a client, somebody leads and serves, everybody else follows and has everything, and no commit waits. Not so in
/// asynchronous mode: two members that were promoted at the same position, the first gone before it could record its
/// history, have timelines that nothing in a view tells apart.
fn comes_to_rest_whole(world: &World, state: &State) -> bool {
    let awaits_a_person = state.past.as_ref().is_some_and(|past| past.awaits_a_person());
    // Somebody must empty its data directory.
    let is_cut_off = state.slots.is_some() && state.ids().any(|node| state.is_cut_off(node));
    awaits_a_person || is_cut_off || is_whole(state) || goes_on(world, state)
}

fn goes_on(world: &World, state: &State) -> bool {
    let mut events = Vec::new();
    event::progress(&world.setup, state, &mut events);
    events.into_iter().any(|event| world.next_state(state, event).is_some())
}

/// Somebody leads and serves, everybody else follows and has everything, and no commit waits.
pub(crate) fn is_whole(state: &State) -> bool {
    let Some(holder) = state.dcs.holder else { return all_that_may_lead_are_lost(state) };
    let leader = state.node(holder);
    let others = state.numbered().filter(|(node, here)| *node != holder && !here.lost);
    let followed = others
        .map(|(node, _)| node)
        .all(|node| state.streams_from(node) == Some(holder) && state.node(node).wal == leader.wal);
    let all_answer = state.nodes.iter().all(|node| node.hang == Hang::No);
    let nothing_waits = leader.wal.commits() & !state.oracle.acknowledged == 0;
    leader.postgres == Postgres::Primary
        && leader.fuse
        && followed
        && all_answer
        && slots::are_complete(state, holder)
        && nothing_waits
        && state.dcs.request.is_none()
        && state.rollback.is_none()
        && state.dcs.restart.is_none()
}

/// Whoever has every acknowledged commit is lost for good, or its data is, or it cannot be promoted: only an operator can decide what to
/// give up.
fn all_that_may_lead_are_lost(state: &State) -> bool {
    state.dcs.sync.is_some_and(|sync| {
        let may_lead = |node: NodeId| sync.leader == node || sync.standbys.has(node);
        // Only one that led last has what nobody else may have.
        let never = |here: &Node| here.never_promoted && here.led == Some(here.wal.newest_birth());
        let cannot = |here: &Node| here.lost || never(here) || !here.postgres.has_data();
        state.numbered().all(|(node, here)| cannot(here) || !may_lead(node))
    })
}

fn serves_on_a_new_timeline(state: &State) -> bool {
    state.dcs.holder.is_some_and(|holder| {
        let leader = state.node(holder);
        leader.postgres == Postgres::Primary && leader.wal.newest_birth() > 0
    })
}

/// Issue 3, item 10: a failover must be reachable.
fn a_failover_completes(state: &State) -> bool {
    serves_on_a_new_timeline(state) && state.oracle.wanted.is_none() && is_whole(state)
}

/// Issue 3, item 10: a switchover must be reachable.
fn a_switchover_completes(state: &State) -> bool {
    let led_by_the_wanted = state.oracle.wanted.is_some() && state.dcs.holder == state.oracle.wanted;
    serves_on_a_new_timeline(state) && led_by_the_wanted && state.dcs.announced.is_none() && is_whole(state)
}

/// testing.md: all nodes down and up again must be reachable.
fn everything_down_and_up_again(state: &State) -> bool {
    state.oracle.all_were_down && is_whole(state)
}
