//! Sockets, pipes and devices in the data directory. pg_rewind takes each for a file of the server it copies from: it fails on a
//! socket, and waits forever on a pipe. Stale sockets of PostgreSQL are removed before a start; anything else is reported.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::settings::Settings;

/// How the names of PostgreSQL's sockets begin.
const OF_POSTGRES: &str = ".s.PGSQL.";
/// Time limit for detecting a listener.
const KNOCK_LIMIT: Duration = Duration::from_millis(500);
/// Most foreign entries of the data directory that are examined.
const ENTRIES_MAX: usize = 100_000;
/// Directories in which only PostgreSQL creates files, possibly many.
const SERVERS_OWN: [&str; 2] = ["base", "global"];

/// Removes sockets that nobody listens on. Nothing may run on the data directory.
pub(crate) async fn clear(settings: &Settings) {
    for path in special_files(&settings.data_directory) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_stale = name.starts_with(OF_POSTGRES) && is_stale(&path).await;
        if !is_stale {
            let path = path.display();
            warn!(
                "{path} is not a regular file: pg_rewind from this member fails or hangs on it; move it elsewhere"
            );
            continue;
        }
        let removed = fs::remove_file(&path);
        let path = path.display();
        match removed {
            Ok(()) => info!("removed the stale socket {path}"),
            Err(fault) => warn!(%fault, "cannot remove the stale socket {path}"),
        }
    }
}

async fn is_stale(socket: &Path) -> bool {
    let knocked = timeout(KNOCK_LIMIT, UnixStream::connect(socket)).await;
    matches!(knocked, Ok(Err(fault)) if fault.kind() == ErrorKind::ConnectionRefused)
}

/// Everything that is neither a file, nor a directory, nor a link. PostgreSQL itself complains about what cannot be read.
fn special_files(data_directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![data_directory.to_owned()];
    let mut looked_at = 0;
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            looked_at += 1;
            if looked_at > ENTRIES_MAX {
                return found;
            }
            let Ok(kind) = entry.file_type() else { continue };
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_servers = directory == data_directory
                && (name.starts_with("pg_") || SERVERS_OWN.contains(&name.as_ref()));
            if kind.is_dir() && !is_servers {
                open.push(entry.path());
            } else if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::settings::tests::settings;

    #[tokio::test]
    async fn only_sockets_of_postgres_that_nobody_listens_at_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let data = &settings.data_directory;
        fs::create_dir_all(data.join("run/deep")).unwrap();
        fs::create_dir_all(data.join("pg_wal")).unwrap();
        let listen = |name: &str| UnixListener::bind(data.join(name)).unwrap();
        let alive = listen("run/.s.PGSQL.5433");
        drop([".s.PGSQL.5432", "run/deep/.s.PGSQL.1", "somebodys.sock"].map(listen));
        fs::write(data.join(".s.PGSQL.5432.lock"), "1").unwrap();
        clear(&settings).await;
        let left: Vec<PathBuf> = ["run/.s.PGSQL.5433", "somebodys.sock"].map(|name| data.join(name)).into();
        assert_eq!(special_files(data), left);
        assert!(data.join(".s.PGSQL.5432.lock").exists(), "it is a file like any other");
        drop(alive);
    }
}
