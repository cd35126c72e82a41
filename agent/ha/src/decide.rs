//! The policy of the whole program on one screen: what the lease and the local Postgres together ask for.
//!
//! Total: every view has a plan. No `_` arm: a new state does not compile until someone says what it means in every row.

mod blind;
mod bootstrap;
mod election;
mod failing;
mod primary;
mod raise;
pub(crate) mod recreate;
mod rejoin;
mod request;
mod restart;
mod standby;
mod standbys;
mod stop;
mod switchover;
mod synchronous;
mod ttl;
pub(crate) mod went_back;

use crate::plan::{Plan, Step, StopMode};
use crate::reason::Reason;
use crate::view::cluster::{Cluster, Initialize, Lease};
use crate::view::local::{Postgres, Unusable};
use crate::view::member::Replay;
use crate::view::{Dcs, Job, View};

pub(crate) use self::restart::is_my_turn;
pub use self::switchover::may_take_over;
pub use self::ttl::leave;

/// How many bytes a standby may be behind and still count as caught up, whatever `maximum_lag_on_failover` says: between two
/// looks at a busy server more than that is written, and it arrives within milliseconds. Nothing is promoted on it.
const CAUGHT_UP: u64 = 1 << 20;

/// What this member should do now.
///
/// |              | primary | standby | starting | stopped | empty |
/// |---|---|---|---|---|---|
/// | DCS silent   | `blind::keep_or_step_down` | `blind::wait` | `blind::wait_or_step_down` | `blind::wait` | `blind::wait` |
/// | lease free   | `primary::reclaim` | `election::stand` | `primary::wait_or_step_down` | `election::start_then_stand` | `bootstrap::race` |
/// | lease mine   | `primary::keep` | `standby::promote` | `primary::wait_for_start` | `primary::revive_or_release` | `bootstrap::initialize` |
/// | lease theirs | `primary::step_down` | `standby::follow` | `primary::wait_or_step_down` | `rejoin::choose` | `rejoin::clone` |
#[must_use]
pub fn decide(view: &View) -> Plan {
    let mut plan = choose(view);
    // Work that has just failed (a port that is taken, a source that refuses) would fail again at once, a thousand
    // times a minute; and each copy that is begun costs the primary a checkpoint. Stopping is never put off.
    if plan.steps.iter().any(|step| is_put_off(view, step)) {
        plan.steps.retain(|step| !is_put_off(view, step));
        plan.look_again = Some(view.policy.loop_wait / 2);
    }
    if let Dcs::Seen(cluster) = &view.dcs
        && refusal(view, cluster).is_none()
    {
        ttl::follow(view, cluster, &mut plan);
        restart::give_up(view, cluster, &mut plan);
    }
    stop::wait_for_successors(view, &mut plan);
    // Another agent may live under this name: two would pass for one another in `/sync`.
    if !view.local.entered {
        plan.steps.retain(Step::is_for_those_outside);
    }
    plan
}

fn is_put_off(view: &View, step: &Step) -> bool {
    let waits = |job| {
        view.local.cooling_down
            || view.local.backing_off.contains(&job)
            || (job == Job::Start && view.local.trying_parameters)
    };
    step.job().is_some_and(|job| job != Job::Stop && waits(job))
}

fn choose(view: &View) -> Plan {
    let cluster = match &view.dcs {
        Dcs::Silent { .. } => return without_dcs(view),
        Dcs::Seen(cluster) => cluster,
    };
    // What is left of a Postgres whose supervisor is gone, nobody here can stop.
    if cluster.lease == Lease::Mine && view.local.unsupervised {
        let plan = Plan::step(Reason::NoSupervisor, Step::LetLeaseRunOut);
        return plan.and_look_again_in(view.policy.loop_wait / 4);
    }
    if let Some(plan) = give_up_what_another_made(view, cluster) {
        return plan;
    }
    if let Some(reason) = refusal(view, cluster) {
        return recreate::instead_of_stopping(view, cluster).unwrap_or_else(|| refuse(view, cluster, reason));
    }
    match &cluster.lease {
        Lease::Free { since } => match &view.local.postgres {
            Postgres::Primary { .. } => primary::reclaim(view, cluster),
            Postgres::Standby { timeline, position, replay, .. } => {
                let delayed = replay.as_ref().is_some_and(Replay::is_delayed);
                election::stand(view, cluster, *timeline, *position, delayed, *since)
            }
            Postgres::Starting { writable, .. } | Postgres::Unresponsive { writable, .. } => {
                primary::wait_or_step_down(view, *writable)
            }
            Postgres::Stopped { .. } => election::start_then_stand(view, cluster),
            Postgres::Empty => bootstrap::race(view, cluster),
            Postgres::Unusable(fault) => bootstrap::race_again(view, cluster, *fault),
        },
        Lease::Mine => match &view.local.postgres {
            Postgres::Primary { .. } => primary::keep(view, cluster),
            Postgres::Standby { timeline, position, promoting, replay, .. } => {
                standby::promote(view, cluster, (*timeline, *position), *promoting, replay.as_ref())
            }
            Postgres::Starting { since, .. } => primary::wait_for_start(view, cluster, *since),
            Postgres::Unresponsive { since, .. } => primary::wait_for_answer(view, cluster, *since),
            Postgres::Stopped { timeline, end, shutdown } => {
                primary::revive_or_release(view, cluster, *timeline, *end, *shutdown)
            }
            Postgres::Empty => bootstrap::initialize(view, cluster),
            Postgres::Unusable(fault) => bootstrap::initialize_again(view, cluster, *fault),
        },
        Lease::Theirs { holder } if *holder == view.me => {
            if primary::is_writable(&view.local.postgres) {
                primary::step_down(view)
            } else {
                Plan::wait(Reason::NameTaken)
            }
        }
        Lease::Theirs { holder } => match &view.local.postgres {
            Postgres::Primary { .. } => primary::step_down(view),
            Postgres::Standby { streaming, replay, .. } => {
                standby::follow(view, cluster, holder, streaming, replay.as_ref())
            }
            Postgres::Starting { writable, .. } | Postgres::Unresponsive { writable, .. } => {
                primary::wait_or_step_down(view, *writable)
            }
            Postgres::Stopped { shutdown, .. } => rejoin::choose(view, cluster, holder, *shutdown),
            Postgres::Empty => rejoin::clone(view, cluster, holder),
            Postgres::Unusable(fault) => rejoin::clone_over(view, cluster, holder, *fault),
        },
    }
}

fn without_dcs(view: &View) -> Plan {
    match &view.local.postgres {
        Postgres::Primary { .. } => blind::keep_or_step_down(view),
        Postgres::Starting { writable, .. } | Postgres::Unresponsive { writable, .. } => {
            blind::wait_or_step_down(view, *writable)
        }
        Postgres::Standby { .. } | Postgres::Stopped { .. } | Postgres::Empty | Postgres::Unusable(_) => {
            blind::wait()
        }
    }
}

/// Data that was to begin the cluster, which another member has begun meanwhile, runs no more: stopped it is as good as none.
fn give_up_what_another_made(view: &View, cluster: &Cluster) -> Option<Plan> {
    let is_made = matches!(cluster.initialize, Initialize::Done(_));
    let runs = matches!(view.local.postgres, Postgres::Standby { .. });
    (view.local.unrecorded && is_made && runs).then(|| match view.job {
        Some(_) => Plan::wait(Reason::JobUnderWay),
        None => Plan::step(Reason::Superseded, Step::Stop(StopMode::Fast)),
    })
}

/// What forbids this member to take part, whatever the lease says.
fn refusal(view: &View, cluster: &Cluster) -> Option<Reason> {
    if let (Initialize::Done(cluster_system), Some(own)) = (cluster.initialize, view.local.system)
        && cluster_system != own
    {
        return Some(Reason::ForeignSystemId { own, cluster: cluster_system });
    }
    // A DCS that was wiped, or restored from an old copy, knows less than this member: whom it calls leader, and
    // whom it calls synchronous, may be long untrue.
    let seen = &view.local.watermark;
    if let Some(lost) = seen.lost_by(&cluster.watermark_without_sync(seen)) {
        return Some(Reason::DcsWentBack { lost });
    }
    if view.local.postgres == Postgres::Unusable(Unusable::Refused) {
        return Some(Reason::DataDirectoryRefused);
    }
    None
}

/// Takes no part: gives the lease up, stops a writable Postgres, touches nothing else.
fn refuse(view: &View, cluster: &Cluster, reason: Reason) -> Plan {
    let mut plan = Plan::wait(reason);
    if view.job.is_none() && primary::is_writable(&view.local.postgres) {
        plan.steps.push(Step::Stop(StopMode::Fast));
    } else if cluster.lease == Lease::Mine && view.job.is_none() {
        plan.steps.push(Step::ReleaseLease);
    }
    plan
}
