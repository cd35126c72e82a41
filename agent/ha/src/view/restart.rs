//! A restart of members, one after the other, that somebody asked for. No rule of whose turn it is.

use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::member::MemberName;

/// The key `outrider/restart`, while it has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Restart {
    /// Time left until it is due; 0 for at once.
    #[serde(with = "crate::millis")]
    pub due_in: Duration,
    /// Only members with a parameter that waits for a restart.
    pub pending_only: bool,
    /// Who is to be restarted, the standbys as they were asked for, and how far each is.
    pub members: Vec<RestartTurn>,
    /// The leader waits for a restart with less of what standbys must not have less of: it goes first, where it is.
    #[serde(default)]
    pub primary_first: bool,
    /// How long this member has seen the present turn.
    #[serde(with = "crate::millis")]
    pub turn_for: Duration,
    /// How long a turn may take; then the restart is given up.
    #[serde(with = "crate::millis")]
    pub timeout: Duration,
    /// The revision of the key, for compare-and-swap.
    pub revision: i64,
}

/// One member of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RestartTurn {
    /// Its name.
    pub name: MemberName,
    /// How far it is.
    pub state: TurnState,
}

/// How far a member is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnState {
    /// Not begun.
    Waiting,
    /// Begun, and the postmaster that was to end.
    Begun {
        /// `pg_postmaster_start_time()` of that one.
        started: String,
        /// It led, and somebody else was to take over.
        switching: bool,
    },
    /// It is over for this member.
    Ended,
}

/// What changes for a member in a restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnChange {
    /// It begins; see [`TurnState::Begun`].
    Begun {
        /// `pg_postmaster_start_time()` of the postmaster that is to end.
        started: String,
        /// Somebody else is to take over.
        switching: bool,
    },
    /// It is over.
    Ended(TurnEnd),
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnEnd {
    /// Restarted, and it streams again.
    Standby,
    /// Another member took over; this one streams from it.
    SwitchedOver,
    /// Restarted where it is, and it leads.
    Primary,
    /// No parameter waits for a restart.
    NotPending,
    /// It took too long: nobody else is restarted.
    TooLate,
}
