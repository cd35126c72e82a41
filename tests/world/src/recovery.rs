//! Whether the cluster can always become whole again by itself: from every state that faults and clients have led to,
//! with no more of either. Stronger than looking at the states of rest, because members that keep each other busy for
//! ever never come to rest.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use stateright::Model as _;

use crate::World;
use crate::event;
use crate::properties::is_whole;
use crate::setup::Setup;
use crate::state::State;

/// What the search has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How many different states there are.
    pub unique_states: usize,
    /// The nearest from which the cluster never becomes whole.
    pub stranded: Option<Box<State>>,
}

/// Searches the whole world, then walks back from where the cluster is whole along all that happens by itself.
#[must_use]
pub fn search_recovery(setup: &Setup) -> Recovery {
    let world = World { setup: setup.clone() };
    let mut open = VecDeque::from(world.init_states());
    let mut numbers: HashMap<State, usize> = open.iter().cloned().zip(0..).collect();
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); open.len()];
    let mut whole = Vec::new();
    // First in, first out: the states leave in the order of their numbers.
    while let Some(state) = open.pop_front() {
        let here = whole.len();
        whole.push(is_whole(&state));
        for (by_itself, after) in what_follows(&world, &state) {
            let number = match numbers.entry(after) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    open.push_back(new.key().clone());
                    before.push(Vec::new());
                    *new.insert(before.len() - 1)
                }
            };
            if by_itself {
                before[number].push(here);
            }
        }
    }
    let recovers = walk_back(whole, &before);
    let stranded = numbers.into_iter().filter(|(_, number)| !recovers[*number]);
    Recovery {
        unique_states: recovers.len(),
        stranded: stranded.min_by_key(|(_, number)| *number).map(|(state, _)| Box::new(state)),
    }
}

/// Everything that can happen next, and whether it does so without a fault and without a client.
fn what_follows(world: &World, state: &State) -> Vec<(bool, State)> {
    let mut events = Vec::new();
    event::progress(&world.setup, state, &mut events);
    let of_themselves = events.len();
    event::demands(&world.setup, state, &mut events);
    event::faults(&world.setup, state, &mut events);
    let numbered = events.into_iter().enumerate();
    numbered
        .filter_map(|(place, event)| Some((place < of_themselves, world.next_state(state, event)?)))
        .collect()
}

fn walk_back(whole: Vec<bool>, before: &[Vec<usize>]) -> Vec<bool> {
    let mut open: Vec<usize> = (0..whole.len()).filter(|number| whole[*number]).collect();
    let mut recovers = whole;
    while let Some(number) = open.pop() {
        for earlier in &before[number] {
            if !recovers[*earlier] {
                recovers[*earlier] = true;
                open.push(*earlier);
            }
        }
    }
    recovers
}
