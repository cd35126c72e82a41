//! The agent's side of `wal-push` and `wal-fetch`: a unix socket for the clients that PostgreSQL starts.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrider_wal::WalFileName;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::fetch::{Fetched, Fetcher, Patience};
use crate::protocol::{LINE_MAX, PUSH_LIMIT, Reply, Request};
use outrider_archive::Shipper;
use outrider_store::causes;

/// Clients at one time. PostgreSQL starts one archiver and one restore at a time; people add a few.
const CLIENTS_MAX: usize = 16;
/// A client sends its line at once.
const LINE_LIMIT: Duration = Duration::from_secs(2);

/// Where the clients come and what they may touch.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The socket. Its directory must exist.
    pub socket: PathBuf,
    /// The server's `pg_wal`: its owner is let in, as are root and whoever runs the agent.
    pub pg_wal: PathBuf,
}

/// The socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody answers there.
    #[error("another agent answers at {socket}")]
    Taken {
        /// The socket.
        socket: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {act} the socket {socket}")]
    Socket {
        /// What was tried.
        act: &'static str,
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    accepting: JoinHandle<()>,
    stopping: watch::Sender<bool>,
    fetcher: Fetcher,
}

#[derive(Clone, Debug)]
struct Service {
    options: ServerOptions,
    shipper: Shipper,
    fetcher: Fetcher,
    stopping: watch::Receiver<bool>,
    /// Who runs the agent.
    own_user: u32,
}

impl Server {
    /// Opens the socket and serves. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened, or another agent serves it.
    pub async fn start(
        options: ServerOptions,
        shipper: Shipper,
        fetcher: Fetcher,
    ) -> Result<Self, ServerError> {
        let socket = options.socket.clone();
        let error = |act| {
            let socket = socket.clone();
            move |source| ServerError::Socket { act, socket, source }
        };
        if timeout(LINE_LIMIT, UnixStream::connect(&socket)).await.is_ok_and(|connected| connected.is_ok()) {
            return Err(ServerError::Taken { socket });
        }
        match fs::remove_file(&socket) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(error("remove the old")(source));
            }
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&socket).map_err(error("open"))?;
        let own_user = fs::metadata(&socket).map_err(error("look at"))?.uid();
        // An agent of root serves a PostgreSQL of someone else, who may not even exist yet. Who connects is asked
        // of the kernel, so the mode only spares strangers the attempt.
        let mode = if own_user == 0 { 0o666 } else { 0o600 };
        fs::set_permissions(&socket, Permissions::from_mode(mode)).map_err(error("protect"))?;
        let (stopping, stopping_seen) = watch::channel(false);
        let service =
            Service { options, shipper, fetcher: fetcher.clone(), stopping: stopping_seen, own_user };
        let accepting = tokio::spawn(accept(listener, service));
        Ok(Server { accepting, stopping, fetcher })
    }

    /// PostgreSQL is being stopped: its archiver's last round must not hold it up, so what is not durable yet is
    /// answered so at once, in a way that ends the archiver (see [`crate::client::push`]). The next primary ships the
    /// rest. To be set before the stop is asked for, and taken back when PostgreSQL is started again.
    pub fn set_stopping(&self, stopping: bool) {
        self.stopping.send_replace(stopping);
        if stopping {
            self.fetcher.forget_ahead();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, service: Service) {
    let service = Arc::new(service);
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    let mut clients = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, as a rule: others must close first.
                warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let service = service.clone();
        clients.spawn(async move {
            if let Err(error) = service.serve(stream).await {
                debug!(%error, "a client went away");
            }
            drop(place);
        });
        while clients.try_join_next().is_some() {}
    }
}

impl Service {
    async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let peer = stream.peer_cred()?;
        let owner = fs::metadata(&self.options.pg_wal).ok().map(|found| (found.uid(), found.gid()));
        let user = peer.uid();
        if user != 0 && user != self.own_user && owner.is_none_or(|(owner, _)| owner != user) {
            // Not even listened to, so that strangers take no place.
            warn!(user, "refused a request of another user for the archive");
            return Ok(());
        }
        let (reading, mut writing) = stream.into_split();
        let mut line = Vec::new();
        let mut reading = BufReader::new(reading.take(LINE_MAX as u64));
        let read = timeout(LINE_LIMIT, reading.read_until(b'\n', &mut line)).await;
        let reply = match read {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(_)) => match serde_json::from_slice::<Request>(&line) {
                Ok(request) => self.answer(request, &peer, owner).await,
                Err(error) => Reply::Bad { message: format!("not a request: {error}") },
            },
            Ok(Err(error)) => return Err(error),
            Err(_) => Reply::Bad { message: format!("no request within {LINE_LIMIT:?}") },
        };
        let mut answer = serde_json::to_vec(&reply)?;
        answer.push(b'\n');
        timeout(LINE_LIMIT, writing.write_all(&answer)).await??;
        timeout(LINE_LIMIT, writing.shutdown()).await?
    }

    async fn answer(&self, request: Request, peer: &UCred, owner: Option<(u32, u32)>) -> Reply {
        match request {
            Request::Push { path } => self.push(&path).await,
            Request::Fetch { name, destination, standby } => {
                let patience = if standby { Patience::Standby } else { Patience::Recovery };
                // An agent that runs as root must not write for others where they could not.
                let foreign = peer.uid() != 0 && peer.uid() != self.own_user;
                if foreign && !is_in(&destination, &self.options.pg_wal) {
                    return Reply::Bad { message: format!("{} is not in pg_wal", destination.display()) };
                }
                let owner = if self.own_user == 0 { owner } else { None };
                self.fetch(&name, &destination, owner, patience).await
            }
        }
    }

    async fn push(&self, path: &Path) -> Reply {
        let refuse = |message: String| Reply::Bad { message };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = match name.parse::<WalFileName>() {
            Ok(name) => name,
            Err(bad) => return refuse(bad.to_string()),
        };
        if !is_in(path, &self.options.pg_wal) {
            return refuse(format!("not in this server's pg_wal, {}", self.options.pg_wal.display()));
        }
        let mut stopping = self.stopping.clone();
        tokio::select! {
            biased;
            Ok(_) = stopping.wait_for(|stopping| *stopping) => {}
            durable = self.shipper.durable(name) => return match durable {
                Ok(()) => Reply::Durable,
                Err(why) => Reply::NotDurable { message: why.to_string() },
            },
            () = sleep(PUSH_LIMIT) => return Reply::NotDurable { message: self.why_not_yet() },
        }
        match timeout(LINE_LIMIT, self.shipper.durable_already(name)).await {
            Ok(Ok(())) => Reply::Durable,
            Ok(Err(_)) | Err(_) => Reply::Stopping {
                message: "not archived yet, and PostgreSQL is stopping: the next primary archives it"
                    .to_owned(),
            },
        }
    }

    /// What a DBA should read in PostgreSQL's log.
    fn why_not_yet(&self) -> String {
        let receiver = self.shipper.status();
        let status = receiver.borrow();
        let why = match (&status.last_failure, status.term) {
            (_, None) => "this member does not hold the leader lease".to_owned(),
            (Some(failure), Some(_)) if status.store_failing => failure.text.clone(),
            (_, Some(_)) => format!("{} files wait before or with it", status.waiting),
        };
        format!("not archived within {} s, it will be tried again: {why}", PUSH_LIMIT.as_secs())
    }

    async fn fetch(
        &self,
        name: &str,
        destination: &Path,
        owner: Option<(u32, u32)>,
        patience: Patience,
    ) -> Reply {
        let name = match name.parse::<WalFileName>() {
            Ok(name) => name,
            Err(bad) => return Reply::Bad { message: bad.to_string() },
        };
        match self.fetcher.fetch(name, destination, owner, patience).await {
            Ok(Fetched::Written { .. }) => Reply::Fetched,
            Ok(Fetched::Absent) => Reply::Absent { message: format!("the archive has no {name}") },
            Err(error) => Reply::Trouble { message: causes(&error) },
        }
    }
}

/// Whether the file lies directly in the directory, whatever links lead there.
fn is_in(path: &Path, directory: &Path) -> bool {
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    parent.is_some() && parent == directory.canonicalize().ok()
}
