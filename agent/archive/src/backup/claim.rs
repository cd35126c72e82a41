//! Names a base backup, and makes the name its own: an object beside `backup.info` that tells whose the folder is.

use std::time::Duration;

use jiff::Timestamp;

use super::BackupError;
use crate::{BackupId, Layout, Owned, clock};
use outrider_store::random;
use outrider_store::{self as store, Metadata, Store, Stored};

/// The object's name; barman ignores it. Removed when `backup.info` is there.
pub(crate) const CLAIM: &str = "outrider.claim";
/// How far ahead of the clock another backup may lie: barman names its own in local time, which is up to 14 hours ahead.
const AHEAD_MAX: Duration = Duration::from_secs(15 * 3600);
/// Names that are tried.
const TRIES: u32 = 100;

/// A name that nobody else has.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) id: BackupId,
    /// What the object holds.
    token: String,
}

impl Claim {
    /// Makes a name its own: that of this second, or a later one when the archive has a backup of a later name, since
    /// every reader takes the last name for the newest backup. A name further in the future is that of a clock that was
    /// wrong, and must not stop every backup until then.
    pub(crate) async fn make(store: &dyn Store, layout: &Layout, owned: Owned) -> Result<Self, BackupError> {
        let now = Timestamp::try_from(clock::wall()).unwrap_or_default();
        let mut time = now;
        let until = BackupId::beginning_at(now + AHEAD_MAX);
        let newest = newest(store, layout, &BackupId::beginning_at(now), &until).await?;
        if let Some(newest) = newest.and_then(|newest| newest.time()) {
            time = newest + Duration::from_secs(1);
        }
        let whose = owned.system_identifier().map(|own| format!(" {own}")).unwrap_or_default();
        let token = format!("{:016x}{:016x}{whose}\n", random(), random());
        for _ in 0..TRIES {
            let id = BackupId::beginning_at(time);
            let body = bytes::Bytes::from(token.clone()).into();
            match store.put_if_absent(&layout.backup(&id, CLAIM), body, &Metadata::new()).await? {
                Stored::Created => return Ok(Claim { id, token }),
                Stored::AlreadyThere => time += Duration::from_secs(1),
            }
        }
        Err(BackupError::Newer { newest: BackupId::beginning_at(time) })
    }

    /// Whether it is still ours: nobody has swept the backup as abandoned.
    pub(crate) async fn holds(&self, store: &dyn Store, layout: &Layout) -> Result<bool, store::Error> {
        let Some(mut found) = store.get(&layout.backup(&self.id, CLAIM)).await? else { return Ok(false) };
        let mut bytes = Vec::new();
        while let Some(piece) = found.body.next().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > self.token.len() {
                break;
            }
        }
        Ok(bytes == self.token.as_bytes())
    }
}

/// The system identifier of whoever takes the backup, by what the claim holds; `None` when it says none.
pub(crate) fn whose(claim: &[u8]) -> Option<u64> {
    std::str::from_utf8(claim).ok()?.trim().split_once(' ')?.1.parse().ok()
}

/// The last of the names from `from` to `until`.
async fn newest(
    store: &dyn Store,
    layout: &Layout,
    from: &BackupId,
    until: &BackupId,
) -> Result<Option<BackupId>, store::Error> {
    let prefix = layout.backups();
    let (mut newest, mut after) = (None, format!("{prefix}{from}"));
    loop {
        let page = store.list(&prefix, Some(&after), 1000).await?;
        let name = |key: &str| key.strip_prefix(&prefix)?.split('/').next()?.parse::<BackupId>().ok();
        let names = || page.objects.iter().filter_map(|object| name(&object.key));
        newest = names().rfind(|name| name <= until).or(newest);
        if names().any(|name| name > *until) {
            return Ok(newest);
        }
        match page.objects.last() {
            Some(last) if page.more => after.clone_from(&last.key),
            Some(_) | None => return Ok(newest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_store::DirectoryStore;

    async fn claim_beside(other: &str) -> (Result<Claim, BackupError>, BackupId) {
        let directory = tempfile::tempdir().unwrap();
        let (store, layout) = (DirectoryStore::new(directory.path()), Layout::new("homepage").unwrap());
        let key = layout.backup(&other.parse().unwrap(), "backup.info");
        store.put_if_absent(&key, bytes::Bytes::new().into(), &Metadata::new()).await.unwrap();
        let owned = crate::prove_by_hand(&store, &layout, Some(42), None).await.unwrap();
        let claim = Claim::make(&store, &layout, owned).await;
        if let Ok(claim) = &claim {
            assert!(claim.holds(&store, &layout).await.unwrap());
            assert_eq!(whose(claim.token.as_bytes()), Some(42));
            let other = Claim { token: "other".into(), ..claim.clone() };
            assert!(!other.holds(&store, &layout).await.unwrap());
        }
        (claim, other.parse().unwrap())
    }

    #[tokio::test]
    async fn names_never_go_backwards() {
        let now = Timestamp::try_from(clock::wall()).unwrap();
        let (claim, other) = claim_beside("20200101T000000").await;
        assert!(claim.unwrap().id > other);
        let soon = BackupId::beginning_at(now + Duration::from_secs(2 * 3600));
        let (claim, other) = claim_beside(&soon.to_string()).await;
        assert_eq!(claim.unwrap().id.time(), other.time().map(|time| time + Duration::from_secs(1)));
        // A clock was wrong once: its name stops nobody.
        for far in ["29990101T000000", "99999999T999999"] {
            let (claim, other) = claim_beside(far).await;
            let named = claim.unwrap().id;
            assert!(named < other && named.time().is_some_and(|time| time >= now - Duration::from_secs(1)));
        }
    }
}
