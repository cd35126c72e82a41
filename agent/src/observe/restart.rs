//! A requested restart, from the DCS for the view, and how long its current turn has been seen.

use std::time::Duration;

use outrider_dcs::{RestartMember, RestartRequest, RestartState, Snapshot};
use outrider_ha::{MemberName, Restart, RestartTurn, TurnState};
use tokio::time::Instant;

use super::cluster::{Remembered, due_in};
use super::limits;
use crate::clock;

/// Minimum time for a turn, however short a primary's start may be: a member must also stop, and catch up.
const TIMEOUT_LEAST: Duration = Duration::from_secs(60);

/// The turn last seen: its key in the DCS, and since when.
#[derive(Debug, Default)]
pub(crate) struct TurnSeen(Option<(i64, Instant)>);

impl TurnSeen {
    /// How long it has been the same. Every turn that begins or ends changes the key; before it is due, no time counts.
    pub(super) fn seen(&mut self, snapshot: &Snapshot) -> Duration {
        let due = |entry: &&outrider_dcs::Entry<RestartRequest>| {
            entry.value.is_open() && due_in(entry.value.scheduled_at.as_deref()).is_zero()
        };
        let revision = snapshot.restart.as_ref().filter(due).map(|entry| entry.revision);
        let now = clock::monotonic();
        self.0 = match (revision, self.0) {
            (None, _) => None,
            (Some(revision), Some((seen, since))) if revision == seen => Some((seen, since)),
            (Some(revision), _) => Some((revision, now)),
        };
        self.0.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(since))
    }
}

/// The restart, until it has ended.
pub(super) fn restart(snapshot: &Snapshot, remembered: &Remembered<'_>) -> Option<Restart> {
    let entry = snapshot.restart.as_ref().filter(|entry| entry.value.is_open())?;
    let asked = &entry.value;
    Some(Restart {
        due_in: due_in(asked.scheduled_at.as_deref()),
        pending_only: asked.pending,
        members: asked.members.iter().map(turn).collect(),
        primary_first: limits::leader_lowers(snapshot),
        turn_for: remembered.turn_for,
        timeout: asked.timeout_seconds.map_or(remembered.turn_limit.max(TIMEOUT_LEAST), Duration::from_secs),
        revision: entry.revision,
    })
}

fn turn(member: &RestartMember) -> RestartTurn {
    let started = || member.started.clone().unwrap_or_default();
    let state = match member.state {
        RestartState::Waiting => TurnState::Waiting,
        RestartState::Restarting => TurnState::Begun { started: started(), switching: false },
        RestartState::SwitchingOver => TurnState::Begun { started: started(), switching: true },
        RestartState::Done | RestartState::Skipped | RestartState::Failed => TurnState::Ended,
    };
    RestartTurn { name: MemberName::from(member.name.as_str()), state }
}
