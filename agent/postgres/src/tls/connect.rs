//! Connects as `sslmode` says: encrypted, unencrypted, or one after the other, as libpq tries them.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding as Binding, SslMode as Way};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect as _};
use tokio_postgres::{Client, Config, Connection, NoTls};
use tracing::debug;

use super::{ChannelBinding, Connector, SslMode, Tls};
use crate::error::Error;

/// `SSLRequest`, and the answer of a server that supports TLS.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const WILLING: u8 = b'S';

/// A client, the server's version, and the task that drives the connection.
type Connected = (Client, String, JoinHandle<()>);

/// Logs in. `place`: for people. Has no time limit of its own.
///
/// # Errors
/// That of the last attempt.
pub(crate) async fn connect(mut config: Config, tls: &Tls, place: &str) -> Result<Connected, Error> {
    config.channel_binding(match tls.channel_binding.unwrap_or_default() {
        ChannelBinding::Disable => Binding::Disable,
        ChannelBinding::Prefer => Binding::Prefer,
        ChannelBinding::Require => Binding::Require,
    });
    let failed = |source| Error::Connect { place: place.to_owned(), source };
    match tls.mode() {
        SslMode::Disable => plain(&mut config).await.map_err(failed),
        SslMode::Allow => match plain(&mut config).await {
            Ok(connected) => Ok(connected),
            Err(_) => encrypted(&mut config, Connector::new(tls)?).await.map_err(failed),
        },
        SslMode::Prefer => match encrypted(&mut config, Connector::new(tls)?).await {
            Ok(connected) => Ok(connected),
            Err(_) => plain(&mut config).await.map_err(failed),
        },
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            encrypted(&mut config, Connector::new(tls)?).await.map_err(failed)
        }
    }
}

/// Where encryption is required, does a handshake like a session's, without logging in: whether the server is the right one.
///
/// # Errors
/// When it is not.
pub(crate) async fn greet(mut stream: TcpStream, host: &str, tls: &Tls) -> io::Result<()> {
    if !tls.is_demanded() {
        return Ok(());
    }
    let mode = tls.mode().word();
    stream.write_all(&SSL_REQUEST).await?;
    if stream.read_u8().await? != WILLING {
        return Err(io::Error::other(format!("it does not encrypt (ssl = off), and sslmode is {mode}")));
    }
    let mut connector = Connector::new(tls).map_err(io::Error::other)?;
    let to = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, host);
    let shaken = to.map_err(io::Error::other)?.connect(stream).await;
    shaken.map(drop).map_err(|fault| io::Error::other(format!("with sslmode {mode}: {fault}")))
}

async fn plain(config: &mut Config) -> Result<Connected, tokio_postgres::Error> {
    config.ssl_mode(Way::Disable).connect(NoTls).await.map(carried)
}

async fn encrypted(config: &mut Config, by: Connector) -> Result<Connected, tokio_postgres::Error> {
    config.ssl_mode(Way::Require).connect(by).await.map(carried)
}

fn carried<S, T>((client, connection): (Client, Connection<S, T>)) -> Connected
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let version = connection.parameter("server_version").map(str::to_owned).unwrap_or_default();
    let task = tokio::spawn(async move {
        if let Err(fault) = connection.await {
            debug!(%fault, "a session with Postgres ended");
        }
    });
    (client, version, task)
}
