//! A session with the local Postgres over its unix socket, or with another member's, each statement with a deadline. Knows no statement.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};
use tracing::debug;

use crate::conninfo::Upstream;
use crate::error::Error;
use crate::settings::{Settings, User};

/// To be let in.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// The same over the network.
const REACH_LIMIT: Duration = Duration::from_secs(3);

/// One connection; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    task: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// Connects as the superuser.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, Error> {
        let mut config = Config::new();
        config.host_path(&settings.socket_directory).port(settings.port);
        let place = format!("{}/.s.PGSQL.{}", settings.socket_directory.display(), settings.port);
        Self::connect(&settings.superuser, config, CONNECT_LIMIT, place).await
    }

    /// Connects as the superuser to the Postgres of another member.
    pub(crate) async fn open_at(settings: &Settings, member: &Upstream) -> Result<Self, Error> {
        Self::open_at_as(member, &settings.superuser).await
    }

    /// Connects as this user to the Postgres of another member.
    pub(crate) async fn open_at_as(member: &Upstream, user: &User) -> Result<Self, Error> {
        let mut config = Config::new();
        config.host(&member.host).port(member.port).connect_timeout(REACH_LIMIT);
        Self::connect(user, config, REACH_LIMIT, format!("{}:{}", member.host, member.port)).await
    }

    async fn connect(user: &User, mut config: Config, limit: Duration, place: String) -> Result<Self, Error> {
        config
            .user(&user.name)
            .password(user.password.reveal())
            .dbname("postgres")
            .application_name("outrider")
            // What the agent writes must never wait for a standby, nor mean another function than PostgreSQL's own.
            .options("-c synchronous_commit=local -c search_path=pg_catalog");
        let connecting = timeout(limit, config.connect(NoTls)).await;
        let connecting = connecting.map_err(|_| Error::TooSlow { act: "let the agent in", limit })?;
        let (client, connection) = connecting.map_err(|source| Error::Connect { place, source })?;
        let task = tokio::spawn(async move {
            if let Err(fault) = connection.await {
                debug!(%fault, "a session with Postgres ended");
            }
        });
        Ok(Session { client, task })
    }

    /// Awaits a statement for at most `limit`.
    pub(crate) async fn within<Answer>(
        &self,
        act: &'static str,
        limit: Duration,
        statement: impl Future<Output = Result<Answer, tokio_postgres::Error>>,
    ) -> Result<Answer, Error> {
        match timeout(limit, statement).await {
            Err(_) => Err(Error::TooSlow { act, limit }),
            Ok(outcome) => outcome.map_err(|source| Error::Statement { act, source }),
        }
    }

    /// For statements.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}
