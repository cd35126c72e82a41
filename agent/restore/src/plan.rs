//! What a restore will do, for people and for programs to read. Decides and fetches nothing.

mod consistent;
mod planner;
mod reach;
mod records;

use jiff::{SignedDuration, Timestamp};
use outrider_wal::{Lsn, SegmentName, TimelineId};
use serde_json::{Value, json};

use crate::error::Point;
use crate::target::Goal;
use outrider_archive::catalog::Gap;
use outrider_archive::{BackupId, BackupInfo};

pub(crate) use planner::plan;
pub use records::newest_commit;

/// Bytes of tars that are unpacked, checked and written in a second: a guess, for a store that is near. Of a slower
/// network the plan knows nothing.
const FILES_PER_SECOND: u64 = 500 << 20;
/// Bytes of WAL that Postgres replays in a second: a guess too, since it depends on what is in it.
const WAL_PER_SECOND: u64 = 64 << 20;

/// How a goal is reached.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to, and what then.
    pub goal: Goal,
    /// The base backup it begins with.
    pub backup: BackupInfo,
    /// Bytes of its tars as stored.
    pub stored_bytes: u64,
    /// Bytes of its files, when that is known.
    pub plain_bytes: Option<u64>,
    /// The timelines that recovery goes along; the last is the target's.
    pub path: Vec<TimelineId>,
    /// The first segment that is replayed.
    pub first_wal: SegmentName,
    /// The last one, as far as it is known.
    pub last_wal: SegmentName,
    /// Segments that are replayed.
    pub segments: u64,
    /// Their bytes, unpacked.
    pub wal_bytes: u64,
    /// Where recovery will stop, when that was looked up.
    pub stop: Option<Stop>,
    /// The first point to which any base backup on this path can be brought.
    pub first_point: Point,
    /// The last point to which this one can be brought.
    pub last_point: Point,
    /// Missing WAL behind the target, which does not matter for it.
    pub gaps: Vec<Gap>,
    /// That the clock of the member that took the backup was wrong, where its WAL shows it. The plan does not go by that clock.
    pub clock_skew: Option<String>,
    /// The most that the WAL on the way wants of a server that answers queries in recovery, of `max_connections`,
    /// `max_worker_processes`, `max_wal_senders`, `max_prepared_transactions` and `max_locks_per_transaction`; 0 where it
    /// was not looked at.
    pub raised: [u32; 5],
    /// Finished backups that were passed over because something of them is missing, in words.
    pub passed_over: Vec<String>,
}

/// The record at which a recovery stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Its first byte.
    pub lsn: Lsn,
    /// When it was written.
    pub time: Option<Timestamp>,
}

impl Plan {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &BackupId {
        &self.backup.id
    }

    /// About how long it takes on a machine like ours: the files, then the replay.
    #[must_use]
    pub fn estimate(&self) -> SignedDuration {
        let files = self.plain_bytes.unwrap_or(self.stored_bytes * 4) / FILES_PER_SECOND;
        let replay = self.wal_bytes / WAL_PER_SECOND;
        SignedDuration::from_secs(i64::try_from(files + replay + 1).unwrap_or(i64::MAX))
    }

    /// The whole of it as an object, bytes as numbers, times in UTC.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let point = |point: &Point| json!({ "lsn": point.lsn.to_string(), "time": point.time });
        json!({
            "target": self.goal.target.to_string(),
            "inclusive": self.goal.inclusive,
            "backup": {
                "id": self.backup.id.to_string(),
                "ended": self.backup.end_time,
                "consistent_at": self.backup.end_lsn.map(|lsn| lsn.to_string()),
                "stored_bytes": self.stored_bytes,
                "bytes": self.plain_bytes,
                "tablespaces": self.backup.tablespaces.iter().map(|space| json!({
                    "name": space.name, "oid": space.oid, "location": space.location,
                })).collect::<Vec<_>>(),
            },
            "timelines": self.path.iter().map(|timeline| timeline.get()).collect::<Vec<_>>(),
            "wal": {
                "first": self.first_wal.to_string(),
                "last": self.last_wal.to_string(),
                "segments": self.segments,
                "bytes": self.wal_bytes,
            },
            "stops_at": self.stop.map(|stop| json!({ "lsn": stop.lsn.to_string(), "time": stop.time })),
            "first_point": point(&self.first_point),
            "last_point": point(&self.last_point),
            "missing_behind_the_target": self.gaps.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "clock_skew": self.clock_skew,
            "passed_over": self.passed_over,
            "estimated_seconds": self.estimate().as_secs(),
        })
    }
}
