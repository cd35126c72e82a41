//! `outrider verify --drill`: restores a backup into a scratch directory, lets a real Postgres recover it, and checks it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use outrider_archive::BackupId;
use outrider_restore::verify::Verification;
use outrider_restore::{DrillOptions, DrillReport, Goal, RestoreError, Target};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cli::backups::ArchiveAccess;
use crate::cli::exit::Refusal;
use crate::cli::progress::watched;
use crate::config;
use crate::log::causes;

/// Time limit for the replay of all WAL since the backup.
const RECOVERY_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// Restores, recovers and checks; the scratch directory is removed afterwards. If the server does not come up, or not
/// complete, that is an error of the archive and added to `found`.
///
/// # Errors
/// When the drill cannot start, or was interrupted.
pub(super) async fn drill(
    access: &ArchiveAccess,
    backup: Option<BackupId>,
    scratch: Option<PathBuf>,
    while_stdin: bool,
    found: &mut Verification,
) -> Result<Option<DrillReport>, Refusal> {
    let postgres = &access.config.postgres;
    let scratch = scratch
        .unwrap_or_else(|| std::env::temp_dir().join(format!("outrider-drill-{}", std::process::id())));
    let owner = std::fs::metadata(&postgres.data_directory).ok();
    let options = DrillOptions {
        scratch,
        bin_dir: postgres.bin_directory.clone(),
        // What runs as root would start a Postgres that refuses to.
        owner: owner.map(|found| (found.uid(), found.gid())),
        restore_command: config::wal_fetch_from(&access.file, None, access.layout.server())?,
        user: postgres.superuser.name.clone(),
        session_options: outrider_postgres::superuser_options(),
        goal: Goal::to(Target::Latest),
        backup,
        recovery_limit: RECOVERY_LIMIT,
    };
    let cancel = CancellationToken::new();
    if while_stdin {
        end_with_stdin(cancel.clone())?;
    }
    let drilled = watched(&cancel, async |progress| {
        outrider_restore::drill(access.store.clone(), access.layout.clone(), &options, progress, &cancel)
            .await
    });
    match drilled.await? {
        Ok(report) => {
            if report.pages_checked == Some(false) {
                found.fault(format!(
                    "backup {}: the restored server has pages with wrong checksums",
                    report.backup
                ));
            }
            Ok(Some(report))
        }
        Err(fault @ RestoreError::Cancelled { .. }) => Err(anyhow::Error::new(fault).into()),
        Err(fault) => {
            found.fault(format!("the drill failed; a restored server would not come up: {}", causes(&fault)));
            Ok(None)
        }
    }
}

/// On a thread that nobody waits for: reading standard input cannot be interrupted.
fn end_with_stdin(cancel: CancellationToken) -> anyhow::Result<()> {
    let read = move || {
        // When reading ends or fails, nobody wants the drill any more.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        cancel.cancel();
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(read).context("cannot start a thread")?;
    Ok(())
}

pub(super) fn document(report: &DrillReport) -> Value {
    json!({
        "backup": report.backup.to_string(),
        "files": report.restored.files,
        "bytes": report.restored.bytes,
        "verified": report.restored.verified,
        "reached_lsn": report.reached_lsn,
        "reached_time": report.reached_time,
        "databases": report.databases,
        "relations": report.relations,
        "pages_checked": report.pages_checked,
        "recovery_seconds": report.recovery_took.as_secs_f64(),
        "seconds": report.took.as_secs_f64(),
    })
}

pub(super) fn text(report: &DrillReport) -> String {
    let pages = match report.pages_checked {
        Some(true) => "every page has its checksum",
        Some(false) => "pages with WRONG checksums",
        None => "the server has no page checksums",
    };
    let reached = report.reached_lsn.as_deref().unwrap_or("an unknown LSN");
    let time = report.reached_time.as_deref().map(|time| format!(", last commit {time}")).unwrap_or_default();
    format!(
        "Drill: backup {} came back in {:.1} s (recovery {:.1} s) up to {reached}{time}: {} databases, {} relations, {pages}\n",
        report.backup,
        report.took.as_secs_f64(),
        report.recovery_took.as_secs_f64(),
        report.databases,
        report.relations,
    )
}
