//! Gathers everything a decision needs into one `View`: the DCS, the local Postgres, and the peers when they matter.
//! Changes nothing outside; decides nothing.

pub(crate) mod cluster;
mod limits;
mod local;
pub(crate) mod members;
mod remembered;
mod restart;
mod rules;
mod timelines;

use std::time::Duration;

use outrider_dcs::{Error, Snapshot};
use outrider_ha::{Cluster, Dcs, MemberName, View, must_read_again, whom_to_ask};
use tokio::time::timeout;

use self::remembered::Remembered;
use crate::instruments::Instruments;
use crate::state::{self, DcsMemory, Lease, Postgres, Settings, State, TermError};

/// Minimum time that the DCS gets to answer, however little the fuse has left.
const READ_LIMIT_LEAST: Duration = Duration::from_millis(50);

/// Observes everything.
///
/// # Errors
/// When the term that the DCS shows could not be saved: without it a DCS that goes back would not be noticed.
pub(crate) async fn observe(instruments: &Instruments, state: &mut State) -> Result<View, TermError> {
    let limit = read_limit(instruments, state);
    let tool_runs = state.jobs.kind().is_some();
    // A member that restarts only when a restart is pending must know whether one is.
    let thoroughly = state.cluster.snapshot().and_then(|snapshot| snapshot.restart.as_ref());
    let thoroughly = thoroughly.is_some_and(|entry| entry.value.is_open());
    let (read, local) = tokio::join!(
        timeout(limit, instruments.dcs.read()),
        local::look(instruments, state.data.control(), tool_runs, thoroughly)
    );
    let read = read.unwrap_or_else(|late| {
        Err(Error::Unreachable {
            act: "read",
            object: "the cluster's keys".to_owned(),
            source: Box::new(late),
        })
    });
    let answers = remember(instruments, state, read);
    let local = local::assemble(local, instruments, state);
    rules::note_files(instruments, &mut state.rules, &state.settings, &state.postgres);
    let me = MemberName::from(instruments.dcs.name());
    let mut view = View {
        dcs: Dcs::Silent { since: state.cluster.silent_for() },
        local,
        members: Vec::new(),
        policy: state.rules.policy().clone(),
        job: state.jobs.kind(),
        me,
    };
    let Some(snapshot) = state.cluster.snapshot().filter(|_| answers).cloned() else { return Ok(view) };
    let cluster = seen(state, &snapshot)?;
    view.local.watermark = state.dcs.watermark();
    view.local.short_for = short_for(&mut state.postgres, &snapshot);
    view.members = members::others(&snapshot, &view.me);
    if cluster.blank {
        let record = state.dcs.record();
        members::add_remembered(&mut view.members, &record, &view.me);
        view.local.recorded = state::sync_state(&record.sync(), 0).standbys;
    }
    view.dcs = Dcs::Seen(cluster);
    timelines::take_over(instruments, &mut state.data, &mut view);
    let whom = whom_to_ask(&view);
    if !whom.is_empty() {
        let whom = whom.into_iter().map(|(name, patience)| {
            let url = api_url(state, &name);
            (name, url, patience)
        });
        let answers = instruments.peers.ask(whom.collect()).await;
        members::take_in(&mut view.members, answers);
    }
    if must_read_again(&view) {
        read_again(instruments, state, &mut view).await?;
    }
    Ok(view)
}

/// A member has seen more than this read shows: usually because it looked later, so the DCS is read again.
async fn read_again(instruments: &Instruments, state: &mut State, view: &mut View) -> Result<(), TermError> {
    let Ok(Ok(snapshot)) = timeout(read_limit(instruments, state), instruments.dcs.read()).await else {
        // The decision uses the earlier read, which forbids standing for election.
        return Ok(());
    };
    if !remember(instruments, state, Ok(snapshot.clone())) {
        return Ok(());
    }
    let cluster = seen(state, &snapshot)?;
    view.local.watermark = state.dcs.watermark();
    view.dcs = Dcs::Seen(cluster);
    Ok(())
}

/// The cluster as this read shows it, which is also remembered.
fn seen(state: &mut State, snapshot: &Snapshot) -> Result<Cluster, TermError> {
    let request = snapshot.failover.as_ref().map(|entry| entry.revision);
    state.cluster.sees_request(request);
    let turn_for = state.cluster.sees_turn(snapshot);
    let policy = state.rules.policy();
    let remembered = Remembered {
        free_for: state.lease.free_for(),
        request_seen_for: request.map(|seen| state.cluster.request_seen_for(seen)).unwrap_or_default(),
        policy,
        turn_for,
        turn_limit: policy.primary_start_timeout,
        switchover: state.cluster.switchover(),
    };
    let cluster = cluster::cluster(snapshot, &remembered);
    note_watermark(&mut state.lease, &mut state.dcs, snapshot, &cluster)?;
    Ok(cluster)
}

/// How long this standby has had less than its primary of the parameters it must not have less of.
fn short_for(postgres: &mut Postgres, snapshot: &Snapshot) -> Option<Duration> {
    let leader = limits::of_leader(snapshot);
    let is_short = postgres.seen().is_some_and(|seen| limits::is_short_here(seen, &leader));
    postgres.short_for(is_short)
}

/// A member's REST API address: the current one, or the last known.
fn api_url(state: &State, name: &MemberName) -> Option<String> {
    let said = state.cluster.snapshot().and_then(|snapshot| snapshot.member(name.as_str())?.api_url());
    said.or_else(|| state.dcs.api_url(name.as_str())).map(str::to_owned)
}

/// A primary needs time to stop cleanly before its fuse blows.
fn read_limit(instruments: &Instruments, state: &State) -> Duration {
    let usual = instruments.config.etcd.retry_timeout;
    match state.lease.fuse_left() {
        Some(left) if state.postgres.was_writable() => {
            left.saturating_sub(state.rules.policy().step_down_margin).min(usual).max(READ_LIMIT_LEAST)
        }
        Some(_) | None => usual,
    }
}

/// Records what the DCS answered; returns whether it did.
fn remember(instruments: &Instruments, state: &mut State, read: Result<Snapshot, Error>) -> bool {
    match read {
        Ok(snapshot) => {
            let holder = |snapshot: &Snapshot| snapshot.leader.as_ref().map(|leader| leader.name.clone());
            if state.cluster.snapshot().and_then(holder) != holder(&snapshot) {
                state.jobs.source_changed();
            }
            state.lease.seen(snapshot.leader.as_ref());
            rules::follow(instruments, &mut state.rules, &mut state.settings, &snapshot);
            // Whom `pg_hba.conf` lets in from where.
            state.settings.set_members(state.addresses.of(&snapshot));
            follow_limits(instruments, &mut state.settings, &snapshot);
            follow_switchover(instruments, &mut state.cluster, &snapshot);
            state.cluster.answers(snapshot);
            true
        }
        Err(fault) => {
            state.counters.note_dcs_error(&fault);
            state.cluster.is_silent(&fault);
            false
        }
    }
}

/// The parameters that a standby must not have less of. A leader that publishes none, because its Postgres is down, keeps
/// its last values.
fn follow_limits(instruments: &Instruments, settings: &mut Settings, snapshot: &Snapshot) {
    if snapshot.leader.as_ref().is_some_and(|leader| leader.name == instruments.dcs.name()) {
        settings.forget_least();
        return;
    }
    let of_leader = limits::of_leader(snapshot);
    if of_leader.is_empty() {
        return;
    }
    let lowers = limits::leader_lowers(snapshot);
    settings.set_least(if lowers { limits::Limits::new() } else { of_leader });
}

/// Tracks this member's part in an announced switchover.
fn follow_switchover(instruments: &Instruments, cluster: &mut state::Cluster, snapshot: &Snapshot) {
    let me = instruments.dcs.name();
    let announced = snapshot.intent.as_ref().map(|entry| &entry.value);
    match announced.filter(|announced| announced.from == me || announced.to == me) {
        None => cluster.takes_part_in_none(),
        Some(announced) => cluster.takes_part_in(&announced.id),
    }
}

/// The highest term ever seen is on disk before any decision is based on it.
fn note_watermark(
    lease: &mut Lease,
    dcs: &mut DcsMemory,
    snapshot: &Snapshot,
    cluster: &Cluster,
) -> Result<(), TermError> {
    if cluster.lease == outrider_ha::Lease::Mine {
        lease.seen_as_own(cluster.term);
    }
    let now = cluster.watermark_without_sync(&dcs.watermark());
    dcs.saw(snapshot, &now)
}
