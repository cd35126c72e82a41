//! The REST API: Patroni's paths, keys and texts. Its visitors read the board and leave requests in the DCS; no handler
//! changes Postgres or takes a lease.

mod admission;
mod answer;
mod archive;
mod asked;
mod authentication;
mod backup;
mod body;
mod cluster;
mod crowd;
mod dcs;
mod door;
mod hall;
mod health;
mod looks;
mod perilous;
mod restart;
mod rollback;
mod rules;
mod scrape;
mod status;
mod switchover;

#[cfg(test)]
mod tests;

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use outrider_dcs::Dcs;
use outrider_ha::Watermark;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tracing::warn;

use self::admission::Way;
use self::crowd::Crowd;
pub(crate) use self::looks::Looks;

use crate::backup::Shelf;
use crate::config::{Config, Rest};
use crate::report::Board;
use crate::wake::Waker;

/// What the handlers may use.
#[derive(Clone)]
pub(crate) struct Visitors {
    /// What the last round said.
    pub(crate) board: Board,
    /// Asks for a round.
    pub(crate) waker: Waker,
    /// For requests, and for the configuration of the cluster.
    pub(crate) dcs: Arc<dyn Dcs>,
    /// Looks at Postgres at this moment: an answer in an election must not be a round old.
    pub(crate) looks: Looks,
    /// How far this member had seen the DCS when its agent started.
    pub(crate) watermark: Watermark,
    /// What the archive holds; `None` without one.
    pub(crate) shelf: Option<Shelf>,
    /// Under which it may be asked.
    pub(crate) names: Arc<[String]>,
    /// This member's.
    pub(crate) config: Arc<Config>,
}

/// Serves until the task is dropped, and every connection with it.
pub(crate) async fn serve(visitors: Visitors, listener: TcpListener) {
    if let Some(open) = visitors.config.rest.open_to() {
        warn!("{open}");
    }
    door::open(listener, router(visitors, Way::Network)).await;
}

/// The same for the machine's own people.
pub(crate) async fn serve_local(visitors: Visitors, listener: UnixListener) {
    door::open(listener, router(visitors, Way::Socket)).await;
}

/// Opens the port of the REST API. As many as the kernel allows may wait in front of it: for whom its queue has no room, the next
/// try is a second later.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    const QUEUE: u32 = 4096;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

/// Opens the unix socket of the REST API, which only the agent's user and root may use.
pub(crate) fn listen_local(state_directory: &Path) -> std::io::Result<UnixListener> {
    let path = Rest::socket(state_directory);
    // The state directory is this agent's alone: what lies there is of one that has ended.
    match std::fs::remove_file(&path) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => return Err(fault),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The names by which this member may be asked besides its addresses.
pub(crate) fn names(config: &Config) -> Arc<[String]> {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    admission::names(&config.rest, hostname.as_deref()).into()
}

fn router(visitors: Visitors, way: Way) -> Router {
    // These wait for the DCS, the archive or an outcome.
    let waiting = Router::new()
        .route("/config", get(rules::show).patch(rules::patch).put(rules::put))
        .route("/switchover", post(switchover::switchover).delete(switchover::cancel).fallback(health::check))
        .route("/failover", post(switchover::failover).delete(switchover::cancel).fallback(health::check))
        .route("/backup", get(backup::show).post(backup::ask).delete(backup::cancel))
        .route("/restart", get(restart::show).post(restart::ask).delete(restart::cancel))
        .route("/rollback", get(rollback::show).post(rollback::ask).delete(rollback::cancel))
        .route("/backups", get(archive::backups))
        .route("/archive", get(archive::archive))
        .route_layer(from_fn_with_state(Crowd::new(), crowd::limit));
    Router::new()
        .merge(waiting)
        .route("/patroni", get(status::show))
        .route("/cluster", get(cluster::show))
        .route("/history", get(cluster::history))
        .route("/dcs", get(dcs::show))
        .route("/metrics", get(scrape::show))
        .route("/liveness", get(health::liveness))
        .route("/readiness", get(health::readiness))
        .fallback(health::check)
        .layer(from_fn_with_state((visitors.clone(), way), admission::check))
        .layer(DefaultBodyLimit::max(body::BODY_MAX))
        .with_state(visitors)
}
