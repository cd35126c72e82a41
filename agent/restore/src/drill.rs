//! The restore drill: restores a backup into a scratch directory, lets a Postgres of its own recover there, looks at what
//! came out, and removes all of it. Only a unix socket in that directory leads to it; it archives nothing.

mod server;

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::server::{Programs, Running};
use crate::clock;
use crate::error::RestoreError;
use crate::restore::{RestoreOptions, RestoreProgress, Restored, Restorer};
use crate::target::Goal;
use outrider_archive::{BackupId, Layout};
use outrider_store::Store;

/// How to drill.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// A directory that is absent or empty; removed at the end. It needs room for the whole server. Its path must be
    /// short enough for a unix socket in it.
    pub scratch: PathBuf,
    /// Where `postgres` and its tools are, of the version that was backed up.
    pub bin_dir: PathBuf,
    /// Who runs Postgres (user and group), when this process is root's; else the owner of what is above `scratch`.
    pub owner: Option<(u32, u32)>,
    /// What Postgres runs to get a file of the WAL.
    pub restore_command: String,
    /// A superuser of the server.
    pub user: String,
    /// What a session of it sets for itself, as `PGOPTIONS` has it.
    pub session_options: String,
    /// Where to recover to; to the latest point, that is all WAL is replayed.
    pub goal: Goal,
    /// Which backup; else the best for the goal.
    pub backup: Option<BackupId>,
    /// The recovery fails when it takes longer.
    pub recovery_limit: Duration,
}

/// What came out of a drill. That there is one means that the server came up.
#[derive(Clone, Debug)]
pub struct DrillReport {
    /// The backup.
    pub backup: BackupId,
    /// The files.
    pub restored: Restored,
    /// Where replay ended, as Postgres printed it.
    pub reached_lsn: Option<String>,
    /// When the last transaction that was replayed had ended, as Postgres printed it, in UTC.
    pub reached_time: Option<String>,
    /// Databases that take connections.
    pub databases: u64,
    /// Relations in all of them.
    pub relations: u64,
    /// Whether the checksum of every page was right; `None` when the server has no page checksums.
    pub pages_checked: Option<bool>,
    /// From the start of Postgres until it took connections.
    pub recovery_took: Duration,
    /// All of it.
    pub took: Duration,
}

/// Restores into `scratch`, recovers, looks, and removes it again.
///
/// # Errors
/// Why the server cannot be got back, or the drill not be made. What was written is removed all the same; should that
/// fail, the data directory in it is marked or can be started, and harms nobody.
pub async fn drill(
    store: Arc<dyn Store>,
    layout: Layout,
    options: &DrillOptions,
    progress: &watch::Sender<RestoreProgress>,
    cancel: &CancellationToken,
) -> Result<DrillReport, RestoreError> {
    let scratch = Scratch::make(options)?;
    let drilled = in_scratch(store, layout, options, &scratch, progress, cancel).await;
    let removed = scratch.remove();
    drilled.and_then(|report| removed.map(|()| report))
}

async fn in_scratch(
    store: Arc<dyn Store>,
    layout: Layout,
    options: &DrillOptions,
    scratch: &Scratch,
    progress: &watch::Sender<RestoreProgress>,
    cancel: &CancellationToken,
) -> Result<DrillReport, RestoreError> {
    let begun = clock::monotonic();
    let restorer = Restorer::new(store, layout);
    let plan = restorer.plan(&options.goal, options.backup.as_ref()).await?;
    // Never to where the tablespaces of the real server are.
    let outside = plan.backup.tablespaces.iter().filter(|space| space.location.starts_with('/'));
    let tablespaces =
        outside.map(|space| (space.location.clone(), scratch.path.join(format!("tablespace_{}", space.oid))));
    let restoring = RestoreOptions {
        owner: scratch.owner,
        tablespaces: tablespaces.collect(),
        restore_command: options.restore_command.clone(),
        no_sync: true,
        ..RestoreOptions::default()
    };
    let data = scratch.path.join("data");
    let restored = restorer.run(&plan, &data, &restoring, progress, cancel).await?;
    let programs = Programs::new(options, scratch.path.clone(), scratch.owner);
    tokio::select! {
        () = cancel.cancelled() => Err(RestoreError::Cancelled { removed: true }),
        report = look(&programs, options, &data, plan.id().clone(), restored, begun) => report,
    }
}

/// Starts Postgres, asks it, stops it, and checks its pages. Dropped in the middle, it kills what it started.
async fn look(
    programs: &Programs,
    options: &DrillOptions,
    data: &Path,
    backup: BackupId,
    restored: Restored,
    begun: Instant,
) -> Result<DrillReport, RestoreError> {
    let control = programs.control_data(data).await?;
    let starting = clock::monotonic();
    let mut running = Running::start(programs, data)?;
    running.recovered(options.recovery_limit).await?;
    let recovery_took = starting.elapsed();
    let (reached_lsn, reached_time) = running.reached()?;
    let databases = programs.databases().await?;
    let mut relations = 0;
    for database in &databases {
        relations += programs.relations(database).await?;
    }
    running.stop(data).await?;
    let pages_checked = match control.has_checksums() {
        true => Some(programs.check_pages(data).await.map(|()| true)?),
        false => None,
    };
    Ok(DrillReport {
        backup,
        restored,
        reached_lsn,
        reached_time,
        databases: databases.len() as u64,
        relations,
        pages_checked,
        recovery_took,
        took: begun.elapsed(),
    })
}

/// A directory of our own.
struct Scratch {
    path: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Scratch {
    fn make(options: &DrillOptions) -> Result<Self, RestoreError> {
        let path = std::path::absolute(&options.scratch).map_err(|source| RestoreError::File {
            act: "find",
            path: options.scratch.clone(),
            source,
        })?;
        let failed = |source| RestoreError::File { act: "make", path: path.clone(), source };
        match fs::read_dir(&path) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => {
                DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
            }
            Err(source) => return Err(failed(source)),
            Ok(mut entries) => {
                if entries.next().is_some() {
                    let fault = "is not empty: a drill needs a directory of its own".to_owned();
                    return Err(RestoreError::InTheWay { path, fault });
                }
            }
        }
        let us = fs::metadata("/proc/self").map_err(failed)?.uid();
        let above = path.parent().and_then(|above| fs::metadata(above).ok());
        let owner = match options.owner.or(above.map(|above| (above.uid(), above.gid()))) {
            _ if us != 0 => None,
            Some((user, group)) if user != 0 => Some((user, group)),
            Some(_) | None => {
                let fault = "would belong to root, for whom Postgres does not run: name its user".to_owned();
                return Err(RestoreError::InTheWay { path, fault });
            }
        };
        if let Some((user, group)) = owner {
            chown(&path, Some(user), Some(group)).map_err(failed)?;
        }
        Ok(Scratch { path, owner })
    }

    fn remove(&self) -> Result<(), RestoreError> {
        fs::remove_dir_all(&self.path).map_err(|source| RestoreError::File {
            act: "remove",
            path: self.path.clone(),
            source,
        })
    }
}
