//! The journal of a rollback, in the state directory: it tells an agent that comes after how far an earlier one was. Does not act on it.
//!
//! It says `preparing` from before anything is written beside the data until that is removed, and `swapping` from before the first rename. The
//! second rename is the point of no return: an agent that finds the data directory missing puts the old one back, and one that finds both
//! renames done goes on with the new one.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::file;
use crate::settings::Settings;

/// In the state directory.
const JOURNAL: &str = "rollback.json";

/// How far a rollback is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Of the request.
    pub(crate) id: String,
    /// Where the old data goes; `None` before the swap.
    #[serde(default)]
    pub(crate) aside: Option<PathBuf>,
}

/// Whether a swap was begun and not finished.
pub(crate) fn is_swapping(settings: &Settings) -> Result<bool, Error> {
    Ok(Journal::read(settings)?.is_some_and(|journal| journal.aside.is_some()))
}

impl Journal {
    pub(crate) fn read(settings: &Settings) -> Result<Option<Self>, Error> {
        let path = path_in(settings);
        let Some(text) = file::read_if_there(&path)? else { return Ok(None) };
        let bad = |fault: serde_json::Error| io::Error::new(io::ErrorKind::InvalidData, fault);
        serde_json::from_str(&text).map(Some).map_err(|fault| Error::Read { path, source: bad(fault) })
    }

    pub(crate) fn write(&self, settings: &Settings) -> Result<(), Error> {
        let path = path_in(settings);
        let text = serde_json::to_string(self).map_err(|fault| Error::Write {
            path: path.clone(),
            source: io::Error::new(io::ErrorKind::InvalidData, fault),
        })?;
        file::replace(&path, &text, 0o600)
    }

    pub(crate) fn remove(settings: &Settings) -> Result<(), Error> {
        file::remove(&path_in(settings))
    }
}

fn path_in(settings: &Settings) -> PathBuf {
    settings.state_directory.join(JOURNAL)
}
