//! The world as a stateright model, and the search through it. What happens is in `event`, what must hold in `properties`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::World;
use crate::act::Acts;
use crate::apply::apply;
use crate::event::{self, Event};
use crate::ids::Nodes;
use crate::node::{Node, Postgres};
use crate::properties;
use crate::setup::Setup;
use crate::state::past::Past;
use crate::state::slots::Slots;
use crate::state::{Budget, Oracle, State};
use crate::store::{Store, Sync};
use crate::wal::Branches;

impl Model for World {
    type State = State;
    type Action = Event;

    /// Member a leads and has just begun to; the others follow it and are not yet recorded as synchronous.
    fn init_states(&self) -> Vec<State> {
        let mut nodes: Vec<Node> = (0..self.setup.nodes).map(|_| Node::standby_of(0)).collect();
        nodes[0] = Node {
            postgres: Postgres::Primary,
            fuse: true,
            held_this_term: true,
            knows_lease: true,
            led: self.setup.promotions_fail.then_some(0),
            plan: Acts::default(),
            ..Node::standby_of(0)
        };
        if self.setup.late_members {
            nodes.iter_mut().for_each(|node| node.published = Some(node.to_publish()));
        }
        let sync = self.setup.synchronous.then_some(Sync { leader: 0, standbys: Nodes::NONE });
        let dcs = Store::new(Some(0), sync, Branches::default());
        if self.setup.late_replay {
            nodes.iter_mut().for_each(|node| node.replayed = Some(0));
        }
        let Setup { faults, commits, requests, failovers, terminations, rollbacks, restarts, .. } =
            self.setup;
        let oracle = Oracle {
            acknowledged: 0,
            births: 0,
            born_this_term: false,
            rolled_back: None,
            wanted: None,
            all_were_down: false,
            wrong: None,
        };
        let left = Budget { faults, commits, requests, failovers, terminations, rollbacks, restarts };
        let past = Past::of(&self.setup);
        let slots = Slots::of(&self.setup);
        vec![State { dcs, nodes, left, past, slots, rollback: None, oracle }]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        event::progress(&self.setup, state, events);
        event::demands(&self.setup, state, events);
        event::faults(&self.setup, state, events);
    }

    fn next_state(&self, state: &State, event: Event) -> Option<State> {
        apply(&self.setup, state, &event)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties(self)
    }
}

/// What a search has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How many different states there are; only meaningful when nothing was violated.
    pub unique_states: usize,
    /// Properties that do not hold, each with the events that lead there.
    pub violated: Vec<(&'static str, String)>,
    /// Properties that must be reachable and were.
    pub reached: Vec<&'static str>,
}

/// Searches the whole world breadth first, or until a property is violated.
#[must_use]
pub fn search(setup: &Setup) -> Finding {
    search_until(setup, HasDiscoveries::AnyFailures)
}

/// The same, until this one property is violated, whatever else is before.
#[must_use]
pub fn search_for(setup: &Setup, property: &'static str) -> Finding {
    search_until(setup, HasDiscoveries::AnyOf(BTreeSet::from([property])))
}

fn search_until(setup: &Setup, end: HasDiscoveries) -> Finding {
    let world = World { setup: setup.clone() };
    let checker = world.checker().threads(2).finish_when(end).spawn_bfs().join();
    let mut finding =
        Finding { unique_states: checker.unique_state_count(), violated: Vec::new(), reached: Vec::new() };
    for (name, path) in checker.discoveries() {
        if !checker.model().property(name).expectation.discovery_is_failure() {
            finding.reached.push(name);
            continue;
        }
        let mut trace = String::new();
        let last = path.last_state().clone();
        for event in path.into_actions() {
            writeln!(trace, "  {event:?}").expect("a string takes everything");
        }
        writeln!(trace, "  {last:#?}").expect("a string takes everything");
        finding.violated.push((name, trace));
    }
    finding.reached.sort_unstable();
    finding
}
