//! A restart of members, one after the other: Outrider's key `outrider/restart`. It says which members are to be restarted
//! and how far each has come, and stays after it has ended, until the next request. Restarts nobody.

use serde::{Deserialize, Serialize};

/// The key `outrider/restart`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartRequest {
    /// Names this request in logs and answers.
    pub id: String,
    /// The member whose REST API was used.
    pub by: String,
    /// When, RFC 3339, UTC.
    pub at: String,
    /// Not before this moment, ISO 8601 with an offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<String>,
    /// Only members with a pending restart.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// How long each may take, in seconds; absent for `primary_start_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// The members and their progress.
    pub members: Vec<RestartMember>,
    /// When it ended, RFC 3339, UTC; absent until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// Why it ended before every member was restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Somebody cancelled it: that is not a failure.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
}

/// One member of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartMember {
    /// Its name.
    pub name: String,
    /// How far it has come.
    pub state: RestartState,
    /// When the postmaster to be stopped had been started, as it said itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// How it ended, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// When the state last changed, RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// How far a member has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartState {
    /// Not begun.
    #[default]
    Waiting,
    /// Its Postgres is being restarted.
    Restarting,
    /// It leads, and another member is taking over.
    SwitchingOver,
    /// Restarted.
    Done,
    /// It did not need it.
    Skipped,
    /// It failed.
    Failed,
}

impl RestartRequest {
    /// Whether a member still has to be restarted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.finished.is_none() && !self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{compact_json, parse_record};

    #[test]
    fn a_request_is_read_back_as_it_was_written() {
        let member = RestartMember { name: "p1".to_owned(), ..RestartMember::default() };
        let request =
            RestartRequest { id: "a".to_owned(), members: vec![member], ..RestartRequest::default() };
        let text = compact_json(&request);
        assert_eq!(text, r#"{"id":"a","by":"","at":"","members":[{"name":"p1","state":"waiting"}]}"#);
        assert_eq!(parse_record::<RestartRequest>(&text), request);
        assert!(request.is_open() && !parse_record::<RestartRequest>("nonsense").is_open());
    }
}
