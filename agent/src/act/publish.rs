//! What a member tells the others each round: its entry in the DCS, and as leader the last position. And its farewell.

use std::time::Duration;

use outrider_archive::Status;
use outrider_dcs::{ArchivedTo, Session};
use outrider_ha::{Plan, Postgres, Step, View};
use outrider_postgres::{ARCHIVE_SLOT, Role};
use outrider_wal::{Lsn, SegmentSize, TimelineStarts};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Actor, StepError};
use crate::instruments::Instruments;
use crate::log::causes;
use crate::member::{self, replay};
use crate::state::{self, Background, Rules, State};

/// For the farewell.
const FAREWELL_LIMIT: Duration = Duration::from_secs(3);

/// Writes this member's entry, and as leader how far Postgres has written. What fails is tried again in the next round.
pub(crate) async fn publish(view: &View, plan: &Plan, instruments: &Instruments, state: &mut State) {
    // The entry and the leader key hang on one session.
    if plan.steps.contains(&Step::LetLeaseRunOut) {
        return;
    }
    let entry = entry(view, plan, instruments, state);
    let leads = state.lease.held().is_some();
    if state.entry.stands(&entry, leads, state.rules.policy().ttl) {
        publish_position(view, instruments, state).await;
        return;
    }
    match instruments.dcs.touch_member(&entry).await {
        Ok(session) => {
            if session == Session::New {
                state.entry.has_ttl(instruments.first_ttl);
            }
            state.entry.written(entry);
        }
        Err(fault) => {
            state.counters.note_dcs_error(&fault);
            state.entry.not_written(&fault);
            return;
        }
    }
    publish_position(view, instruments, state).await;
}

/// As leader: how far Postgres has written and up to where the archive has it, when that has changed.
async fn publish_position(view: &View, instruments: &Instruments, state: &mut State) {
    if state.lease.held().is_some()
        && let Postgres::Primary { position, timeline, .. } = &view.local.postgres
    {
        let mut status = state
            .cluster
            .snapshot()
            .and_then(|snapshot| snapshot.status.as_ref())
            .map(|entry| entry.value.clone())
            .unwrap_or_default();
        let size = state.postgres.seen().and_then(|seen| SegmentSize::new(seen.wal_segment_size));
        let archive = instruments.archive.as_ref().zip(size);
        let archived = archive.and_then(|(archive, size)| {
            furthest(status.archived.clone(), known(&archive.status(None), size))
        });
        let before = status.clone();
        (status.optime, status.timeline, status.archived) = (*position, Some(*timeline), archived);
        let seen = state
            .postgres
            .seen()
            .into_iter()
            .flat_map(|seen| &seen.slots)
            .filter(|slot| slot.name != ARCHIVE_SLOT);
        status.slots = seen.map(|slot| (slot.name.clone(), slot.restart.unwrap_or_default())).collect();
        status.retain_slots = state.retained.slots().into_iter().collect();
        if status == before {
            return;
        }
        if let Err(fault) = instruments.dcs.write_status(&status).await {
            state.counters.note_dcs_error(&fault);
        }
    }
}

/// On one timeline it only grows; of an older one nothing is said any more once this one is known. Before that the standbys
/// keep what they have.
fn furthest(published: Option<ArchivedTo>, known: Option<ArchivedTo>) -> Option<ArchivedTo> {
    let Some(known) = known else { return published };
    let before = published.filter(|published| published.timeline == known.timeline);
    Some(ArchivedTo { lsn: before.map_or(known.lsn, |before| before.lsn.max(known.lsn)), ..known })
}

fn known(status: &Status, size: SegmentSize) -> Option<ArchivedTo> {
    let (timeline, lsn) = status.archived_to?;
    let gaps = status.gaps.iter().map(|(first, _)| first.start(size)).collect();
    Some(ArchivedTo { timeline, lsn, gaps })
}

/// Patroni's member JSON, with what is ours under `outrider`.
fn entry(view: &View, plan: &Plan, instruments: &Instruments, state: &State) -> Value {
    let config = &instruments.config;
    let seen = state.postgres.seen();
    let mut entry = Map::new();
    let mut put = |key: &str, value: Value| entry.insert(key.to_owned(), value);
    put("conn_url", json!(format!("postgres://{}/postgres", config.connect_address)));
    put("api_url", json!(format!("http://{}/patroni", config.rest.connect_address)));
    put("state", json!(member::state(view)));
    put("role", json!(if seen.is_some_and(|seen| seen.is_primary()) { "primary" } else { "replica" }));
    put("version", json!(env!("CARGO_PKG_VERSION")));
    if !config.tags.is_empty() {
        put("tags", Value::Object(config.tags.clone()));
    }
    if let Some(seen) = seen {
        put("xlog_location", json!(seen.position().get()));
        if let Role::Standby { received, replayed, .. } = &seen.role {
            // As in Patroni what is not known is not there: a standby that never streamed has received nothing.
            for (key, at) in [("receive_lsn", received), ("replay_lsn", replayed)] {
                if *at != Lsn::INVALID {
                    put(key, json!(at.get()));
                }
            }
        }
        put("timeline", json!(state.data.timeline().get()));
        if let Some(replication_state) = seen.replication_state() {
            put("replication_state", json!(replication_state));
        }
        if !seen.pending_restart.is_empty() {
            put("pending_restart", json!(true));
            put("pending_restart_reason", member::pending_restart_reason(&seen.pending_restart));
        }
        if view.local.awaiting_checkpoint {
            put("checkpoint_after_promote", json!(false));
        }
    }
    put("outrider", ours(view, plan, instruments, state));
    Value::Object(entry)
}

fn ours(view: &View, plan: &Plan, instruments: &Instruments, state: &State) -> Value {
    let seen = state.postgres.seen();
    let mut ours = Map::new();
    let mut put = |key: &str, value: Value| ours.insert(key.to_owned(), value);
    let archive = instruments.archive.as_ref().map(|archive| archive.status(seen));
    // Nobody is to wait for data that is not that of a cluster yet.
    if let Some(system) = state.data.system().filter(|_| !view.local.unrecorded) {
        put("system_identifier", json!(system.to_string()));
    }
    put("reason", json!(plan.reason.to_string()));
    let lineage = view.local.lineage();
    if lineage != TimelineStarts::default() {
        put("timelines", json!(lineage));
    }
    if let Some(seen) = seen.filter(|seen| !seen.limits.is_empty()) {
        put("limits", json!(seen.limits));
    }
    if let Some(seen) = seen
        && state.settings.wanted().lowers(&instruments.config.postgres, &seen.limits)
    {
        put("lowers", json!(true));
    }
    if let Some(failed) = state.jobs.failing() {
        put("failing", failed.document());
    }
    for (key, lines) in member::troubles(state, archive.as_ref()) {
        put(key, json!(lines));
    }
    if let Some(fuse) = view.local.fuse.filter(|_| state.lease.held().is_some()) {
        // The nearest whole second, so that a quiet member's entry stays as it is.
        put("fuse_seconds", json!((fuse + Duration::from_millis(500)).as_secs()));
    }
    if let Some(replay) = seen.and_then(replay::of) {
        put("replay", replay::shown_seldom(replay));
    }
    if let Some(archive) = archive {
        put("archive_waiting", json!(archive.waiting));
        put("archive_failing", json!(archive.store_failing));
    }
    Value::Object(ours)
}

/// The agent ends and Postgres goes on. `view`: the last one.
pub(crate) async fn leave(instruments: &Instruments, state: &mut State, view: Option<&View>) {
    let plan = view.filter(|_| state.lease.held().is_some()).map(outrider_ha::leave);
    let Some(plan) = plan.filter(|plan| !plan.steps.is_empty()) else {
        info!("the agent is exiting; Postgres keeps running under its supervisor");
        return;
    };
    let mut actor = Actor { instruments, state, reason: None };
    let farewell = async {
        for step in &plan.steps {
            actor.step(step).await?;
        }
        Ok::<(), StepError>(())
    };
    match timeout(FAREWELL_LIMIT, farewell).await {
        Ok(Ok(())) => {
            let left = actor.state.lease.fuse_left().unwrap_or_default();
            info!(
                ?left,
                "the agent is exiting; Postgres keeps running, and another agent has this long to take over"
            );
        }
        Ok(Err(fault)) => {
            warn!(fault = %causes(&fault), "cannot extend the leader lease; Postgres keeps running until the fuse blows")
        }
        Err(_) => {
            warn!(limit = ?FAREWELL_LIMIT, "the DCS did not answer in time; Postgres keeps running until the fuse blows")
        }
    }
}

/// The agent ends because its member may take no part: its entry goes, but for a leader's, whose lease hangs on the same session.
pub(crate) async fn withdraw(instruments: &Instruments, state: &mut State, view: Option<&View>) {
    leave(instruments, state, view).await;
    if state.lease.held().is_some() {
        return;
    }
    // What fails here goes with the session.
    if let Ok(Err(fault)) = timeout(FAREWELL_LIMIT, instruments.dcs.close()).await {
        warn!(fault = %causes(&fault), "cannot remove this member's entry");
    }
}

/// Postgres was told that its settings changed, unless it has more important things to do.
pub(crate) async fn configure(instruments: &Instruments, state: &mut State) {
    let State { rules, settings, postgres, jobs, .. } = state;
    let Some(seen) = postgres.seen() else { return };
    if !settings.are_news() || !rules.are_known() || jobs.kind().is_some() {
        return;
    }
    rules.were_given(Some(&seen.loaded));
    match instruments.postgres.configure(settings.wanted()).await {
        Ok(()) => {
            settings.were_told();
            instruments.observer.ask_all_again().await;
            info!("reloaded Postgres with the configuration of the cluster");
        }
        Err(fault) => warn!(fault = %causes(&fault), "cannot configure Postgres"),
    }
}

/// Asks a Postgres that was started what it knows of parameters.
pub(crate) fn learn(instruments: &Instruments, rules: &mut Rules, postgres: &state::Postgres) {
    let Some(seen) = postgres.seen() else { return };
    if rules.must_ask(&seen.postmaster_start_time) {
        let observer = instruments.postgres.observer();
        let question = Background::begin(async move { observer.known_parameters().await });
        rules.ask(&seen.postmaster_start_time, question);
    }
}

#[cfg(test)]
mod tests {
    use outrider_wal::{Lsn, SegmentName, TimelineId};

    use super::*;

    fn archived(timeline: u32, lsn: u64, gaps: &[u64]) -> ArchivedTo {
        let gaps = gaps.iter().copied().map(Lsn::new).collect();
        ArchivedTo { timeline: TimelineId::new(timeline), lsn: Lsn::new(lsn), gaps }
    }

    #[test]
    fn what_is_archived_only_grows_on_a_timeline_and_its_gaps_are_those_of_the_last_look() {
        let before = Some(archived(2, 900, &[100]));
        assert_eq!(furthest(before.clone(), None), before);
        assert_eq!(furthest(before.clone(), Some(archived(2, 800, &[]))), Some(archived(2, 900, &[])));
        assert_eq!(furthest(before.clone(), Some(archived(2, 950, &[100]))), Some(archived(2, 950, &[100])));
        assert_eq!(furthest(before, Some(archived(3, 800, &[700]))), Some(archived(3, 800, &[700])));
    }

    #[test]
    fn a_gap_is_told_by_where_its_first_segment_begins() {
        let size = SegmentSize::DEFAULT;
        let segment = |number| SegmentName::numbered(TimelineId::new(2), number, size);
        let archived_to = Some((TimelineId::new(2), Lsn::new(9 << 24)));
        let gaps = vec![(segment(4), segment(6)), (segment(8), segment(8))];
        let status = Status { archived_to, gaps, ..Default::default() };
        assert_eq!(known(&status, size), Some(archived(2, 9 << 24, &[4 << 24, 8 << 24])));
        assert_eq!(known(&Status::default(), size), None);
    }
}
