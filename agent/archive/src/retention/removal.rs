//! Takes backups and WAL out of the archive, in an order that can break off anywhere. Decides nothing.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use outrider_wal::{SegmentSize, WalFileName};

use super::{RetentionPlan, WalVerdict};
use crate::catalog::keep_mark;
use crate::compression::split_suffix;
use crate::{BackupId, Layout, Owned};
use outrider_store::{self as store, Listed, Store};

/// Objects deleted at one time.
const PARALLEL: usize = 8;
/// Objects in one page of a listing.
const PAGE: usize = 1000;

/// What is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Backups.
    pub backups: Vec<BackupId>,
    /// Objects below `wals/`.
    pub wal_files: u64,
    /// Bytes of all of it as stored.
    pub bytes: u64,
}

/// Removes what the plan says: backups from the oldest, then WAL. `owned`: the proof that the archive is one's own.
///
/// # Errors
/// When the store does not do it. What was removed until then is gone; a later run goes on.
pub async fn remove_obsolete(
    store: &dyn Store,
    layout: &Layout,
    owned: Owned,
    plan: &RetentionPlan,
    size: SegmentSize,
) -> Result<Removed, store::Error> {
    let mut removed = Removed::default();
    for verdict in plan.backups.iter().filter(|verdict| !verdict.reason.keeps()) {
        // Somebody may have marked it since. Then its WAL stays as well.
        if keep_mark(store, layout, &verdict.id).await?.is_some() {
            return Ok(removed);
        }
        remove_backup(store, layout, owned, &verdict.id).await?;
        removed.backups.push(verdict.id.clone());
        removed.bytes += verdict.bytes;
    }
    remove_wal(store, layout, &plan.wal, size, &mut removed).await?;
    Ok(removed)
}

/// Removes one backup: `backup.info` first, so that no list ever has one that cannot be restored, then its data, and what
/// was never completed of it.
///
/// # Errors
/// When the store does not do it.
pub async fn remove_backup(
    store: &dyn Store,
    layout: &Layout,
    _owned: Owned,
    id: &BackupId,
) -> Result<(), store::Error> {
    store.delete(&layout.backup(id, "backup.info")).await?;
    let folder = layout.backup(id, "");
    delete_where(store, &folder, |_| true).await?;
    store.sweep_uploads(&folder).await?;
    Ok(())
}

async fn remove_wal(
    store: &dyn Store,
    layout: &Layout,
    verdict: &WalVerdict,
    size: SegmentSize,
    removed: &mut Removed,
) -> Result<(), store::Error> {
    if let WalVerdict::Stays { .. } = verdict {
        return Ok(());
    }
    let (files, bytes) = delete_where(store, &layout.wals(), |key| goes(key, verdict, size)).await?;
    removed.wal_files += files;
    removed.bytes += bytes;
    Ok(())
}

/// Segments, partial ones and backup histories go by their segment. Histories never, and nothing that is no WAL.
fn goes(key: &str, verdict: &WalVerdict, size: SegmentSize) -> bool {
    let file = key.rsplit('/').next().unwrap_or_default();
    match split_suffix(file).0.parse() {
        Ok(
            WalFileName::Segment(segment)
            | WalFileName::Partial(segment)
            | WalFileName::BackupHistory { segment, .. },
        ) => verdict.removes(segment.number(size)),
        Ok(WalFileName::History(_)) | Err(_) => false,
    }
}

/// Deletes objects below `prefix`, page by page. Returns how many, and their bytes.
async fn delete_where(
    store: &dyn Store,
    prefix: &str,
    goes: impl Fn(&str) -> bool,
) -> Result<(u64, u64), store::Error> {
    let (mut files, mut bytes, mut after) = (0, 0, None::<String>);
    loop {
        let page = store.list(prefix, after.as_deref(), PAGE).await?;
        let last = page.objects.last().map(|object| object.key.clone());
        let going: Vec<Listed> = page.objects.into_iter().filter(|object| goes(&object.key)).collect();
        let deletions = going.iter().map(|object| store.delete(&object.key));
        stream::iter(deletions).map(Ok).try_for_each_concurrent(PARALLEL, |deletion| deletion).await?;
        files += going.len() as u64;
        bytes += going.iter().map(|object| object.size).sum::<u64>();
        if !page.more || last.is_none() {
            return Ok((files, bytes));
        }
        after = last;
    }
}
