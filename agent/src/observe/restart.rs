//! A requested restart, from the DCS for the view, and how long its current turn has been seen.

use std::time::Duration;

use outrider_dcs::{RestartMember, RestartState, Snapshot};
use outrider_ha::{MemberName, Restart, RestartTurn, TurnState};

use super::limits;
use super::remembered::Remembered;
use crate::deadline::due_in;

/// Minimum time for a turn, however short a primary's start may be: a member must also stop, and catch up.
const TIMEOUT_LEAST: Duration = Duration::from_secs(60);

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
