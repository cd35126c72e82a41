//! The metrics of base backups: how the last one went, progress of the current one, and what the archive can restore.

use jiff::Timestamp;
use outrider_dcs::{BackupOutcome, Snapshot};

use super::family::Families;
use crate::backup::{Drills, Seen, Shelf};

pub(super) fn add(cluster: Option<&Snapshot>, shelf: Option<&Shelf>, families: &mut Families) {
    let seen = shelf.and_then(Shelf::last);
    add_cnpg(seen.as_deref(), families);
    if let Some(shelf) = shelf {
        add_archive(seen.as_deref(), shelf, families);
    }
    if let Some(cluster) = cluster {
        add_running(cluster, families);
        if let Some(last) = &cluster.backup_last {
            add_last(&last.value, families);
        }
    }
}

/// Under CloudNativePG's names.
fn add_cnpg(seen: Option<&Seen>, families: &mut Families) {
    let good = || seen.into_iter().flat_map(|seen| &seen.catalog.backups).filter_map(|backup| backup.good());
    let newest = seconds(good().filter_map(|info| info.end_time).max());
    let help = "When the last base backup was made, in seconds since the epoch; 0 for never";
    families.gauge("cnpg_pg_last_backup_timestamp", help, newest);
    families.gauge("cnpg_collector_last_available_backup_timestamp", help, newest);
    let first = seen.and_then(|seen| seen.catalog.window()).and_then(|window| window.begin_time);
    families.gauge(
        "cnpg_collector_first_recoverability_point",
        "The first moment that the archive can restore, in seconds since the epoch; 0 for none",
        seconds(first),
    );
}

fn add_archive(seen: Option<&Seen>, shelf: &Shelf, families: &mut Families) {
    let help =
        "When outrider verify last restored a backup to the end, in seconds since the epoch; 0 for never";
    families.gauge("outrider_last_verified_restore_timestamp_seconds", help, seconds(shelf.verified()));
    add_drills(&shelf.drills(), families);
    let Some(seen) = seen else { return };
    let window = seen.catalog.window();
    let gaps = window.as_ref().map_or(0, |window| window.chain.gaps.len());
    families.gauge(
        "outrider_archive_gaps",
        "Gaps in the WAL that follows the oldest good base backup",
        u64::try_from(gaps).unwrap_or(u64::MAX),
    );
    let good = seen.catalog.backups.iter().filter(|backup| backup.good().is_some()).count();
    families.gauge(
        "outrider_backups",
        "Base backups in the archive that can be restored",
        u64::try_from(good).unwrap_or(u64::MAX),
    );
    let (foreign, own): (Vec<_>, Vec<_>) =
        seen.catalog.backups.iter().partition(|backup| backup.foreign().is_some());
    families.gauge(
        "outrider_backups_foreign",
        "Base backups in the archive that another cluster took there; they are neither used nor removed",
        u64::try_from(foreign.len()).unwrap_or(u64::MAX),
    );
    let bytes = own.into_iter().map(|backup| backup.bytes).sum::<u64>();
    families.gauge("outrider_backups_stored_bytes", "Size of all base backups in the archive", bytes);
}

fn add_drills(drills: &Drills, families: &mut Families) {
    families.gauge("outrider_drill_running", "1 if this member is running a restore drill", drills.running);
    let outcomes = [
        ("done", drills.done),
        ("failed", drills.failed),
        ("skipped", drills.skipped),
        ("given_up", drills.given_up),
    ];
    let help = "Restore drills of this member by their outcome; skipped are those without room";
    families.counters("outrider_drills", help, "outcome", outcomes);
}

fn add_running(cluster: &Snapshot, families: &mut Families) {
    families.gauge("outrider_backup_running", "1 if a base backup is being taken", cluster.backup.is_some());
    if let Some(taken) = &cluster.backup {
        let claim = &taken.claim;
        let done =
            if claim.bytes_total == 0 { 0.0 } else { claim.bytes_done as f64 / claim.bytes_total as f64 };
        families.gauge("outrider_backup_progress", "How much of it is read, from 0 to 1", done.min(1.0));
    }
}

fn add_last(last: &BackupOutcome, families: &mut Families) {
    let time = |text: &str| text.parse::<Timestamp>().ok();
    families.gauge(
        "outrider_backup_last_failed",
        "1 if the last requested base backup failed",
        last.error.is_some() && !last.cancelled,
    );
    families.gauge(
        "outrider_backup_failures",
        "Base backups that have failed since the last good one",
        last.failures,
    );
    let took = time(&last.finished).zip(time(&last.began)).map(|(end, begin)| end.duration_since(begin));
    families.gauge(
        "outrider_backup_last_duration_seconds",
        "How long the last base backup took",
        took.unwrap_or_default().as_secs_f64(),
    );
    families.gauge("outrider_backup_last_bytes", "Its size before compression", last.bytes);
    families.gauge("outrider_backup_last_stored_bytes", "Its size in the archive", last.bytes_stored);
}

fn seconds(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, |at| at.as_millisecond() as f64 / 1000.0)
}
