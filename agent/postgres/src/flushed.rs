//! How far the local primary's WAL is flushed to disk. Keeps one session; changes nothing.

use std::sync::Arc;
use std::time::Duration;

use outrider_wal::{Lsn, TimelineId};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::Statement;

use crate::error::Error;
use crate::session::Session;
use crate::settings::Settings;

/// Time limit for one answer, including the connection.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const ACT: &str = "read its flushed position";

const FLUSHED: &str = "
SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint,
       ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
WHERE NOT pg_is_in_recovery()";

/// Queries the flushed position. Queries nothing else, so it is much cheaper than the [`crate::Observer`].
#[derive(Debug)]
pub struct FlushedWal {
    settings: Arc<Settings>,
    session: Mutex<Option<(Session, Statement)>>,
}

impl FlushedWal {
    /// With its own session, opened with the first query.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        FlushedWal { settings, session: Mutex::default() }
    }

    /// The timeline on which the primary writes, and the end of what it has flushed; `None` for a standby. Takes a second
    /// at most.
    ///
    /// # Errors
    /// When Postgres does not let us in, or does not answer in time.
    pub async fn position(&self) -> Result<Option<(TimelineId, Lsn)>, Error> {
        let asking = async {
            let mut kept = self.session.lock().await;
            // Taken out: whatever goes wrong, the next query starts with a new session.
            let (session, statement) = match kept.take().filter(|(session, _)| !session.is_closed()) {
                Some(open) => open,
                None => self.open().await?,
            };
            let row = session.within(ACT, ANSWER_LIMIT, session.client().query_opt(&statement, &[])).await?;
            *kept = Some((session, statement));
            Ok(row.map(|row| {
                let (flushed, timeline) = (row.get::<_, i64>(0), row.get::<_, i32>(1));
                (TimelineId::new(timeline.cast_unsigned()), Lsn::new(flushed.cast_unsigned()))
            }))
        };
        let too_slow = Error::TooSlow { act: ACT, limit: ANSWER_LIMIT };
        timeout(ANSWER_LIMIT, asking).await.unwrap_or(Err(too_slow))
    }

    async fn open(&self) -> Result<(Session, Statement), Error> {
        let session = Session::open(&self.settings).await?;
        let statement = session.within(ACT, ANSWER_LIMIT, session.client().prepare(FLUSHED)).await?;
        Ok((session, statement))
    }
}
