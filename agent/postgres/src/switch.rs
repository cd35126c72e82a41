//! Ends the WAL segment that a primary is writing, so that it can be archived: on the local primary, or on another member.

use std::time::Duration;

use outrider_wal::Lsn;

use crate::conninfo::Upstream;
use crate::error::Error;
use crate::instrument::Postgres;
use crate::session::Session;

/// Time limit for a statement that writes one record.
const LIMIT: Duration = Duration::from_secs(5);

impl Postgres {
    /// Ends the segment on the primary at `primary`, or on the local one. Does nothing if nothing was written since the last
    /// time. Returns the end of the WAL.
    ///
    /// # Errors
    /// When it cannot be reached, or is not a primary.
    pub async fn switch_wal(&self, primary: Option<&Upstream>) -> Result<Lsn, Error> {
        const SWITCH: &str = "SELECT pg_wal_lsn_diff(pg_switch_wal(), '0/0')::bigint";
        let session = match primary {
            None => Session::open(&self.settings).await?,
            Some(primary) => Session::open_at(&self.settings, primary).await?,
        };
        let act = "end the WAL segment";
        let row = session.within(act, LIMIT, session.client().query_one(SWITCH, &[])).await?;
        Ok(Lsn::new(row.get::<_, i64>(0).cast_unsigned()))
    }
}
