//! Removes what is left of base backups that were broken off. Never touches a backup that has a `backup.info`, nor one
//! that this program did not begin.

use std::time::Duration;

use bytes::Bytes;

use super::claim::{CLAIM, whose};
use crate::{BackupId, Layout, Owned, clock};
use outrider_store::{self as store, Metadata, Store, each_object, read_small};

/// A claim has 64 bytes.
const CLAIM_MAX: u64 = 1024;

/// The object that makes a folder a backup.
pub(crate) const INFO: &str = "backup.info";

/// Removes everything of a backup that has no `backup.info`, its claim last, so that a sweep which is broken off can be
/// taken up. Unfinished uploads first: what completes later would be found by nobody.
pub(crate) async fn remove(store: &dyn Store, layout: &Layout, id: &BackupId) -> Result<(), store::Error> {
    let prefix = layout.backup(id, "");
    store.sweep_uploads(&prefix).await?;
    let claim = layout.backup(id, CLAIM);
    let mut after = None;
    loop {
        let page = store.list(&prefix, after.as_deref(), 1000).await?;
        for object in &page.objects {
            if object.key != claim {
                store.delete(&object.key).await?;
            }
        }
        after = page.objects.last().map(|object| object.key.clone());
        if !page.more || after.is_none() {
            return store.delete(&claim).await;
        }
    }
}

/// Removes what a killed program left: base backups that this program began more than `age` ago and that have no
/// `backup.info`, but for `keep`. Backups that barman or another cluster is taking are left alone. Only for whoever holds
/// the cluster's right to take backups; a run that has lost it and goes on notices at its end that it was swept.
///
/// Returns the names of those that were removed.
///
/// # Errors
/// When the store fails; what was not removed then is the next time.
pub async fn sweep_abandoned(
    store: &dyn Store,
    layout: &Layout,
    owned: Owned,
    keep: Option<&BackupId>,
    age: Duration,
) -> Result<Vec<BackupId>, store::Error> {
    let now = jiff::Timestamp::try_from(clock::now()).unwrap_or_default();
    let is_old = |id: &BackupId| id.time().is_some_and(|time| time + age <= now);
    let mut removed = Vec::new();
    for id in unfinished(store, layout).await? {
        if keep != Some(&id) && is_old(&id) && is_ours(store, layout, owned, &id).await? {
            let swept = Bytes::from_static(b"swept\n").into();
            store.put(&layout.backup(&id, CLAIM), swept, &Metadata::new()).await?;
            remove(store, layout, &id).await?;
            removed.push(id);
        }
    }
    Ok(removed)
}

async fn is_ours(
    store: &dyn Store,
    layout: &Layout,
    owned: Owned,
    id: &BackupId,
) -> Result<bool, store::Error> {
    let claim = claimed_by(store, layout, id).await?;
    Ok(claim.is_none_or(|whose| owned.is_of(whose)))
}

/// The system identifier of whoever takes this backup, where the claim says one.
pub(crate) async fn claimed_by(
    store: &dyn Store,
    layout: &Layout,
    id: &BackupId,
) -> Result<Option<u64>, store::Error> {
    let claim = read_small(store, &layout.backup(id, CLAIM), CLAIM_MAX).await?;
    Ok(claim.and_then(Result::ok).and_then(|claim| whose(&claim)))
}

/// Backups with our claim and without `backup.info`.
async fn unfinished(store: &dyn Store, layout: &Layout) -> Result<Vec<BackupId>, store::Error> {
    let prefix = layout.backups();
    let mut claimed: Vec<BackupId> = Vec::new();
    let mut finished: Vec<BackupId> = Vec::new();
    each_object(store, &prefix, |key, _| {
        let Some((id, file)) = key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')) else {
            return;
        };
        match (id.parse(), file) {
            (Ok(id), CLAIM) => claimed.push(id),
            (Ok(id), INFO) => finished.push(id),
            (Ok(_) | Err(_), _) => {}
        }
    })
    .await?;
    claimed.retain(|id| finished.binary_search(id).is_err());
    Ok(claimed)
}
