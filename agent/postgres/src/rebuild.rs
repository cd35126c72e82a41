//! Rebuilds the data directory: initdb, clone, rewind. Each marks its work, so that a half-finished result is never started.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use outrider_supervisor::protocol::Tool;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::archive_slot;
use crate::configuration::{Configuration, write_password_file};
use crate::conninfo::{Upstream, conninfo};
use crate::directory::{self, Directory, Work};
use crate::error::Error;
use crate::file;
use crate::instrument::Postgres;
use crate::options;
use crate::room::{self, Coming};
use crate::session::Session;
use crate::special;
use crate::tls::{self, Tls};

/// Time limit for the primary to accept a connection.
const REACH_LIMIT: Duration = Duration::from_secs(3);
/// Time limit for the primary to say how large it is, which reads its directories.
const ASK_LIMIT: Duration = Duration::from_secs(10);

impl Postgres {
    /// Creates a new cluster in the empty data directory. Remains of an earlier attempt are removed first.
    ///
    /// # Errors
    /// When the directory holds data, or initdb fails.
    pub async fn initdb(&self) -> Result<(), Error> {
        let settings = &self.settings;
        if directory::inspect(settings)? == Directory::HalfInitialized {
            self.make_room(Work::Initialize, Coming::default()).await?;
        } else {
            Work::Initialize.begin(settings, &[])?;
        }
        let password = settings.state_directory.join("initdb-password");
        file::replace(&password, &format!("{}\n", settings.superuser.password.reveal()), 0o600)?;
        let mut arguments = vec![
            "-D".to_owned(),
            settings.data_directory.display().to_string(),
            "--username".to_owned(),
            settings.superuser.name.clone(),
            "--pwfile".to_owned(),
            password.display().to_string(),
            "--auth=scram-sha-256".to_owned(),
        ];
        arguments.extend(settings.initdb.iter().cloned());
        let outcome = self.supervisor.run_tool(Tool::Initdb, arguments, c_locale(), true).await;
        file::remove(&password)?;
        outcome?;
        directory::set_unrecorded(settings, true)?;
        Work::Initialize.finish(settings)
    }

    /// Copies the data of the Postgres at `upstream`. Existing data is moved aside.
    ///
    /// # Errors
    /// When the directory cannot be moved aside, or pg_basebackup fails.
    pub async fn clone_from(&self, upstream: &Upstream) -> Result<(), Error> {
        let settings = &self.settings;
        // The data is moved aside only when nothing prevents the copy.
        reach(upstream, &settings.replication.tls).await?;
        self.is_free().await?;
        let coming = self.coming_from(upstream).await;
        self.make_room(Work::Clone, coming).await?;
        // It holds the password, and may be the first file written here.
        let password_file = write_password_file(settings)?;
        // Not the member's name: a commit must not take the copy for the standby.
        let user = &settings.replication;
        let source = conninfo(upstream, user, &password_file, "outrider clone", &options::of_replication());
        let arguments = vec![
            "-D".to_owned(),
            settings.data_directory.display().to_string(),
            "-d".to_owned(),
            source,
            "--wal-method=stream".to_owned(),
            "--checkpoint=fast".to_owned(),
            "--no-password".to_owned(),
            "--verbose".to_owned(),
        ];
        info!(host = %upstream.host, port = upstream.port, "copying the data of the primary");
        self.supervisor.run_tool(Tool::PgBasebackup, arguments, c_locale(), true).await?;
        Work::Clone.finish(settings)
    }

    /// Rewinds the data to where the Postgres at `upstream` diverged. Only while nothing runs on the data directory.
    ///
    /// # Errors
    /// When pg_rewind fails; the data directory can then only be replaced.
    pub async fn rewind(&self, wanted: &Configuration, upstream: &Upstream) -> Result<(), Error> {
        let settings = &self.settings;
        reach(upstream, &settings.rewind.tls).await?;
        // The primary has to learn this member's address; pg_rewind itself reports what else keeps it out.
        Session::wait_to_be_let_in(settings, upstream).await;
        // pg_rewind itself recovers a crashed server, by starting it once with this configuration.
        wanted.write(settings)?;
        crate::configuration::set_standby_signal(&settings.data_directory, false)?;
        Work::Rewind.begin(settings, &[])?;
        archive_slot::forget(settings)?;
        special::clear(settings).await;
        let password_file = write_password_file(settings)?;
        let user = &settings.rewind;
        let source = conninfo(upstream, user, &password_file, "outrider rewind", &options::usual());
        let mut arguments = vec![
            "--target-pgdata".to_owned(),
            settings.data_directory.display().to_string(),
            "--source-server".to_owned(),
            format!("{source} dbname=postgres"),
        ];
        if settings.restore_command.is_some() {
            arguments.push("--restore-target-wal".to_owned());
        }
        info!(host = %upstream.host, port = upstream.port, "rewinding to where the primary's timeline began");
        match self.supervisor.run_tool(Tool::PgRewind, arguments, c_locale(), true).await {
            Ok(_) => Work::Rewind.finish(settings),
            // It never ran.
            Err(fault @ Error::SupervisorRefused { .. }) => {
                Work::Rewind.finish(settings)?;
                Err(fault)
            }
            Err(fault) => {
                warn!(%fault, "pg_rewind failed");
                Err(fault)
            }
        }
    }
}

impl Postgres {
    /// [`room::make_room`], which may have much to remove, on a thread of its own.
    pub(crate) async fn make_room(&self, work: Work, coming: Coming) -> Result<(), Error> {
        let settings = self.settings.clone();
        let making = tokio::task::spawn_blocking(move || room::make_room(&settings, work, &coming)).await;
        making.map_err(|fault| Error::Room { problem: fault.to_string() })?
    }

    /// The size of a copy of this primary. Asked as the user for rewinding, whom the members let in from each other. If it does
    /// not say, the copy finds out whether there is room.
    async fn coming_from(&self, upstream: &Upstream) -> Coming {
        const PLACES: &str =
            "SELECT place FROM pg_tablespace, pg_tablespace_location(oid) AS place WHERE place LIKE '/%'";
        const SIZE: &str = "SELECT pg_tablespace_size('pg_default')";
        let asking = async {
            let session = Session::open_at_for_rewind(&self.settings, upstream).await?;
            let act = "list its tablespaces";
            let places = session.within(act, ASK_LIMIT, session.client().query(PLACES, &[])).await?;
            let act = "report its size";
            let size = session.within(act, ASK_LIMIT, session.client().query_one(SIZE, &[])).await;
            let tablespaces = places.iter().map(|row| PathBuf::from(row.get::<_, String>(0))).collect();
            Ok::<_, Error>(Coming {
                tablespaces,
                bytes: size.ok().map(|row| row.get::<_, i64>(0).cast_unsigned()),
            })
        };
        asking.await.unwrap_or_else(|fault| {
            let fault: &dyn std::error::Error = &fault;
            warn!(fault, "the primary does not report its size and tablespaces");
            Coming::default()
        })
    }

    /// Whether the supervisor would run a program on the data directory now: `pg_controldata` is refused while another one
    /// runs.
    pub(crate) async fn is_free(&self) -> Result<(), Error> {
        let arguments = vec!["--version".to_owned()];
        self.supervisor.run_tool(Tool::PgControldata, arguments, c_locale(), false).await.map(drop)
    }
}

/// Before anything is marked: a primary that is absent, or is not the right one, is no reason to give the data up.
async fn reach(upstream: &Upstream, tls: &Tls) -> Result<(), Error> {
    let reaching = timeout(REACH_LIMIT, async {
        let stream = TcpStream::connect((upstream.host.as_str(), upstream.port)).await?;
        tls::greet(stream, &upstream.host, tls).await
    });
    let reached = reaching.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    reached.map_err(|source| Error::Reach { place: format!("{}:{}", upstream.host, upstream.port), source })
}

/// So that messages and sort order do not depend on the container.
fn c_locale() -> Vec<(String, String)> {
    vec![("LC_ALL".to_owned(), "C".to_owned())]
}
