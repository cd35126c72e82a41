//! The session file: the id of the etcd lease, so that a restarted agent continues with its predecessor's lease and a
//! second agent with the same name does not. Holds no secret that would open the DCS, but is private all the same.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What can be wrong with the session file when the agent starts.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It could be neither opened nor created.
    #[error("cannot open the session file {path}")]
    Open {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another agent on this machine has it open: two agents must not share a session.
    #[error("the session file {path} is in use by another agent")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
}

/// Time limit for writing: a disk that does not answer must not hold up the lease.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// The file, locked for as long as this lives.
pub(crate) struct SessionFile {
    path: PathBuf,
    file: Arc<File>,
}

/// One lease, or two while keys move from the first to the second.
#[derive(Serialize, Deserialize)]
struct Content {
    leases: Vec<i64>,
}

impl SessionFile {
    /// Opens or creates it, and reads the leases in it. An unreadable file holds none: the agent then waits until the old
    /// lease has expired, like any other agent with this name.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<i64>), SessionError> {
        let failed = |source| SessionError::Open { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SessionError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut text = String::new();
        let leases = match file.read_to_string(&mut text) {
            Ok(_) => serde_json::from_str::<Content>(&text).map(|content| content.leases).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        Ok((SessionFile { path: path.to_owned(), file: Arc::new(file) }, leases))
    }

    /// Writes the leases and waits until they are on disk. A failure is only logged: its price is that a successor waits
    /// for the lease to expire, while refusing the lease would cost the cluster a member.
    pub(crate) async fn write(&self, leases: Vec<i64>) {
        let file = Arc::clone(&self.file);
        let written = tokio::task::spawn_blocking(move || overwrite(&file, leases));
        let outcome = match tokio::time::timeout(WRITE_LIMIT, written).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panicked)) => Err(io::Error::other(panicked)),
            Err(late) => Err(io::Error::new(io::ErrorKind::TimedOut, late)),
        };
        if let Err(error) = outcome {
            tracing::warn!(path = %self.path.display(), %error, "cannot write the session file: a restart will wait for the ttl");
        }
    }
}

/// In place, since the lock is on this very file. Half of it, after a crash, reads as no lease.
fn overwrite(mut file: &File, leases: Vec<i64>) -> io::Result<()> {
    let text = serde_json::to_vec(&Content { leases })?;
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn what_was_written_is_there_for_the_successor_only() {
        let path = std::env::temp_dir().join(format!("outrider-session-{}", std::process::id()));
        let (first, leases) = SessionFile::open(&path).unwrap();
        assert!(leases.is_empty());
        first.write(vec![7, 8]).await;
        first.write(vec![9]).await;
        assert!(matches!(SessionFile::open(&path), Err(SessionError::InUse { .. })));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(first);
        assert_eq!(SessionFile::open(&path).unwrap().1, [9]);
        std::fs::remove_file(&path).unwrap();
    }
}
