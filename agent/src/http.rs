//! The REST API: Patroni's paths, keys and texts. Its visitors read the board and leave requests in the DCS; no handler
//! changes Postgres or takes a lease.

mod answer;
mod archive;
mod authentication;
mod backup;
mod body;
mod cluster;
mod dcs;
mod door;
mod health;
mod restart;
mod rollback;
mod rules;
mod scrape;
mod status;
mod switchover;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use outrider_dcs::Dcs;
use outrider_ha::Watermark;
use outrider_postgres::Observer;
use tokio::net::TcpListener;

use crate::backup::Shelf;
use crate::config::Config;
use crate::report::Board;
use crate::round::Waker;

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
    pub(crate) look: Observer,
    /// How far this member had seen the DCS when its agent started.
    pub(crate) watermark: Watermark,
    /// What the archive holds; `None` without one.
    pub(crate) shelf: Option<Shelf>,
    /// This member's.
    pub(crate) config: Arc<Config>,
}

/// Serves until the task is dropped, and every connection with it.
pub(crate) async fn serve(visitors: Visitors, listener: TcpListener) {
    door::open(listener, router(visitors)).await;
}

fn router(visitors: Visitors) -> Router {
    Router::new()
        .route("/patroni", get(status::show))
        .route("/cluster", get(cluster::show))
        .route("/history", get(cluster::history))
        .route("/dcs", get(dcs::show))
        .route("/config", get(rules::show).patch(rules::patch).put(rules::put))
        .route("/switchover", post(switchover::switchover).delete(switchover::cancel).fallback(health::check))
        .route("/failover", post(switchover::failover).delete(switchover::cancel).fallback(health::check))
        .route("/backup", get(backup::show).post(backup::ask).delete(backup::cancel))
        .route("/restart", get(restart::show).post(restart::ask).delete(restart::cancel))
        .route("/rollback", get(rollback::show).post(rollback::ask).delete(rollback::cancel))
        .route("/backups", get(archive::backups))
        .route("/archive", get(archive::archive))
        .route("/metrics", get(scrape::show))
        .route("/liveness", get(health::liveness))
        .route("/readiness", get(health::readiness))
        .fallback(health::check)
        .layer(from_fn_with_state(visitors.clone(), authentication::check))
        .layer(DefaultBodyLimit::max(body::BODY_MAX))
        .with_state(visitors)
}
