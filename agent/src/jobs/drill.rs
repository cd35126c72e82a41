//! Restore drills as jobs: begins one, watches it, says what became of it. The drill itself is `outrider verify --drill` in a process
//! of its own, below everything else of the machine; which member makes it, and when, is decided in `outrider_jobs::drill`.

mod child;

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use outrider_dcs::Snapshot;
use outrider_jobs::drill::{GivenUp, Job as Seen, Step, next, reserve};
use outrider_store as store;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use self::child::{Child, Outcome};
use super::runner::Job;
use super::seen;
use crate::backup::{Shelf, ShelfError};
use crate::clock;
use crate::config::Config;
use crate::log::{Said, causes};
use crate::report::Report;
use crate::schedule::Schedule;

/// How old what is known of the backups may be.
const AGE_MAX: Duration = Duration::from_secs(300);
/// When it could not be found out whether a drill is due, or there is no backup yet.
const AGAIN_INTERVAL: Duration = Duration::from_secs(20);
/// For the record of the last one.
const RECORD_LIMIT: Duration = Duration::from_secs(30);
/// What a server is larger than its backup at the most, where the backup does not say how large it is.
const DEFLATED: u64 = 10;
/// For the process to remove what it has made when it is told to end.
const END_LIMIT: Duration = Duration::from_secs(60);
/// The same when the agent ends, which waits for nobody.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);

/// What a member knows of drills.
pub(crate) struct Drill {
    me: String,
    configuration: PathBuf,
    /// Where the scratch directory is made.
    directory: PathBuf,
    scratch: PathBuf,
    schedule: Schedule,
    shelf: Shelf,
    /// When one was made or tried last, as far as this member knows.
    last: Option<Timestamp>,
    /// It could not be found out whether one is due: when to ask again.
    look_at: Option<Instant>,
    /// The one under way, and the size of its server in bytes.
    running: Option<(Child, u64)>,
    /// How it ended, which is not told yet.
    ended: Option<Outcome>,
    fault: Said,
}

/// Why there is none now.
#[derive(Debug, thiserror::Error)]
enum NotNow {
    #[error("cannot read the time of the last restore drill")]
    Record(#[source] store::Error),
    #[error("cannot read the time of the last restore drill within {RECORD_LIMIT:?}")]
    RecordLate,
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error("there is no base backup to verify yet")]
    NoBackup,
    #[error(
        "the archive belongs to another cluster: its system identifier is {owner}, this cluster's is {own}"
    )]
    Foreign { owner: u64, own: u64 },
}

impl Drill {
    /// `None` when no drills are wanted.
    pub(crate) fn new(config: &Config, shelf: Shelf) -> Option<Self> {
        let archive = config.archive.as_ref()?;
        let schedule = archive.drill.clone()?;
        let beside = config.postgres.data_directory.parent().unwrap_or(Path::new("/"));
        let directory = archive.drill_directory.clone().unwrap_or_else(|| beside.to_owned());
        Some(Drill {
            me: config.name.clone(),
            configuration: config.file.clone(),
            scratch: directory.join(format!("{}.drill", config.name)),
            directory,
            schedule,
            shelf,
            last: None,
            look_at: None,
            running: None,
            ended: None,
            fault: Said::default(),
        })
    }

    fn seen(&self) -> Seen {
        match &self.running {
            Some((_, size)) => Seen::Running { size: *size, free: free(&self.directory).ok() },
            None if self.look_at.is_some_and(|at| clock::monotonic() < at) || !self.is_due() => Seen::NotDue,
            None => Seen::Due,
        }
    }

    /// One that was never made is due at once; what was missed is made up for once.
    fn is_due(&self) -> bool {
        let known = self.last.max(self.shelf.verified());
        known.is_none_or(|last| self.schedule.next(last).is_some_and(|next| next <= clock::wall()))
    }

    /// The size of the server in the newest backup, when a drill is due also by what the archive knows.
    async fn size_when_due(&mut self, report: &Report) -> Result<Option<u64>, NotNow> {
        let looked = timeout(RECORD_LIMIT, self.shelf.look_verified()).await;
        looked.map_err(|_| NotNow::RecordLate)?.map_err(NotNow::Record)?;
        if !self.is_due() {
            return Ok(None);
        }
        let seen = self.shelf.look(AGE_MAX).await?;
        let own = report.postgres.as_ref().map(|postgres| postgres.system_identifier);
        if let (Some(owner), Some(own)) = (seen.catalog.owner, own)
            && owner != own
        {
            return Err(NotNow::Foreign { owner, own });
        }
        let good = seen.catalog.backups.iter().filter_map(|backup| Some((backup.good()?, backup.bytes)));
        let newest = good.max_by_key(|(info, _)| info.end_time).ok_or(NotNow::NoBackup)?;
        // Other tools than ours do not always say how large the server is.
        Ok(Some(newest.0.cluster_size.unwrap_or(newest.1.saturating_mul(DEFLATED))))
    }

    /// What the archive says, for the next step; `None` when there is none.
    async fn look_into_archive(&mut self, report: &Report) -> Option<Seen> {
        match self.size_when_due(report).await {
            Ok(None) => self.fault.forget(),
            Ok(Some(size)) => return Some(Seen::Confirmed { size, free: free(&self.directory).ok() }),
            Err(why) => {
                self.look_at = Some(clock::monotonic() + AGAIN_INTERVAL);
                let text = causes(&why);
                if self.fault.is_news(&text) {
                    warn!(fault = %text, "no restore drill now");
                }
            }
        }
        None
    }

    fn begin(&mut self, size: u64) {
        self.last = Some(clock::wall());
        info!(scratch = %self.scratch.display(), "verifying the latest backup by restoring it");
        match Child::begin(&self.configuration, &self.scratch) {
            Ok(child) => {
                self.running = Some((child, size));
                self.shelf.note_drill(|drills| drills.running = true);
            }
            Err(fault) => self.ended = Some(Outcome::Failed(fault.to_string())),
        }
    }

    fn skip(&mut self, size: u64) {
        self.last = Some(clock::wall());
        let directory = self.directory.display();
        let why = match free(&self.directory) {
            Ok(free) => {
                let reserve = reserve(size);
                format!(
                    "{directory} has {free} bytes left, and a restore takes {size} and leaves {reserve} free"
                )
            }
            Err(fault) => format!("cannot see how much room {directory} has: {fault}"),
        };
        warn!(%why, "no restore drill this time");
        self.shelf.note_drill(|drills| {
            drills.skipped += 1;
            drills.last_fault = Some(why);
        });
    }

    async fn give_up(&mut self, why: GivenUp) {
        let Some((child, _)) = self.running.take() else { return };
        let outcome = child.give_up(in_words(why), END_LIMIT).await;
        if matches!(outcome, Outcome::GivenUp(_)) && why == GivenUp::Anothers {
            // Another member makes it, or this one later; but where there is no room, there is none at once again.
            self.last = None;
        }
        self.ended = Some(outcome);
    }

    /// One that was killed has removed nothing.
    async fn clear(&self) {
        let scratch = self.scratch.clone();
        let removed = tokio::task::spawn_blocking(move || Child::clear(&scratch)).await;
        if let Ok(Err(fault)) = removed {
            warn!(%fault, scratch = %self.scratch.display(), "cannot remove what is left of the restore drill");
        }
    }

    fn tell(&self, outcome: Outcome) {
        self.shelf.note_drill(|drills| drills.running = false);
        match outcome {
            Outcome::Done { report } => {
                info!(%report, "the backup was restored and recovered to the end");
                self.shelf.note_drill(|drills| {
                    drills.done += 1;
                    drills.last_fault = None;
                });
            }
            Outcome::Failed(fault) => {
                error!(%fault, "the restore drill failed: see outrider verify --drill");
                self.shelf.note_drill(|drills| {
                    drills.failed += 1;
                    drills.last_fault = Some(fault);
                });
            }
            Outcome::GivenUp(why) => {
                info!(why, "the restore drill was given up");
                self.shelf.note_drill(|drills| drills.given_up += 1);
            }
        }
    }
}

impl Job for Drill {
    const LOOSE: &'static str = "the restore drill is still running; it ends by itself";

    async fn look(&mut self, report: &Report) {
        if let Some(outcome) = self.ended.take() {
            self.clear().await;
            self.tell(outcome);
            // For the metrics; when the store does not answer it is read later.
            let _ = timeout(RECORD_LIMIT, self.shelf.look_verified()).await;
        }
        let nobody = Snapshot::default();
        let view = seen::view(report, report.cluster.as_ref().unwrap_or(&nobody), &self.me, false);
        let mut job = self.seen();
        loop {
            match (next(&view, &job), &job) {
                (Step::Wait, _) => return,
                (Step::Look, _) => match self.look_into_archive(report).await {
                    Some(confirmed) => job = confirmed,
                    None => return,
                },
                (Step::Begin, Seen::Confirmed { size, .. }) => return self.begin(*size),
                (Step::Skip, Seen::Confirmed { size, .. }) => return self.skip(*size),
                (Step::GiveUp(why), _) => return self.give_up(why).await,
                (Step::Begin | Step::Skip, Seen::NotDue | Seen::Due | Seen::Running { .. }) => return,
            }
        }
    }

    async fn happened(&mut self) {
        let Some((child, _)) = &mut self.running else { return pending().await };
        let outcome = child.ended().await;
        self.running = None;
        self.ended = Some(outcome);
    }

    fn look_again(&self) -> Option<Duration> {
        self.ended.is_some().then_some(Duration::ZERO)
    }

    /// What it has made it removes by itself.
    async fn leave(mut self, _: Option<&Report>) {
        if let Some((child, _)) = self.running.take() {
            self.ended = Some(child.leave(LEAVE_LIMIT).await);
        }
        if let Some(outcome) = self.ended.take() {
            self.tell(outcome);
        }
    }
}

fn in_words(why: GivenUp) -> &'static str {
    match why {
        GivenUp::Anothers => "another member is to do it, or this one ends",
        GivenUp::Scarce => "the volume is nearly full",
    }
}

/// Bytes that the file system of a directory has left for us.
fn free(directory: &Path) -> std::io::Result<u64> {
    let system = rustix::fs::statvfs(directory)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}
