//! `outrider verify`: whether the archive could restore what it holds. Asks the store itself, like `outrider backups`.

mod drill;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use outrider_archive::BackupId;
use outrider_restore::DrillReport;
use outrider_restore::verify::{self, Record, Verification, VerifyOptions, VerifyProgress};
use serde_json::{Value, json};

use super::backups::ArchiveAccess;
use super::exit::{self, Refusal};
use super::format::{self, Format};
use crate::clock;

/// Check the archive: that its WAL has no gaps and its backups are complete. Exit status 1 when something is wrong
#[derive(Args)]
pub(super) struct Verify {
    /// The configuration file of a member: its archive says where to look
    #[arg(short, long, value_name = "FILE", env = "OUTRIDER_CONFIG")]
    config: Option<PathBuf>,
    /// Only this backup and the WAL since
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
    /// Read every object: checksums of WAL, files and pages
    #[arg(long)]
    full: bool,
    /// Restore a backup and the WAL after it into a scratch directory, and start a real Postgres on it
    #[arg(long)]
    drill: bool,
    /// Where to drill: absent or empty, with room for the whole server; the directory for temporary files by default
    #[arg(long, value_name = "DIR", requires = "drill")]
    scratch: Option<PathBuf>,
    /// End the drill when standard input is closed, as it is when the agent that started it dies
    #[arg(long, hide = true, requires = "drill")]
    while_stdin: bool,
    /// The form of the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(options: Verify) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    let access = ArchiveAccess::of(options.config, None)?;
    let wanted = VerifyOptions { backup: options.backup, full: options.full };
    let (found, drilled) = runtime.block_on(async {
        let (mut found, is_ours) = verified(&access, &wanted).await?;
        let drilled = if options.drill {
            let backup = wanted.backup.clone();
            drill::drill(&access, backup, options.scratch, options.while_stdin, &mut found).await?
        } else {
            None
        };
        if is_ours {
            record(&access, &wanted, &found, drilled.as_ref()).await?;
        }
        Ok::<_, Refusal>((found, drilled))
    })?;
    let mut shown_document = document(&found);
    if let (Some(report), Value::Object(shown)) = (&drilled, &mut shown_document) {
        shown.insert("drill".to_owned(), drill::document(report));
    }
    let shown = match options.format {
        Format::Table => drilled.as_ref().map(drill::text).unwrap_or_default() + &text(&found),
        Format::Json => format::json(&shown_document)?,
        Format::Yaml => format::yaml(&shown_document)?,
    };
    exit::print(&shown)?;
    Ok(if found.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The findings, and whether the archive is not known to be another cluster's.
async fn verified(access: &ArchiveAccess, wanted: &VerifyOptions) -> anyhow::Result<(Verification, bool)> {
    let catalog = access.read().await?;
    let bar = Bar::new(wanted.full);
    let tell = |progress| bar.show(progress);
    let found = verify::verify(&*access.store, &access.layout, &catalog, wanted, clock::wall(), &tell).await;
    bar.end();
    let mut found = found.context("cannot verify the whole archive")?;
    let own = access.this_cluster.system_identifier().await?;
    let other = catalog.owner.filter(|owner| own.is_some_and(|own| own != *owner));
    if let Some(owner) = other {
        found.notes.push(format!(
            "this archive belongs to another cluster, whose system identifier is {owner}: the outcome is not written into it"
        ));
    }
    Ok((found, other.is_none()))
}

/// Records the outcome where agents find it for their metrics.
async fn record(
    access: &ArchiveAccess,
    wanted: &VerifyOptions,
    found: &Verification,
    drilled: Option<&DrillReport>,
) -> anyhow::Result<()> {
    // Checking one backup says nothing about the archive.
    if wanted.backup.is_some() && drilled.is_none() {
        return Ok(());
    }
    let before =
        verify::read_record(&*access.store, &access.layout).await.context("cannot read the last outcome")?;
    let good = drilled.filter(|report| report.pages_checked != Some(false));
    let restored = good.map(|report| report.backup.to_string());
    let record = Record::new(found, clock::wall(), restored, before.as_ref());
    let written = verify::write_record(&*access.store, &access.layout, &record).await;
    written.context("cannot write the outcome into the archive")
}

/// Progress: a bar on a terminal, otherwise a line for each tenth. On standard error, so that the result can be piped.
struct Bar {
    bar: Option<ProgressBar>,
    /// Tenths already reported.
    tenths: AtomicU64,
    full: bool,
}

impl Bar {
    fn new(full: bool) -> Self {
        let bar = (full && io::stderr().is_terminal()).then(|| {
            let style = "{bar:30} {percent}% of {total_bytes}, {binary_bytes_per_sec}, {eta} left";
            let bar = ProgressBar::new(0);
            bar.set_style(ProgressStyle::with_template(style).expect("it is a template"));
            bar
        });
        Bar { bar, tenths: AtomicU64::new(0), full }
    }

    fn show(&self, progress: VerifyProgress) {
        if let Some(bar) = &self.bar {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            return;
        }
        let tenth = (progress.done * 10).checked_div(progress.total).unwrap_or(10);
        if self.full && self.tenths.fetch_max(tenth, Ordering::Relaxed) < tenth {
            let (done, total) = (HumanBytes(progress.done), HumanBytes(progress.total));
            // Without a standard error nobody reads it.
            let _ = writeln!(io::stderr(), "outrider: {}% verified, {done} of {total}", tenth * 10);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn document(found: &Verification) -> Value {
    json!({
        "sound": found.is_sound(),
        "full": found.full,
        "backups": found.backups.iter().map(BackupId::to_string).collect::<Vec<_>>(),
        "foreign_backups": found.foreign.iter().map(BackupId::to_string).collect::<Vec<_>>(),
        "segments": found.segments,
        "objects_read": found.objects_read,
        "bytes_read": found.bytes_read,
        "faults": found.faults,
        "more_faults": found.more_faults,
        "notes": found.notes,
    })
}

fn text(found: &Verification) -> String {
    let mut lines: Vec<String> = found.faults.iter().map(|fault| format!("Fault: {fault}")).collect();
    if found.more_faults > 0 {
        lines.push(format!("Fault: {} more", found.more_faults));
    }
    lines.extend(found.notes.iter().map(|note| format!("Note: {note}")));
    let how = if found.full {
        format!("{} objects read, {}", found.objects_read, HumanBytes(found.bytes_read))
    } else {
        "from the listing; --full reads them".to_owned()
    };
    let word = if found.is_sound() { "sound" } else { "NOT sound" };
    lines.push(format!(
        "The archive is {word}: {} backups, {} segments of WAL since the oldest ({how})",
        found.backups.len(),
        found.segments
    ));
    lines.join("\n") + "\n"
}
