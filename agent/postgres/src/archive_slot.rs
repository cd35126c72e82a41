//! The replication slot that keeps the WAL on this member that the archive does not have yet. Does not know what the
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

/// Time limit for each statement; none waits for anybody.
const LIMIT: Duration = Duration::from_secs(5);

/// The state of the slot after an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveSlot {
    /// It keeps all WAL from here on.
    Kept {
        /// Its `restart_lsn`.
        from: Lsn,
    },
    /// It keeps WAL that has long been in the archive, because a gap in the archive begins here and this server still has
    /// what is missing.
    KeptForGap {
        /// Its `restart_lsn`.
        from: Lsn,
    },
    /// It did not exist, and keeps WAL from the last checkpoint on.
    Made,
    /// It had exceeded `max_slot_wal_keep_size`, or was ahead of this server, and was created anew: nothing keeps WAL from
    /// before the last checkpoint.
    MadeAnew,
}

/// The slot as it is.
struct Found {
    /// `None` when it keeps nothing.
    restart: Option<Lsn>,
    /// Position of the server: replayed on a standby, flushed on a primary.
    position: Lsn,
}

impl Postgres {
    /// Creates the slot if it is missing, and advances it to `archived`, the position up to which the archive has everything
    /// except `gaps`, each given by its beginning. It is never moved back, nor beyond what this server has, nor past a gap
    /// whose WAL it still keeps.
    ///
    /// # Errors
    /// When Postgres does not do it.
    pub async fn hold_archive_slot(&self, archived: Option<Lsn>, gaps: &[Lsn]) -> Result<ArchiveSlot, Error> {
        let session = Session::open(self.settings()).await?;
        let Some(found) = find(&session).await? else {
            create(&session).await?;
            return Ok(ArchiveSlot::Made);
        };
        // Ahead of the server it would keep none of the coming WAL: the data was put back to an earlier state.
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

    /// Drops the slot, if it exists: without an archive it would keep WAL forever.
    ///
    /// # Errors
    /// When Postgres does not do it.
    pub async fn drop_archive_slot(&self) -> Result<(), Error> {
        drop_slot(&Session::open(self.settings()).await?).await
    }
}

/// Removes the slot from a data directory on which nothing runs. It refers to WAL that the server is about to abandon: what
/// replaces that may be in no archive.
pub(crate) fn forget(settings: &Settings) -> Result<(), Error> {
    let slot = settings.data_directory.join("pg_replslot").join(ARCHIVE_SLOT);
    // As PostgreSQL does it (slot.c, ReplicationSlotDropPtr): a directory with this suffix is removed at the next start.
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
    let act = "create the slot for the archive";
    session.within(act, LIMIT, session.client().execute(CREATE, &[&ARCHIVE_SLOT])).await.map(drop)
}

async fn advance(session: &Session, to: Lsn) -> Result<(), Error> {
    const ADVANCE: &str = "SELECT pg_replication_slot_advance($1, $2::text::pg_lsn)";
    let act = "advance the slot for the archive";
    let to = to.to_string();
    session.within(act, LIMIT, session.client().execute(ADVANCE, &[&ARCHIVE_SLOT, &to])).await.map(drop)
}

async fn drop_slot(session: &Session) -> Result<(), Error> {
    const DROP: &str =
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
    let act = "drop the slot for the archive";
    session.within(act, LIMIT, session.client().execute(DROP, &[&ARCHIVE_SLOT])).await.map(drop)
}
