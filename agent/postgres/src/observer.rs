//! Observes the local Postgres: role, positions, who streams. Keeps one session; changes nothing.

mod files;
mod lacking;

use std::sync::Arc;
use std::time::Duration;

use outrider_wal::{Lsn, TimelineId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::{Row, Statement};

use self::files::Files;
use crate::conninfo;

use crate::error::Error;
use crate::observation::{Blocker, Lacking, Observation, Role, Slot, WalSender};
use crate::session::Session;
use crate::settings::Settings;

/// Time limit for one observation, including the connection.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// Files are checked after each reload, and in every n-th observation: `pg_settings` is the expensive part.
const FILES_EVERY: u32 = 30;
/// Whether new connections are accepted is tried in every n-th observation, and in each while they are not: a hung postmaster
/// leaves open sessions alone.
const KNOCK_EVERY: u32 = 5;
/// Time limit for that attempt, which runs beside the queries of the same observation.
const KNOCK_LIMIT: Duration = Duration::from_millis(900);
/// `SSLRequest`: the shortest message that PostgreSQL answers before a client has to say who it is.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

const STATE: &str = "
SELECT (SELECT system_identifier FROM pg_control_system()),
       current_setting('server_version_num')::int,
       pg_postmaster_start_time()::text,
       checkpoint.timeline_id,
       (SELECT coalesce(min_recovery_end_timeline, 0) FROM pg_control_recovery()),
       CASE WHEN NOT recovering THEN pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint END,
       CASE WHEN NOT recovering THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END,
       pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::bigint,
       pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint,
       pg_last_xact_replay_timestamp()::text,
       CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
            ELSE coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 0) END::float8,
       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
       receiver.status,
       receiver.received_tli,
       current_setting('primary_conninfo'),
       current_setting('restore_command') <> '',
       current_setting('synchronous_standby_names'),
       (SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'client backend')::int,
       ARRAY(SELECT concat_ws(' ', slot_name, active, pg_wal_lsn_diff(restart_lsn, '0/0')::bigint) FROM pg_get_replication_slots()
             WHERE slot_type = 'physical' AND NOT temporary AND wal_status IS DISTINCT FROM 'lost' ORDER BY slot_name),
       (SELECT bytes_per_wal_segment FROM pg_control_init()),
       CASE WHEN recovering THEN extract(epoch FROM current_setting('recovery_min_apply_delay')::interval) ELSE 0 END::float8,
       pg_conf_load_time()::text,
       pg_wal_lsn_diff(receiver.latest_end_lsn, '0/0')::bigint
FROM pg_is_in_recovery() AS recovering,
     pg_control_checkpoint() AS checkpoint
     LEFT JOIN (SELECT status, received_tli, latest_end_lsn FROM pg_stat_get_wal_receiver() WHERE pid IS NOT NULL) AS receiver ON true";

const WALSENDERS: &str = "
SELECT pid, usename::text, application_name, host(client_addr), state, sync_state, sync_priority,
       pg_wal_lsn_diff(sent_lsn, '0/0')::bigint, pg_wal_lsn_diff(flush_lsn, '0/0')::bigint,
       pg_wal_lsn_diff(replay_lsn, '0/0')::bigint, coalesce(extract(epoch FROM replay_lag), 0)::float8
FROM pg_stat_replication ORDER BY application_name, pid";

/// Whom the startup process waits for. For a snapshot conflict PostgreSQL does not say whose it is: the oldest is one of them.
/// The agents' sessions last for one statement each.
pub(crate) const BLOCKERS: &str = "
WITH startup AS MATERIALIZED (
    SELECT pid, wait_event_type FROM pg_stat_get_activity(NULL)
    WHERE backend_type = 'startup' AND (wait_event LIKE 'RecoveryConflict%' OR wait_event_type IN ('Lock', 'BufferPin')))
SELECT session.pid, session.state, age(session.backend_xmin),
       extract(epoch FROM clock_timestamp() - coalesce(session.xact_start, session.query_start, session.backend_start))::float8
FROM startup, pg_stat_get_activity(NULL) AS session
WHERE session.backend_type = 'client backend' AND session.pid <> pg_backend_pid()
  AND session.application_name IS DISTINCT FROM 'outrider'
  AND CASE startup.wait_event_type
      WHEN 'Lock' THEN session.pid IN (
          SELECT holder.pid FROM pg_locks AS waiting JOIN pg_locks AS holder ON holder.granted
              AND (holder.locktype, holder.relation) = (waiting.locktype, waiting.relation)
              AND holder.database IS NOT DISTINCT FROM waiting.database
          WHERE waiting.pid = startup.pid AND NOT waiting.granted)
      WHEN 'BufferPin' THEN session.state <> 'idle'
      ELSE session.backend_xmin IS NOT NULL END
ORDER BY 4 DESC LIMIT 20";

/// Observes one Postgres. Clones share the session and take turns.
#[derive(Clone, Debug)]
pub struct Observer {
    settings: Arc<Settings>,
    window: Arc<Mutex<Option<Window>>>,
}

#[derive(Debug)]
struct Window {
    session: Session,
    state: Statement,
    walsenders: Statement,
    blockers: Statement,
    files: Files,
    /// `pg_conf_load_time()` at the last check of the files.
    loaded: String,
    /// Where replay is paused, and what the control file says of it.
    paused: Option<(Lsn, Vec<Lacking>)>,
    looks: u32,
    /// Why the last attempt to connect was not answered.
    shut_out: Option<String>,
}

impl Observer {
    /// An observer with its own session, opened with the first observation.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        Observer { settings, window: Arc::default() }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// One observation. Takes a second at most.
    ///
    /// # Errors
    /// When Postgres does not let us in, or does not answer in time.
    pub async fn look(&self) -> Result<Observation, Error> {
        let looking = async {
            let mut window = self.window.lock().await;
            if window.as_ref().is_none_or(|window| window.session.is_closed()) {
                *window = None;
                *window = Some(Window::open(&self.settings).await?);
            }
            let outcome = match window.as_mut() {
                Some(open) => open.look(&self.settings).await,
                None => return Err(too_slow()),
            };
            if outcome.is_err() {
                // Whatever is wrong with it, the next observation starts with a new session.
                *window = None;
            }
            outcome
        };
        timeout(LOOK_LIMIT, looking).await.unwrap_or_else(|_| Err(too_slow()))
    }

    /// Makes the next observation include what is otherwise checked only now and then: which parameters wait for a restart.
    pub async fn ask_all_again(&self) {
        if let Some(window) = self.window.lock().await.as_mut() {
            window.looks = 0;
        }
    }

    /// Sizes of the databases in bytes, by name. Reads directories: too expensive for every round.
    ///
    /// # Errors
    /// As [`Observer::look`].
    pub async fn database_sizes(&self) -> Result<Vec<(String, u64)>, Error> {
        const SIZES: &str =
            "SELECT datname::text, pg_database_size(oid) FROM pg_database WHERE datallowconn ORDER BY 1";
        let limit = Duration::from_secs(5);
        let session = Session::open(&self.settings).await?;
        let rows = session
            .within("read the sizes of its databases", limit, session.client().query(SIZES, &[]))
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1).cast_unsigned())).collect())
    }
}

fn too_slow() -> Error {
    Error::TooSlow { act: "report its state", limit: LOOK_LIMIT }
}

impl Window {
    async fn open(settings: &Settings) -> Result<Self, Error> {
        let session = Session::open(settings).await?;
        let act = "prepare to report its state";
        let state = session.within(act, LOOK_LIMIT, session.client().prepare(STATE)).await?;
        let walsenders = session.within(act, LOOK_LIMIT, session.client().prepare(WALSENDERS)).await?;
        let blockers = session.within(act, LOOK_LIMIT, session.client().prepare(BLOCKERS)).await?;
        let (files, loaded) = (Files::default(), String::new());
        Ok(Window {
            session,
            state,
            walsenders,
            blockers,
            files,
            loaded,
            paused: None,
            looks: 0,
            shut_out: None,
        })
    }

    async fn look(&mut self, settings: &Settings) -> Result<Observation, Error> {
        let client = self.session.client();
        let act = "report its state";
        let knocks = self.shut_out.is_some() || self.looks.is_multiple_of(KNOCK_EVERY);
        // Sent together, and answered one after the other. The positions come first: whoever has flushed up to there later
        // has flushed everything that was there now.
        let (row, walsenders, knocked) = tokio::try_join!(
            biased;
            self.session.within(act, LOOK_LIMIT, client.query_one(&self.state, &[])),
            self.session.within(act, LOOK_LIMIT, client.query(&self.walsenders, &[])),
            async { Ok(if knocks { Some(knock(settings).await) } else { None }) },
        )?;
        if let Some(knocked) = knocked {
            self.shut_out = knocked.err();
        }
        let loaded: String = row.get(21);
        if self.loaded != loaded || self.looks.is_multiple_of(FILES_EVERY) {
            self.files = files::ask(&self.session, settings, LOOK_LIMIT).await?;
            self.loaded = loaded;
        }
        let mut seen = observation(&row, &walsenders, &self.files);
        seen.shut_out.clone_from(&self.shut_out);
        self.look_at_pause(&mut seen, settings).await;
        self.looks = self.looks.wrapping_add(1);
        if let Role::Standby { received, replayed, blockers, .. } = &mut seen.role
            && replayed < received
        {
            let act = "report what replay waits for";
            let client = self.session.client();
            let rows = self.session.within(act, LOOK_LIMIT, client.query(&self.blockers, &[])).await?;
            *blockers = rows.iter().map(|row| Blocker { pid: row.get(0), age_seconds: row.get(3) }).collect();
        }
        Ok(seen)
    }
}

impl Window {
    /// For a standby whose replay is paused: whether that is because it lacks something. This runs a program, so only once per
    /// pause, and now and then.
    async fn look_at_pause(&mut self, seen: &mut Observation, settings: &Settings) {
        let Role::Standby { replay_paused: true, replayed, lacking, .. } = &mut seen.role else {
            self.paused = None;
            return;
        };
        let known = self.paused.as_ref().is_some_and(|(at, _)| at == replayed);
        if !known || self.looks.is_multiple_of(FILES_EVERY) {
            self.paused = lacking::ask(settings, &seen.limits).await.map(|found| (*replayed, found));
        }
        *lacking = self.paused.as_ref().map(|(_, found)| found.clone()).unwrap_or_default();
    }
}

/// Whether the postmaster accepts a new connection, which is closed again at once.
async fn knock(settings: &Settings) -> Result<(), String> {
    let socket = settings.socket_directory.join(format!(".s.PGSQL.{}", settings.port));
    let knocking = async {
        let mut stream = UnixStream::connect(&socket).await?;
        stream.write_all(&SSL_REQUEST).await?;
        stream.read_u8().await
    };
    match timeout(KNOCK_LIMIT, knocking).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(fault)) => Err(format!("{}: {fault}", socket.display())),
        Err(_) => Err(format!("{}: no answer within {KNOCK_LIMIT:?}", socket.display())),
    }
}

fn observation(row: &Row, walsenders: &[Row], files: &Files) -> Observation {
    let checkpoint_timeline = timeline(row.get(3));
    let (role, timeline) = match row.get::<_, Option<i64>>(5) {
        Some(flushed) => (Role::Primary { flushed: lsn(Some(flushed)) }, timeline(row.get(6))),
        None => {
            let streams_on = timeline(row.get(13));
            let recovered_on = timeline(row.get(4));
            (standby(row), streams_on.max(recovered_on).max(checkpoint_timeline))
        }
    };
    Observation {
        system_identifier: row.get::<_, i64>(0).cast_unsigned(),
        server_version: row.get::<_, i32>(1).cast_unsigned(),
        postmaster_start_time: row.get(2),
        timeline,
        checkpoint_timeline,
        role,
        walsenders: walsenders.iter().map(walsender).collect(),
        slots: row.get::<_, Vec<&str>>(18).into_iter().filter_map(slot).collect(),
        synchronous_standby_names: row.get(16),
        pending_restart: files.pending_restart.clone(),
        file_faults: files.faults.clone(),
        loaded: row.get(21),
        limits: files.limits.clone(),
        connections: row.get::<_, i32>(17).cast_unsigned(),
        wal_segment_size: u64::from(row.get::<_, i32>(19).cast_unsigned()),
        shut_out: None,
    }
}

fn standby(row: &Row) -> Role {
    Role::Standby {
        received: lsn(row.get(7)),
        replayed: lsn(row.get(8)),
        latest_end: lsn(row.get(22)),
        replayed_timestamp: row.get(9),
        replay_lag_seconds: row.get(10),
        replay_paused: row.get(11),
        lacking: Vec::new(),
        streaming: row.get::<_, Option<&str>>(12) == Some("streaming"),
        upstream: conninfo::address(row.get(14)),
        archive_recovery: row.get(15),
        apply_delay_seconds: row.get(20),
        blockers: Vec::new(),
    }
}

/// `name t 50331648`, without the last field if it keeps nothing.
fn slot(text: &str) -> Option<Slot> {
    let mut fields = text.split(' ');
    Some(Slot {
        name: fields.next()?.to_owned(),
        active: fields.next()? == "t",
        restart: fields.next().and_then(|restart| restart.parse().ok()).map(Lsn::new),
    })
}

fn walsender(row: &Row) -> WalSender {
    WalSender {
        pid: row.get(0),
        usename: row.get::<_, Option<String>>(1).unwrap_or_default(),
        application_name: row.get(2),
        client_addr: row.get(3),
        state: row.get::<_, Option<String>>(4).unwrap_or_default(),
        sync_state: row.get::<_, Option<String>>(5).unwrap_or_default(),
        sync_priority: row.get::<_, Option<i32>>(6).unwrap_or_default(),
        sent: lsn(row.get(7)),
        flushed: lsn(row.get(8)),
        replayed: lsn(row.get(9)),
        replay_lag_seconds: row.get(10),
    }
}

fn lsn(position: Option<i64>) -> Lsn {
    position.map_or(Lsn::INVALID, |position| Lsn::new(position.cast_unsigned()))
}

fn timeline(number: Option<i32>) -> TimelineId {
    TimelineId::new(number.unwrap_or_default().cast_unsigned())
}
