//! A rollback of the running cluster to a point in time, in three records of ours: the request for it, the one that is being
//! prepared or carried out, the last that ended. Rolls nothing back.

use outrider_wal::{Lsn, TimelineId};
use serde::{Deserialize, Serialize};

/// Where to, as a person asked for it; one of the first six.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RollbackTarget {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_time: Option<String>,
    /// An LSN such as 0/3000148.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_lsn: Option<String>,
    /// The number of a transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_xid: Option<u32>,
    /// A point that `pg_create_restore_point` made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_name: Option<String>,
    /// As soon as the base backup is consistent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub immediate: bool,
    /// At the end of the archive's WAL: with an earlier timeline, the way back from a rollback.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub latest: bool,
    /// Stop just before the time, position or transaction.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// `latest`, `current` or a number; absent for the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<String>,
}

/// The key `outrider/rollback-request`: somebody wants the cluster rolled back. It stands until the rollback has ended; taking
/// it away before the swap begins cancels it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RollbackRequest {
    /// Names this request in logs and answers.
    pub id: String,
    /// The member whose REST API was used.
    pub by: String,
    /// When, RFC 3339, UTC.
    pub at: String,
    /// Where to.
    pub target: RollbackTarget,
    /// From which base backup; the best one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Whether a leader has started it. It is never started twice: a person has to request it again.
    pub begun: bool,
    /// What the swap does, once it has begun: from then on it cannot be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<RollbackSwap>,
}

/// What is swapped for what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RollbackSwap {
    /// Whose data directory.
    pub member: String,
    /// When this member began, RFC 3339, UTC.
    pub began: String,
    /// The target, in words.
    pub target: String,
    /// The base backup.
    pub backup: String,
    /// The timeline that is left.
    pub old_timeline: TimelineId,
    /// How far it had come.
    pub old_lsn: Lsn,
    /// The timeline of the prepared data.
    pub new_timeline: TimelineId,
    /// Where that timeline begins.
    pub new_lsn: Lsn,
    /// Where the old data goes.
    pub old_data: String,
}

/// The key `outrider/rollback`: how far a rollback is. It hangs on the session of the leader that does it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RollbackClaim {
    /// Of the request that it answers.
    pub request: String,
    /// Who does it.
    pub member: String,
    /// When, RFC 3339, UTC.
    pub began: String,
    /// The target, in words.
    pub target: String,
    /// What is being done, in a few words.
    pub phase: String,
    /// The base backup, once it is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Of this phase: bytes written, then bytes of WAL replayed.
    pub bytes_done: u64,
    /// Of this phase in all, as far as it is known; 0 before.
    pub bytes_total: u64,
    /// Bytes in a second.
    pub rate: u64,
    /// Of this phase, estimated; absent while nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// The key `outrider/rollback-last`: how the last rollback that was asked for ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RollbackOutcome {
    /// Of the request that it answers.
    pub request: String,
    /// The member whose REST API was used.
    pub by: String,
    /// When it was asked for, RFC 3339, UTC.
    pub asked: String,
    /// Who did it.
    pub member: String,
    /// The target, in words.
    pub target: String,
    /// The base backup; absent when none was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// When it began, RFC 3339, UTC.
    pub began: String,
    /// When it ended, RFC 3339, UTC.
    pub finished: String,
    /// Why the cluster was not rolled back; absent when it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// It was taken back by somebody: that is no failure.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
    /// The timeline that was left; absent when the swap never began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_timeline: Option<TimelineId>,
    /// How far it had come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_lsn: Option<Lsn>,
    /// The timeline of the cluster since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_timeline: Option<TimelineId>,
    /// Where that timeline begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_lsn: Option<Lsn>,
    /// Where the old data lies, on `member`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_data: Option<String>,
    /// How long nobody could write, in seconds, as the leader saw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_gap_seconds: Option<f64>,
    /// Whoever is on a timeline before this one has what the last good rollback threw away, and is not promoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_timeline: Option<TimelineId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{compact_json, parse_record};

    #[test]
    fn a_request_is_read_back_as_it_was_written() {
        let target = RollbackTarget { target_xid: Some(7), exclusive: true, ..RollbackTarget::default() };
        let request = RollbackRequest { id: "p1-1".to_owned(), target, ..RollbackRequest::default() };
        let text = compact_json(&request);
        assert_eq!(
            text,
            r#"{"id":"p1-1","by":"","at":"","target":{"target_xid":7,"exclusive":true},"begun":false}"#
        );
        assert_eq!(parse_record::<RollbackRequest>(&text), request);
        assert_eq!(parse_record::<RollbackRequest>("nonsense"), RollbackRequest::default());
    }
}
