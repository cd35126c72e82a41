//! The DCS in etcd v3: how to reach it. The keys and their rules are `keyed`'s.

mod endpoints;
mod failure;
mod request;
mod store;
mod watch;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity as ClientCertificate, TlsOptions};

use crate::dcs::Dcs;
use crate::keyed::{Identity, Keyed};
use crate::session::SessionError;

use endpoints::Endpoints;
use store::EtcdStore;

/// How to reach etcd.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// The members of the etcd cluster, as `host:port` or URL. The first one to ask is chosen at random.
    pub endpoints: Vec<String>,
    /// How long one operation may take, over all endpoints.
    pub retry_timeout: Duration,
    /// Time limit for one endpoint to answer one request; a third of `retry_timeout` when absent. A frozen endpoint costs
    /// this once.
    pub request_timeout: Option<Duration>,
    /// For an etcd that requires a user.
    pub credentials: Option<Credentials>,
    /// For an etcd reached by TLS. Without a CA no server could be verified, so TLS needs one.
    pub tls: Option<TlsFiles>,
}

/// A user of etcd. Not printed with the password.
#[derive(Clone)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &"[secret]")
            .finish()
    }
}

/// PEM files, read when the DCS is opened.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The CA that signed etcd's certificates.
    pub ca: PathBuf,
    /// The client's certificate and key, for an etcd that requires them.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// What can be wrong before the first request.
#[derive(Debug, thiserror::Error)]
pub enum OpenEtcdError {
    /// The list is empty.
    #[error("no etcd endpoint is configured")]
    NoEndpoint,
    /// A URL that is neither http nor https, or does not match the TLS options.
    #[error("cannot use the etcd endpoint {endpoint}: {rule}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What an endpoint must be.
        rule: &'static str,
    },
    /// A file with a certificate or key.
    #[error("cannot read {path}")]
    ReadPem {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The session file.
    #[error("cannot resume the session")]
    Session(#[from] SessionError),
}

/// Opens the DCS in etcd. Sends no request yet: an etcd that is down shows at the first operation.
///
/// # Errors
/// For errors that waiting does not fix.
///
/// # Panics
/// Outside a tokio runtime: the watch runs as a task of it until the DCS is dropped.
pub fn open_etcd(identity: &Identity, options: &EtcdOptions) -> Result<Arc<dyn Dcs>, OpenEtcdError> {
    let urls = options.endpoints.iter().map(|endpoint| url(endpoint, options.tls.is_some()));
    let urls = urls.collect::<Result<Vec<_>, _>>()?;
    if urls.is_empty() {
        return Err(OpenEtcdError::NoEndpoint);
    }
    let limit = options.request_timeout.unwrap_or(options.retry_timeout / 3).min(options.retry_timeout);
    let mut connect = ConnectOptions::new().with_connect_timeout(limit);
    if let Some(files) = &options.tls {
        connect = connect.with_tls(tls(files)?);
    }
    let credentials = options.credentials.clone();
    let endpoints = Endpoints::new(urls, connect, credentials, &identity.base_path, limit);
    let store = EtcdStore::start(endpoints, options.retry_timeout, identity);
    Ok(Arc::new(Keyed::open(identity, store)?))
}

fn url(endpoint: &str, tls: bool) -> Result<String, OpenEtcdError> {
    let wrong = |rule| Err(OpenEtcdError::Endpoint { endpoint: endpoint.to_owned(), rule });
    match (endpoint.split_once("://"), tls) {
        (Some(("http", _)), true) => wrong("http does not go with a CA file"),
        (Some(("https", _)), false) => wrong("https needs a CA file"),
        (Some(("http" | "https", _)), _) => Ok(endpoint.to_owned()),
        (Some(_), _) => wrong("it must begin with http:// or https://"),
        (None, true) => Ok(format!("https://{endpoint}")),
        (None, false) => Ok(format!("http://{endpoint}")),
    }
}

fn tls(files: &TlsFiles) -> Result<TlsOptions, OpenEtcdError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| OpenEtcdError::ReadPem { path: path.clone(), source })
    };
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(&files.ca)?));
    if let Some((certificate, key)) = &files.client {
        tls = tls.identity(ClientCertificate::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}
