//! SQL statements to a running Postgres: users, slots, checkpoints, and the proof that commits wait.

use std::time::Duration;

use outrider_wal::Lsn;
use postgres_protocol::password::scram_sha_256;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::configuration::{Configuration, slot_name};
use crate::error::Error;
use crate::instrument::Postgres;
use crate::quote::quote_name;
use crate::session::Session;
use crate::settings::User;

/// Time limit for a statement that only changes the catalog.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// Time limit for a checkpoint: on a busy server with much memory it writes for minutes.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(600);
/// Interval between checks whether a changed setting has arrived.
const PROOF_INTERVAL: Duration = Duration::from_millis(10);
/// Time limit for a changed setting to arrive everywhere.
const PROOF_LIMIT: Duration = Duration::from_secs(10);

impl Postgres {
    /// Writes everything that is only in memory to disk.
    ///
    /// # Errors
    /// When Postgres does not do it.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        let session = Session::open(&self.settings).await?;
        checkpoint(&session).await
    }

    /// Creates the users for the members, or sets the passwords of existing ones.
    ///
    /// # Errors
    /// When Postgres does not do it.
    pub async fn create_users(&self) -> Result<(), Error> {
        let session = Session::open(&self.settings).await?;
        let settings = &self.settings;
        if settings.replication.name != settings.superuser.name {
            create_user(&session, &settings.replication, "LOGIN REPLICATION").await?;
        }
        if settings.rewind.name != settings.superuser.name
            && settings.rewind.name != settings.replication.name
        {
            create_user(&session, &settings.rewind, "LOGIN").await?;
            let user = quote_name(&settings.rewind.name);
            let functions = "pg_catalog.pg_ls_dir(text, boolean, boolean), pg_catalog.pg_stat_file(text, boolean), \
                pg_catalog.pg_read_binary_file(text), pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)";
            run(
                &session,
                "let the rewind user read files",
                &format!("GRANT EXECUTE ON FUNCTION {functions} TO {user}"),
            )
            .await?;
        }
        Ok(())
    }

    /// Creates missing physical replication slots for these members.
    ///
    /// # Errors
    /// When Postgres does not do it.
    pub async fn create_slots(&self, members: &[String]) -> Result<(), Error> {
        let session = Session::open(&self.settings).await?;
        let names: Vec<String> = members.iter().map(|member| slot_name(member)).collect();
        create_slots(&session, &names).await
    }

    /// Waits until every commit waits for exactly the standbys of `wanted`, and returns the end of the WAL at that moment: a
    /// standby of the set that has flushed up to there has every previously acknowledged commit and will have every later one.
    ///
    /// Three kinds of process read the setting, each in its own time: the postmaster, each walsender, which decides whom it speaks
    /// for, and the checkpointer, which tells the backends that there is something to wait for. A new session that shows the
    /// setting proves that the postmaster has it; the walsenders' `sync_priority` proves that they do; a finished CHECKPOINT that
    /// the checkpointer does.
    ///
    /// # Errors
    /// When it cannot be proven in time.
    pub async fn prove_synchronous(&self, wanted: &Configuration) -> Result<Lsn, Error> {
        const ACT: &str = "prove which standbys commits wait for";
        let expected = wanted.synchronous_standby_names();
        let arrived = async {
            loop {
                // A new session shows what the postmaster has; an old one would show what it has read itself.
                let session = Session::open(&self.settings).await?;
                if shows(&session, &expected).await?
                    && walsenders_agree(&session, &wanted.synchronous).await?
                {
                    return Ok(session);
                }
                tokio::time::sleep(PROOF_INTERVAL).await;
            }
        };
        let too_slow = Error::TooSlow { act: ACT, limit: PROOF_LIMIT };
        let session = timeout(PROOF_LIMIT, arrived).await.unwrap_or(Err(too_slow))?;
        checkpoint(&session).await?;
        const END: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint";
        let row = session.within(ACT, LIMIT, session.client().query_one(END, &[])).await?;
        Ok(Lsn::new(row.get::<_, i64>(0).cast_unsigned()))
    }
}

async fn shows(session: &Session, expected: &str) -> Result<bool, Error> {
    const SETTING: &str = "SELECT current_setting('synchronous_standby_names') = $1";
    let act = "show synchronous_standby_names";
    let row = session.within(act, LIMIT, session.client().query_one(SETTING, &[&expected])).await?;
    Ok(row.get(0))
}

/// Whether each walsender has the priority that the setting gives it.
async fn walsenders_agree(session: &Session, synchronous: &[String]) -> Result<bool, Error> {
    const PRIORITIES: &str =
        "SELECT application_name, sync_priority FROM pg_stat_replication WHERE state = 'streaming'";
    let act = "show its walsenders' priorities";
    let rows = session.within(act, LIMIT, session.client().query(PRIORITIES, &[])).await?;
    Ok(rows.iter().all(|row| {
        let name: &str = row.get(0);
        let place = synchronous.iter().position(|member| member == name).map_or(0, |place| place + 1);
        usize::try_from(row.get::<_, Option<i32>>(1).unwrap_or_default()) == Ok(place)
    }))
}

pub(crate) async fn checkpoint(session: &Session) -> Result<(), Error> {
    session
        .within("finish a checkpoint", CHECKPOINT_LIMIT, session.client().batch_execute("CHECKPOINT"))
        .await
}

/// The server gets the password only as the verifier that it stores, so that no log can hold it.
async fn create_user(session: &Session, user: &User, rights: &str) -> Result<(), Error> {
    const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
    let act = "create the users of the members";
    let row = session.within(act, LIMIT, session.client().query_one(EXISTS, &[&user.name])).await?;
    let verb = if row.get(0) { "ALTER" } else { "CREATE" };
    let name = quote_name(&user.name);
    let verifier = scram_sha_256(user.password.reveal().as_bytes());
    run(session, act, &format!("{verb} ROLE {name} WITH {rights} PASSWORD '{verifier}'")).await
}

/// Creates physical slots that keep WAL from the last checkpoint on, which a member being cloned needs too, until it streams.
async fn create_slots(session: &Session, names: &[String]) -> Result<(), Error> {
    const CREATE: &str = "SELECT pg_create_physical_replication_slot($1, true)";
    // A slot whose WAL was removed refuses its standby forever, although the archive may have what it needs.
    const DROP_LOST: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
        WHERE slot_type = 'physical' AND NOT active AND wal_status = 'lost' AND slot_name = ANY ($1)";
    let act = "drop replication slots that have lost their WAL";
    session.within(act, LIMIT, session.client().execute(DROP_LOST, &[&names])).await?;
    for name in names {
        let act = "create a replication slot";
        match session.within(act, LIMIT, session.client().execute(CREATE, &[name])).await {
            Err(fault) if fault.sql_state() == Some(&SqlState::DUPLICATE_OBJECT) => {}
            outcome => drop(outcome?),
        }
    }
    Ok(())
}

async fn run(session: &Session, act: &'static str, statement: &str) -> Result<(), Error> {
    session.within(act, LIMIT, session.client().batch_execute(statement)).await
}
