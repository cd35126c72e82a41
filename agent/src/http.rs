//! The REST API: Patroni's paths, keys and texts. Handlers read the report and write requests into the DCS; none changes
//! Postgres or takes a lease.

mod admission;
mod answer;
mod archive;
mod authentication;
mod backup;
mod body;
mod cluster;
mod connections;
mod dcs;
mod health;
mod places;
mod privileged;
mod request;
mod restart;
mod rollback;
mod rules;
mod scrape;
mod shared_observer;
mod status;
mod switchover;
mod wait_limit;

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

use self::admission::Transport;
pub(crate) use self::shared_observer::SharedObserver;
use self::wait_limit::WaitLimit;

use crate::backup::CatalogCache;
use crate::config::{Config, Rest};
use crate::report::ReportReceiver;
use crate::wake::Waker;

/// What the handlers may use.
#[derive(Clone)]
pub(crate) struct Api {
    /// The report of the last round.
    pub(crate) reports: ReportReceiver,
    /// Triggers a round.
    pub(crate) waker: Waker,
    /// For requests, and for the rules of the cluster.
    pub(crate) dcs: Arc<dyn Dcs>,
    /// Queries Postgres now: an answer in an election must not be a round old.
    pub(crate) observer: SharedObserver,
    /// How far this member had seen the DCS when its agent started.
    pub(crate) watermark: Watermark,
    /// What the archive holds; `None` without one.
    pub(crate) catalog: Option<CatalogCache>,
    /// The names that requests may use for this member.
    pub(crate) names: Arc<[String]>,
    /// This member's configuration.
    pub(crate) config: Arc<Config>,
}

/// Serves until the task is dropped, and all its connections with it.
pub(crate) async fn serve(api: Api, listener: TcpListener) {
    if let Some(open) = api.config.rest.open_to() {
        warn!("{open}");
    }
    connections::serve(listener, router(api, Transport::Network)).await;
}

/// The same on the unix socket.
pub(crate) async fn serve_local(api: Api, listener: UnixListener) {
    connections::serve(listener, router(api, Transport::Socket)).await;
}

/// Opens the port of the REST API, with the longest backlog that the kernel allows: a client that finds no room in it tries again
/// only a second later.
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
    // The state directory belongs to this agent alone: a socket in it is left from one that has ended.
    match std::fs::remove_file(&path) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => return Err(fault),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The names of this member besides its addresses.
pub(crate) fn names(config: &Config) -> Arc<[String]> {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    admission::names(&config.rest, hostname.as_deref()).into()
}

fn router(api: Api, transport: Transport) -> Router {
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
        .route_layer(from_fn_with_state(WaitLimit::new(), wait_limit::limit));
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
        .layer(from_fn_with_state((api.clone(), transport), admission::check))
        .layer(DefaultBodyLimit::max(body::BODY_MAX))
        .with_state(api)
}
