//! Lets the replay of a standby go on: cancels the sessions that block it, and resumes it when it is paused.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::info;

use crate::configuration::Configuration;
use crate::error::Error;
use crate::instrument::Postgres;
use crate::observer::BLOCKERS;
use crate::session::Session;

/// Time limit for one statement.
const LIMIT: Duration = Duration::from_secs(1);
/// Time limit for all passes: the caller checks again.
const PASSES_LIMIT: Duration = Duration::from_millis(250);
/// Pause between a cancellation and the next check.
const PASS_INTERVAL: Duration = Duration::from_millis(2);
/// After this many cancellations, a session that still blocks replay is terminated.
const CANCELS_MAX: u32 = 5;

impl Postgres {
    /// Makes recovery conflicts end at once from now on (`wanted` says so), and ends the existing ones: the startup process reads
    /// its settings only when nothing blocks it. A session is cancelled; one that is idle in a transaction cannot be, and is
    /// terminated, as is one that ignores it.
    ///
    /// # Errors
    /// When a file cannot be written, or Postgres does not do it.
    pub async fn hasten_replay(&self, wanted: &Configuration, resume: bool) -> Result<(), Error> {
        self.configure(wanted).await?;
        let session = Session::open(&self.settings).await?;
        if resume {
            const RESUME: &str =
                "SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery() AND pg_is_wal_replay_paused()";
            let resuming = session.client().query(RESUME, &[]);
            if !session.within("resume replay", LIMIT, resuming).await?.is_empty() {
                info!("replay was paused; it goes on");
            }
        }
        // What is left after that is for the next time.
        match timeout(PASSES_LIMIT, clear(&session)).await {
            Ok(outcome) => outcome,
            Err(_) => Ok(()),
        }
    }
}

/// Until nothing blocks replay. Of the sessions with an old snapshot, the oldest certainly does; whether the next one does shows
/// when that is gone.
async fn clear(session: &Session) -> Result<(), Error> {
    const ACT: &str = "cancel what holds up replay";
    const CANCEL: &str = "SELECT pg_cancel_backend($1)";
    const TERMINATE: &str = "SELECT pg_terminate_backend($1)";
    let mut cancelled: Vec<(i32, u32)> = Vec::new();
    loop {
        let rows = session.within(ACT, LIMIT, session.client().query(BLOCKERS, &[])).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let age = |row: &tokio_postgres::Row| row.get::<_, Option<i32>>(2);
        let oldest = rows.iter().filter_map(age).max();
        for row in rows.iter().filter(|row| age(row).is_none() || age(row) == oldest) {
            let (pid, state): (i32, Option<&str>) = (row.get(0), row.get(1));
            let known = cancelled.iter_mut().find(|(one, _)| *one == pid);
            let times = known.map(|(_, times)| {
                *times += 1;
                *times
            });
            if times.is_none() {
                cancelled.push((pid, 1));
                info!(pid, state, "cancelled what holds up replay");
            }
            let ends = state != Some("active") || times.is_some_and(|times| times > CANCELS_MAX);
            let statement = if ends { TERMINATE } else { CANCEL };
            session.within(ACT, LIMIT, session.client().query(statement, &[&pid])).await?;
        }
        // The startup process sleeps for up to a second between two checks of whom it waits for; a signal wakes it.
        const WAKE: &str = "SELECT pg_reload_conf()";
        session.within(ACT, LIMIT, session.client().query(WAKE, &[])).await?;
        sleep(PASS_INTERVAL).await;
    }
}
