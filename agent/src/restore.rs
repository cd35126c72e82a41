//! From an archive to files that Postgres recovers, for whoever needs it within the agent: the bootstrap of a cluster, a new
//! member, a rollback. Each of them lets Postgres recover then, and checks what came out. Decides nothing.

use std::path::PathBuf;
use std::time::Duration;

use outrider_archive::BackupId;
use outrider_restore::{Goal, Phase, Plan, RestoreOptions, RestoreProgress, Restorer};
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::apart::apart;
use crate::config::Archive;
use crate::log::causes;

/// Between two lines in the log on how far a restore is.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// For a plan: it lists the archive, and may look into WAL for a target.
pub(crate) const PLAN_LIMIT: Duration = Duration::from_secs(1800);

/// Whether and how the goal can be reached.
///
/// # Errors
/// Why not, with the nearest that can, in words.
pub(crate) async fn plan(archive: &Archive, goal: Goal, backup: Option<BackupId>) -> Result<Plan, String> {
    let archive = archive.clone();
    let planning = apart("restore plan", move || async move {
        let restorer = restorer(&archive)?;
        match timeout(PLAN_LIMIT, restorer.plan(&goal, backup.as_ref())).await {
            Ok(plan) => plan.map_err(|fault| causes(&fault)),
            Err(_) => Err(format!("no plan within {PLAN_LIMIT:?}")),
        }
    });
    planning.await.unwrap_or_else(|broken| Err(causes(&broken)))
}

/// Brings the files, and tells how far it is. When `cancel` is called it comes back soon, and nothing of them is left; dropped,
/// it goes on until then. With a `restore_command` the server becomes a standby that follows the archive.
///
/// # Errors
/// When they do not all come, in words.
pub(crate) async fn files(
    archive: &Archive,
    plan: Plan,
    directory: PathBuf,
    restore_command: String,
    told: watch::Sender<RestoreProgress>,
    cancel: CancellationToken,
) -> Result<(), String> {
    let archive = archive.clone();
    // What an earlier try left has the mark of the work that this belongs to.
    let options = RestoreOptions {
        overwrite_half: true,
        standby: !restore_command.is_empty(),
        restore_command,
        ..RestoreOptions::default()
    };
    let copying = apart("restore", move || async move {
        let restorer = restorer(&archive)?;
        let heard = told.subscribe();
        let running = restorer.run(&plan, &directory, &options, &told, &cancel);
        tokio::pin!(running);
        let mut lines = interval(TOLD_EVERY);
        loop {
            tokio::select! {
                restored = &mut running => {
                    let restored = restored.map_err(|fault| causes(&fault))?;
                    info!(files = restored.files, bytes = restored.bytes, verified = restored.verified, took = ?restored.took, "the files are there");
                    return Ok(());
                }
                _ = lines.tick() => {
                    let RestoreProgress { phase, bytes, bytes_total, files, .. } = *heard.borrow();
                    if phase != Phase::Checking {
                        info!(?phase, bytes, bytes_total, files, "restoring");
                    }
                }
            }
        }
    });
    copying.await.unwrap_or_else(|broken| Err(causes(&broken)))
}

fn restorer(archive: &Archive) -> Result<Restorer, String> {
    let store = archive.open_store().map_err(|fault| format!("{fault:#}"))?;
    Ok(Restorer::new(store, archive.layout.clone()))
}
