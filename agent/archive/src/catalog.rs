//! What an archive holds: its base backups, each with its state, and which WAL without gaps. Changes nothing.

mod document;
mod foreign;
mod lookup;
mod path;
mod wal;

use std::fmt;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use outrider_wal::{Lsn, SegmentSize};

use crate::{BackupId, BackupInfo, BackupStatus, Layout, Owned, ReadBackupInfo};
use outrider_store::{self as store, Store, each_object, read_small};

pub use path::TimelinePath;
pub use wal::{ArchivedWal, Chain, Gap};

/// `backup.info`, histories and marks asked for at one time.
const PARALLEL: usize = 8;
/// A `backup.info` has a few dozen lines, a history a line for each failover.
const SMALL_MAX: u64 = 1 << 20;
/// The mark beside a backup that a person wants to keep (barman's annotations.py).
const KEEP: &str = "annotations/keep";
/// Microseconds since the Unix epoch of the last commit in a segment; in the metadata of its object.
const LAST_COMMIT: &str = "outrider-last-commit";

/// An archive at one moment.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The system identifier of the cluster whose archive it is; `None` when nothing says so.
    pub owner: Option<u64>,
    /// In the order of their ids, which is that of their beginnings.
    pub backups: Vec<Backup>,
    /// The WAL.
    pub wal: ArchivedWal,
    /// The time of the last commit in the last whole segment; `None` when it is not written beside it.
    pub last_commit: Option<Timestamp>,
}

/// One base backup, or what is left of one.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Its name.
    pub id: BackupId,
    /// What it is good for.
    pub state: BackupState,
    /// Bytes of its objects as stored.
    pub bytes: u64,
    /// Its objects.
    pub objects: Vec<BackupObject>,
    /// Whether a person marked it.
    pub keep: Option<Keep>,
    /// What was guessed when its `backup.info` was read.
    pub notes: Vec<String>,
}

/// One object of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupObject {
    /// Its name below the backup's folder, such as `data.tar.gz`.
    pub name: String,
    /// Bytes as stored.
    pub size: u64,
}

/// What a base backup is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupState {
    /// It can be restored: it is whole, and its WAL is there from its beginning to its end.
    Good(BackupInfo),
    /// It says that it is done, and what it needs is not there.
    Lacking {
        /// The backup.
        info: BackupInfo,
        /// What is missing, in words.
        missing: String,
    },
    /// It says that it is not done.
    Failed(BackupInfo),
    /// There is no `backup.info`: it is under way, or was given up.
    Unfinished,
    /// It was taken by another cluster than the one whose archive this is: it is shown, and neither used nor removed.
    Foreign {
        /// Of the server that it was taken of.
        system_identifier: u64,
        /// What its `backup.info` says; `None` when it has none.
        info: Option<BackupInfo>,
    },
    /// There is a `backup.info` that cannot be relied on.
    Unreadable {
        /// Why.
        fault: String,
    },
}

/// Barman's words for what is kept with a marked backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The backup and all WAL since.
    Full,
    /// The backup and the WAL that makes it consistent.
    Standalone,
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Keep::Full => "full",
            Keep::Standalone => "standalone",
        })
    }
}

/// From where to where a server can be recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The oldest good backup.
    pub oldest: BackupId,
    /// When it was consistent: the first point.
    pub begin_time: Option<Timestamp>,
    /// Where it was consistent.
    pub begin_lsn: Option<Lsn>,
    /// The WAL that follows it, gaps and all.
    pub chain: Chain,
    /// The time of the last commit that can be had, when it is known.
    pub end_time: Option<Timestamp>,
}

impl Backup {
    /// What its `backup.info` says, when it can be read.
    #[must_use]
    pub fn info(&self) -> Option<&BackupInfo> {
        match &self.state {
            BackupState::Good(info) | BackupState::Lacking { info, .. } | BackupState::Failed(info) => {
                Some(info)
            }
            BackupState::Foreign { info, .. } => info.as_ref(),
            BackupState::Unfinished | BackupState::Unreadable { .. } => None,
        }
    }

    /// The system identifier of the other cluster that it was taken by.
    #[must_use]
    pub fn foreign(&self) -> Option<u64> {
        match &self.state {
            BackupState::Foreign { system_identifier, .. } => Some(*system_identifier),
            BackupState::Good(_)
            | BackupState::Lacking { .. }
            | BackupState::Failed(_)
            | BackupState::Unfinished
            | BackupState::Unreadable { .. } => None,
        }
    }

    /// The backup, when it can be restored.
    #[must_use]
    pub fn good(&self) -> Option<&BackupInfo> {
        match &self.state {
            BackupState::Good(info) => Some(info),
            BackupState::Lacking { .. }
            | BackupState::Failed(_)
            | BackupState::Unfinished
            | BackupState::Foreign { .. }
            | BackupState::Unreadable { .. } => None,
        }
    }
}

impl Catalog {
    /// Reads the archive of one server: a listing of its backups, WAL and streamed chunks, each `backup.info`, and the
    /// histories of the timelines that are not told by others.
    ///
    /// # Errors
    /// When the store does not answer. What it answers with is in the catalog, however broken.
    pub async fn read(store: &dyn Store, layout: &Layout) -> Result<Catalog, store::Error> {
        let folders = list_backups(store, layout).await?;
        let readings = folders.into_iter().map(|folder| read_backup(store, layout, folder));
        let mut backups: Vec<Backup> = stream::iter(readings).buffered(PARALLEL).try_collect().await?;
        let owner = foreign::set_aside(store, layout, &mut backups).await?;
        let wal = ArchivedWal::read(store, layout, segment_size(&backups)).await?;
        for backup in &mut backups {
            if let BackupState::Good(info) = &backup.state
                && let Some(missing) = missing(info, &backup.objects, &wal)
            {
                backup.state = BackupState::Lacking { info: info.clone(), missing };
            }
        }
        let mut catalog = Catalog { owner, backups, wal, last_commit: None };
        if let Some(window) = catalog.window()
            && let Some(last) = window.chain.last
        {
            catalog.last_commit = last_commit(store, &catalog.wal.key_of(layout, last)).await?;
        }
        Ok(catalog)
    }

    /// From where to where a server can be recovered; `None` without a good backup.
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        let oldest = self.backups.iter().find(|backup| backup.good().is_some())?;
        let info = oldest.good()?;
        Some(Window {
            oldest: oldest.id.clone(),
            begin_time: info.end_time,
            begin_lsn: info.end_lsn,
            chain: self.wal.chain(info)?,
            end_time: self.last_commit,
        })
    }

    /// Whether there are backups of several servers, and nothing says whose archive it is: none of them can be relied on.
    #[must_use]
    pub fn is_disputed(&self) -> bool {
        let servers = self.backups.iter().filter_map(|backup| backup.info()?.system_identifier);
        self.owner.is_none() && servers.collect::<std::collections::BTreeSet<_>>().len() > 1
    }

    /// The backup with this name.
    #[must_use]
    pub fn backup(&self, id: &BackupId) -> Option<&Backup> {
        self.backups.iter().find(|backup| backup.id == *id)
    }
}

/// Of the newest backup that is done: a failed one may not have come to say it.
fn segment_size(backups: &[Backup]) -> SegmentSize {
    let newest_first = || backups.iter().rev().filter(|backup| backup.foreign().is_none());
    let known = newest_first().find_map(Backup::good).or_else(|| newest_first().find_map(Backup::info));
    known.map_or(SegmentSize::DEFAULT, |info| info.segment_size)
}

/// The objects of one backup.
struct Folder {
    id: BackupId,
    objects: Vec<BackupObject>,
    bytes: u64,
}

/// Names that are no id are not ours.
async fn list_backups(store: &dyn Store, layout: &Layout) -> Result<Vec<Folder>, store::Error> {
    let prefix = layout.backups();
    let mut folders: Vec<Folder> = Vec::new();
    each_object(store, &prefix, |key, bytes| {
        let Some((id, object)) = key.strip_prefix(&prefix).and_then(|name| name.split_once('/')) else {
            return;
        };
        let Ok(id) = id.parse::<BackupId>() else { return };
        if folders.last().is_none_or(|folder| folder.id != id) {
            folders.push(Folder { id, objects: Vec::new(), bytes: 0 });
        }
        if let Some(folder) = folders.last_mut() {
            folder.objects.push(BackupObject { name: object.to_owned(), size: bytes });
            folder.bytes += bytes;
        }
    })
    .await?;
    Ok(folders)
}

async fn read_backup(store: &dyn Store, layout: &Layout, folder: Folder) -> Result<Backup, store::Error> {
    let Folder { id, objects, bytes } = folder;
    let has = |name: &str| objects.iter().any(|object| object.name == name);
    let mut notes = Vec::new();
    let state = match has("backup.info") {
        false => BackupState::Unfinished,
        true => match read_small(store, &layout.backup(&id, "backup.info"), SMALL_MAX).await? {
            // Deleted since the listing.
            None => BackupState::Unfinished,
            Some(Err(fault)) => BackupState::Unreadable { fault },
            Some(Ok(file)) => match String::from_utf8(file) {
                Err(_) => BackupState::Unreadable { fault: "backup.info is not UTF-8".to_owned() },
                Ok(text) => match BackupInfo::read(id.clone(), &text) {
                    Err(bad) => BackupState::Unreadable { fault: bad.to_string() },
                    Ok(ReadBackupInfo { info, notes: guessed }) => {
                        notes = guessed;
                        if info.status == BackupStatus::Done {
                            BackupState::Good(info)
                        } else {
                            BackupState::Failed(info)
                        }
                    }
                },
            },
        },
    };
    let keep = if has(KEEP) { keep_mark(store, layout, &id).await? } else { None };
    Ok(Backup { id, state, bytes, objects, keep, notes })
}

/// Whether a backup is marked. A mark that cannot be read keeps everything.
pub(crate) async fn keep_mark(
    store: &dyn Store,
    layout: &Layout,
    id: &BackupId,
) -> Result<Option<Keep>, store::Error> {
    let mark = read_small(store, &layout.backup(id, KEEP), SMALL_MAX).await?;
    Ok(mark.map(|mark| match mark.as_deref().map(<[u8]>::trim_ascii) {
        Ok(b"standalone") => Keep::Standalone,
        Ok(_) | Err(_) => Keep::Full,
    }))
}

/// Marks a backup, or takes its mark away. `owned`: the proof that the archive is one's own.
///
/// # Errors
/// When the store does not do it, or does not say so.
pub async fn mark(
    store: &dyn Store,
    layout: &Layout,
    _owned: Owned,
    id: &BackupId,
    keep: Option<Keep>,
) -> Result<(), store::Error> {
    let key = layout.backup(id, KEEP);
    match keep {
        None => store.delete(&key).await,
        Some(keep) => {
            let word = bytes::Bytes::from(keep.to_string());
            store.put(&key, word.into(), &store::Metadata::new()).await
        }
    }
}

/// What a backup that says it is done cannot be restored without; `None` when all is there.
fn missing(info: &BackupInfo, objects: &[BackupObject], wal: &ArchivedWal) -> Option<String> {
    let tar = |stem: &str| {
        let is_tar = |object: &BackupObject| {
            object.name.strip_prefix(stem).is_some_and(|rest| rest.starts_with(".tar"))
        };
        objects.iter().any(is_tar)
    };
    if !tar("data") {
        return Some("its data.tar".to_owned());
    }
    if let Some(absent) = info.tablespaces.iter().find(|tablespace| !tar(&tablespace.oid.to_string())) {
        return Some(format!("the tar of its tablespace {} ({}.tar)", absent.name, absent.oid));
    }
    let (Some(begin), Some(_), Some(_)) = (info.begin_wal, info.end_wal, info.version) else {
        return Some("its first segment of WAL, last one or version in backup.info".to_owned());
    };
    wal.missing_for(info, begin).map(|gap| format!("its WAL {gap}"))
}

/// `None` when the store keeps no metadata or another program wrote the segment.
async fn last_commit(store: &dyn Store, key: &str) -> Result<Option<Timestamp>, store::Error> {
    let Some(object) = store.head(key).await? else { return Ok(None) };
    let micros = object.metadata.get(LAST_COMMIT).and_then(|text| text.parse::<i64>().ok());
    Ok(micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()))
}
