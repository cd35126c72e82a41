//! The record of a planned switchover in progress: Outrider's key `outrider/switchover`. Does not carry it out.

use serde::{Deserialize, Serialize};

/// Written by the old primary before it stops, so that everyone knows what is to happen, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverIntent {
    /// Names this switchover in logs and answers.
    pub id: String,
    /// The member that leads.
    pub from: String,
    /// The member that is to lead.
    pub to: String,
    /// Deadline after which it is given up: milliseconds since 1970, UTC.
    pub deadline_unix_ms: u64,
    /// The old primary is being stopped for it: the request can no longer be cancelled.
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
