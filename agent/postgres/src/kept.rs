//! What a member keeps of its configuration on disk: the last parameters that its server accepted, and what that server
//! knows, so that a wrong value in the DCS is reported even while nothing runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::file;
use crate::known::KnownParameters;
use crate::settings::Settings;

const FILE: &str = "parameters.json";

/// The last good configuration of the cluster, as far as this member knows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptParameters {
    /// Parameters of the whole cluster.
    pub parameters: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf` of the whole cluster.
    pub pg_hba: Vec<String>,
    /// What the server knows.
    pub known: KnownParameters,
}

impl KeptParameters {
    /// Reads it from the state directory; `None` when there is none yet.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn read(settings: &Settings) -> Result<Option<Self>, Error> {
        let text = file::read_if_there(&path(settings))?;
        // A file of another version is ignored: it is rewritten as soon as Postgres runs.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Writes it to the state directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, settings: &Settings) -> Result<(), Error> {
        let path = path(settings);
        let text = serde_json::to_string(self)
            .map_err(|fault| Error::Write { path: path.clone(), source: std::io::Error::other(fault) })?;
        file::replace(&path, &text, 0o600)
    }
}

fn path(settings: &Settings) -> PathBuf {
    settings.state_directory.join(FILE)
}
