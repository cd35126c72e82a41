//! Lets the file system tell of files that PostgreSQL marks as ready. The scans find them anyway.

use std::path::{Path, PathBuf};

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Wakes for each `.ready` that appears in `archive_status`, until it is dropped.
pub(super) fn watch(pg_wal: &Path, woken: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let wake = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let appeared =
            matches!(event.kind, EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)));
        let ready = |path: &PathBuf| path.extension().is_some_and(|end| end == "ready");
        if appeared && event.paths.iter().any(ready) {
            // Full means that it will wake already.
            let _ = woken.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(wake)?;
    watcher.watch(&pg_wal.join("archive_status"), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
