//! The catalog as JSON, for programs: `outrider backups --format json` and the REST API. Times are RFC 3339 in UTC.

use serde_json::{Value, json};

use super::{Backup, BackupState, Catalog, Gap, Window};

impl Catalog {
    /// `backups`, oldest first; `recovery_window`, null without a good backup; `faults` of the WAL in words.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "system_identifier": self.owner.map(|owner| owner.to_string()),
            "backups": self.backups.iter().map(Backup::document).collect::<Vec<_>>(),
            "recovery_window": self.window().as_ref().map(Window::document),
            "wal": {"segments": self.wal.segments, "bytes": self.wal.bytes},
            "faults": self.wal.bad_histories(),
        })
    }
}

impl Backup {
    /// One word for its state.
    #[must_use]
    pub fn state_word(&self) -> &'static str {
        match self.state {
            BackupState::Good(_) => "done",
            BackupState::Lacking { .. } => "incomplete",
            BackupState::Failed(_) => "failed",
            BackupState::Unfinished => "unfinished",
            BackupState::Foreign { .. } => "foreign",
            BackupState::Unreadable { .. } => "unreadable",
        }
    }

    /// Why it cannot be restored, when that is known.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        match &self.state {
            BackupState::Good(_) | BackupState::Unfinished => None,
            BackupState::Lacking { missing, .. } => Some(format!("{missing} is missing")),
            BackupState::Failed(info) => Some(info.error.clone().unwrap_or_else(|| info.status.to_string())),
            BackupState::Foreign { system_identifier, .. } => {
                Some(format!("of another cluster, whose system identifier is {system_identifier}"))
            }
            BackupState::Unreadable { fault } => Some(fault.clone()),
        }
    }

    fn document(&self) -> Value {
        let info = self.info();
        let text = |found: Option<String>| found.map_or(Value::Null, Value::from);
        json!({
            "id": self.id.to_string(),
            "name": info.and_then(|info| info.name.clone()),
            "state": self.state_word(),
            "fault": self.fault(),
            "keep": text(self.keep.map(|keep| keep.to_string())),
            "begin_time": text(info.and_then(|info| info.begin_time).map(|time| time.to_string())),
            "end_time": text(info.and_then(|info| info.end_time).map(|time| time.to_string())),
            "timeline": info.and_then(|info| info.timeline).map(|timeline| timeline.get()),
            "begin_lsn": text(info.and_then(|info| info.begin_lsn).map(|lsn| lsn.to_string())),
            "end_lsn": text(info.and_then(|info| info.end_lsn).map(|lsn| lsn.to_string())),
            "begin_wal": text(info.and_then(|info| info.begin_wal).map(|wal| wal.to_string())),
            "end_wal": text(info.and_then(|info| info.end_wal).map(|wal| wal.to_string())),
            "system_identifier": text(info.and_then(|info| info.system_identifier).map(|id| id.to_string())),
            "server_version": info.and_then(|info| info.version),
            "stored_bytes": self.bytes,
            "cluster_bytes": info.and_then(|info| info.cluster_size),
            "tablespaces": info.map_or(0, |info| info.tablespaces.len()),
            "notes": self.notes,
        })
    }
}

impl Window {
    fn document(&self) -> Value {
        json!({
            "backup": self.oldest.to_string(),
            "begin_time": self.begin_time.map(|time| time.to_string()),
            "begin_lsn": self.begin_lsn.map(|lsn| lsn.to_string()),
            "end_time": self.end_time.map(|time| time.to_string()),
            "end_lsn": self.chain.end.to_string(),
            "timeline": self.chain.timeline.get(),
            "gaps": self.chain.gaps.iter().map(Gap::document).collect::<Vec<_>>(),
        })
    }
}

impl Gap {
    /// The first and last segment that are missing.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({"first": self.first.to_string(), "last": self.last.to_string()})
    }
}
