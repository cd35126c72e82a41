//! Finds out whose archive it is, and sets aside the backups of other clusters. Removes nothing.

use std::collections::BTreeSet;

use outrider_wal::SegmentSize;

use super::{Backup, BackupState};
use crate::backup::claimed_by;
use crate::{Layout, owner};
use outrider_store::{self as store, Store};

/// Returns the system identifier of the owner: by the writer's own word, else by that of all backups that say one, else by the
/// newest segment of the WAL; `None` when none of them tells.
pub(super) async fn set_aside(
    store: &dyn Store,
    layout: &Layout,
    backups: &mut [Backup],
) -> Result<Option<u64>, store::Error> {
    let owner = match owner::by_writer(store, layout).await? {
        Some(owner) => Some(owner),
        None => by_what_lies_there(store, layout, backups).await?,
    };
    let Some(own) = owner else { return Ok(None) };
    for backup in backups {
        let whose = match &backup.state {
            BackupState::Unfinished => claimed_by(store, layout, &backup.id).await?,
            BackupState::Good(_)
            | BackupState::Lacking { .. }
            | BackupState::Failed(_)
            | BackupState::Foreign { .. }
            | BackupState::Unreadable { .. } => backup.info().and_then(|info| info.system_identifier),
        };
        if let Some(system_identifier) = whose.filter(|whose| *whose != own) {
            let info = backup.info().cloned();
            backup.state = BackupState::Foreign { system_identifier, info };
        }
    }
    Ok(owner)
}

async fn by_what_lies_there(
    store: &dyn Store,
    layout: &Layout,
    backups: &[Backup],
) -> Result<Option<u64>, store::Error> {
    let servers = backups.iter().filter_map(|backup| backup.info()?.system_identifier);
    let servers: BTreeSet<u64> = servers.collect();
    if servers.len() < 2 {
        return Ok(servers.first().copied());
    }
    let newest = backups.iter().rev().find_map(Backup::info);
    let size = newest.map_or(SegmentSize::DEFAULT, |info| info.segment_size);
    // By its WAL only: the first of several backups says nothing.
    let found = owner::by_wal(store, layout, size).await?.map(|(found, _)| found);
    Ok(found.filter(|found| servers.contains(found)))
}
