//! Makes the stop of a primary short while it still serves: with archiving on, PostgreSQL ends the WAL segment when it stops, sends all
//! that is left of it to every standby as zeros, and makes the next one, 0.1 s in which nobody can write. Here most of that is done before.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::error::Error;
use crate::instrument::Postgres;
use crate::session::Session;
use crate::statement::{LIMIT, checkpoint};

/// For all of the segment. What is not full by then is filled by the stop.
const FILL_LIMIT: Duration = Duration::from_secs(3);
/// So much is written at once; standbys that follow never count as lagging because of it.
const PIECE: i64 = 256 << 10;
/// Between two looks at a standby that has not had the last pieces.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// How far the segment is to be filled: whoever writes meanwhile must not begin the next one, and a checkpoint makes that one in advance
/// only when the segment is three quarters full (`PreallocXlogFiles` in xlog.c).
const ROOM: &str = "WITH wal AS (SELECT pg_size_bytes(current_setting('wal_segment_size')) AS size,
        pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') AS written)
    SELECT CASE current_setting('archive_mode') WHEN 'off' THEN 0 ELSE size / 16 * 15 - written % size END::bigint,
        (SELECT max(written - pg_wal_lsn_diff(flush_lsn, '0/0'))::bigint FROM pg_stat_replication
            WHERE application_name = $1 AND state = 'streaming')
    FROM wal";

impl Postgres {
    /// Fills the WAL segment that is being written, at the pace of the standby `candidate`, and checkpoints. Filled or not, a stop is
    /// safe; so a failure to fill is no error.
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
    // Logical decoding shows nothing of a subtransaction that was rolled back; the commit around it has it flushed, and thereby sent.
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
