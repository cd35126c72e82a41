//! The replication slot that keeps on this member the WAL which the archive does not have yet. Does not know what the
//! archive has.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use outrider_wal::Lsn;

use crate::error::Error;
use crate::instrument::Postgres;
use crate::session::Session;
use crate::settings::Settings;

/// Its name on every member.
pub const ARCHIVE_SLOT: &str = "outrider_archive";

/// For each statement; none waits for anybody.
const LIMIT: Duration = Duration::from_secs(5);

/// What became of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveSlot {
    /// It keeps all WAL from here on.
    Kept {
        /// Its `restart_lsn`.
        from: Lsn,
    },
    /// It keeps what the archive has long had, because a gap of the archive begins here and this server still has what is
    /// missing.
    KeptForGap {
        /// Its `restart_lsn`.
        from: Lsn,
    },
    /// It was not there, and keeps WAL from the last checkpoint on.
    Made,
    /// It had kept as much as `max_slot_wal_keep_size` allows, or stood where this server has not come to, and was made
    /// anew: WAL from before the last checkpoint is kept by nobody.
    MadeAnew,
}

/// The slot as it is.
struct Found {
    /// `None` when it keeps nothing.
    restart: Option<Lsn>,
    /// How far the server is: replayed by a standby, flushed by a primary.
    position: Lsn,
}

impl Postgres {
    /// Makes the slot where it is missing, and moves it on to `archived`, up to where the archive has everything but for
    /// `gaps`, each by its begin. It is never moved back, nor beyond what this server has, nor past a gap that begins where it
    /// still keeps the WAL.
    ///
    /// # Errors
    /// When Postgres does not do it.
    pub async fn hold_archive_slot(&self, archived: Option<Lsn>, gaps: &[Lsn]) -> Result<ArchiveSlot, Error> {
        let session = Session::open(self.settings()).await?;
        let Some(found) = find(&session).await? else {
            create(&session).await?;
            return Ok(ArchiveSlot::Made);
        };
        // Ahead of the server it would keep nothing of what comes next: its data was put back to an earlier state.
        let Some(from) = found.restart.filter(|restart| *restart <= found.position) else {
            drop_slot(&session).await?;
            create(&session).await?;
            return Ok(ArchiveSlot::MadeAnew);
        };
        let Some(archived) = archived else { return Ok(ArchiveSlot::Kept { from }) };
        let gap = gaps.iter().copied().filter(|gap| (from..archived).contains(gap)).min();
        let to = gap.unwrap_or(archived).min(found.position);
        if to > from {
            advance(&session, to).await?;
        }
        let from = to.max(from);
        Ok(if gap.is_some() { ArchiveSlot::KeptForGap { from } } else { ArchiveSlot::Kept { from } })
    }

    /// Drops the slot where it is: without an archive it would keep WAL for ever.
    ///
    /// # Errors
    /// When Postgres does not do it.
    pub async fn drop_archive_slot(&self) -> Result<(), Error> {
        drop_slot(&Session::open(self.settings()).await?).await
    }
}

/// Removes the slot from a data directory on which nothing runs. It speaks of WAL that the server is about to give up:
/// what comes in its place may be in no archive.
pub(crate) fn forget(settings: &Settings) -> Result<(), Error> {
    let slot = settings.data_directory.join("pg_replslot").join(ARCHIVE_SLOT);
    // As PostgreSQL does it (slot.c, ReplicationSlotDropPtr): what has this ending is removed at the next start.
    let gone = slot.with_extension("tmp");
    match fs::rename(&slot, &gone) {
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(()),
        renamed => renamed
            .and_then(|()| fs::remove_dir_all(&gone))
            .map_err(|source| Error::Write { path: slot, source }),
    }
}

async fn find(session: &Session) -> Result<Option<Found>, Error> {
    const FIND: &str = "SELECT pg_wal_lsn_diff(restart_lsn, '0/0')::bigint, pg_wal_lsn_diff(CASE WHEN \
        pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, '0/0')::bigint \
        FROM pg_replication_slots WHERE slot_name = $1";
    let act = "show the slot for the archive";
    let row = session.within(act, LIMIT, session.client().query_opt(FIND, &[&ARCHIVE_SLOT])).await?;
    let lsn = |place: Option<i64>| place.map(|place| Lsn::new(place.cast_unsigned()));
    Ok(row.map(|row| Found { restart: lsn(row.get(0)), position: lsn(row.get(1)).unwrap_or(Lsn::INVALID) }))
}

async fn create(session: &Session) -> Result<(), Error> {
    const CREATE: &str = "SELECT pg_create_physical_replication_slot($1, true)";
    let act = "make the slot for the archive";
    session.within(act, LIMIT, session.client().execute(CREATE, &[&ARCHIVE_SLOT])).await.map(drop)
}

async fn advance(session: &Session, to: Lsn) -> Result<(), Error> {
    const ADVANCE: &str = "SELECT pg_replication_slot_advance($1, $2::text::pg_lsn)";
    let act = "move the slot for the archive on";
    let to = to.to_string();
    session.within(act, LIMIT, session.client().execute(ADVANCE, &[&ARCHIVE_SLOT, &to])).await.map(drop)
}

async fn drop_slot(session: &Session) -> Result<(), Error> {
    const DROP: &str =
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
    let act = "drop the slot for the archive";
    session.within(act, LIMIT, session.client().execute(DROP, &[&ARCHIVE_SLOT])).await.map(drop)
}
