//! A session with the local Postgres over its unix socket, or with another member's; each statement has a deadline. Knows no
//! statement.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tracing::warn;

use crate::conninfo::Upstream;
use crate::error::Error;
use crate::options::{self, superuser_options};
use crate::settings::{Settings, User};
use crate::tls::{self, SslMode, Tls};

/// Time limit for logging in.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// The same over the network.
const REACH_LIMIT: Duration = Duration::from_secs(3);
/// Time limit for a primary to learn this member's address: a round of its agent, and a name lookup.
const LET_IN_LIMIT: Duration = Duration::from_secs(10);
const LET_IN_INTERVAL: Duration = Duration::from_millis(100);

/// One connection; closed on drop.
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
        // A unix socket is never on a network.
        let tls = Tls { mode: Some(SslMode::Disable), ..Tls::default() };
        Self::connect(&settings.superuser, &tls, config, superuser_options(), CONNECT_LIMIT, place).await
    }

    /// Connects as the superuser to the Postgres of another member.
    pub(crate) async fn open_at(settings: &Settings, member: &Upstream) -> Result<Self, Error> {
        Self::reach(member, &settings.superuser, superuser_options()).await
    }

    /// Connects to the Postgres of another member as the user for rewinding.
    pub(crate) async fn open_at_for_rewind(settings: &Settings, member: &Upstream) -> Result<Self, Error> {
        Self::reach(member, &settings.rewind, options::usual()).await
    }

    /// Waits, within a limit, while another member's `pg_hba.conf` has no line for the rewind user from here.
    pub(crate) async fn wait_to_be_let_in(settings: &Settings, member: &Upstream) {
        let trying = async {
            loop {
                match Self::open_at_for_rewind(settings, member).await {
                    Err(fault)
                        if fault.sql_state() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) =>
                    {
                        sleep(LET_IN_INTERVAL).await;
                    }
                    Ok(_) | Err(_) => return,
                }
            }
        };
        if timeout(LET_IN_LIMIT, trying).await.is_err() {
            warn!(host = %member.host, user = %settings.rewind.name, "the primary does not accept this member's connection");
        }
    }

    async fn reach(member: &Upstream, user: &User, options: String) -> Result<Self, Error> {
        let mut config = Config::new();
        config.host(&member.host).port(member.port).connect_timeout(REACH_LIMIT);
        let place = format!("{}:{}", member.host, member.port);
        Self::connect(user, &user.tls, config, options, REACH_LIMIT, place).await
    }

    async fn connect(
        user: &User,
        tls: &Tls,
        mut config: Config,
        options: String,
        limit: Duration,
        place: String,
    ) -> Result<Self, Error> {
        config
            .user(&user.name)
            .password(user.password.reveal())
            .dbname("postgres")
            .application_name("outrider")
            .options(options);
        let connecting = timeout(limit, tls::connect(config, tls, &place)).await;
        let (client, version, task) =
            connecting.map_err(|_| Error::TooSlow { act: "accept the agent's connection", limit })??;
        let session = Session { client, task };
        if has_transaction_timeout(&version) {
            let act = "set the limits of a session";
            session.within(act, limit, session.client.batch_execute("SET transaction_timeout = 0")).await?;
        }
        Ok(session)
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

/// PostgreSQL 17 and newer have it; earlier ones refuse a connection that names it.
fn has_transaction_timeout(server_version: &str) -> bool {
    let digits = server_version.find(|c: char| !c.is_ascii_digit()).unwrap_or(server_version.len());
    server_version[..digits].parse::<u32>().is_ok_and(|major| major >= 17)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (version, has) in
            [("17.2", true), ("18beta1", true), ("15.16 (Debian 15.16-0+deb12u1)", false), ("", false)]
        {
            assert_eq!(has_transaction_timeout(version), has, "{version}");
        }
    }
}
