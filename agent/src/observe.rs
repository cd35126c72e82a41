//! Gathers everything a decision needs into one `View`: the DCS, the local Postgres, and the peers when they matter.
//! Changes nothing outside; decides nothing.

pub(crate) mod addresses;
pub(crate) mod cluster;
mod limits;
pub(crate) mod local;
pub(crate) mod members;
pub(crate) mod peers;
pub(crate) mod restart;
pub(crate) mod rules;
mod timelines;

use std::time::Duration;

use outrider_dcs::{Error, Snapshot};
use outrider_ha::{Cluster, Dcs, Lease, MemberName, View, must_read_again, whom_to_ask};
use tokio::time::timeout;

use self::cluster::Remembered;
use crate::clock;
use crate::round::{Instruments, Memory, TermError};

/// Minimum time that the DCS gets to answer, however little the fuse has left.
const READ_LIMIT_LEAST: Duration = Duration::from_millis(50);

/// Observes everything.
///
/// # Errors
/// When the term that the DCS shows could not be saved: without it a DCS that goes back would not be noticed.
pub(crate) async fn observe(instruments: &Instruments, memory: &mut Memory) -> Result<View, TermError> {
    let limit = read_limit(instruments, memory);
    let tool_runs = memory.job.is_some();
    // A member that restarts only when a restart is pending must know whether one is.
    let thoroughly = memory.snapshot.as_ref().and_then(|snapshot| snapshot.restart.as_ref());
    let thoroughly = thoroughly.is_some_and(|entry| entry.value.is_open());
    let (read, local) = tokio::join!(
        timeout(limit, instruments.dcs.read()),
        local::look(instruments, memory.control.as_ref(), tool_runs, thoroughly)
    );
    let read = read.unwrap_or_else(|late| {
        Err(Error::Unreachable {
            act: "read",
            object: "the cluster's keys".to_owned(),
            source: Box::new(late),
        })
    });
    let answers = remember(instruments, memory, read);
    let local = local::assemble(local, instruments, memory);
    rules::note_files(instruments, memory);
    let me = MemberName::from(instruments.dcs.name());
    let mut view = View {
        dcs: Dcs::Silent { since: memory.silent_for() },
        local,
        members: Vec::new(),
        policy: memory.policy.clone(),
        job: memory.job_kind(),
        me,
    };
    let Some(snapshot) = memory.snapshot.clone().filter(|_| answers) else { return Ok(view) };
    let cluster = seen(memory, &snapshot)?;
    view.local.watermark = memory.dcs.watermark();
    view.local.short_for = short_for(memory, &snapshot);
    view.members = members::others(&snapshot, &view.me);
    if cluster.blank {
        let record = memory.dcs.record();
        members::add_remembered(&mut view.members, &record, &view.me);
        view.local.recorded = cluster::sync_state(&record.sync(), 0).standbys;
    }
    view.dcs = Dcs::Seen(cluster);
    timelines::take_over(instruments, memory, &mut view);
    let whom = whom_to_ask(&view);
    if !whom.is_empty() {
        instruments.peers.ask(whom, |name| api_url(memory, name), &mut view).await;
    }
    if must_read_again(&view) {
        read_again(instruments, memory, &mut view).await?;
    }
    Ok(view)
}

/// A member has seen more than this read shows: usually because it looked later, so the DCS is read again.
async fn read_again(
    instruments: &Instruments,
    memory: &mut Memory,
    view: &mut View,
) -> Result<(), TermError> {
    let Ok(Ok(snapshot)) = timeout(read_limit(instruments, memory), instruments.dcs.read()).await else {
        // The decision uses the earlier read, which forbids standing for election.
        return Ok(());
    };
    if !remember(instruments, memory, Ok(snapshot.clone())) {
        return Ok(());
    }
    let cluster = seen(memory, &snapshot)?;
    view.local.watermark = memory.dcs.watermark();
    view.dcs = Dcs::Seen(cluster);
    Ok(())
}

/// The cluster as this read shows it, which is also remembered.
fn seen(memory: &mut Memory, snapshot: &Snapshot) -> Result<Cluster, TermError> {
    let request = snapshot.failover.as_ref().map(|entry| entry.revision);
    memory.sees_request(request);
    let remembered = Remembered {
        free_for: memory.free_for(),
        request_seen_for: request.map(|seen| memory.request_seen_for(seen)).unwrap_or_default(),
        policy: &memory.policy,
        turn_for: memory.restart_turn.seen(snapshot),
        turn_limit: memory.policy.primary_start_timeout,
        switchover: memory.switchover.as_ref(),
    };
    let cluster = cluster::cluster(snapshot, &remembered);
    note_watermark(memory, snapshot, &cluster)?;
    Ok(cluster)
}

/// How long this standby has had less than its primary of the parameters it must not have less of.
fn short_for(memory: &mut Memory, snapshot: &Snapshot) -> Option<Duration> {
    let leader = limits::of_leader(snapshot);
    let is_short = memory.seen.as_ref().is_some_and(|seen| limits::is_short_here(seen, &leader));
    let now = clock::monotonic();
    memory.short_since = is_short.then(|| memory.short_since.unwrap_or(now));
    memory.short_since.map(|since| now.saturating_duration_since(since))
}

/// A member's REST API address: the current one, or the last known.
fn api_url(memory: &Memory, name: &MemberName) -> Option<String> {
    let said = memory.snapshot.as_ref().and_then(|snapshot| snapshot.member(name.as_str())?.api_url());
    said.or_else(|| memory.dcs.api_url(name.as_str())).map(str::to_owned)
}

/// A primary needs time to stop cleanly before its fuse blows.
fn read_limit(instruments: &Instruments, memory: &Memory) -> Duration {
    let usual = instruments.config.etcd.retry_timeout;
    match memory.fuse_left() {
        Some(left) if memory.was_writable => {
            left.saturating_sub(memory.policy.step_down_margin).min(usual).max(READ_LIMIT_LEAST)
        }
        Some(_) | None => usual,
    }
}

/// Records what the DCS answered; returns whether it did.
fn remember(instruments: &Instruments, memory: &mut Memory, read: Result<Snapshot, Error>) -> bool {
    match read {
        Ok(snapshot) => {
            memory.dcs_answers();
            let holder = |snapshot: &Snapshot| snapshot.leader.as_ref().map(|leader| leader.name.clone());
            if memory.snapshot.as_ref().and_then(holder) != holder(&snapshot) {
                memory.failures.source_changed();
            }
            let free = snapshot.leader.is_none();
            memory.free_since =
                if free { memory.free_since.or_else(|| Some(clock::monotonic())) } else { None };
            if !snapshot.leader.as_ref().is_some_and(|leader| leader.mine) {
                memory.lease = None;
            }
            rules::follow(instruments, memory, &snapshot);
            follow_addresses(memory, &snapshot);
            follow_limits(instruments, memory, &snapshot);
            follow_switchover(instruments, memory, &snapshot);
            memory.snapshot = Some(snapshot);
            true
        }
        Err(fault) => {
            memory.dcs_is_silent(&fault);
            false
        }
    }
}

/// Which addresses `pg_hba.conf` lets in.
fn follow_addresses(memory: &mut Memory, snapshot: &Snapshot) {
    let members = memory.addresses.of(snapshot);
    if members != memory.configuration.members {
        memory.configuration.members = members;
        memory.configuration_changed = true;
    }
}

/// The parameters that a standby must not have less of. A leader that publishes none, because its Postgres is down, keeps
/// its last values.
fn follow_limits(instruments: &Instruments, memory: &mut Memory, snapshot: &Snapshot) {
    let least = &mut memory.configuration.least;
    if snapshot.leader.as_ref().is_some_and(|leader| leader.name == instruments.dcs.name()) {
        // Its file is rewritten soon enough, but not at the moment of its promotion.
        least.clear();
        return;
    }
    let of_leader = limits::of_leader(snapshot);
    if of_leader.is_empty() {
        return;
    }
    let wanted = if limits::leader_lowers(snapshot) { limits::Limits::new() } else { of_leader };
    if *least != wanted {
        *least = wanted;
        memory.configuration_changed = true;
    }
}

/// Tracks this member's part in an announced switchover.
fn follow_switchover(instruments: &Instruments, memory: &mut Memory, snapshot: &Snapshot) {
    let me = instruments.dcs.name();
    let announced = snapshot.intent.as_ref().map(|entry| &entry.value);
    match announced.filter(|announced| announced.from == me || announced.to == me) {
        None => memory.switchover = None,
        Some(announced) => {
            if memory.switchover.as_ref().is_none_or(|progress| progress.id != announced.id) {
                memory.begin_switchover(announced.id.clone());
            }
        }
    }
}

/// The highest term ever seen is on disk before any decision is based on it.
fn note_watermark(memory: &mut Memory, snapshot: &Snapshot, cluster: &Cluster) -> Result<(), TermError> {
    // A lease handed over to this member counts from the moment it is seen.
    if cluster.lease == Lease::Mine {
        memory.held_term = memory.held_term.max(cluster.term);
    }
    let now = cluster.watermark_without_sync(&memory.dcs.watermark());
    memory.dcs.saw(snapshot, &now)
}
