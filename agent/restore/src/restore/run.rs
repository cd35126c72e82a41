//! Carries out a plan: the files of a base backup into a fresh directory, checked, durable, and told where to recover
//! to. Chooses nothing and starts nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::control;
use super::download::small;
use super::files::{Destination, Shared, cannot};
use super::place::Place;
use super::pull::{Tar, pull};
use super::settings::{self, Circumstances};
use super::{Phase, RestoreOptions, RestoreProgress, Restored};
use crate::clock;
use crate::error::RestoreError;
use crate::manifest::Manifest;
use crate::plan::Plan;
use outrider_archive::compression::Format;
use outrider_archive::{BackupIndex, INDEX, MANIFEST};
use outrider_archive::{BackupInfo, Layout, Tablespace};
use outrider_store::{Store, each_object};

/// Tars without an index that are unpacked at one time, a thread each.
const TARS: usize = 4;
/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_millis(200);
/// An index has some hundred bytes for each 8 MiB, a manifest about 150 for each file.
const INDEX_MAX: usize = 64 << 20;
const MANIFEST_MAX: usize = 512 << 20;

/// What there is of a backup in the store.
struct Stock {
    tars: Vec<Tar>,
    manifest: Option<Vec<u8>>,
    /// Bytes of all tars, when an index says.
    plain: Option<u64>,
}

/// A tablespace and where it goes; `None` when it lies in the data directory itself.
struct Space<'a> {
    tablespace: &'a Tablespace,
    place: Option<PathBuf>,
}

pub(super) async fn run(
    store: &Arc<dyn Store>,
    layout: &Layout,
    options: &RestoreOptions,
    (plan, directory): (&Plan, &Path),
    progress: &watch::Sender<RestoreProgress>,
    cancel: &CancellationToken,
) -> Result<Restored, RestoreError> {
    let begun = clock::monotonic();
    let tell = |phase, shared: Option<&Shared>, total: u64| {
        let count = |bytes: &std::sync::atomic::AtomicU64| bytes.load(Ordering::Relaxed);
        let (bytes, files) = shared.map_or((0, 0), |shared| (count(&shared.bytes), count(&shared.files)));
        progress.send_replace(RestoreProgress {
            phase,
            bytes,
            bytes_total: total,
            files,
            elapsed: begun.elapsed(),
        });
    };
    tell(Phase::Checking, None, 0);
    let directory = std::path::absolute(directory).map_err(|source| cannot("find", directory, source))?;
    let stock = stock(&**store, layout, &plan.backup).await?;
    let manifest = stock.manifest.as_deref().map(Manifest::read).transpose();
    let manifest = manifest.map_err(|fault| RestoreError::Damaged { object: MANIFEST.to_owned(), fault })?;
    let spaces = spaces(&plan.backup, options)?;
    let total = stock.plain.or(plan.plain_bytes).unwrap_or_default();

    let places: Vec<PathBuf> = spaces.iter().filter_map(|space| space.place.clone()).collect();
    let (root, owner, again) = (directory.clone(), options.owner, options.overwrite_half);
    let place = blocking(move || Place::claim(&root, places, owner, again)).await?;
    let verified = manifest.is_some();
    let shared = Arc::new(Shared::new(manifest, place.owner, options.no_sync));
    let _stop = StopWhenDropped(shared.clone());
    let filled = {
        let work = fill(store, &stock, plan, options, &spaces, &place, &shared, cancel);
        let mut work = std::pin::pin!(work);
        let mut ticks = interval(TOLD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                filled = &mut work => break filled,
                _ = ticks.tick() => tell(Phase::Copying, Some(&shared), total),
            }
        }
    };
    if let Err(fault) = filled {
        return Err(clean_up(place, fault).await);
    }
    tell(Phase::Syncing, Some(&shared), total);
    let durable = !options.no_sync;
    blocking(move || place.finish(durable)).await?;
    tell(Phase::Done, Some(&shared), total);
    Ok(Restored {
        directory,
        files: shared.files.load(Ordering::Relaxed),
        bytes: shared.bytes.load(Ordering::Relaxed),
        verified,
        left_out: shared.left_out(),
        took: begun.elapsed(),
    })
}

/// What broke off is removed, unless it shows what is wrong with the backup.
async fn clean_up(place: Place, fault: RestoreError) -> RestoreError {
    if !fault.leaves_nothing_worth_keeping() {
        return fault;
    }
    let removed = blocking(move || Ok(place.remove_everything())).await.unwrap_or(false);
    match fault {
        RestoreError::DiskFull { path, .. } => RestoreError::DiskFull { path, removed },
        RestoreError::Cancelled { .. } => RestoreError::Cancelled { removed },
        fault => fault,
    }
}

/// Threads that still write stop when nobody waits for them any more.
struct StopWhenDropped(Arc<Shared>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

#[expect(clippy::too_many_arguments, reason = "each is one thing, and a struct of them would be used once")]
async fn fill(
    store: &Arc<dyn Store>,
    stock: &Stock,
    plan: &Plan,
    options: &RestoreOptions,
    spaces: &[Space<'_>],
    place: &Place,
    shared: &Arc<Shared>,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    let data = Destination {
        object: String::new(),
        root: place.root.clone(),
        prefix: String::new(),
        shared: shared.clone(),
    };
    let pulls = stock.tars.iter().map(|tar| {
        let destination = destination(&data, tar, spaces);
        async move { pull(store, tar, destination?, cancel).await }
    });
    // With an index each one uses all cores by itself.
    let at_once = if stock.tars.iter().all(|tar| tar.index.is_some()) { 1 } else { TARS };
    let mut pulls = stream::iter(pulls).buffer_unordered(at_once);
    let mut outcome = Ok(());
    while let Some(pulled) = pulls.next().await {
        // The others must come to their ends before anything is removed; the flag makes them hurry.
        outcome = match (outcome, pulled) {
            (Ok(()) | Err(RestoreError::Cancelled { .. }), Err(fault)) => Err(fault),
            (outcome, Ok(()) | Err(_)) => outcome,
        };
    }
    outcome?;
    shared.check_complete()?;
    let (backup, manifest) = (plan.backup.clone(), stock.manifest.clone());
    let circumstances = Circumstances {
        timeline: plan.timeline(),
        standby: options.standby,
        restore_command: &options.restore_command,
        version: backup.version,
        in_place: has_tablespace_in_place(&place.root)?,
        least: least(plan, options, &place.root)?,
    };
    let old = fs::read_to_string(place.root.join("postgresql.auto.conf")).unwrap_or_default();
    let auto_conf = settings::auto_conf(&old, &plan.goal, &circumstances);
    data.write_own("postgresql.auto.conf", auto_conf.as_bytes())?;
    data.write_own(settings::signal(options.standby), b"")?;
    for (name, text) in settings::WHERE_THERE_IS_NONE {
        if !place.root.join(name).exists() {
            data.write_own(name, text.as_bytes())?;
        }
    }
    data.complete_directories()?;
    label(&data, &backup)?;
    if let Some(manifest) = manifest {
        data.write_own(MANIFEST, &manifest)?;
    }
    link(place, spaces)
}

/// What a server that answers queries in recovery needs at least: by the backup's control file, and by the WAL after it.
fn least(plan: &Plan, options: &RestoreOptions, root: &Path) -> Result<Option<[u32; 5]>, RestoreError> {
    if !settings::is_hot(&plan.goal, options.standby) {
        return Ok(None);
    }
    let mut least = control::least(root)?;
    least.iter_mut().zip(plan.raised).for_each(|(least, raised)| *least = (*least).max(raised));
    Ok(Some(least))
}

/// Whether a tablespace is a directory in the data directory itself: made with `allow_in_place_tablespaces`.
fn has_tablespace_in_place(root: &Path) -> Result<bool, RestoreError> {
    let path = root.join("pg_tblspc");
    let failed = |source| cannot("read", &path, source);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(fault) => return Err(failed(fault)),
    };
    for entry in entries {
        if entry.and_then(|entry| entry.file_type()).map_err(failed)?.is_dir() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Without its label Postgres would take the copy for a crashed server, and would be corrupt.
fn label(data: &Destination, backup: &BackupInfo) -> Result<(), RestoreError> {
    match &backup.backup_label {
        _ if data.root.join("backup_label").exists() => Ok(()),
        Some(label) => data.write_own("backup_label", label.as_bytes()),
        None => Err(RestoreError::Lacks { id: backup.id.clone(), object: "its backup_label".to_owned() }),
    }
}

/// The links by which Postgres finds its tablespaces.
fn link(place: &Place, spaces: &[Space<'_>]) -> Result<(), RestoreError> {
    for Space { tablespace, place: target } in spaces {
        let Some(target) = target else { continue };
        let link = place.root.join("pg_tblspc").join(tablespace.oid.to_string());
        let linked = std::os::unix::fs::symlink(target, &link).and_then(|()| match place.owner {
            Some((user, group)) => std::os::unix::fs::lchown(&link, Some(user), Some(group)),
            None => Ok(()),
        });
        linked.map_err(|source| cannot("link", &link, source))?;
    }
    Ok(())
}

fn destination(data: &Destination, tar: &Tar, spaces: &[Space<'_>]) -> Result<Destination, RestoreError> {
    let object = tar.name.clone();
    let Some(oid) = tar.tablespace else { return Ok(Destination { object, ..data.clone() }) };
    let prefix = format!("pg_tblspc/{oid}/");
    let space = spaces.iter().find(|space| space.tablespace.oid == oid);
    let root = match space.map(|space| &space.place) {
        Some(Some(place)) => place.clone(),
        Some(None) => data.root.join(&prefix),
        None => {
            let fault = "it is of a tablespace that backup.info does not name".to_owned();
            return Err(RestoreError::Damaged { object, fault });
        }
    };
    if space.is_some_and(|space| space.place.is_none()) {
        data.make(&root)?;
    }
    Ok(Destination { object, root, prefix, shared: data.shared.clone() })
}

/// Where each tablespace goes.
fn spaces<'a>(backup: &'a BackupInfo, options: &RestoreOptions) -> Result<Vec<Space<'a>>, RestoreError> {
    let used = |old: &str| backup.tablespaces.iter().any(|space| space.location == *old);
    if let Some((old, _)) = options.tablespaces.iter().find(|(old, _)| !used(old)) {
        let known: Vec<&str> = backup.tablespaces.iter().map(|space| space.location.as_str()).collect();
        return Err(RestoreError::InTheWay {
            path: PathBuf::from(old),
            fault: format!("is not a tablespace of the backup, which has {known:?}"),
        });
    }
    let space = |tablespace: &'a Tablespace| {
        let mapped = options.tablespaces.iter().find(|(old, _)| *old == tablespace.location);
        // With allow_in_place_tablespaces it is a directory below pg_tblspc, and the location is relative.
        let in_place = !tablespace.location.starts_with('/');
        let place = match mapped {
            Some((_, new)) => Some(new.clone()),
            None if in_place => None,
            None => Some(PathBuf::from(&tablespace.location)),
        };
        Space { tablespace, place }
    };
    Ok(backup.tablespaces.iter().map(space).collect())
}

/// Looks what there is of the backup.
async fn stock(store: &dyn Store, layout: &Layout, backup: &BackupInfo) -> Result<Stock, RestoreError> {
    let prefix = layout.backup(&backup.id, "");
    let mut tars = Vec::new();
    let mut names = Vec::new();
    each_object(store, &prefix, |key, size| {
        let Some(name) = key.strip_prefix(&prefix) else { return };
        names.push(name.to_owned());
        if let Some((tablespace, format)) = tar_of(name) {
            let (key, name) = (key.to_owned(), name.to_owned());
            tars.push(Tar { key, name, size, format, tablespace, index: None });
        }
    })
    .await
    .map_err(RestoreError::Store)?;
    let lacks = |object: String| RestoreError::Lacks { id: backup.id.clone(), object };
    if !tars.iter().any(|tar| tar.tablespace.is_none()) {
        return Err(lacks("its data.tar".to_owned()));
    }
    for space in &backup.tablespaces {
        if !tars.iter().any(|tar| tar.tablespace == Some(space.oid)) {
            return Err(lacks(format!("the tar of its tablespace {} ({}.tar)", space.name, space.oid)));
        }
    }
    let has = |name: &str| names.iter().any(|found| found == name);
    let manifest = match has(MANIFEST) {
        true => small(store, &layout.backup(&backup.id, MANIFEST), MANIFEST_MAX).await?,
        false => None,
    };
    let index = match has(INDEX) {
        true => small(store, &layout.backup(&backup.id, INDEX), INDEX_MAX).await?,
        false => None,
    };
    let mut plain = None;
    if let Some(index) = index {
        let damaged = |fault: serde_json::Error| RestoreError::Damaged {
            object: INDEX.to_owned(),
            fault: fault.to_string(),
        };
        let index: BackupIndex = serde_json::from_slice(&index).map_err(damaged)?;
        if index.version == BackupIndex::VERSION {
            check_index(&index, &tars, manifest.as_deref()).map_err(lacks)?;
            plain = Some(index.tars.iter().map(|tar| tar.plain).sum());
            for tar in &mut tars {
                tar.index = index.tars.iter().find(|indexed| indexed.name == tar.name).cloned();
            }
        }
    }
    // The largest first, so that at the end not one thread has all to do.
    tars.sort_by_key(|tar| std::cmp::Reverse(tar.size));
    Ok(Stock { tars, manifest, plain })
}

/// What an index names must be there: it is ours, and we wrote all of it.
fn check_index(index: &BackupIndex, tars: &[Tar], manifest: Option<&[u8]>) -> Result<(), String> {
    let missing = |indexed: &&outrider_archive::TarIndex| !tars.iter().any(|tar| tar.name == indexed.name);
    if let Some(missing) = index.tars.iter().find(missing) {
        return Err(missing.name.clone());
    }
    match manifest {
        Some(manifest) if manifest.len() as u64 == index.manifest_bytes => Ok(()),
        Some(_) => Err(format!("a whole {MANIFEST}")),
        None => Err(MANIFEST.to_owned()),
    }
}

/// Whose tar it is, by its name: `data.tar.gz`, `data_0001.tar`, `16400.tar.bz2`.
fn tar_of(name: &str) -> Option<(Option<u32>, Format)> {
    let (stem, suffix) = name.split_once(".tar")?;
    let format = Format::ALL.into_iter().find(|format| format.suffix() == suffix)?;
    let (whose, part) = stem.split_once('_').unwrap_or((stem, "0001"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let tablespace = match whose {
        "data" => None,
        oid if digits(oid) => Some(oid.parse().ok()?),
        _ => return None,
    };
    digits(part).then_some((tablespace, format))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|gone| Err(format!("a thread ended early: {gone}").into()))
}

#[cfg(test)]
mod tests;
