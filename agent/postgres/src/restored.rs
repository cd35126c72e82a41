//! A data directory that came from a base backup: room for it, marks while it is incomplete, and its recovery to the end.
//! Knows no archive: whoever copies the files is told where, and says when they are all there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use outrider_supervisor::protocol::Tool;
use tracing::info;

use crate::configuration::{self, Configuration};
use crate::control::ControlData;
use crate::directory::{self, Directory, UnfinishedWork};
use crate::error::Error;
use crate::file;
use crate::instrument::Postgres;
use crate::room::NewData;

impl Postgres {
    /// Makes room for the first data of a new cluster, as before initdb. Remains of an earlier attempt are removed.
    ///
    /// # Errors
    /// When the directory holds data, or the supervisor runs something on it.
    pub async fn prepare_first(&self) -> Result<(), Error> {
        let settings = &self.settings;
        self.is_free().await?;
        match directory::inspect(settings)? {
            Directory::Empty => UnfinishedWork::Initialize.begin(settings, &[]),
            Directory::HalfInitialized | Directory::HalfCloned => {
                self.make_room(UnfinishedWork::Initialize, NewData::default()).await
            }
            Directory::Complete | Directory::HalfRewound | Directory::Refused(_) => {
                Err(Error::NotEmpty { path: settings.data_directory.clone() })
            }
        }
    }

    /// Replays the archive's WAL up to `target`, and ends as a cleanly stopped primary on a timeline of its own. `target`:
    /// settings for the recovery, including `restore_command`.
    ///
    /// It is a single process without a socket, as in initdb: nobody can write to it, so no fuse is needed, and nobody
    /// takes it for a standby that could be promoted before it has reached its target.
    ///
    /// # Errors
    /// When it fails; the data directory stays marked.
    pub async fn recover(&self, wanted: &Configuration, target: &[(String, String)]) -> Result<(), Error> {
        self.replay(wanted, target, Tool::PostgresSingleUser).await?;
        directory::set_unrecorded(&self.settings, true)?;
        UnfinishedWork::Initialize.finish(&self.settings)
    }

    /// Runs the recovery with `tool`; returns the control file it ended with.
    pub(crate) async fn replay(
        &self,
        wanted: &Configuration,
        target: &[(String, String)],
        tool: Tool,
    ) -> Result<ControlData, Error> {
        let settings = &self.settings;
        let directory = &settings.data_directory;
        let mut arguments = wanted.write_for_start(settings, &BTreeMap::new())?;
        configuration::set_standby_signal(directory, false)?;
        file::replace(&directory.join("recovery.signal"), "", 0o600)?;
        // Without it the old primary's limits would have to be met, for queries that nobody runs here.
        let fixed = [("hot_standby".to_owned(), "off".to_owned())];
        for (name, value) in fixed.iter().chain(target) {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        arguments.push("template1".to_owned());
        let environment = vec![("LC_ALL".to_owned(), "C".to_owned())];
        info!(?target, "recovering from the archive");
        self.supervisor.run_tool(tool, arguments, environment, true).await?;
        let control = self.control_data().await?;
        let signal = directory.join("recovery.signal");
        if !control.is_clean_primary() || signal.exists() {
            return Err(Error::NotRecovered { path: directory.clone() });
        }
        Ok(control)
    }

    /// Whether its data was made to start a cluster, and has not done so. If another member started the cluster from the
    /// same archive, both have the same system identifier and timelines, but not the same data after that.
    #[must_use]
    pub fn is_unrecorded(&self) -> bool {
        directory::is_unrecorded(&self.settings)
    }

    /// The cluster is about to be recorded with this data.
    ///
    /// # Errors
    /// When the mark cannot be removed.
    pub fn forget_unrecorded(&self) -> Result<(), Error> {
        directory::set_unrecorded(&self.settings, false)
    }

    /// Makes room for the data of a new standby, as before a clone: existing data is moved aside. `tablespaces`: where those
    /// of the new data will be; `bytes`: its size without them, if known.
    ///
    /// # Errors
    /// When it cannot be moved, or the supervisor runs something on it.
    pub async fn prepare_standby(&self, tablespaces: Vec<PathBuf>, bytes: Option<u64>) -> Result<(), Error> {
        self.is_free().await?;
        self.make_room(UnfinishedWork::Clone, NewData { tablespaces, bytes }).await
    }

    /// Confirms that the standby's files are all there, durable, and this cluster's.
    ///
    /// # Errors
    /// When they are not; the data directory stays marked.
    pub async fn finish_standby(&self, system_identifier: u64) -> Result<(), Error> {
        let settings = &self.settings;
        let control = self.control_data().await?;
        if control.system_identifier != system_identifier {
            let (found, expected) = (control.system_identifier, system_identifier);
            return Err(Error::ForeignBackup { found, expected });
        }
        // Whoever starts it makes it a standby.
        file::remove(&settings.data_directory.join("recovery.signal"))?;
        UnfinishedWork::Clone.finish(settings)
    }
}
