//! `outrider backups`: the base backups in the archive, and which of them are kept. Asks the store itself, so that it works
//! when the cluster is gone.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use comfy_table::{Cell, Color};
use indicatif::{HumanBytes, HumanDuration};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use outrider_archive::catalog::{self, Backup, Catalog, Keep};
use outrider_archive::retention::{self, RetentionPlan, RetentionPolicy, WalVerdict};
use outrider_archive::{BackupId, Layout, Owned};
use outrider_store::Store;
use serde_json::{Value, json};

use super::exit::{self, Refusal};
use super::format::{self, Format, Rows};
use super::this_cluster::ThisCluster;
use crate::clock;
use crate::config::{Archive, Config};

/// Show the base backups in the archive and the recovery window
#[derive(Args)]
pub(super) struct Backups {
    #[command(subcommand)]
    act: Option<Act>,
    /// The configuration file of a member: its archive says where to look
    #[arg(short, long, value_name = "FILE", env = "OUTRIDER_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// The form of the list
    #[arg(short, long, value_enum, default_value_t = Format::Table, global = true)]
    format: Format,
    /// This cluster's system identifier, when neither a data directory nor a member tells it
    #[arg(long, value_name = "NUMBER", global = true)]
    system_identifier: Option<u64>,
}

#[derive(Subcommand)]
enum Act {
    /// Mark a backup, so that it is kept whatever its age
    Keep {
        /// The backup
        #[arg(value_name = "ID")]
        id: BackupId,
        /// Keep only the WAL that makes it consistent, not all since
        #[arg(long)]
        standalone: bool,
        /// Take the mark away
        #[arg(long, conflicts_with = "standalone")]
        release: bool,
    },
    /// Delete a backup that nothing needs
    Delete {
        /// The backup
        #[arg(value_name = "ID")]
        id: BackupId,
        /// Delete it even if it is needed or marked
        #[arg(long)]
        force: bool,
    },
    /// Remove the backups and the WAL that archive.retention does not want
    Prune {
        /// Only show what would go, and why
        #[arg(long)]
        dry_run: bool,
        /// Even if this machine's clock is far from the store's or from the newest commit
        #[arg(long)]
        trust_clock: bool,
    },
}

/// The archive that a configuration file names.
pub(super) struct ArchiveAccess {
    pub(super) file: PathBuf,
    pub(super) config: Config,
    pub(super) store: Arc<dyn Store>,
    pub(super) layout: Layout,
    pub(super) retention: RetentionPolicy,
    pub(super) this_cluster: ThisCluster,
}

impl ArchiveAccess {
    /// Opens it. Sends no request yet.
    pub(super) fn of(config: Option<PathBuf>, system_identifier: Option<u64>) -> Result<Self, Refusal> {
        let Some(file) = config else {
            return Err(Refusal::Usage(
                "which archive? Give the configuration file of a member with -c FILE or in OUTRIDER_CONFIG"
                    .to_owned(),
            ));
        };
        let config = exit::load(&file)?;
        let this_cluster = ThisCluster::of(&config, system_identifier)?;
        let Some(archive) = &config.archive else {
            return Err(Refusal::Usage(format!("{} has no archive", file.display())));
        };
        let store = archive.open_store()?;
        let Archive { layout, retention, .. } = archive.clone();
        Ok(ArchiveAccess { file, config, store, layout, retention, this_cluster })
    }

    /// Required before anything in an archive is changed.
    async fn prove(&self) -> anyhow::Result<Owned> {
        self.this_cluster.prove(&*self.store, &self.layout).await
    }

    async fn plan(&self, catalog: &Catalog) -> anyhow::Result<RetentionPlan> {
        let newest_commit = outrider_restore::newest_commit(&self.store, &self.layout, &catalog.wal);
        let now = clock::wall();
        let plan = retention::trusted_plan(&*self.store, catalog, now, &self.retention, newest_commit).await;
        plan.with_context(|| format!("cannot read the archive {}", self.store.url()))
    }

    pub(super) async fn read(&self) -> anyhow::Result<Catalog> {
        let catalog = Catalog::read(&*self.store, &self.layout).await;
        catalog.with_context(|| format!("cannot read the archive {}", self.store.url()))
    }
}

pub(super) fn run(options: Backups) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    let access = ArchiveAccess::of(options.config, options.system_identifier)?;
    let format = options.format;
    let shown = runtime.block_on(async {
        match options.act {
            None => show(&access.read().await?, clock::wall(), format),
            Some(Act::Keep { id, standalone, release }) => {
                let keep = match (release, standalone) {
                    (true, _) => None,
                    (false, true) => Some(Keep::Standalone),
                    (false, false) => Some(Keep::Full),
                };
                mark(&access, &id, keep).await
            }
            Some(Act::Delete { id, force }) => delete(&access, &id, force).await,
            Some(Act::Prune { dry_run, trust_clock }) => prune(&access, (dry_run, trust_clock), format).await,
        }
    })?;
    exit::print(&shown)
}

async fn mark(access: &ArchiveAccess, id: &BackupId, keep: Option<Keep>) -> anyhow::Result<String> {
    let catalog = access.read().await?;
    let backup = catalog.backup(id).ok_or_else(|| no_such(id))?;
    if keep.is_some() && backup.good().is_none() {
        return Err(anyhow!("the backup {id} cannot be restored: it is {}", describe(backup)));
    }
    not_foreign(backup)?;
    let owned = access.prove().await?;
    let marked = catalog::mark(&*access.store, &access.layout, owned, id, keep).await;
    marked.with_context(|| format!("cannot change the keep mark of backup {id}"))?;
    Ok(match keep {
        Some(keep) => format!("The backup {id} is kept ({keep}) until it is released\n"),
        None => format!("The backup {id} is now kept only as long as archive.retention says\n"),
    })
}

async fn delete(access: &ArchiveAccess, id: &BackupId, force: bool) -> anyhow::Result<String> {
    let catalog = access.read().await?;
    not_foreign(catalog.backup(id).ok_or_else(|| no_such(id))?)?;
    let owned = access.prove().await?;
    let plan = access.plan(&catalog).await?;
    let needed = plan.backups.iter().find(|verdict| verdict.id == *id && verdict.reason.keeps());
    if let Some(verdict) = needed
        && !force
    {
        return Err(anyhow!("the backup {id} is needed: {}. --force deletes it anyway", verdict.reason));
    }
    let deleted = retention::remove_backup(&*access.store, &access.layout, owned, id).await;
    deleted.with_context(|| format!("cannot delete the whole backup {id}"))?;
    Ok(format!("The backup {id} is deleted. `outrider backups prune` removes WAL that only it needed\n"))
}

async fn prune(
    access: &ArchiveAccess,
    (dry_run, trust_clock): (bool, bool),
    format: Format,
) -> anyhow::Result<String> {
    let catalog = access.read().await?;
    let plan = match trust_clock {
        true => retention::plan(&catalog, clock::wall(), &access.retention),
        false => access.plan(&catalog).await?,
    };
    let owned = access.prove().await;
    if dry_run {
        if let Err(why) = owned {
            // On standard error, so that programs can read the plan.
            let _ = writeln!(io::stderr(), "outrider: warning: it would be refused: {why:#}");
        }
        return show_plan(&catalog, &plan, format);
    }
    let owned = owned?;
    if let Some(doubt) = &plan.doubt {
        return Err(anyhow!("nothing was removed: {doubt}"));
    }
    let size = catalog.wal.segment_size();
    let removed = retention::remove_obsolete(&*access.store, &access.layout, owned, &plan, size).await;
    let removed = removed
        .context("cannot remove everything that is unneeded; what was removed so far was not needed")?;
    let document = json!({
        "backups": removed.backups.iter().map(BackupId::to_string).collect::<Vec<_>>(),
        "wal_files": removed.wal_files,
        "bytes": removed.bytes,
    });
    match format {
        Format::Json => format::json(&document),
        Format::Yaml => format::yaml(&document),
        Format::Table => Ok(format!(
            "Removed {} backups and {} files of WAL, {}{}\n",
            removed.backups.len(),
            removed.wal_files,
            HumanBytes(removed.bytes),
            match &plan.wal {
                WalVerdict::Stays { reason } => format!(". All WAL is kept: {reason}"),
                WalVerdict::Below { .. } => String::new(),
            }
        )),
    }
}

/// Not even with force: its owner may need it.
fn not_foreign(backup: &Backup) -> anyhow::Result<()> {
    match backup.foreign() {
        None => Ok(()),
        Some(whose) => Err(anyhow!(
            "the backup {} is of another cluster, whose system identifier is {whose}: its own cluster keeps and removes it",
            backup.id
        )),
    }
}

fn no_such(id: &BackupId) -> anyhow::Error {
    anyhow!("there is no backup {id} in the archive")
}

fn describe(backup: &Backup) -> String {
    match backup.fault() {
        Some(fault) => format!("{} ({fault})", backup.state_word()),
        None => backup.state_word().to_owned(),
    }
}

fn show_plan(catalog: &Catalog, plan: &RetentionPlan, format: Format) -> anyhow::Result<String> {
    let row = |verdict: &retention::Verdict| {
        let word = if verdict.reason.keeps() { "stays" } else { "goes" };
        let size = match format {
            Format::Table => json!(HumanBytes(verdict.bytes).to_string()),
            Format::Json | Format::Yaml => json!(verdict.bytes),
        };
        vec![json!(verdict.id.to_string()), size, json!(word), json!(verdict.reason.to_string())]
    };
    let rows = Rows {
        columns: vec!["Backup", "Size", "Verdict", "Why"],
        rows: plan.backups.iter().map(row).collect(),
    };
    let segments = plan.segments(catalog);
    let wal = match &plan.wal {
        WalVerdict::Stays { reason } => format!("All WAL is kept: {reason}"),
        WalVerdict::Below { oldest, .. } => {
            format!(
                "{segments} WAL segments would be removed: those before {oldest} that no kept backup needs"
            )
        }
    };
    if format != Format::Table {
        let backups: Value = serde_json::from_str(&rows.show(Format::Json, |_, _, cell| cell)?)?;
        let document = json!({"backups": backups, "segments": segments, "wal": wal});
        return if format == Format::Json { format::json(&document) } else { format::yaml(&document) };
    }
    let paint = |column: &str, value: &Value, cell: Cell| match (column, value.as_str()) {
        ("Verdict", Some("goes")) => cell.fg(Color::Yellow),
        _ => cell,
    };
    Ok(format!("{}{wal}\nNothing was removed\n", rows.show(format, paint)?))
}

/// The catalog in this form.
fn show(catalog: &Catalog, now: Timestamp, format: Format) -> anyhow::Result<String> {
    match format {
        Format::Json => return format::json(&catalog.document()),
        Format::Yaml => return format::yaml(&catalog.document()),
        Format::Table => {}
    }
    let rows = Rows {
        columns: vec!["Backup", "Began", "Age", "Took", "Size", "TL", "From", "To", "Keep", "State"],
        rows: catalog.backups.iter().map(|backup| row(backup, now)).collect(),
    };
    let paint = |column: &str, value: &Value, cell: Cell| match (column, value.as_str()) {
        ("State", Some("done")) => cell.fg(Color::Green),
        ("State", Some("unfinished")) => cell.fg(Color::Yellow),
        ("State", Some(_)) => cell.fg(Color::Red),
        _ => cell,
    };
    let mut shown = rows.show(format, paint)?;
    shown.push_str(&window(catalog));
    for fault in catalog.wal.bad_histories() {
        let _ = writeln!(shown, "Fault: {fault}");
    }
    Ok(shown)
}

fn row(backup: &Backup, now: Timestamp) -> Vec<Value> {
    let info = backup.info();
    let begin = info.and_then(|info| info.begin_time);
    let end = info.and_then(|info| info.end_time);
    let between = |from: Timestamp, to: Timestamp| {
        let length = to.duration_since(from).unsigned_abs();
        json!(format!("{:#}", HumanDuration(length)))
    };
    let text = |found: Option<String>| found.map_or(Value::Null, Value::from);
    vec![
        json!(backup.id.to_string()),
        begin.map_or(Value::Null, |begin| json!(local(begin))),
        begin.or_else(|| backup.id.time()).map_or(Value::Null, |begin| between(begin, now)),
        begin.zip(end).map_or(Value::Null, |(begin, end)| between(begin, end)),
        json!(HumanBytes(backup.bytes).to_string()),
        json!(info.and_then(|info| info.timeline).map(|timeline| timeline.get())),
        text(info.and_then(|info| info.begin_lsn).map(|lsn| lsn.to_string())),
        text(info.and_then(|info| info.end_lsn).map(|lsn| lsn.to_string())),
        text(backup.keep.map(|keep| keep.to_string())),
        json!(describe(backup)),
    ]
}

fn local(time: Timestamp) -> String {
    time.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// The recovery window, and what is missing in it.
fn window(catalog: &Catalog) -> String {
    let Some(window) = catalog.window() else {
        return "Nothing can be recovered: there is no good backup\n".to_owned();
    };
    let begin = window.begin_time.map(|time| format!("{} ", local(time))).unwrap_or_default();
    let begin_lsn = window.begin_lsn.map(|lsn| format!("({lsn}) ")).unwrap_or_default();
    let end = window.end_time.map(|time| format!("{} ", local(time))).unwrap_or_default();
    let mut shown = format!(
        "Recoverable: from {begin}{begin_lsn}to {end}({}) on timeline {}\n",
        window.chain.end, window.chain.timeline
    );
    for gap in &window.chain.gaps {
        let _ = writeln!(shown, "Missing WAL: {gap}. Recovery past this point needs a later backup");
    }
    shown
}

#[cfg(test)]
mod tests;
