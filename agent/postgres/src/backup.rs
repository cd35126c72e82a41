//! The session in which a base backup is taken: `pg_backup_start`, and `pg_backup_stop` later. Copies no file.

use std::time::Duration;

use outrider_wal::{Lsn, SegmentSize, TimelineId};

use crate::error::Error;
use crate::session::Session;
use crate::settings::Settings;

/// Time limit for statements that only read.
const LIMIT: Duration = Duration::from_secs(5);
/// Time limit for the initial checkpoint: on a busy server with much memory it writes for minutes.
const START_LIMIT: Duration = Duration::from_secs(600);
/// Time limit for the end, which writes a record and a small file.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A session that can begin a base backup and ends it, on a primary or a standby. If it is dropped before, PostgreSQL ends
/// the backup, which is then void.
#[derive(Debug)]
pub struct BackupSession {
    session: Session,
}

/// The server at the beginning of the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupBegun {
    /// Replay starts here.
    pub start: Lsn,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// `server_version_num`.
    pub version: u32,
    /// Names the directory in each tablespace: `PG_`, the major version, `_` and this.
    pub catalog_version: u32,
    /// Of the server.
    pub system_identifier: u64,
    /// Of the server.
    pub segment_size: SegmentSize,
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages in a file of a relation.
    pub pages_per_file: u32,
    /// Whether pages have checksums.
    pub data_checksums: bool,
    /// Those outside the data directory, and those inside it with a relative location (allow_in_place_tablespaces).
    pub tablespaces: Vec<TablespaceLocation>,
}

/// A tablespace and its location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablespaceLocation {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its directory.
    pub location: String,
}

/// The server at the end of the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupEnded {
    /// The copy is consistent from here on.
    pub stop: Lsn,
    /// Timeline of the checkpoint where replay starts.
    pub start_timeline: TimelineId,
    /// Timeline on which it becomes consistent.
    pub stop_timeline: TimelineId,
    /// The content of `backup_label`.
    pub label: String,
}

impl BackupBegun {
    /// The directory of this version in each tablespace, such as `PG_15_202209061`.
    #[must_use]
    pub fn version_directory(&self) -> String {
        format!("PG_{}_{}", self.version / 10_000, self.catalog_version)
    }
}

impl BackupSession {
    /// Connects as the superuser.
    ///
    /// # Errors
    /// When Postgres lets nobody in.
    pub async fn open(settings: &Settings) -> Result<Self, Error> {
        Ok(BackupSession { session: Session::open(settings).await? })
    }

    /// Begins, with an immediate checkpoint, not a spread one.
    ///
    /// # Errors
    /// When Postgres does not: for example on a standby whose primary has `full_page_writes` off.
    pub async fn begin(&self, label: &str) -> Result<BackupBegun, Error> {
        const SERVER: &str = "SELECT pg_is_in_recovery(), current_setting('server_version_num')::int, \
            s.catalog_version_no, s.system_identifier, i.bytes_per_wal_segment, i.database_block_size, \
            i.blocks_per_segment, i.data_page_checksum_version <> 0 \
            FROM pg_control_system() s, pg_control_init() i";
        const START: &str = "SELECT pg_wal_lsn_diff(pg_backup_start($1, fast => true), '0/0')::bigint";
        const TABLESPACES: &str = "SELECT oid, spcname::text, pg_tablespace_location(oid) FROM pg_tablespace \
            WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid";
        let (session, client) = (&self.session, self.session.client());
        let act = "read what a base backup needs";
        let server = session.within(act, LIMIT, client.query_one(SERVER, &[])).await?;
        let start =
            session.within("begin a base backup", START_LIMIT, client.query_one(START, &[&label])).await?;
        let tablespaces = session.within(act, LIMIT, client.query(TABLESPACES, &[])).await?;
        let number = |column: usize| server.get::<_, i32>(column).cast_unsigned();
        Ok(BackupBegun {
            start: Lsn::new(start.get::<_, i64>(0).cast_unsigned()),
            in_recovery: server.get(0),
            version: number(1),
            catalog_version: number(2),
            system_identifier: server.get::<_, i64>(3).cast_unsigned(),
            segment_size: SegmentSize::new(u64::from(number(4))).unwrap_or(SegmentSize::DEFAULT),
            page_size: number(5),
            pages_per_file: number(6),
            data_checksums: server.get(7),
            tablespaces: tablespaces
                .iter()
                .map(|row| TablespaceLocation { oid: row.get(0), name: row.get(1), location: row.get(2) })
                .collect(),
        })
    }

    /// Ends the backup, after the last file was read, without waiting for the archive.
    ///
    /// # Errors
    /// When Postgres refuses, for example because the standby was promoted meanwhile, or the session is gone: the backup is
    /// void.
    pub async fn end(&self) -> Result<BackupEnded, Error> {
        const STOP: &str = "SELECT pg_wal_lsn_diff(lsn, '0/0')::bigint, labelfile \
            FROM pg_backup_stop(wait_for_archive => false)";
        const TIMELINE: &str = "SELECT CASE WHEN pg_is_in_recovery() \
            THEN (SELECT min_recovery_end_timeline FROM pg_control_recovery()) \
            ELSE (SELECT timeline_id FROM pg_control_checkpoint()) END";
        let (session, client) = (&self.session, self.session.client());
        let stop = session.within("end a base backup", STOP_LIMIT, client.query_one(STOP, &[])).await?;
        let act = "read its timeline";
        let timeline = session.within(act, LIMIT, client.query_one(TIMELINE, &[])).await?;
        let label: String = stop.get(1);
        Ok(BackupEnded {
            stop: Lsn::new(stop.get::<_, i64>(0).cast_unsigned()),
            start_timeline: start_timeline(&label)?,
            stop_timeline: TimelineId::new(timeline.get::<_, i32>(0).cast_unsigned()),
            label,
        })
    }

    /// Whether the connection is still there.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.session.is_closed()
    }
}

fn start_timeline(label: &str) -> Result<TimelineId, Error> {
    const LINE: &str = "START TIMELINE: ";
    let number = label.lines().find_map(|line| line.strip_prefix(LINE)?.trim().parse().ok());
    number.map(TimelineId::new).ok_or_else(|| Error::BackupLabel { what: LINE, label: label.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_tells_the_timeline() {
        let label = "START WAL LOCATION: 0/2000028 (file 000000030000000000000002)\n\
            CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
            START TIME: 2026-11-24 15:00:00 UTC\nLABEL: x\nSTART TIMELINE: 3\n";
        assert_eq!(start_timeline(label).unwrap(), TimelineId::new(3));
        assert!(matches!(start_timeline("START TIMELINE: x\n"), Err(Error::BackupLabel { .. })));
    }
}
