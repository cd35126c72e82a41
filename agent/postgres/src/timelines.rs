//! Numbers of timelines that a promotion must not take again, because their WAL is given up.

use outrider_wal::TimelineId;

use crate::error::Error;
use crate::file;
use crate::instrument::Postgres;

/// PostgreSQL reads a history file without a line as that of a timeline that comes from nowhere: a running standby does not turn to it
/// ("is not a child of database system timeline"), and a promotion takes the number after it. Standbys of the new primary ask for
/// every number up to its own, and get this.
const NOWHERE: &str = "# This timeline was given up by a failover that accepted the loss of data.\n";
/// No cluster was promoted so often while one of its members was away.
const SKIPPED_MAX: usize = 1024;

impl Postgres {
    /// Sees to it that the next promotion of this standby, which is on `own`, takes a number above `newest`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn skip_timelines(&self, own: TimelineId, newest: TimelineId) -> Result<(), Error> {
        let directory = self.settings.data_directory.join("pg_wal");
        for number in (own.get().saturating_add(1)..=newest.get()).take(SKIPPED_MAX) {
            let path = directory.join(TimelineId::new(number).history_file_name());
            if !path.exists() {
                file::replace(&path, NOWHERE, 0o600)?;
            }
        }
        Ok(())
    }
}
