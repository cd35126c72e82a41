//! Base backups of a small cluster around the shipped `outrider_jobs::backup::next`: every interleaving of looks, steps, ends, deaths,
//! sessions that run out, answers that are lost, changes of the leader and a request that is taken back.
//!
//! A member looks in one transition and writes into the DCS in another, on what it saw then; a step that writes nothing is taken with
//! the look. Nothing has a duration: whoever is not the next in the order has waited long enough, or has not. The DCS does what
//! `dcs/src/keyed/work.rs` does.

use std::collections::BTreeSet;
use std::time::Duration;

use outrider_jobs::backup::{End, GivenUp, Hand, Job, Own, Request, Step, next};
use outrider_jobs::{Claim, Leader, Member as Entry, Postgres, View};
use outrider_wal::{Lsn, TimelineId};
use stateright::{Checker, HasDiscoveries, Model, Property};

const NAMES: [&str; 3] = ["a", "b", "c"];
const LONG: Duration = Duration::from_secs(60);

/// A rule of the decision, or of the DCS, that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// The claim is written whoever has it.
    ClaimsBlindly,
    /// A claim that another has is taken for one's own.
    GoesOnWhenLost,
    /// A request that was taken back is taken for one that stands.
    GoesOnWhenWithdrawn,
    /// A claim that an earlier agent left is let be.
    KeepsWhatWasLeft,
    /// What is done is let go when the session has run out.
    ForgetsWhatIsDone,
}

#[derive(Clone, Debug)]
struct World {
    members: usize,
    /// Of each: deaths, sessions that run out, lost answers, changes of the leader, failures of a Postgres, withdrawals.
    left: [u8; 6],
    mutant: Option<Mutant>,
}

const DEATHS: usize = 0;
const EXPIRIES: usize = 1;
const LOST_ANSWERS: usize = 2;
const CHANGES: usize = 3;
const FAILURES: usize = 4;
const WITHDRAWALS: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Dcs {
    leader: usize,
    /// A backup is wanted.
    request: bool,
    claim: Option<usize>,
    recorded: u8,
}

/// What a member saw, and whether it has waited long enough for those before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Seen {
    dcs: Dcs,
    late: bool,
    /// The request has been written or deleted since.
    outdated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum InHand {
    Nothing,
    Running { on_standby: bool, given_up: Option<GivenUp> },
    Ended { end: End, given_up: Option<GivenUp> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    /// `None` from its own last change until it looks again.
    seen: Option<Seen>,
    hand: InHand,
    declined: bool,
    /// It has a whole backup that nobody has recorded, and that was nobody else's to record.
    has_done: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    dcs: Dcs,
    members: Vec<Member>,
    left: [u8; 6],
    wrong: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Looks { who: usize, late: bool },
    Steps { who: usize, answered: bool },
    Ends { who: usize, end: End },
    Dies(usize),
    Expires(usize),
    Leads(usize),
    Withdrawn,
}

impl World {
    fn decide(&self, view: &View, mut job: Job) -> Step {
        let running = matches!(job.hand, Hand::Running { .. });
        match self.mutant {
            Some(Mutant::GoesOnWhenLost) if running && job.claim == Claim::Others => job.claim = Claim::Mine,
            Some(Mutant::GoesOnWhenWithdrawn) if running => job.request = Some(request(false, false)),
            Some(Mutant::KeepsWhatWasLeft) if job.hand == Hand::Nothing && job.claim == Claim::Mine => {
                return Step::Wait;
            }
            Some(Mutant::ForgetsWhatIsDone) if job.claim == Claim::Free => {
                if let Hand::Ended { .. } = job.hand {
                    return Step::LeaveUnrecorded;
                }
            }
            Some(_) | None => {}
        }
        next(view, &job)
    }

    /// What `who` decides on what it saw.
    fn step_of(&self, state: &State, who: usize) -> Option<Step> {
        let Member { seen: Some(Seen { dcs, late, .. }), hand, declined, .. } = &state.members[who] else {
            return None;
        };
        let claim = match dcs.claim {
            None => Claim::Free,
            Some(holder) if holder == who => Claim::Mine,
            Some(_) => Claim::Others,
        };
        let hand = match hand {
            InHand::Nothing => Hand::Nothing,
            InHand::Running { on_standby, given_up, .. } => Hand::Running {
                request: "r".into(),
                on_standby: *on_standby,
                given_up: given_up.is_some(),
                news: false,
            },
            InHand::Ended { end, given_up } => {
                Hand::Ended { request: "r".into(), attempts: 1, end: *end, given_up: *given_up }
            }
        };
        let request = dcs.request.then(|| request(*late, *declined));
        let recorded = dcs.recorded > 0 && hand != Hand::Nothing;
        let (grace, declined) = (LONG / 4, LONG);
        let job = Job { claim, request, recorded, due: false, hand, grace, declined };
        Some(self.decide(&view(dcs, self.members, who), job))
    }

    /// Claims the request that was seen; whether it does.
    fn put_claim(&self, state: &mut State, who: usize, outdated: bool) -> bool {
        let refused = outdated || state.dcs.claim.is_some();
        if refused && self.mutant != Some(Mutant::ClaimsBlindly) {
            return false;
        }
        if state.dcs.claim.is_some_and(|holder| holder != who) {
            state.wrong = Some("a claim was taken over while its holder's session lived");
        }
        (state.dcs.claim, state.dcs.request) = (Some(who), true);
        state.outdate();
        true
    }

    fn step(&self, state: &State, who: usize, answered: bool) -> Option<State> {
        let step = self.step_of(state, who)?;
        let mut after = state.clone();
        let Seen { dcs: seen, outdated, .. } = after.members[who].seen.take()?;
        let mut changed = false;
        match step {
            Step::Wait | Step::Report => after.judge(who, &seen),
            Step::GiveUp(why) => {
                if let InHand::Running { given_up, .. } = &mut after.members[who].hand {
                    *given_up = Some(why);
                }
                after.judge(who, &seen);
            }
            Step::Forget | Step::LeaveUnrecorded => {
                let me = &mut after.members[who];
                me.has_done &= seen.claim.is_none() && seen.request;
                me.hand = InHand::Nothing;
            }
            Step::Take | Step::Refuse | Step::TakeAgain => {
                if after.members[who].has_done && step == Step::Take {
                    after.wrong = Some("what is done was taken once more");
                }
                changed = self.put_claim(&mut after, who, outdated);
                if changed && answered && step == Step::Take {
                    let on_standby = seen.leader != who;
                    after.members[who].hand = InHand::Running { on_standby, given_up: None };
                }
            }
            Step::Record => {
                changed = after.dcs.claim == Some(who);
                if changed {
                    after.dcs.claim = None;
                    after.dcs.recorded += 1;
                    after.dcs.request &= outdated;
                    after.outdate();
                    after.members.iter_mut().for_each(|member| member.has_done = false);
                }
            }
            Step::Own(Own::GiveBack) => {
                changed = after.dcs.claim == Some(who);
                after.dcs.claim = after.dcs.claim.filter(|holder| *holder != who);
            }
            Step::Own(Own::Ask) => after.wrong = Some("nothing is due, and it was asked for"),
        }
        let lets_go = matches!(step, Step::Record | Step::Own(_));
        if changed && answered && lets_go {
            after.members[who].hand = InHand::Nothing;
        }
        if !answered {
            // Only of something that happened can the answer be lost.
            after.left[LOST_ANSWERS] -= u8::from(changed);
            return changed.then_some(after);
        }
        Some(after)
    }

    fn ends(state: &State, who: usize, end: End) -> Option<State> {
        let InHand::Running { given_up, .. } = state.members[who].hand else { return None };
        let mut after = state.clone();
        if end == End::FailedHere {
            after.left[FAILURES] = after.left[FAILURES].checked_sub(1)?;
            after.members[who].declined = given_up.is_none();
        }
        after.members[who].has_done = end == End::Done;
        after.members[who].hand = InHand::Ended { end, given_up };
        Some(after)
    }

    /// All that is left to do is done, by everybody in turn, and nothing goes wrong any more.
    fn comes_to_rest(&self, state: &State) -> bool {
        let mut state = state.clone();
        for _ in 0..12 {
            for who in 0..self.members {
                let looks = Event::Looks { who, late: true };
                state = self.next_state(&state, looks).unwrap_or(state);
                state = self.step(&state, who, true).unwrap_or(state);
                let end = match state.members[who].hand {
                    InHand::Running { given_up: Some(_), .. } => End::Failed,
                    _ => End::Done,
                };
                state = Self::ends(&state, who, end).unwrap_or(state);
            }
        }
        let rests = state.members.iter().all(|member| member.hand == InHand::Nothing);
        rests && !state.dcs.request && state.dcs.claim.is_none() && state.wrong.is_none()
    }
}

impl State {
    /// The request is not any more what others have seen.
    fn outdate(&mut self) {
        self.members
            .iter_mut()
            .filter_map(|member| member.seen.as_mut())
            .for_each(|seen| seen.outdated = true);
    }

    /// Whoever saw that it is not its to go on with does not.
    fn judge(&mut self, who: usize, seen: &Dcs) {
        let goes_on = matches!(self.members[who].hand, InHand::Running { given_up: None, .. });
        if goes_on && (!seen.request || seen.claim.is_some_and(|holder| holder != who)) {
            self.wrong = Some("whoever saw that it is not wanted, or another's, goes on");
        }
    }
}

fn writes(step: Step) -> bool {
    match step {
        Step::Wait | Step::Report | Step::GiveUp(_) | Step::Forget | Step::LeaveUnrecorded => false,
        Step::Take | Step::Refuse | Step::TakeAgain | Step::Record | Step::Own(_) => true,
    }
}

fn request(late: bool, declined: bool) -> Request {
    let age = if late { LONG } else { Duration::ZERO };
    Request { id: "r".into(), attempts: 1, open_for: age, declined_for: declined.then_some(age) }
}

fn view(dcs: &Dcs, members: usize, who: usize) -> View {
    let entry = |member: usize| Entry {
        name: NAMES[member].into(),
        streams: member != dcs.leader,
        position: Lsn::new(1),
    };
    let mine = dcs.leader == who;
    View {
        me: NAMES[who].into(),
        leader: Some(Leader { name: NAMES[dcs.leader].into(), mine, term: 1 }),
        members: (0..members).map(entry).collect(),
        end: Lsn::new(1),
        made: true,
        postgres: if mine { Postgres::Primary(TimelineId::new(1)) } else { Postgres::Standby },
        terminating: false,
        leaving: false,
    }
}

impl Model for World {
    type State = State;
    type Action = Event;

    /// A backup is wanted, and nobody has seen it.
    fn init_states(&self) -> Vec<State> {
        let member = Member { seen: None, hand: InHand::Nothing, declined: false, has_done: false };
        let dcs = Dcs { leader: 0, request: true, claim: None, recorded: 0 };
        vec![State { dcs, members: vec![member; self.members], left: self.left, wrong: None }]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        for who in 0..self.members {
            events.extend([false, true].map(|late| Event::Looks { who, late }));
            events.push(Event::Steps { who, answered: true });
            events.extend([End::Done, End::Failed, End::FailedHere].map(|end| Event::Ends { who, end }));
            let faults = [
                (LOST_ANSWERS, Event::Steps { who, answered: false }),
                (DEATHS, Event::Dies(who)),
                (EXPIRIES, Event::Expires(who)),
                (CHANGES, Event::Leads(who)),
            ];
            events.extend(faults.iter().filter(|(fault, _)| state.left[*fault] > 0).map(|(_, event)| *event));
        }
        if state.left[WITHDRAWALS] > 0 {
            events.push(Event::Withdrawn);
        }
    }

    fn next_state(&self, state: &State, event: Event) -> Option<State> {
        let mut after = state.clone();
        match event {
            Event::Looks { who, late } => {
                if state.members[who].seen.is_some() {
                    return None;
                }
                after.members[who].seen = Some(Seen { dcs: state.dcs.clone(), late, outdated: false });
                if !writes(self.step_of(&after, who)?) {
                    after = self.step(&after, who, true)?;
                }
            }
            Event::Steps { who, answered } => return self.step(state, who, answered),
            Event::Ends { who, end } => return Self::ends(state, who, end),
            // Its session is resumed by the agent that comes after it.
            Event::Dies(who) => {
                after.left[DEATHS] -= 1;
                after.members[who] =
                    Member { seen: None, hand: InHand::Nothing, declined: false, has_done: false };
            }
            Event::Expires(who) => {
                after.left[EXPIRIES] -= 1;
                if state.dcs.claim != Some(who) {
                    return None;
                }
                after.dcs.claim = None;
            }
            Event::Leads(who) => {
                after.left[CHANGES] -= 1;
                after.dcs.leader = who;
            }
            Event::Withdrawn => {
                after.left[WITHDRAWALS] -= 1;
                after.dcs.request = false;
                after.outdate();
            }
        }
        (after != *state).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(KEPT, |_, state: &State| state.wrong.is_none()),
            Property::always(ONCE, |_, state: &State| state.dcs.recorded <= 1),
            Property::always(RESTS, |world: &World, state: &State| {
                state.wrong.is_some() || world.comes_to_rest(state)
            }),
        ]
    }
}

const KEPT: &str = "nobody does what is not its to do";
const ONCE: &str = "a request is answered once";
const RESTS: &str = "every request comes to its end, and no claim is left";

/// How many states there are, and what does not hold.
fn search(world: World, end: HasDiscoveries) -> (usize, Vec<&'static str>) {
    let checker = world.checker().threads(2).finish_when(end).spawn_bfs().join();
    let mut violated = Vec::new();
    for (name, path) in checker.discoveries() {
        if checker.model().property(name).expectation.discovery_is_failure() {
            println!("{name}: {:?}", path.into_actions());
            violated.push(name);
        }
    }
    (checker.unique_state_count(), violated)
}

#[track_caller]
fn holds(world: World, unique_states: usize) {
    assert_eq!(search(world, HasDiscoveries::AnyFailures), (unique_states, vec![]));
}

#[track_caller]
fn caught(mutant: Mutant, property: &'static str) {
    let world = World { mutant: Some(mutant), ..two() };
    let (_, violated) = search(world, HasDiscoveries::AnyOf(BTreeSet::from([property])));
    assert!(violated.contains(&property), "{mutant:?} passed: {violated:?}");
}

fn two() -> World {
    World { members: 2, left: [1, 1, 1, 1, 1, 1], mutant: None }
}

#[test]
fn two_members_answer_a_request_once_while_they_die_and_sessions_run_out_and_answers_are_lost() {
    holds(World { left: [1, 1, 1, 0, 0, 0], ..two() }, 3_042);
}

#[test]
fn two_members_answer_a_request_once_while_the_leader_changes_and_it_is_taken_back() {
    holds(World { left: [0, 1, 0, 1, 1, 1], ..two() }, 36_719);
}

#[test]
fn three_members_answer_a_request_once_while_they_die_and_sessions_run_out() {
    holds(World { members: 3, left: [1, 1, 0, 0, 0, 0], ..two() }, 7_082);
}

#[test]
fn a_claim_must_be_written_only_where_there_is_none() {
    caught(Mutant::ClaimsBlindly, KEPT);
}

#[test]
fn whoever_has_lost_its_claim_must_stop() {
    caught(Mutant::GoesOnWhenLost, KEPT);
}

#[test]
fn whatever_was_taken_back_must_stop() {
    caught(Mutant::GoesOnWhenWithdrawn, KEPT);
}

#[test]
fn what_an_earlier_agent_left_must_be_given_back() {
    caught(Mutant::KeepsWhatWasLeft, RESTS);
}

#[test]
fn what_is_done_must_not_be_done_again() {
    caught(Mutant::ForgetsWhatIsDone, KEPT);
}
