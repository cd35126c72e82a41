//! Why a file of the WAL was not fetched, when it is not for its absence.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use outrider_wal::WalFileName;

use outrider_archive::ContentError;
use outrider_store::{self as store, causes};

/// Nobody knows whether the archive has the file, or it has and the file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The store gave no answer or a refusal.
    #[error("cannot fetch {name} from the archive")]
    Store {
        /// The file.
        name: WalFileName,
        /// What the store said.
        #[source]
        source: store::Error,
    },
    /// The time is up.
    #[error("cannot fetch {name} from the archive within {limit:?}{}", after(.last))]
    Late {
        /// The file.
        name: WalFileName,
        /// The time.
        limit: Duration,
        /// The last failure before.
        last: Option<Box<FetchError>>,
    },
    /// The store was silent a moment ago and was not asked.
    #[error("the archive {url} did not answer a moment ago; {name} was not requested")]
    Silent {
        /// The store.
        url: String,
        /// The file.
        name: WalFileName,
    },
    /// The destination cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The object cannot be decompressed, or is longer than any file of the WAL.
    #[error("the object {key} is damaged: {fault}")]
    Damaged {
        /// Its key.
        key: String,
        /// In which way.
        fault: String,
    },
    /// The object is not what its name says.
    #[error("the object {key} is not usable")]
    Content {
        /// Its key.
        key: String,
        /// In which way.
        #[source]
        source: ContentError,
    },
}

fn after(last: &Option<Box<FetchError>>) -> String {
    last.as_ref().map(|last| format!(": {}", causes(last.as_ref()))).unwrap_or_default()
}

impl FetchError {
    /// Whether there was no room where the file was to be written.
    pub(super) fn is_disk_full(&self) -> bool {
        let full = |source: &io::Error| {
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        matches!(self, FetchError::Write { source, .. } if full(source))
    }
}
