//! Data from an archive: the first of a new cluster, and that of a new member. Jobs beside the round; each ends as initdb
//! or a clone would, or leaves the mark that it did not.

use std::path::PathBuf;
use std::sync::Arc;

use outrider_archive::Shipper;
use outrider_archive::catalog::Catalog;
use outrider_postgres::{Configuration, Error, Postgres, Upstream};
use outrider_restore::{AheadOptions, Fetcher, Goal, Plan, RestoreProgress, Server, ServerOptions, Target};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::apart::apart;
use crate::config::{self, ArchiveOrigin, Config, ReplicaMethod};
use crate::log::causes;
use crate::restore::{self, PLAN_LIMIT};

/// Makes the first data of a new cluster.
///
/// # Errors
/// When it does not come to that. Nothing is touched before it is known that the target can be reached.
pub(crate) async fn bootstrap(
    postgres: Postgres,
    config: Arc<Config>,
    shipper: Shipper,
    origin: ArchiveOrigin,
    wanted: Configuration,
) -> Result<(), Error> {
    let plan = restore::plan(&origin.archive, origin.goal.clone(), origin.backup.clone()).await;
    let plan = plan.map_err(|problem| trouble(&problem))?;
    if origin.foreign {
        must_be_free(&config, plan.backup.system_identifier).await?;
    }
    info!(backup = %plan.id(), target = %plan.goal.target, about = %plan.estimate(), "restoring from the archive");
    postgres.prepare_first().await?;
    let directory = postgres.settings().data_directory.clone();
    copied(&origin.archive, &plan, directory, String::new()).await?;
    let origin_socket = if origin.foreign {
        Some(OriginSocket::open(&config, shipper, &origin.archive).await?)
    } else {
        None
    };
    let socket = origin_socket.as_ref().map(|origin_socket| origin_socket.socket.as_path());
    let command = match (socket, &postgres.settings().restore_command) {
        (Some(socket), _) => config::wal_fetch(socket),
        (None, Some(command)) => command.clone(),
        (None, None) => return Err(trouble("there is no restore_command")),
    };
    postgres.recover(&wanted, &plan.recovery(command)).await?;
    if origin.foreign { Ok(()) } else { take_over(&origin.archive).await }
}

/// A DCS that was lost with all members counts its terms from the beginning, and its first leader would be taken for a
/// former one. Who makes the cluster anew from its own archive is the one who writes to it from now on; should the old one
/// live after all, it takes the archive back and the new one is told.
async fn take_over(archive: &config::Archive) -> Result<(), Error> {
    let archive = archive.clone();
    let taking = apart("archive's writer", move || async move {
        let store = archive.open_store().map_err(|fault| trouble(&format!("{fault:#}")))?;
        let removed = store.delete(&archive.layout.writer()).await;
        removed.map_err(|fault| trouble(&causes(&fault)))
    });
    taking.await.unwrap_or_else(|broken| Err(trouble(&causes(&broken))))
}

/// Copies a new member's data by the first of the methods that does it.
///
/// # Errors
/// Of the last one.
pub(crate) async fn clone(
    postgres: Postgres,
    config: Arc<Config>,
    system: Option<u64>,
    upstream: Upstream,
) -> Result<(), Error> {
    let mut last = None;
    for method in &config.replica_methods {
        let outcome = match (method, &config.archive, system) {
            (ReplicaMethod::BaseBackup, _, _) => postgres.clone_from(&upstream).await,
            (ReplicaMethod::Archive, Some(archive), Some(system)) => {
                from_backup(&postgres, archive, system).await
            }
            (ReplicaMethod::Archive, _, _) => {
                Err(trouble("the cluster has no archive or no system identifier yet"))
            }
        };
        match outcome {
            Ok(()) => return Ok(()),
            Err(fault) => {
                warn!(?method, fault = %causes(&fault), "this method gave no data for this member");
                last = Some(fault);
            }
        }
    }
    Err(last.unwrap_or_else(|| trouble("no method is configured")))
}

async fn from_backup(postgres: &Postgres, archive: &config::Archive, system: u64) -> Result<(), Error> {
    let plan = restore::plan(archive, Goal::to(Target::Latest), None).await;
    let plan = plan.map_err(|problem| trouble(&problem))?;
    if let Some(found) = plan.backup.system_identifier.filter(|found| *found != system) {
        return Err(Error::ForeignBackup { found, expected: system });
    }
    info!(backup = %plan.id(), "copying the data of this member from the archive");
    let command = postgres.settings().restore_command.clone().unwrap_or_default();
    let spaces = plan.backup.tablespaces.iter().map(|space| PathBuf::from(&space.location));
    let spaces: Vec<PathBuf> = spaces.filter(|location| location.is_absolute()).collect();
    // What the backup says of its size is with the tablespaces.
    let bytes = plan.plain_bytes.filter(|_| spaces.is_empty());
    postgres.prepare_standby(spaces, bytes).await?;
    let directory = postgres.settings().data_directory.clone();
    copied(archive, &plan, directory, command).await?;
    postgres.finish_standby(system).await
}

/// Brings the files; given up with the job.
async fn copied(
    archive: &config::Archive,
    plan: &Plan,
    directory: PathBuf,
    restore_command: String,
) -> Result<(), Error> {
    let (told, cancel) = (watch::Sender::new(RestoreProgress::default()), CancellationToken::new());
    let _stop: DropGuard = cancel.clone().drop_guard();
    let copied = restore::files(archive, plan.clone(), directory, restore_command, told, cancel).await;
    copied.map_err(|problem| trouble(&problem))
}

/// The archive of the new cluster holds nothing, or only what is of the same system: WAL of two would lie in one place.
async fn must_be_free(config: &Config, system: Option<u64>) -> Result<(), Error> {
    let Some(own) = config.archive.clone() else { return Ok(()) };
    let server = own.server().to_owned();
    let looking = apart("check the archive", move || async move {
        let store = own.open_store().map_err(|fault| trouble(&format!("{fault:#}")))?;
        match timeout(PLAN_LIMIT, Catalog::read(&*store, &own.layout)).await {
            Ok(catalog) => catalog.map_err(|fault| trouble(&causes(&fault))),
            Err(_) => Err(trouble(&format!("the cluster's own archive is not read within {PLAN_LIMIT:?}"))),
        }
    });
    let catalog = looking.await.unwrap_or_else(|broken| Err(trouble(&causes(&broken))))?;
    let systems = catalog.backups.iter().filter_map(|backup| backup.info()?.system_identifier);
    // The owner may have taken no backup yet.
    let foreign = catalog.owner.into_iter().chain(systems).find(|found| Some(*found) != system);
    let unknown = catalog.backups.is_empty() && catalog.owner.is_none() && catalog.wal.segments > 0;
    match (foreign, unknown) {
        (Some(found), _) => Err(trouble(&format!(
            "the archive of the new cluster ({server}) belongs to another system ({found}); choose another with archive.server"
        ))),
        (None, true) => Err(trouble(&format!(
            "the archive of the new cluster ({server}) holds WAL but no backup that identifies its cluster; \
                choose another with archive.server"
        ))),
        (None, false) => Ok(()),
    }
}

/// A socket for `wal-fetch` that reads the other cluster's archive while the recovery lasts.
struct OriginSocket {
    socket: std::path::PathBuf,
    _server: Server,
}

impl OriginSocket {
    async fn open(config: &Config, shipper: Shipper, read: &config::Archive) -> Result<Self, Error> {
        let store = read.open_store().map_err(|fault| trouble(&format!("{fault:#}")))?;
        let ahead = AheadOptions {
            directory: config.postgres.state_directory.join("wal-ahead-origin"),
            segments: read.fetch_ahead,
        };
        let fetcher = Fetcher::reading_ahead(store, read.layout.clone(), ahead);
        let socket = read.socket.with_file_name("origin.sock");
        let pg_wal = config.postgres.data_directory.join("pg_wal");
        let options = ServerOptions { socket: socket.clone(), pg_wal };
        let server = Server::start(options, shipper, fetcher).await;
        Ok(OriginSocket { socket, _server: server.map_err(|fault| trouble(&causes(&fault)))? })
    }
}

fn trouble(problem: &str) -> Error {
    Error::Archive { problem: problem.to_owned() }
}
