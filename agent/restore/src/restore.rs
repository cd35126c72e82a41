//! Getting a server back from its archive, to any second: what can be had, and the files of it. Starts no server.

mod control;
mod download;
mod files;
mod place;
mod pull;
mod run;
mod settings;
mod untar;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::RestoreError;
use crate::plan::{self, Plan};
use crate::target::Goal;
use outrider_archive::{BackupId, Layout};
use outrider_store::Store;

/// How to restore. Nothing of it changes what is restored.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Who gets the files (user and group), when this process is root's; else the owner of the directory or of the one
    /// above.
    pub owner: Option<(u32, u32)>,
    /// Places of tablespaces that go elsewhere: the old one and the new one.
    pub tablespaces: Vec<(String, PathBuf)>,
    /// Whether the remains of a restore that did not finish are removed first.
    pub overwrite_half: bool,
    /// The server becomes a standby: it stays in recovery and follows the archive.
    pub standby: bool,
    /// What Postgres runs to get a file of the WAL: `restore_command`, with its `%f` and `%p`.
    pub restore_command: String,
    /// Whether the files may be lost when the machine crashes soon after: for copies that nobody will miss.
    pub no_sync: bool,
}

/// How far a restore is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreProgress {
    /// What it does.
    pub phase: Phase,
    /// Bytes of tars that are unpacked and written.
    pub bytes: u64,
    /// About how many there will be; 0 when not known.
    pub bytes_total: u64,
    /// Files that are written whole.
    pub files: u64,
    /// Since it began.
    pub elapsed: Duration,
}

/// What a restore does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It looks whether the directory may be used.
    #[default]
    Checking,
    /// It brings the files.
    Copying,
    /// It makes them durable.
    Syncing,
    /// It is done.
    Done,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The data directory.
    pub directory: PathBuf,
    /// Files.
    pub files: u64,
    /// Bytes of the tars, unpacked.
    pub bytes: u64,
    /// Whether each file was compared with its checksum in `backup_manifest`; else only its length with the tar's.
    pub verified: bool,
    /// Entries of the tars that were not taken over: signal files, and links out of the directory.
    pub left_out: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Restores one server from its archive, which it never writes to.
#[derive(Clone, Debug)]
pub struct Restorer {
    store: Arc<dyn Store>,
    layout: Layout,
}

impl Restorer {
    /// From what lies at `layout` in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, layout: Layout) -> Self {
        Restorer { store, layout }
    }

    /// Finds out whether and how the goal can be reached, from the backup `wanted` or else the best one. Touches nothing
    /// but temporary files.
    ///
    /// # Errors
    /// Why it cannot be reached, with the nearest point that can; or that the archive cannot be read.
    pub async fn plan(&self, goal: &Goal, wanted: Option<&BackupId>) -> Result<Plan, RestoreError> {
        plan::plan(&self.store, &self.layout, goal, wanted).await
    }

    /// Carries out a plan in a fresh directory. Done, Postgres can be started there, and recovers to the goal.
    ///
    /// # Errors
    /// What is in the way, and then nothing was touched; or what broke, and then what was written is removed, or is
    /// marked so that nobody starts it.
    pub async fn run(
        &self,
        plan: &Plan,
        directory: &std::path::Path,
        options: &RestoreOptions,
        progress: &watch::Sender<RestoreProgress>,
        cancel: &CancellationToken,
    ) -> Result<Restored, RestoreError> {
        run::run(&self.store, &self.layout, options, (plan, directory), progress, cancel).await
    }
}
