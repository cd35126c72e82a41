//! Whether an archive would give back what it holds: its WAL without gaps, each object whole, each backup as its manifest
//! says. Changes nothing but its own record. Restores nothing.

mod base;
mod record;
mod wal;

use std::collections::BTreeSet;

use jiff::Timestamp;

use outrider_archive::catalog::{Backup, BackupState, Catalog};
use outrider_archive::{BackupId, BackupInfo, Layout};
use outrider_store::{self as store, Store};

pub use record::{Record, read_record, write_record};

/// Faults that are told in words; the others are counted.
const FAULTS_MAX: usize = 200;
/// An older one without `backup.info` was given up: nothing that a verification must mention as under way.
const UNDER_WAY: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// What to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Only this backup and the WAL since; otherwise all.
    pub backup: Option<BackupId>,
    /// Read every object, instead of listing them.
    pub full: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Whether every object was read.
    pub full: bool,
    /// The backups that were looked at.
    pub backups: Vec<BackupId>,
    /// Backups of other clusters, which were left alone.
    pub foreign: Vec<BackupId>,
    /// Whole segments between the oldest backup and now.
    pub segments: u64,
    /// Objects that were read.
    pub objects_read: u64,
    /// Their bytes as stored.
    pub bytes_read: u64,
    /// What is wrong, in words.
    pub faults: Vec<String>,
    /// Faults beyond those.
    pub more_faults: u64,
    /// What is no fault and yet worth knowing.
    pub notes: Vec<String>,
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Bytes of objects that were read.
    pub done: u64,
    /// Bytes that there are to read, about.
    pub total: u64,
}

impl Verification {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// Adds one, as the caller found it.
    pub fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        } else {
            self.more_faults += 1;
        }
    }
}

/// Looks at a catalog that was just read, and with [`VerifyOptions::full`] at every object.
///
/// # Errors
/// When the store does not answer. What is wrong with the archive is no error but in the result.
pub async fn verify(
    store: &dyn Store,
    layout: &Layout,
    catalog: &Catalog,
    options: &VerifyOptions,
    now: Timestamp,
    progress: &(dyn Fn(VerifyProgress) + Sync),
) -> Result<Verification, store::Error> {
    let mut found = Verification { full: options.full, ..Verification::default() };
    let (foreign, chosen): (Vec<&Backup>, Vec<&Backup>) = catalog
        .backups
        .iter()
        .filter(|backup| options.backup.as_ref().is_none_or(|id| *id == backup.id))
        .partition(|backup| backup.foreign().is_some());
    for backup in foreign {
        let (id, fault) = (&backup.id, backup.fault().unwrap_or_default());
        found.foreign.push(id.clone());
        found.notes.push(format!("backup {id} is {fault}: it is not used, not counted and not removed"));
    }
    if catalog.is_disputed() {
        found.fault("there are backups of several servers, and nothing says whose archive it is".to_owned());
    }
    if chosen.is_empty() {
        found.fault(match &options.backup {
            Some(id) => format!("there is no backup {id} of this cluster"),
            None => "there is no backup".to_owned(),
        });
    } else if chosen.iter().all(|backup| backup.good().is_none()) {
        found.fault("there is no backup that can be restored".to_owned());
    }
    for backup in &chosen {
        look_at(backup, now, &mut found);
    }
    let good: Vec<&BackupInfo> = chosen.iter().filter_map(|backup| backup.good()).collect();
    look_at_wal(catalog, &good, &mut found);
    if options.full {
        read_all(store, layout, catalog, &chosen, &mut found, progress).await?;
    }
    Ok(found)
}

/// What the listing says of one backup.
fn look_at(backup: &Backup, now: Timestamp, found: &mut Verification) {
    let id = &backup.id;
    found.backups.push(id.clone());
    found.notes.extend(backup.notes.iter().map(|note| format!("backup {id}: {note}")));
    match &backup.state {
        BackupState::Good(_) | BackupState::Foreign { .. } => {}
        BackupState::Unfinished => {
            let young = id.time().is_none_or(|begun| now.duration_since(begun) < UNDER_WAY);
            found.notes.push(format!(
                "backup {id} has no backup.info: it {}",
                if young { "may be in progress" } else { "was abandoned; outrider backups prune removes it" }
            ));
        }
        BackupState::Lacking { .. } | BackupState::Failed(_) | BackupState::Unreadable { .. } => {
            let fault = backup.fault().unwrap_or_default();
            found.fault(format!("backup {id} cannot be restored: {fault}"));
        }
    }
    // The mark of a person is a word; every other object of a backup has something in it.
    for object in backup.objects.iter().filter(|object| object.size == 0) {
        found.fault(format!("backup {id}: {} has no bytes", object.name));
    }
}

/// What the listing says of the WAL since the oldest of these backups.
fn look_at_wal(catalog: &Catalog, good: &[&BackupInfo], found: &mut Verification) {
    let mut gaps = BTreeSet::new();
    for info in good {
        let Some(chain) = catalog.wal.chain(info) else { continue };
        found.segments = found.segments.max(chain.segments);
        gaps.extend(chain.gaps.iter().map(|gap| (gap.first, gap.last)));
    }
    // Of two gaps with one end the longer is the one that counts.
    let mut last_ends = BTreeSet::new();
    for (first, last) in gaps {
        if last_ends.insert(last) {
            let gap = outrider_archive::catalog::Gap { first, last };
            found.fault(format!("WAL {gap} is missing"));
        }
    }
    for fault in catalog.wal.bad_histories() {
        found.fault(fault);
    }
    for name in &catalog.wal.empty.0 {
        found.fault(format!("{name} has no bytes"));
    }
    found.more_faults += catalog.wal.empty.1 - catalog.wal.empty.0.len() as u64;
}

async fn read_all(
    store: &dyn Store,
    layout: &Layout,
    catalog: &Catalog,
    chosen: &[&Backup],
    found: &mut Verification,
    progress: &(dyn Fn(VerifyProgress) + Sync),
) -> Result<(), store::Error> {
    let good: Vec<(&Backup, &BackupInfo)> =
        chosen.iter().filter_map(|backup| Some((*backup, backup.good()?))).collect();
    let base: u64 = good.iter().map(|(backup, _)| backup.bytes).sum();
    let mut meter = Meter { total: base + catalog.wal.bytes, done: 0, progress };
    for (backup, info) in &good {
        base::check(store, layout, backup, info, found, &mut meter).await?;
    }
    let size = catalog.wal.segment_size();
    let oldest = good.iter().filter_map(|(_, info)| info.begin_wal).map(|begin| begin.number(size)).min();
    let system_identifier =
        catalog.owner.or_else(|| good.last().and_then(|(_, info)| info.system_identifier));
    if let Some(from) = oldest {
        let expected = wal::Wanted { from, size, system_identifier };
        wal::check(store, layout, &expected, found, &mut meter).await?;
    }
    meter.done = meter.total;
    meter.tell();
    Ok(())
}

/// Counts what was read.
struct Meter<'caller> {
    total: u64,
    done: u64,
    progress: &'caller (dyn Fn(VerifyProgress) + Sync),
}

impl Meter<'_> {
    fn add(&mut self, bytes: u64) {
        self.done = (self.done + bytes).min(self.total);
        self.tell();
    }

    fn tell(&self) {
        (self.progress)(VerifyProgress { done: self.done, total: self.total });
    }
}
