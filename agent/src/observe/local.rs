//! Observes the local Postgres through its supervisor, by SQL and on disk. Draws no conclusions beyond the view.

use std::time::Duration;

use outrider_dcs::Snapshot;
use outrider_ha::{
    Hold, Job, Lacking, Local, MemberName, Postgres, Query, Replay, Shutdown, Streaming, SystemId, Unusable,
    WalSender,
};
use outrider_postgres::{ControlData, Directory, Error, Observation, Role, inspect, slot_name};
use outrider_supervisor::protocol::{PostmasterStatus, Status, Tool};
use tracing::error;

use super::timelines;
use crate::clock;
use crate::round::{Instruments, Memory, Promotion};

/// Of a session that an earlier agent began: it may have lengthened it.
const ANY_TTL: Duration = Duration::from_millis(u64::MAX);

/// What was found, before it is put in order.
pub(super) struct Look {
    status: Result<Status, Error>,
    found: Found,
}

enum Found {
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
        Err(_) => Found::Nothing,
        Ok(status) => match &status.postmaster {
            Some(postmaster) if postmaster.stopping || postmaster.died => {
                Found::Running(Err(Error::TooSlow {
                    act: "tell its state while it stops",
                    limit: Duration::ZERO,
                }))
            }
            Some(_) => Found::Running(instruments.observer.look().await.map(Box::new)),
            None => {
                let directory = inspect(instruments.postgres.settings());
                let control = match (&directory, known) {
                    (Ok(Directory::Complete), Some(known)) => Some(Ok(known.clone())),
                    (Ok(Directory::Complete), None) if !tool_runs && !is_kept_busy(status) => {
                        Some(instruments.postgres.control_data().await)
                    }
                    _ => None,
                };
                Found::Directory(directory, control)
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
pub(super) fn assemble(look: Look, instruments: &Instruments, memory: &mut Memory) -> Local {
    let status = match look.status {
        Ok(status) => {
            memory.supervisor_answers(&status, instruments.postgres.settings());
            Some(status)
        }
        Err(fault) => {
            memory.supervisor_is_silent(&fault);
            None
        }
    };
    // A program started by an earlier agent still works on the data directory: its result is read when it has ended.
    let tool_of_another = memory.job.is_none() && status.as_ref().is_some_and(is_kept_busy);
    let postgres = match look.found {
        Found::Nothing => unresponsive(memory, memory.was_writable),
        Found::Directory(..) if tool_of_another => unresponsive(memory, false),
        Found::Running(outcome) => running(outcome, status.as_ref(), memory),
        Found::Directory(directory, control) => stopped(directory, control, instruments, memory),
    };
    memory.was_writable = match &postgres {
        Postgres::Primary { .. } => true,
        Postgres::Starting { writable, .. } | Postgres::Unresponsive { writable, .. } => *writable,
        Postgres::Standby { promoting, .. } => *promoting,
        Postgres::Empty | Postgres::Unusable(_) | Postgres::Stopped { .. } => false,
    };
    timelines::remember(instruments, &postgres, memory);
    let fuse = status.as_ref().and_then(|status| status.fuse.as_ref());
    Local {
        system: memory.system.map(SystemId),
        entered: memory.is_member,
        session_ttl: memory.is_member.then(|| memory.session_ttl.unwrap_or(ANY_TTL)),
        fuse: fuse.filter(|fuse| !fuse.expired).map(|fuse| clock::until_boottime(fuse.deadline_ns)),
        watermark: memory.dcs.watermark(),
        recorded: Vec::new(),
        held_term: memory.held_term,
        last_position: memory.last_position,
        history: memory.history.clone(),
        starts: memory.starts.clone(),
        frozen: frozen(status.as_ref(), memory),
        shut_out: memory.shut_out_for(),
        recent_crashes: memory.recent_crashes(),
        promotion: memory.promotion.view(),
        rewind_failed: memory.rewind_failed,
        cooling_down: memory.is_cooling_down(),
        backing_off: memory.failures.waiting(clock::monotonic()),
        hopeless: memory.failures.hopeless(),
        trying_parameters: memory.rules.keeps_from_starting(),
        unrecorded: instruments.postgres.is_unrecorded(),
        users_ready: memory.users_ready,
        awaiting_checkpoint: memory
            .seen
            .as_ref()
            .is_some_and(|seen| seen.is_primary() && seen.checkpoint_timeline < seen.timeline),
        unsupervised: memory.supervisor_is_gone,
        terminating: memory.terminating,
        faulty_files: memory.seen.as_ref().is_some_and(|seen| !seen.file_faults.is_empty()),
        rollback_prepared: instruments.rollback.is_offered(),
        postmaster: memory.seen.as_ref().map(|seen| seen.postmaster_start_time.clone()),
        pending_restart: memory.seen.as_ref().is_some_and(|seen| !seen.pending_restart.is_empty()),
        short_for: None,
        hastened: memory.configuration.hastened,
        slots: slots(memory.seen.as_ref(), memory.snapshot.as_ref()),
        postgres,
    }
}

/// How long the postmaster has been stopped by a signal, according to its parent, the supervisor.
fn frozen(status: Option<&Status>, memory: &mut Memory) -> Option<Duration> {
    let since = status.and_then(|status| status.postmaster.as_ref()?.frozen_ns);
    memory.note_frozen(since.is_some());
    since.map(|since| Duration::from_nanos(clock::boottime_ns().saturating_sub(since)))
}

/// A postmaster runs.
fn running(
    outcome: Result<Box<Observation>, Error>,
    status: Option<&Status>,
    memory: &mut Memory,
) -> Postgres {
    memory.control = None;
    let postmaster = status.and_then(|status| status.postmaster.as_ref());
    match outcome {
        Ok(seen) => {
            memory.answered_pid = postmaster.map(|postmaster| postmaster.pid);
            memory.silent_postgres_since = None;
            memory.starting_fault.forget();
            memory.note_shut_out(seen.shut_out.as_deref());
            memory.failures.postgres_runs();
            if is_made(memory) {
                memory.failures.forget(Job::PostBootstrap);
            }
            memory.start_failure = None;
            memory.adopt(&seen);
            if seen.is_primary() {
                memory.promotion = Promotion::default();
                if memory.proving.is_none() {
                    memory.check_synchronous(&seen);
                }
            }
            memory.system = Some(seen.system_identifier);
            let timeline = memory.timeline_seen(seen.timeline);
            memory.last_position = memory.last_position.max(seen.position());
            let promoting = postmaster.is_some_and(|postmaster| postmaster.writable);
            let postgres = match &seen.role {
                Role::Primary { flushed } => Postgres::Primary {
                    timeline,
                    position: *flushed,
                    walsenders: walsenders(&seen),
                    synchronous: memory.synchronous.clone(),
                },
                Role::Standby { streaming, upstream, .. } => Postgres::Standby {
                    timeline,
                    position: seen.position(),
                    streaming: Streaming {
                        upstream: upstream.as_ref().and_then(|(host, port)| memory.member_at(host, *port)),
                        active: *streaming,
                    },
                    promoting,
                    replay: replay(&seen),
                },
            };
            memory.seen = Some(*seen);
            postgres
        }
        Err(fault) => {
            memory.seen = None;
            memory.note_shut_out(None);
            let Some(postmaster) = postmaster else { return unresponsive(memory, memory.was_writable) };
            if is_starting(postmaster, &fault, memory.answered_pid) {
                memory.note_starting_fault(&fault);
                let started =
                    Duration::from_nanos(clock::boottime_ns().saturating_sub(postmaster.started_ns));
                // To an agent that has just started, one slow answer does not mean days of silence.
                let silent = silent_for(memory);
                let since = if fault.is_not_yet_up() { started } else { started.min(silent) };
                Postgres::Starting { writable: postmaster.writable, since }
            } else {
                unresponsive(memory, postmaster.writable)
            }
        }
    }
}

/// It has not answered since its start, or says that it is still starting.
fn is_starting(postmaster: &PostmasterStatus, fault: &Error, answered_pid: Option<i32>) -> bool {
    let on_its_way_down = postmaster.stopping || postmaster.died;
    !on_its_way_down && (fault.is_not_yet_up() || answered_pid != Some(postmaster.pid))
}

fn unresponsive(memory: &mut Memory, writable: bool) -> Postgres {
    Postgres::Unresponsive { writable, since: silent_for(memory) }
}

/// How long Postgres has not answered, since it first failed to.
fn silent_for(memory: &mut Memory) -> Duration {
    let since = *memory.silent_postgres_since.get_or_insert_with(clock::monotonic);
    clock::monotonic().saturating_duration_since(since)
}

/// No postmaster runs.
fn stopped(
    directory: Result<Directory, Error>,
    control: Option<Result<ControlData, Error>>,
    instruments: &Instruments,
    memory: &mut Memory,
) -> Postgres {
    memory.seen = None;
    memory.silent_postgres_since = None;
    memory.note_shut_out(None);
    memory.forget_synchronous();
    let refused = |memory: &mut Memory, why: String| {
        if memory.refused.is_news(&why) {
            error!("the data directory cannot be used: {why}");
        }
        Postgres::Unusable(Unusable::Refused)
    };
    match directory {
        Err(fault) => refused(memory, fault.to_string()),
        Ok(Directory::Refused(why)) => refused(memory, why),
        Ok(Directory::Empty) => Postgres::Empty,
        Ok(Directory::HalfInitialized) => Postgres::Unusable(Unusable::HalfInitialized),
        Ok(Directory::HalfCloned) => Postgres::Unusable(Unusable::HalfCloned),
        Ok(Directory::HalfRewound) => Postgres::Unusable(Unusable::HalfRewound),
        // Made to start the cluster, which another member then did: worth no more than half a clone.
        Ok(Directory::Complete) if instruments.postgres.is_unrecorded() && is_made(memory) => {
            memory.system = None;
            Postgres::Unusable(Unusable::HalfInitialized)
        }
        Ok(Directory::Complete) => match control {
            Some(Ok(control)) => {
                memory.refused.forget();
                memory.system = Some(control.system_identifier);
                let postgres = at_rest(&control, instruments.postgres.is_fresh_backup(), memory);
                memory.control = Some(control);
                postgres
            }
            Some(Err(fault @ (Error::Tool { .. } | Error::ControlData { .. }))) => {
                refused(memory, fault.to_string())
            }
            // Nobody could check: one of Postgres' programs is missing or running, or the supervisor went away.
            Some(Err(fault)) => {
                memory.note_starting_fault(&fault);
                unresponsive(memory, false)
            }
            None => unresponsive(memory, false),
        },
    }
}

/// Whether the DCS names the system identifier of the cluster.
fn is_made(memory: &Memory) -> bool {
    let named = memory.snapshot.as_ref().and_then(|snapshot| snapshot.initialize.as_ref());
    named.is_some_and(|entry| !entry.value.trim().is_empty())
}

fn at_rest(control: &ControlData, fresh_backup: bool, memory: &mut Memory) -> Postgres {
    if control.is_standby() || fresh_backup {
        let end = control.recovery_end.max(control.checkpoint).max(memory.last_position);
        return Postgres::Stopped { timeline: control.timeline(), end, shutdown: Shutdown::Standby };
    }
    // Recovery has ended, and something may have been written since.
    memory.promotion = Promotion::default();
    let timeline = control.checkpoint_timeline.max(memory.timeline);
    if control.is_clean_primary() {
        Postgres::Stopped { timeline, end: control.clean_end(), shutdown: Shutdown::CleanPrimary }
    } else {
        let end = memory.last_position.max(control.checkpoint);
        Postgres::Stopped { timeline, end, shutdown: Shutdown::CrashedPrimary }
    }
}

/// How far a standby has replayed, and what holds it up.
pub(crate) fn replay(seen: &Observation) -> Option<Replay> {
    let Role::Standby { replayed, replay_paused, lacking, apply_delay_seconds, blockers, .. } = &seen.role
    else {
        return None;
    };
    let age = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let queries: Vec<Query> =
        blockers.iter().map(|blocker| Query { pid: blocker.pid, age: age(blocker.age_seconds) }).collect();
    let lacking: Vec<Lacking> = lacking
        .iter()
        .map(|one| Lacking { name: one.name.clone(), here: one.here, primary: one.primary })
        .collect();
    let hold = match (replay_paused, queries.is_empty()) {
        (true, _) if !lacking.is_empty() => Some(Hold::Parameters { lacking }),
        (true, _) => Some(Hold::Paused),
        (false, false) => Some(Hold::Conflict { queries }),
        (false, true) => None,
    };
    Some(Replay { position: *replayed, delay: age(*apply_delay_seconds), hold })
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

impl Memory {
    /// The member that publishes this address for its Postgres.
    fn member_at(&self, host: &str, port: u16) -> Option<MemberName> {
        let members = &self.snapshot.as_ref()?.members;
        let here = |member: &&outrider_dcs::Member| {
            let upstream = member.conn_url().and_then(outrider_postgres::Upstream::from_url);
            upstream.is_some_and(|upstream| upstream.host == host && upstream.port == port)
        };
        members.iter().find(here).map(|member| MemberName::from(member.name.as_str()))
    }
}
