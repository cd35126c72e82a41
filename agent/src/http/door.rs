//! Lets visitors in: a bounded number of connections, each with deadlines, and the last places for whoever is quick.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Connections at one time.
const PLACES: usize = 256;
/// The last of them are for health checks: one request each, sent at once, so that a place is free again in a second.
const QUICK_PLACES: usize = 32;
/// For a request's head; a connection that waits for its next request ends after this too.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// The same in the last places.
const QUICK_HEAD_LIMIT: Duration = Duration::from_secs(1);
/// After this a connection ends with the answer to its current request.
const STAY: Duration = Duration::from_secs(600);
/// The same in the last places.
const QUICK_STAY: Duration = Duration::from_secs(5);
/// For that answer; longer than a switchover takes.
const LAST_ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// A request's head and its first read, in bytes.
const HEAD_MAX: usize = 64 * 1024;
/// After a failed accept, which is mostly too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves every visitor with `router`. Ends with its task.
pub(super) async fn open(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(PLACES));
    let mut visits = JoinSet::new();
    loop {
        // Who comes when all places are taken waits in the kernel's queue.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(fault) => {
                warn!(%fault, "cannot accept a connection to the REST API");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let quick = places.available_permits() < QUICK_PLACES;
        visits.spawn(visit(stream, place, quick, router.clone()));
        while visits.try_join_next().is_some() {}
    }
}

async fn visit(stream: TcpStream, place: OwnedSemaphorePermit, quick: bool, router: Router) {
    // Answers are small and one write each: nothing is gained by waiting for more.
    if let Err(fault) = stream.set_nodelay(true) {
        debug!(%fault, "a visitor left at once");
        return;
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if quick { QUICK_HEAD_LIMIT } else { HEAD_LIMIT })
        .keep_alive(!quick)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let served = match timeout(if quick { QUICK_STAY } else { STAY }, connection.as_mut()).await {
        Ok(served) => Ok(served),
        Err(_) => {
            // Who does not read its answers would keep its place for ever.
            connection.as_mut().graceful_shutdown();
            timeout(LAST_ANSWER_LIMIT, connection).await
        }
    };
    if let Ok(Err(fault)) = served {
        debug!(%fault, "a connection to the REST API ended");
    }
    drop(place);
}
