//! The record of a planned switchover under way: ours, under `outrider/switchover`. Does not carry it out.

use serde::{Deserialize, Serialize};

/// Written by the old primary before it stops, so that everyone knows what is meant to happen and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverIntent {
    /// Names this switchover in logs and answers.
    pub id: String,
    /// The member that leads.
    pub from: String,
    /// The member that shall lead.
    pub to: String,
    /// After this moment it is given up: milliseconds since 1970, UTC.
    pub deadline_unix_ms: u64,
    /// The old primary is being stopped for it: nobody can take the wish back any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopping: bool,
}

impl SwitchoverIntent {
    /// Reads the JSON; `None` when it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}
