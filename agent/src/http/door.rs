//! Accepts connections: a bounded number, each with deadlines. A new one never waits for idle ones: they make room for it.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::hall::{Hall, Place};

/// Maximum number of connections. With everything else that is open it stays below a process's usual limit of 1,024 files.
const PLACES: usize = 512;
/// The same on the unix socket.
const LOCAL_PLACES: usize = 32;
/// How many connections are accepted before those inside get a turn.
const AT_ONCE: usize = 16;
/// Time limit for a request's head, and for an idle connection until its next request.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// After this a connection is closed once its current request is answered.
const STAY: Duration = Duration::from_secs(600);
/// Time limit for that answer; longer than a switchover takes.
const LAST_ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Maximum size of a request's head and of the first read, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Pause after a failed accept, usually because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
pub(super) trait Entrance: Send {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Maximum number at one time.
    const PLACES: usize;

    /// The next connection.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Entrance for TcpListener {
    type Stream = TcpStream;
    const PLACES: usize = PLACES;

    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        // Answers are small and a single write each, so waiting for more gains nothing.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// On the unix socket only the agent's user and root are accepted.
impl Entrance for UnixListener {
    type Stream = UnixStream;
    const PLACES: usize = LOCAL_PLACES;

    async fn next(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.accept().await?;
            let user = stream.peer_cred()?.uid();
            if user == 0 || user == rustix::process::geteuid().as_raw() {
                return Ok(stream);
            }
            warn!(user, "refused a connection of another user to the local REST API");
        }
    }
}

/// Serves every connection with `router`. Ends with its task.
pub(super) async fn open<E: Entrance>(entrance: E, router: Router) {
    let hall = Hall::new(E::PLACES);
    let mut visits = JoinSet::new();
    for number in 1_usize.. {
        let stream = match entrance.next().await {
            Ok(stream) => stream,
            Err(fault) => {
                warn!(%fault, "cannot accept a connection to the REST API");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = hall.enter().await;
        visits.spawn(visit(stream, place, router.clone()));
        while visits.try_join_next().is_some() {}
        // Connections accepted earlier are served before later ones may take their places. Several are accepted at a time, so
        // that those outside do not wait for every single answer inside.
        if number.is_multiple_of(AT_ONCE) {
            yield_now().await;
        }
    }
}

async fn visit<Stream>(stream: Stream, place: Place, router: Router)
where
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let place = Arc::new(place);
    let inside = place.clone();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: axum::http::Request<Incoming>| {
        inside.serve();
        let (inside, answer) = (inside.clone(), router.call(request));
        async move {
            let mut answer: Result<Response<Body>, Infallible> = answer.await;
            if let Ok(answer) = &mut answer
                && inside.is_crowded()
            {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            // All that is left is to send it, and a client that does not read it has no claim to the place.
            inside.wait();
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = async {
        match timeout(STAY, connection.as_mut()).await {
            Ok(served) => Some(served),
            Err(_) => {
                // A client that does not read its answers would keep its place forever.
                connection.as_mut().graceful_shutdown();
                timeout(LAST_ANSWER_LIMIT, connection).await.ok()
            }
        }
    };
    tokio::select! {
        served = served => if let Some(Err(fault)) = served {
            debug!(%fault, "a connection to the REST API ended");
        },
        () = place.needed() => debug!("closed an idle connection to make room for another"),
    }
}
