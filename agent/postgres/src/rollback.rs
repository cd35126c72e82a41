//! A rollback of the data in its place: obstacles, the recovery beside the running Postgres, and the swap of the two
//! directories with its journal. Knows no archive, and does not decide when to swap.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrider_supervisor::protocol::{Tool, ToolStatus};
use outrider_supervisor::rollback_directory;
use outrider_wal::{Lsn, TimelineId};
use tokio::time::sleep;
use tracing::warn;

use crate::clock;
use crate::configuration::Configuration;
use crate::error::Error;
use crate::file;
use crate::instrument::Postgres;
use crate::journal::Journal;
use crate::room;
use crate::settings::Settings;

/// Files of the data directory that people edit, directly or through Postgres. The agent rewrites its own.
const CARRIED_OVER: [&str; 4] =
    ["postgresql.auto.conf", "postgresql.base.conf", "pg_hba.base.conf", "pg_ident.conf"];
/// Time limit for a cancelled recovery to end.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Interval between checks whether it has ended.
const END_INTERVAL: Duration = Duration::from_millis(20);

/// What an earlier agent's rollback left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing.
    Nothing,
    /// The swap never began, or was undone: the data is unchanged. What was prepared beside it must be removed.
    Undone {
        /// The id of the request.
        id: String,
    },
    /// The data directory is the rolled back one.
    Swapped(Swap),
}

/// Data prepared beside the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its system identifier.
    pub system_identifier: u64,
    /// Its timeline, which is new.
    pub timeline: TimelineId,
    /// Where that timeline begins.
    pub begins: Lsn,
}

/// A rollback whose data is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The id of the request.
    pub id: String,
    /// Where the old data is.
    pub aside: PathBuf,
}

impl Postgres {
    /// Where the data of a rollback is prepared.
    #[must_use]
    pub fn rollback_directory(&self) -> PathBuf {
        rollback_directory(&self.settings.data_directory)
    }

    /// Why this data directory cannot be rolled back, including when `needed` bytes do not fit beside it. `None` if it can.
    ///
    /// # Errors
    /// When the directory cannot be inspected.
    pub fn rollback_obstacle(&self, needed: u64) -> Result<Option<String>, Error> {
        obstacle(&self.settings, needed)
    }

    /// Records durably that what is beside the data belongs to this rollback.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub fn begin_rollback(&self, id: &str) -> Result<(), Error> {
        Journal { id: id.to_owned(), aside: None }.write(&self.settings)
    }

    /// Recovers the files beside the data up to `target` while Postgres keeps running. They end as a cleanly stopped
    /// primary on a timeline of its own.
    ///
    /// # Errors
    /// When recovery fails, or another program of PostgreSQL was needed meanwhile.
    pub async fn recover_beside(
        &self,
        wanted: &Configuration,
        target: &[(String, String)],
    ) -> Result<Prepared, Error> {
        let settings = Settings { data_directory: self.rollback_directory(), ..(*self.settings).clone() };
        let beside = Postgres { settings: Arc::new(settings), supervisor: self.supervisor.clone() };
        let control = beside.replay(wanted, target, Tool::PostgresRecovery).await?;
        let history = beside.history(control.timeline())?;
        let begins = history.switches().last().map_or(control.checkpoint, |last| last.end);
        let system_identifier = control.system_identifier;
        Ok(Prepared { system_identifier, timeline: control.timeline(), begins })
    }

    /// The end of the WAL of a Postgres that was stopped cleanly, so that the old data can be started again without loss.
    ///
    /// # Errors
    /// When it was not stopped cleanly, or the control file cannot be read.
    pub async fn clean_end(&self) -> Result<(TimelineId, Lsn), Error> {
        let control = self.control_data().await?;
        if !control.is_clean_primary() {
            let problem = format!("Postgres did not shut down cleanly (its state is {:?})", control.state);
            return Err(Error::Rollback { problem });
        }
        Ok((control.timeline(), control.checkpoint))
    }

    /// Swaps the prepared data in for the data directory, which becomes `aside`. Nothing may run on either. Does not wait, so
    /// that it happens fully or not at all, even if its caller is dropped.
    ///
    /// # Errors
    /// When that fails; the data directory is the old one again.
    pub fn swap_in(&self, id: &str, aside: &Path) -> Result<Swap, Error> {
        let settings = &self.settings;
        let data = &settings.data_directory;
        // Once the journal is written, the directories themselves show the progress of the swap.
        let prepared = rollback_directory(data);
        if is_there(aside)? || !is_there(&prepared)? {
            let problem = format!("{} is there, or {} is not", aside.display(), prepared.display());
            return Err(Error::Rollback { problem });
        }
        carry_over(data, &prepared)?;
        Journal { id: id.to_owned(), aside: Some(aside.to_owned()) }.write(settings)?;
        let moved = rename(data, aside).and_then(|()| rename(&prepared, data));
        if let Err(fault) = moved {
            settle(settings)?;
            return Err(fault);
        }
        Ok(Swap { id: id.to_owned(), aside: aside.to_owned() })
    }

    /// Finishes or undoes what an earlier agent began. Must run before anything inspects the data directory.
    ///
    /// # Errors
    /// When a file cannot be read or renamed, or both directories are missing.
    pub fn settle_rollback(&self) -> Result<Settled, Error> {
        settle(&self.settings)
    }

    /// Removes the journal: the rolled back data is now the cluster's.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn finish_rollback(&self) -> Result<(), Error> {
        Journal::remove(&self.settings)
    }

    /// Ends the recovery if one is running, and removes what is beside the data if it belongs to a rollback.
    ///
    /// # Errors
    /// When the recovery does not end or the files cannot be removed; try again.
    pub async fn discard_rollback(&self) -> Result<(), Error> {
        let Some(journal) = Journal::read(&self.settings)? else { return Ok(()) };
        if journal.aside.is_some() {
            return Err(Error::Rollback { problem: "the swap has begun".to_owned() });
        }
        self.end_recovery().await?;
        let directory = self.rollback_directory();
        let problem = |fault: String| Error::Rollback { problem: fault };
        let removing = directory.clone();
        let removed = tokio::task::spawn_blocking(move || room::remove_all(&removing)).await;
        removed.map_err(|fault| problem(fault.to_string()))??;
        let failed = |source| Error::Write { path: directory.clone(), source };
        file::sync_directory(&directory).map_err(failed)?;
        Journal::remove(&self.settings)
    }

    async fn end_recovery(&self) -> Result<(), Error> {
        let begun = clock::monotonic();
        loop {
            let status = self.supervisor.status().await?;
            if !status.tool.as_ref().is_some_and(is_recovery) {
                return Ok(());
            }
            if begun.elapsed() > END_LIMIT {
                return Err(Error::TooSlow { act: "end its recovery", limit: END_LIMIT });
            }
            match self.supervisor.cancel_tool().await {
                // It has already ended.
                Ok(()) | Err(Error::SupervisorRefused { .. }) => {}
                Err(fault) => return Err(fault),
            }
            sleep(END_INTERVAL).await;
        }
    }
}

/// People's settings are not data: they stay as they are now, not as they were at the time of the backup.
fn carry_over(data: &Path, prepared: &Path) -> Result<(), Error> {
    for name in CARRIED_OVER {
        if let Some(text) = file::read_if_there(&data.join(name))? {
            file::replace(&prepared.join(name), &text, 0o600)?;
        }
    }
    Ok(())
}

fn is_recovery(tool: &ToolStatus) -> bool {
    tool.tool == Tool::PostgresRecovery
}

fn settle(settings: &Settings) -> Result<Settled, Error> {
    let Some(journal) = Journal::read(settings)? else { return Ok(Settled::Nothing) };
    let Journal { id, aside: Some(aside) } = journal else {
        return Ok(Settled::Undone { id: journal.id });
    };
    let data = &settings.data_directory;
    match (is_there(data)?, is_there(&aside)?) {
        // Both exist only when both renames are done.
        (true, true) => return Ok(Settled::Swapped(Swap { id, aside })),
        (true, false) => {}
        (false, true) => {
            rename(&aside, data)?;
            warn!(data = %data.display(), "a rollback was interrupted during its swap: the old data is back in place");
        }
        (false, false) => {
            let problem = format!(
                "neither {} nor {} exists, and a rollback has recorded that it moved one to the other",
                data.display(),
                aside.display()
            );
            return Err(Error::Rollback { problem });
        }
    }
    Journal { id: id.clone(), aside: None }.write(settings)?;
    Ok(Settled::Undone { id })
}

fn obstacle(settings: &Settings, needed: u64) -> Result<Option<String>, Error> {
    let data = &settings.data_directory;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let linked = |path: &Path| fs::symlink_metadata(path).map(|found| found.is_symlink());
    let shown = data.display();
    if linked(data).map_err(failed(data))? {
        return Ok(Some(format!("{shown} is a symbolic link: set data_dir to where it leads")));
    }
    let wal = data.join("pg_wal");
    if linked(&wal).map_err(failed(&wal))? {
        return Ok(Some(format!(
            "{} is a symbolic link, and would be shared with the old data",
            wal.display()
        )));
    }
    let parent = data.parent().unwrap_or(Path::new("/"));
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).map_err(failed(path));
    if device(data)? != device(parent)? {
        return Ok(Some(format!(
            "{shown} is a volume of its own and cannot be renamed: set data_dir to a directory below it"
        )));
    }
    let spaces = data.join("pg_tblspc");
    if fs::read_dir(&spaces).map_err(failed(&spaces))?.next().is_some() {
        let why = "the cluster has tablespaces, which lie outside its data directory: restore with `outrider restore` instead";
        return Ok(Some(why.to_owned()));
    }
    let beside = rollback_directory(data);
    if is_there(&beside)? && Journal::read(settings)?.is_none() {
        return Ok(Some(format!(
            "{} is in the way and does not belong to a rollback: remove it",
            beside.display()
        )));
    }
    let disk = rustix::fs::statvfs(parent).map_err(|fault| failed(parent)(fault.into()))?;
    let room = disk.f_bavail.saturating_mul(disk.f_frsize);
    if room < needed {
        return Ok(Some(format!(
            "{} has {} MiB free and the prepared data needs about {}",
            parent.display(),
            room >> 20,
            needed >> 20
        )));
    }
    Ok(None)
}

fn is_there(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Renames durably. Never overwrites: the names of old data differ.
fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    let failed = |source| Error::MoveAside { path: from.to_owned(), aside: to.to_owned(), source };
    if is_there(to)? {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    fs::rename(from, to).and_then(|()| file::sync_directory(to)).map_err(failed)
}

#[cfg(test)]
mod tests;
