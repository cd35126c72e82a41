//! Observes the local Postgres through its supervisor, by SQL and on disk. Draws no conclusions beyond the view.

use std::time::Duration;

use outrider_dcs::Snapshot;
use outrider_ha::{Job, Local, MemberName, Postgres, Shutdown, Streaming, SystemId, Unusable, WalSender};
use outrider_postgres::{ControlData, Directory, Error, Observation, Role, inspect, slot_name};
use outrider_supervisor::protocol::{PostmasterStatus, Status, Tool};

use super::timelines;
use crate::clock;
use crate::instruments::Instruments;
use crate::member::replay;
use crate::state::{self, Data, Promotion, State};

/// Of a session that an earlier agent began: it may have lengthened it.
const ANY_TTL: Duration = Duration::from_millis(u64::MAX);

/// What was found, before it is put in order.
pub(super) struct Look {
    status: Result<Status, Error>,
    found: PostgresState,
}

enum PostgresState {
    /// The supervisor does not answer, so the state is unknown.
    Nothing,
    /// A postmaster runs; its answers.
    Running(Result<Box<Observation>, Error>),
    /// No postmaster runs; the state of the data directory.
    Directory(Result<Directory, Error>, Option<Result<ControlData, Error>>),
}

/// Asks the supervisor, then Postgres or the disk, within two seconds. `thoroughly`: including what is otherwise asked only
/// now and then.
pub(super) async fn look(
    instruments: &Instruments,
    known: Option<&ControlData>,
    tool_runs: bool,
    thoroughly: bool,
) -> Look {
    if thoroughly {
        instruments.observer.ask_all_again().await;
    }
    let status = instruments.postgres.supervisor().status().await;
    let found = match &status {
        Err(_) => PostgresState::Nothing,
        Ok(status) => match &status.postmaster {
            Some(postmaster) if postmaster.stopping || postmaster.died => {
                PostgresState::Running(Err(Error::TooSlow {
                    act: "report its state while it stops",
                    limit: Duration::ZERO,
                }))
            }
            Some(_) => PostgresState::Running(instruments.observer.observe().await.map(Box::new)),
            None => {
                let directory = inspect(instruments.postgres.settings());
                let control = match (&directory, known) {
                    (Ok(Directory::Complete), Some(known)) => Some(Ok(known.clone())),
                    (Ok(Directory::Complete), None) if !tool_runs && !is_kept_busy(status) => {
                        Some(instruments.postgres.control_data().await)
                    }
                    _ => None,
                };
                PostgresState::Directory(directory, control)
            }
        },
    };
    Look { status, found }
}

/// Whether a program works on the data directory. A recovery beside it does not, and ends when another program is
/// requested.
fn is_kept_busy(status: &Status) -> bool {
    status.tool.as_ref().is_some_and(|running| running.tool != Tool::PostgresRecovery)
}

/// The local part of the view; updates what is remembered of it.
pub(super) fn assemble(look: Look, instruments: &Instruments, state: &mut State) -> Local {
    let status = match look.status {
        Ok(status) => {
            note_crash(&status, instruments, state);
            Some(status)
        }
        Err(fault) => {
            state.supervisor.is_silent(&fault);
            None
        }
    };
    // A program started by an earlier agent still works on the data directory: its result is read when it has ended.
    let tool_of_another = state.jobs.kind().is_none() && status.as_ref().is_some_and(is_kept_busy);
    let postgres = match look.found {
        PostgresState::Nothing => unresponsive(&mut state.postgres, None),
        PostgresState::Directory(..) if tool_of_another => unresponsive(&mut state.postgres, Some(false)),
        PostgresState::Running(outcome) => running(outcome, status.as_ref(), state),
        PostgresState::Directory(directory, control) => stopped(directory, control, instruments, state),
    };
    state.postgres.is_writable(match &postgres {
        Postgres::Primary { .. } => true,
        Postgres::Starting { writable, .. } | Postgres::Unresponsive { writable, .. } => *writable,
        Postgres::Standby { promoting, .. } => *promoting,
        Postgres::Empty | Postgres::Unusable(_) | Postgres::Stopped { .. } => false,
    });
    timelines::remember(instruments, &postgres, &mut state.data, &state.cluster);
    let fuse = status.as_ref().and_then(|status| status.fuse.as_ref());
    let frozen = frozen(status.as_ref(), &mut state.supervisor);
    let recent_crashes = state.supervisor.recent_crashes();
    let State { lease, entry, dcs, cluster, rules, settings, supervisor, data, jobs, .. } = state;
    let seen = state.postgres.seen();
    Local {
        system: data.system().map(SystemId),
        entered: entry.is_member(),
        session_ttl: entry.is_member().then(|| entry.ttl().unwrap_or(ANY_TTL)),
        fuse: fuse.filter(|fuse| !fuse.expired).map(|fuse| clock::until_boottime(fuse.deadline_ns)),
        watermark: dcs.watermark(),
        recorded: Vec::new(),
        held_term: lease.last_term(),
        last_position: data.last_position(),
        history: data.history().clone(),
        starts: data.starts().clone(),
        frozen,
        shut_out: state.postgres.shut_out_for(),
        recent_crashes,
        promotion: state.promotion.view(),
        rewind_failed: data.rewind_failed(),
        cooling_down: jobs.are_cooling_down(),
        backing_off: jobs.backing_off(),
        hopeless: jobs.hopeless(),
        trying_parameters: rules.keep_from_starting(),
        unrecorded: instruments.postgres.is_unrecorded(),
        users_ready: state.postgres.users_are_ready(),
        awaiting_checkpoint: seen
            .is_some_and(|seen| seen.is_primary() && seen.checkpoint_timeline < seen.timeline),
        unsupervised: supervisor.is_gone(),
        terminating: supervisor.is_terminating(),
        faulty_files: seen.is_some_and(|seen| !seen.file_faults.is_empty()),
        rollback_prepared: instruments.rollback.is_offered(),
        postmaster: seen.map(|seen| seen.postmaster_start_time.clone()),
        pending_restart: seen.is_some_and(|seen| !seen.pending_restart.is_empty()),
        short_for: None,
        hastened: settings.wanted().hastened,
        slots: slots(seen, cluster.snapshot()),
        postgres,
    }
}

/// Postgres may have ended since the supervisor was asked last. One that never came up would do the same again at once.
fn note_crash(status: &Status, instruments: &Instruments, state: &mut State) {
    let Some(crash) = state.supervisor.answers(status, instruments.postgres.settings(), &mut state.promotion)
    else {
        return;
    };
    if !state.postgres.has_answered(crash.pid) {
        state.jobs.failed(Job::Start, &crash.words, state.rules.policy().loop_wait);
    }
}

/// How long the postmaster has been stopped by a signal, according to its parent, the supervisor.
fn frozen(status: Option<&Status>, supervisor: &mut state::Supervisor) -> Option<Duration> {
    let since = status.and_then(|status| status.postmaster.as_ref()?.frozen_ns);
    supervisor.sees_frozen(since.is_some());
    since.map(|since| Duration::from_nanos(clock::boottime_ns().saturating_sub(since)))
}

/// A postmaster runs.
fn running(outcome: Result<Box<Observation>, Error>, status: Option<&Status>, state: &mut State) -> Postgres {
    state.data.is_in_use();
    let postmaster = status.and_then(|status| status.postmaster.as_ref());
    match outcome {
        Ok(seen) => answering(*seen, postmaster, state),
        Err(fault) => {
            let postgres = &mut state.postgres;
            postgres.does_not_answer();
            let Some(postmaster) = postmaster else { return unresponsive(postgres, None) };
            if is_starting(postmaster, &fault, postgres) {
                postgres.is_not_up(&fault);
                let started =
                    Duration::from_nanos(clock::boottime_ns().saturating_sub(postmaster.started_ns));
                // To an agent that has just started, one slow answer does not mean days of silence.
                let silent = postgres.silent_for();
                let since = if fault.is_not_yet_up() { started } else { started.min(silent) };
                Postgres::Starting { writable: postmaster.writable, since }
            } else {
                unresponsive(postgres, Some(postmaster.writable))
            }
        }
    }
}

/// It runs, and says this.
fn answering(seen: Observation, postmaster: Option<&PostmasterStatus>, state: &mut State) -> Postgres {
    state.jobs.postgres_runs();
    if state.cluster.is_made() {
        state.jobs.succeeded(Job::PostBootstrap);
    }
    state.supervisor.postgres_answers();
    state.settings.adopt(&seen);
    if seen.is_primary() {
        state.promotion.forget();
        state.commits.check(&seen, &state.settings.wanted().synchronous_standby_names());
    }
    state.data.was_seen_at(seen.system_identifier, seen.timeline, seen.position());
    let timeline = state.data.timeline();
    let promoting = postmaster.is_some_and(|postmaster| postmaster.writable);
    let postgres = match &seen.role {
        Role::Primary { flushed } => Postgres::Primary {
            timeline,
            position: *flushed,
            walsenders: walsenders(&seen),
            synchronous: state.commits.wait_for().clone(),
        },
        Role::Standby { streaming, upstream, .. } => Postgres::Standby {
            timeline,
            position: seen.position(),
            streaming: Streaming {
                upstream: upstream.as_ref().and_then(|(host, port)| state.cluster.member_at(host, *port)),
                active: *streaming,
            },
            promoting,
            replay: replay::of(&seen),
        },
    };
    state.postgres.answers(seen, postmaster.map(|postmaster| postmaster.pid));
    postgres
}

/// It has not answered since its start, or says that it is still starting.
fn is_starting(postmaster: &PostmasterStatus, fault: &Error, postgres: &state::Postgres) -> bool {
    let on_its_way_down = postmaster.stopping || postmaster.died;
    !on_its_way_down && (fault.is_not_yet_up() || !postgres.has_answered(postmaster.pid))
}

/// `writable`: as it was in the last round unless somebody knows.
fn unresponsive(postgres: &mut state::Postgres, writable: Option<bool>) -> Postgres {
    let writable = writable.unwrap_or(postgres.was_writable());
    Postgres::Unresponsive { writable, since: postgres.silent_for() }
}

/// No postmaster runs.
fn stopped(
    directory: Result<Directory, Error>,
    control: Option<Result<ControlData, Error>>,
    instruments: &Instruments,
    state: &mut State,
) -> Postgres {
    state.postgres.does_not_run();
    state.commits.forget();
    let refused = |data: &mut Data, why: String| {
        data.is_refused(&why);
        Postgres::Unusable(Unusable::Refused)
    };
    match directory {
        Err(fault) => refused(&mut state.data, fault.to_string()),
        Ok(Directory::Refused(why)) => refused(&mut state.data, why),
        Ok(Directory::Empty) => Postgres::Empty,
        Ok(Directory::HalfInitialized) => Postgres::Unusable(Unusable::HalfInitialized),
        Ok(Directory::HalfCloned) => Postgres::Unusable(Unusable::HalfCloned),
        Ok(Directory::HalfRewound) => Postgres::Unusable(Unusable::HalfRewound),
        // Made to start the cluster, which another member then did: worth no more than half a clone.
        Ok(Directory::Complete) if instruments.postgres.is_unrecorded() && state.cluster.is_made() => {
            state.data.is_of_nobody();
            Postgres::Unusable(Unusable::HalfInitialized)
        }
        Ok(Directory::Complete) => match control {
            Some(Ok(control)) => {
                let postgres = at_rest(
                    &control,
                    instruments.postgres.is_fresh_backup(),
                    &state.data,
                    &mut state.promotion,
                );
                state.data.is_at_rest(control);
                postgres
            }
            Some(Err(fault @ (Error::Tool { .. } | Error::ControlData { .. }))) => {
                refused(&mut state.data, fault.to_string())
            }
            // Nobody could check: one of Postgres' programs is missing or running, or the supervisor went away.
            Some(Err(fault)) => {
                state.postgres.is_not_up(&fault);
                unresponsive(&mut state.postgres, Some(false))
            }
            None => unresponsive(&mut state.postgres, Some(false)),
        },
    }
}

fn at_rest(control: &ControlData, fresh_backup: bool, data: &Data, promotion: &mut Promotion) -> Postgres {
    if control.is_standby() || fresh_backup {
        let end = control.recovery_end.max(control.checkpoint).max(data.last_position());
        return Postgres::Stopped { timeline: control.timeline(), end, shutdown: Shutdown::Standby };
    }
    // Recovery has ended, and something may have been written since.
    promotion.forget();
    let timeline = control.checkpoint_timeline.max(data.timeline());
    if control.is_clean_primary() {
        Postgres::Stopped { timeline, end: control.clean_end(), shutdown: Shutdown::CleanPrimary }
    } else {
        let end = data.last_position().max(control.checkpoint);
        Postgres::Stopped { timeline, end, shutdown: Shutdown::CrashedPrimary }
    }
}

fn walsenders(seen: &Observation) -> Vec<WalSender> {
    seen.walsenders
        .iter()
        .map(|sender| WalSender {
            name: MemberName::from(sender.application_name.as_str()),
            streaming: sender.state == "streaming",
            sync: matches!(sender.sync_state.as_str(), "sync" | "quorum"),
            flushed: sender.flushed,
        })
        .collect()
}

/// The members that have a slot here.
fn slots(seen: Option<&Observation>, snapshot: Option<&Snapshot>) -> Vec<MemberName> {
    let (Some(seen), Some(snapshot)) = (seen, snapshot) else { return Vec::new() };
    let mut names: Vec<MemberName> = snapshot
        .members
        .iter()
        .filter(|member| {
            let name = slot_name(&member.name);
            seen.slots.iter().any(|slot| slot.name == name)
        })
        .map(|member| MemberName::from(member.name.as_str()))
        .collect();
    names.sort();
    names
}
