//! Shortens the stop of a primary while it still serves. With archiving on, PostgreSQL ends the WAL segment when it stops, sends
//! the rest of it to every standby as zeros, and creates the next one: 0.1 s in which nobody can write. Most of that is done here
//! in advance.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::error::Error;
use crate::instrument::Postgres;
use crate::session::Session;
use crate::statement::{LIMIT, checkpoint};

/// Time limit for filling the segment. The stop fills what is left.
const FILL_LIMIT: Duration = Duration::from_secs(3);
/// Bytes written at once; standbys that keep up never count as lagging because of it.
const PIECE: i64 = 256 << 10;
/// Interval between checks of a standby that has not received the last pieces.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// How far to fill the segment: other writers must not start the next one meanwhile, and a checkpoint creates that one in advance
/// only when the segment is three quarters full (`PreallocXlogFiles` in xlog.c).
const ROOM: &str = "WITH wal AS (SELECT pg_size_bytes(current_setting('wal_segment_size')) AS size,
        pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') AS written)
    SELECT CASE current_setting('archive_mode') WHEN 'off' THEN 0 ELSE size / 16 * 15 - written % size END::bigint,
        (SELECT max(written - pg_wal_lsn_diff(flush_lsn, '0/0'))::bigint FROM pg_stat_replication
            WHERE application_name = $1 AND state = 'streaming')
    FROM wal";

impl Postgres {
    /// Fills the unfinished WAL segment at the pace of the standby `candidate`, and checkpoints. A stop is safe either way, so a
    /// failure to fill is not an error.
    ///
    /// # Errors
    /// When Postgres does not checkpoint.
    pub async fn shorten_stop(&self, candidate: &str) -> Result<(), Error> {
        let session = Session::open(self.settings()).await?;
        match timeout(FILL_LIMIT, fill_segment(&session, candidate)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => debug!(%fault, "the WAL segment is not filled before the stop"),
            Err(_) => {
                debug!(limit = ?FILL_LIMIT, "the WAL segment could not be filled in time before the stop")
            }
        }
        checkpoint(&session).await
    }
}

async fn fill_segment(session: &Session, candidate: &str) -> Result<(), Error> {
    let act = "fill the WAL segment";
    // Logical decoding does not show a subtransaction that was rolled back; the commit around it flushes it, and so sends it.
    let piece = format!(
        "BEGIN; SELECT txid_current(); SAVEPOINT piece; \
         SELECT pg_logical_emit_message(true, 'outrider', repeat(' ', {PIECE})); ROLLBACK TO piece; COMMIT"
    );
    loop {
        let row = session.within(act, LIMIT, session.client().query_one(ROOM, &[&candidate])).await?;
        let (room, lag): (i64, Option<i64>) = (row.get(0), row.get(1));
        match lag {
            None => return Ok(()),
            Some(_) if room < PIECE => return Ok(()),
            Some(lag) if lag > PIECE => sleep(LOOK_INTERVAL).await,
            Some(_) => session.within(act, LIMIT, session.client().batch_execute(&piece)).await?,
        }
    }
}
