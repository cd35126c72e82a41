//! A client of the members' Postgres, as an application is one: knows all addresses, finds the primary, gives up quickly.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use crate::PASSWORD;

/// For a connection and for the question whether it leads to a primary.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// Where a member's Postgres listens on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The member's name.
    pub name: String,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

/// An open connection; it ends when this is dropped.
#[derive(Debug)]
pub struct Connection {
    /// For statements.
    pub client: Client,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    /// Connects, whatever the member is.
    ///
    /// # Errors
    /// When it does not let us in at once.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        self.connect_with("").await
    }

    /// The same with settings for the session, as `options` has them.
    ///
    /// # Errors
    /// When it does not let us in at once.
    pub async fn connect_with(&self, options: &str) -> anyhow::Result<Connection> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").password(PASSWORD).dbname("postgres");
        config.application_name("bed").connect_timeout(CONNECT_LIMIT).options(options);
        let connecting = timeout(CONNECT_LIMIT, config.connect(NoTls)).await;
        let (client, connection) = connecting.context("no answer")?.context("cannot connect")?;
        let task = tokio::spawn(async move {
            // Whoever uses the client sees that it has ended, and why.
            let _ = connection.await;
        });
        Ok(Connection { client, task })
    }

    /// Connects, if this is a primary now.
    ///
    /// # Errors
    /// When it is not, or does not answer at once.
    pub async fn connect_to_primary(&self) -> anyhow::Result<Connection> {
        let connection = self.connect().await?;
        if !connection.is_primary().await? {
            bail!("{} is in recovery", self.name);
        }
        Ok(connection)
    }
}

impl Connection {
    /// Whether the server at the other end is out of recovery.
    ///
    /// # Errors
    /// When it does not answer at once.
    pub async fn is_primary(&self) -> anyhow::Result<bool> {
        let asking = self.client.query_one("SELECT NOT pg_is_in_recovery()", &[]);
        Ok(timeout(CONNECT_LIMIT, asking).await.context("no answer")??.get(0))
    }

    /// One value as text.
    ///
    /// # Errors
    /// When the statement fails or takes longer than 10 s.
    pub async fn text(&self, statement: &str) -> anyhow::Result<String> {
        let asking = self.client.query_one(statement, &[]);
        let row = timeout(Duration::from_secs(10), asking).await.context("no answer")?;
        Ok(row.with_context(|| format!("cannot run {statement}"))?.get(0))
    }

    /// Statements without an answer.
    ///
    /// # Errors
    /// When one fails or all take longer than 60 s.
    pub async fn run(&self, statements: &str) -> anyhow::Result<()> {
        let running = self.client.batch_execute(statements);
        timeout(Duration::from_secs(60), running).await.context("no answer")?.context("cannot run it")
    }
}
