//! A base backup of the cluster in three records of ours: the request for one, the one that is being taken, the last that
//! ended. Takes none, and does not know when one is due.

use serde::{Deserialize, Serialize};

/// The key `outrider/backup-request`: somebody wants a base backup. It stands until the backup has ended; taking it away
/// before that cancels the backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupRequest {
    /// Names this request in logs and answers.
    pub id: String,
    /// Who asked: `schedule`, or the member whose REST API was used.
    pub by: String,
    /// When, RFC 3339, UTC.
    pub at: String,
    /// How many times a member has started it.
    pub attempts: u32,
}

/// The key `outrider/backup`: the backup that is being taken. It hangs on the session of the member that takes it, so that
/// it goes with that member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupClaim {
    /// Of the request that it answers.
    pub request: String,
    /// Who takes it.
    pub member: String,
    /// Its name in the archive, once it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// When this member began, RFC 3339, UTC.
    pub began: String,
    /// What is being done, in a few words.
    pub phase: String,
    /// Bytes of the data directory that were read.
    pub bytes_done: u64,
    /// Bytes of the data directory in all, as far as it is known; 0 before.
    pub bytes_total: u64,
    /// Bytes that the store has, after compression.
    pub bytes_stored: u64,
    /// Bytes read in a second.
    pub rate: u64,
    /// Estimated; absent while nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// The key `outrider/backup-last`: how the last backup that was asked for ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupOutcome {
    /// Of the request that it answers.
    pub request: String,
    /// Who made it: `schedule`, or a member.
    pub by: String,
    /// When that was made, RFC 3339, UTC.
    pub asked: String,
    /// Who took it.
    pub member: String,
    /// Its name in the archive; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// When the member that ended it began, RFC 3339, UTC.
    pub began: String,
    /// When it ended, RFC 3339, UTC.
    pub finished: String,
    /// Bytes of the data directory.
    pub bytes: u64,
    /// Bytes that the store has, after compression.
    pub bytes_stored: u64,
    /// Why there is no backup; absent when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// It was taken back by somebody: that is no failure.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
    /// How many have failed since the last good one.
    pub failures: u32,
}

/// Reads one of these records. What cannot be read is one that says nothing, so that it can still be taken away.
pub(crate) fn parse<T: Default + for<'a> Deserialize<'a>>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::compact_json;

    #[test]
    fn a_record_of_a_newer_version_is_read_as_far_as_it_is_known() {
        let request: BackupRequest = parse(r#"{"id":"a","by":"schedule","urgent":true}"#);
        assert_eq!((request.id.as_str(), request.by.as_str(), request.attempts), ("a", "schedule", 0));
        assert_eq!(parse::<BackupRequest>("nonsense"), BackupRequest::default());
    }

    #[test]
    fn what_is_not_known_yet_is_not_written() {
        let claim = BackupClaim { request: "a".into(), member: "p2".into(), ..BackupClaim::default() };
        let text = compact_json(&claim);
        assert!(!text.contains("seconds_left") && !text.contains(r#""backup""#), "{text}");
        assert_eq!(parse::<BackupClaim>(&text), claim);
    }
}
