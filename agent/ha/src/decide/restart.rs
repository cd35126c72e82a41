//! Restarts that somebody asked for, one member at a time: standbys first, and where a primary is to be restarted a switchover
//! instead, if anybody can take over. What stops Postgres here, the usual rows of the table start again.

use alloc::string::String;
use core::time::Duration;

use super::switchover;
use crate::plan::{Plan, Step, StopMode};
use crate::reason::Reason;
use crate::view::View;
use crate::view::cluster::{Cluster, Lease};
use crate::view::local::Streaming;
use crate::view::member::{MemberName, Role};
use crate::view::request::{Request, RequestKind};
use crate::view::restart::{Restart, RestartTurn, TurnChange, TurnEnd, TurnState};

/// Who could lead instead of this member.
enum Heir {
    /// Nobody ever: it is restarted where it is.
    Nobody,
    /// Not at this moment.
    NotYet,
    /// Somebody.
    Fit,
}

/// Whether it is this member's turn.
pub(crate) fn is_my_turn(view: &View, cluster: &Cluster) -> bool {
    due(cluster).and_then(|restart| turn(view, cluster, restart)).is_some_and(|turn| turn.name == view.me)
}

/// What a restart asks of a standby that follows the leader; `None` when nothing is asked of it.
pub(super) fn standby(view: &View, cluster: &Cluster, streaming: &Streaming) -> Option<Plan> {
    let (restart, state) = mine(view, cluster)?;
    let started = view.local.postmaster.as_ref()?;
    Some(match state {
        TurnState::Waiting if restart.pending_only && !view.local.pending_restart => {
            not_pending(view, restart)
        }
        TurnState::Waiting if !streaming.active || !others_are_well(view) => {
            Plan::wait(Reason::RestartWaiting)
        }
        TurnState::Waiting => stop(view, restart, started, false),
        TurnState::Begun { started: before, .. } if before == started => {
            Plan::step(Reason::Restarting, Step::Stop(StopMode::Fast))
        }
        TurnState::Begun { .. } if !streaming.active => Plan::wait(Reason::Restarting),
        TurnState::Begun { switching: true, .. } => ended(view, restart, TurnEnd::SwitchedOver),
        TurnState::Begun { switching: false, .. } => ended(view, restart, TurnEnd::Standby),
        TurnState::Ended => return None,
    })
}

/// What a restart asks of a leader whose Postgres is a primary, and of whom nothing else is asked.
pub(super) fn primary(view: &View, cluster: &Cluster) -> Option<Plan> {
    let (restart, state) = mine(view, cluster)?;
    let started = view.local.postmaster.as_ref()?;
    if view.job.is_some() {
        return None;
    }
    let ask = |switch: Step| Plan::step(Reason::Restarting, switch);
    Some(match state {
        TurnState::Waiting if restart.pending_only && !view.local.pending_restart => {
            not_pending(view, restart)
        }
        TurnState::Waiting if restart.primary_first => stop(view, restart, started, false),
        TurnState::Waiting => move_first(view, cluster, restart, started),
        // It was refused, or rolled back before Postgres had stopped.
        TurnState::Begun { started: before, switching: true } if before == started => {
            match heir(view, cluster) {
                Heir::Fit => ask(Step::AskSwitchover),
                Heir::Nobody | Heir::NotYet => {
                    Plan::wait(Reason::RestartWaiting).and_look_again_in(soon(view))
                }
            }
        }
        TurnState::Begun { started: before, switching: false }
            if before == started && restart.primary_first =>
        {
            ask(Step::Stop(StopMode::Fast))
        }
        // It began as a standby, and was promoted before it stopped.
        TurnState::Begun { started: before, switching: false } if before == started => {
            move_first(view, cluster, restart, started)
        }
        TurnState::Begun { .. } => ended(view, restart, TurnEnd::Primary),
        TurnState::Ended => return None,
    })
}

/// A primary is restarted where it is only when nobody else could ever lead; else somebody takes over first.
fn move_first(view: &View, cluster: &Cluster, restart: &Restart, started: &str) -> Plan {
    match heir(view, cluster) {
        Heir::Nobody => stop(view, restart, started, false),
        Heir::Fit if others_are_well(view) => {
            let begins = record(view, restart, begun(started, true));
            Plan::steps(Reason::Restarting, [begins, Step::AskSwitchover])
        }
        Heir::Fit | Heir::NotYet => Plan::wait(Reason::RestartWaiting).and_look_again_in(soon(view)),
    }
}

/// Whether this leader, whose Postgres has stopped in good order, was only to be restarted: then nobody takes over.
pub(super) fn stays(view: &View, cluster: &Cluster) -> bool {
    let begun_here =
        |(_, state): (&Restart, &TurnState)| matches!(state, TurnState::Begun { switching: false, .. });
    view.local.recent_crashes == 0 && mine(view, cluster).is_some_and(begun_here)
}

/// A turn that takes too long ends the restart: who is down is not helped by taking down the next.
pub(super) fn give_up(view: &View, cluster: &Cluster, plan: &mut Plan) {
    let Some(restart) = due(cluster).filter(|restart| restart.turn_for > restart.timeout) else { return };
    let is_recorded = plan.steps.iter().any(|step| matches!(step, Step::RecordRestart { .. }));
    let Some(turn) = turn(view, cluster, restart).filter(|_| !is_recorded) else { return };
    if turn.name == view.me || cluster.lease == Lease::Mine {
        let change = TurnChange::Ended(TurnEnd::TooLate);
        let (member, revision) = (turn.name.clone(), restart.revision);
        plan.steps.push(Step::RecordRestart { member, change, revision });
    }
}

fn due(cluster: &Cluster) -> Option<&Restart> {
    cluster.restart.as_ref().filter(|restart| restart.due_in.is_zero())
}

/// Who has begun; else the first standby; else the leader, who comes first where it must.
fn turn<'view>(view: &View, cluster: &Cluster, restart: &'view Restart) -> Option<&'view RestartTurn> {
    let leads = |name: &MemberName| match &cluster.lease {
        Lease::Mine => *name == view.me,
        Lease::Theirs { holder } => name == holder,
        Lease::Free { .. } => false,
    };
    let turns = || restart.members.iter();
    let waiting = || turns().filter(|turn| turn.state == TurnState::Waiting);
    turns()
        .find(|turn| matches!(turn.state, TurnState::Begun { .. }))
        .or_else(|| waiting().find(|turn| leads(&turn.name) == restart.primary_first))
        .or_else(|| waiting().next())
}

fn mine<'view>(view: &View, cluster: &'view Cluster) -> Option<(&'view Restart, &'view TurnState)> {
    let restart = due(cluster)?;
    let turn = turn(view, cluster, restart).filter(|turn| turn.name == view.me)?;
    Some((restart, &turn.state))
}

/// Nobody else is down: one at a time.
fn others_are_well(view: &View) -> bool {
    view.members.iter().filter_map(|member| member.published.as_ref()).all(|state| match state.role {
        Role::Primary => true,
        Role::Standby => state.streaming,
        Role::NotRunning => false,
    })
}

fn heir(view: &View, cluster: &Cluster) -> Heir {
    if !view.members.iter().any(|member| member.published.is_some() && member.tags.may_lead()) {
        return Heir::Nobody;
    }
    let request = Request {
        kind: RequestKind::Switchover,
        from: Some(view.me.clone()),
        to: None,
        due_in: Duration::ZERO,
        expires_in: view.policy.switchover_timeout,
        dated: true,
        accept_data_loss: false,
        wait: false,
        revision: 0,
    };
    match switchover::candidate(view, cluster, &request) {
        Ok(_) => Heir::Fit,
        Err(_) => Heir::NotYet,
    }
}

fn soon(view: &View) -> Duration {
    view.policy.loop_wait / 2
}

fn begun(started: &str, switching: bool) -> TurnChange {
    TurnChange::Begun { started: String::from(started), switching }
}

fn record(view: &View, restart: &Restart, change: TurnChange) -> Step {
    Step::RecordRestart { member: view.me.clone(), change, revision: restart.revision }
}

fn stop(view: &View, restart: &Restart, started: &str, switching: bool) -> Plan {
    let begin = record(view, restart, begun(started, switching));
    Plan::steps(Reason::Restarting, [begin, Step::Stop(StopMode::Fast)])
}

/// What was changed a moment ago may not have come to this Postgres yet, so it is looked at for a while.
fn not_pending(view: &View, restart: &Restart) -> Plan {
    if restart.turn_for < view.policy.loop_wait * 2 {
        return Plan::wait(Reason::RestartWaiting).and_look_again_in(soon(view));
    }
    ended(view, restart, TurnEnd::NotPending)
}

fn ended(view: &View, restart: &Restart, end: TurnEnd) -> Plan {
    Plan::step(Reason::Restarting, record(view, restart, TurnChange::Ended(end)))
}
