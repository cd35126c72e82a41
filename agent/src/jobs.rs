//! The long work that a member does for its cluster beside the round: base backups, restore drills, rollbacks. One task for each kind, which reads the reports
//! of the round like everybody else: however long a job takes, the renewal of the lease does not wait for it.
//!
//! What is done next is decided in `outrider_jobs`, one file for each kind. The runner calls that with each report, and the acts are
//! here, again one file for each kind.

mod backup;
mod claimed;
mod drill;
mod freshness;
mod rollback;
mod runner;
mod seen;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use outrider_postgres::Settled;

use self::backup::{Backup, Intervals};
use self::claimed::Claimed;
use self::drill::Drill;
use self::rollback::Rollback;
use self::runner::Task;
use crate::backup::{ArchiveTaker, CatalogCache};
use crate::instruments::Instruments;
use crate::report::ReportReceiver;
use crate::wake::Waker;

/// The tasks. Dropped, they are broken off.
pub(crate) struct Jobs {
    /// `None` where there is no archive.
    backups: Option<Task>,
    /// `None` where none are wanted.
    drills: Option<Task>,
    rollbacks: Task,
}

impl Jobs {
    /// Begins to look at the reports. `catalog`: what the archive holds, as the REST API shows it. `settled`: what was found of an earlier agent's rollback.
    pub(crate) fn start(
        instruments: &Instruments,
        reports: &ReportReceiver,
        catalog: Option<CatalogCache>,
        waker: Waker,
        settled: Settled,
    ) -> Self {
        let rollback = Claimed::new(Rollback::new(instruments, waker, settled), instruments.dcs.clone());
        Jobs {
            backups: backups(instruments, reports),
            drills: drills(instruments, reports, catalog),
            rollbacks: runner::run(rollback, reports.clone()),
        }
    }

    /// Tells them that the agent ends, and waits for the end of each.
    pub(crate) async fn end(self) {
        tokio::join!(end(self.backups), end(self.drills), self.rollbacks.end());
    }
}

async fn end(task: Option<Task>) {
    if let Some(task) = task {
        task.end().await;
    }
}

fn backups(instruments: &Instruments, reports: &ReportReceiver) -> Option<Task> {
    let archive = instruments.config.archive.as_ref()?;
    let (config, postgres) = (instruments.config.clone(), instruments.postgres.clone());
    let taker = Arc::new(ArchiveTaker::new(config, postgres, reports.clone()));
    let backup = Backup::new(archive.schedule.clone(), taker, Intervals::USUAL);
    Some(runner::run(Claimed::new(backup, instruments.dcs.clone()), reports.clone()))
}

fn drills(
    instruments: &Instruments,
    reports: &ReportReceiver,
    catalog: Option<CatalogCache>,
) -> Option<Task> {
    let drill = Drill::new(&instruments.config, catalog?)?;
    Some(runner::run(drill, reports.clone()))
}
