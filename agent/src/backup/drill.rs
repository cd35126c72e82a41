//! The restore drill in the life of a cluster: when one is due, which member makes it, whether there is room, and what became
//! of it. The drill itself is `outrider verify --drill` in a process of its own, below everything else of the machine.

mod child;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use outrider_dcs::Snapshot;
use outrider_store as store;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::child::{Child, Outcome};
use super::{Shelf, ShelfError, turn};
use crate::clock;
use crate::config::Config;
use crate::log::{Said, causes};
use crate::report::{Board, Report};
use crate::schedule::Schedule;

/// How old what is known of the backups may be.
const AGE_MAX: Duration = Duration::from_secs(300);
/// When it could not be found out whether a drill is due, or there is no backup yet.
const AGAIN_INTERVAL: Duration = Duration::from_secs(20);
/// For the record of the last one.
const RECORD_LIMIT: Duration = Duration::from_secs(30);
/// What is left free at least; the replay of WAL makes a server grow.
const RESERVE_MIN: u64 = 1 << 30;
/// And as this part of the server.
const RESERVE_PART: u64 = 10;
/// For the process to remove what it has made when it is told to end.
const END_LIMIT: Duration = Duration::from_secs(60);
/// The same when the agent ends, which waits for nobody.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);
/// Why a drill is given up that would fill the volume.
const SCARCE: &str = "room becomes scarce";

/// What became of the drills of this member since its agent was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drills {
    /// One is under way.
    pub(crate) running: bool,
    /// The server came up.
    pub(crate) done: u64,
    /// It did not, or nobody knows.
    pub(crate) failed: u64,
    /// There was no room.
    pub(crate) skipped: u64,
    /// This member had something else to do, or its agent ended.
    pub(crate) given_up: u64,
    /// Why the last one failed or was skipped; `None` when it was done.
    pub(crate) last_fault: Option<String>,
}

/// The task of one member. It ends when this is dropped.
pub(crate) struct Driller {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Driller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Driller {
    /// Begins to look at the board. `None` when no drills are wanted.
    pub(crate) fn start(config: &Config, shelf: Shelf, board: Board) -> Option<Self> {
        let archive = config.archive.as_ref()?;
        let schedule = archive.drill.clone()?;
        let beside = config.postgres.data_directory.parent().unwrap_or(Path::new("/"));
        let directory = archive.drill_directory.clone().unwrap_or_else(|| beside.to_owned());
        let cancel = CancellationToken::new();
        let desk = Desk {
            me: config.name.clone(),
            configuration: config.file.clone(),
            scratch: directory.join(format!("{}.drill", config.name)),
            directory,
            schedule,
            shelf,
            board,
            cancel: cancel.clone(),
            last: None,
            fault: Said::default(),
        };
        Some(Driller { cancel, task: tokio::spawn(desk.keep()) })
    }

    /// Tells a drill under way to end.
    pub(crate) async fn end(mut self) {
        self.cancel.cancel();
        if timeout(2 * LEAVE_LIMIT, &mut self.task).await.is_err() {
            warn!("the restore drill has not ended yet; it does so without this agent");
        }
    }
}

/// What the driller knows.
struct Desk {
    me: String,
    configuration: PathBuf,
    /// Where the scratch directory is made.
    directory: PathBuf,
    scratch: PathBuf,
    schedule: Schedule,
    shelf: Shelf,
    board: Board,
    cancel: CancellationToken,
    /// When one was made or tried last, as far as this member knows.
    last: Option<Timestamp>,
    fault: Said,
}

/// Why there is none now.
#[derive(Debug, thiserror::Error)]
enum NotNow {
    #[error("cannot read when the last restore drill was")]
    Record(#[source] store::Error),
    #[error("cannot read within {RECORD_LIMIT:?} when the last restore drill was")]
    RecordLate,
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error("there is no base backup to drill with yet")]
    NoBackup,
    #[error(
        "the archive belongs to another cluster: its system identifier is {owner}, this cluster's is {own}"
    )]
    Foreign { owner: u64, own: u64 },
}

impl Desk {
    async fn keep(mut self) {
        let mut look_at = clock::monotonic();
        loop {
            let report = self.board.borrow_and_update().clone();
            let may = report.as_ref().is_some_and(|report| is_mine(report, &self.me));
            if may && look_at <= clock::monotonic() && self.is_due() {
                match self.size_when_due().await {
                    Ok(None) => self.fault.forget(),
                    Ok(Some(size)) => self.drill(size).await,
                    Err(why) => {
                        look_at = clock::monotonic() + AGAIN_INTERVAL;
                        let text = causes(&why);
                        if self.fault.is_news(&text) {
                            warn!(fault = %text, "no restore drill for now");
                        }
                    }
                }
            }
            tokio::select! {
                () = self.cancel.cancelled() => return,
                changed = self.board.changed() => if changed.is_err() { return },
            }
        }
    }

    /// One that was never made is due at once; what was missed is made up for once.
    fn is_due(&self) -> bool {
        let known = self.last.max(self.shelf.verified());
        known.is_none_or(|last| self.schedule.next(last).is_some_and(|next| next <= clock::wall()))
    }

    /// The size of the server in the newest backup, when a drill is due also by what the archive knows.
    async fn size_when_due(&mut self) -> Result<Option<u64>, NotNow> {
        let looked = timeout(RECORD_LIMIT, self.shelf.look_verified()).await;
        looked.map_err(|_| NotNow::RecordLate)?.map_err(NotNow::Record)?;
        if !self.is_due() {
            return Ok(None);
        }
        let seen = self.shelf.look(AGE_MAX).await?;
        let report = self.board.borrow().clone();
        let own = report.and_then(|report| Some(report.postgres.as_ref()?.system_identifier));
        if let (Some(owner), Some(own)) = (seen.catalog.owner, own)
            && owner != own
        {
            return Err(NotNow::Foreign { owner, own });
        }
        let good = seen.catalog.backups.iter().filter_map(|backup| Some((backup.good()?, backup.bytes)));
        let newest = good.max_by_key(|(info, _)| info.end_time).ok_or(NotNow::NoBackup)?;
        // Other tools than ours do not always say how large the server is.
        Ok(Some(newest.0.cluster_size.unwrap_or(newest.1.saturating_mul(RESERVE_PART))))
    }

    async fn drill(&mut self, size: u64) {
        self.last = Some(clock::wall());
        let reserve = RESERVE_MIN.max(size / RESERVE_PART);
        match free(&self.directory) {
            Ok(free) if free >= size.saturating_add(reserve) => {}
            Ok(free) => {
                let why = format!(
                    "{} has {free} bytes left, and a restore takes {size} and leaves {reserve} free",
                    self.directory.display()
                );
                return self.skipped(why);
            }
            Err(fault) => {
                return self
                    .skipped(format!("cannot see how much room {} has: {fault}", self.directory.display()));
            }
        }
        info!(scratch = %self.scratch.display(), "restoring the latest backup for proof");
        self.shelf.note_drill(|drills| drills.running = true);
        let outcome = match Child::begin(&self.configuration, &self.scratch) {
            Ok(child) => self.watch_over(child, reserve / 2).await,
            Err(fault) => Outcome::Failed(fault.to_string()),
        };
        self.shelf.note_drill(|drills| drills.running = false);
        self.clear().await;
        self.conclude(outcome).await;
    }

    /// Waits for its end; ends it when this member is not the one to do it any more, or room becomes scarce.
    async fn watch_over(&mut self, mut child: Child, room: u64) -> Outcome {
        loop {
            tokio::select! {
                outcome = child.ended() => return outcome,
                () = self.cancel.cancelled() => return child.leave(LEAVE_LIMIT).await,
                changed = self.board.changed() => {
                    let report = self.board.borrow_and_update().clone();
                    let mine = report.as_ref().is_some_and(|report| is_mine(report, &self.me));
                    if changed.is_err() || !mine {
                        return child.give_up("another member is to do it, or this one ends", END_LIMIT).await;
                    }
                    if free(&self.directory).is_ok_and(|free| free < room) {
                        return child.give_up(SCARCE, END_LIMIT).await;
                    }
                }
            }
        }
    }

    /// One that was killed has removed nothing. While this agent ends, it may still do so itself.
    async fn clear(&self) {
        if self.cancel.is_cancelled() {
            return;
        }
        let scratch = self.scratch.clone();
        let removed = tokio::task::spawn_blocking(move || Child::clear(&scratch)).await;
        if let Ok(Err(fault)) = removed {
            warn!(%fault, scratch = %self.scratch.display(), "cannot remove what is left of the restore drill");
        }
    }

    async fn conclude(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done { report } => {
                info!(%report, "the backup came back and was recovered to its end");
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
                // Another member makes it, or this one later; but where there is no room, there is none at once again.
                if why != SCARCE {
                    self.last = None;
                }
                self.shelf.note_drill(|drills| drills.given_up += 1);
            }
        }
        // For the metrics; when the store does not answer it is read later.
        let _ = timeout(RECORD_LIMIT, self.shelf.look_verified()).await;
    }

    fn skipped(&mut self, why: String) {
        warn!(%why, "no restore drill this time");
        self.shelf.note_drill(|drills| {
            drills.skipped += 1;
            drills.last_fault = Some(why);
        });
    }
}

/// Whether this member is the one that drills: the first standby by name, the leader where there is none. So there is one
/// at a time, and a primary has better things to do.
fn is_mine(report: &Report, me: &str) -> bool {
    let Some(cluster) = &report.cluster else { return false };
    let leads = cluster.leader.as_ref().is_some_and(|leader| leader.mine);
    let is_what_others_think = report.postgres.as_ref().is_some_and(|seen| seen.is_primary() == leads);
    is_what_others_think && !report.view.local.terminating && driller(cluster) == Some(me)
}

fn driller(cluster: &Snapshot) -> Option<&str> {
    let leader = cluster.leader.as_ref()?.name.as_str();
    let standbys = turn::order(cluster).into_iter().filter(|name| *name != leader);
    Some(standbys.min().unwrap_or(leader))
}

/// Bytes that the file system of a directory has left for us.
fn free(directory: &Path) -> std::io::Result<u64> {
    let system = rustix::fs::statvfs(directory)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use outrider_dcs::{Leader, Member};
    use outrider_postgres::{Observation, Role};
    use outrider_wal::Lsn;
    use serde_json::json;

    use super::*;
    use crate::report::sample::report;
    use crate::sample::observation;

    /// What `me` sees: `p2` leads, the others stream.
    fn seen(members: &[&str], me: &str) -> Report {
        let member = |name: &&str| {
            let role = if *name == "p2" { "primary" } else { "replica" };
            let value = json!({"role": role, "state": "running", "replication_state": "streaming"});
            Member { name: (*name).to_owned(), value: value.into(), lease: 1, created: 1, revision: 1 }
        };
        let leader = Leader { name: "p2".to_owned(), term: 1, revision: 1, lease: 1, mine: me == "p2" };
        let members = members.iter().map(member).collect();
        let cluster = Snapshot { leader: Some(leader), members, ..Snapshot::default() };
        let standby = observation();
        let role = if me == "p2" { Role::Primary { flushed: Lsn::new(100) } } else { standby.role };
        Report { cluster: Some(cluster), postgres: Some(Observation { role, ..standby }), ..report() }
    }

    #[test]
    fn the_first_standby_by_name_drills_and_the_leader_where_there_is_none() {
        let all = ["p3", "p2", "p1"];
        assert_eq!(all.map(|me| is_mine(&seen(&all, me), me)), [false, false, true]);
        assert!(is_mine(&seen(&["p2"], "p2"), "p2"));
    }

    #[test]
    fn who_is_promoted_or_ends_or_does_not_answer_drills_no_more() {
        let mut promoted = seen(&["p1", "p2"], "p1");
        assert!(is_mine(&promoted, "p1"));
        promoted.postgres =
            Some(Observation { role: Role::Primary { flushed: Lsn::new(100) }, ..observation() });
        assert!(!is_mine(&promoted, "p1"));
        let mut ending = seen(&["p1", "p2"], "p1");
        ending.view.local.terminating = true;
        assert!(!is_mine(&ending, "p1"));
        let silent = Report { postgres: None, ..seen(&["p1", "p2"], "p1") };
        assert!(!is_mine(&silent, "p1"));
        let leaderless = Report { cluster: Some(Snapshot::default()), ..seen(&["p1", "p2"], "p1") };
        assert!(!is_mine(&leaderless, "p1"));
    }
}
