//! Prepares the data of a rollback beside that of the running primary: plan, files, recovery. Nothing of the running server is
//! touched. Does not decide what comes of it.

use std::time::Duration;

use outrider_archive::BackupId;
use outrider_archive::Shipper;
use outrider_dcs::RollbackClaim;
use outrider_postgres::{Configuration, Error, News, Postgres, Prepared};
use outrider_restore::{Goal, Phase, Plan};
use outrider_supervisor::protocol::Event;
use outrider_wal::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Archive;
use crate::log::causes;
use crate::{clock, restore};

/// For the last segment to come into the archive. It may hold the target; when it does not, nothing depends on it.
const SHIP_LIMIT: Duration = Duration::from_secs(60);
/// Of WAL that was replayed so much lies in the prepared data at the most; the rest is recycled.
const WAL_ROOM: u64 = 2 << 30;
/// What Postgres says of each segment that recovery has got.
const RESTORED: &str = "restored log file \"";

/// What is to be prepared, and of what.
pub(crate) struct Preparation {
    pub(crate) id: String,
    pub(crate) goal: Goal,
    pub(crate) backup: Option<BackupId>,
    pub(crate) archive: Archive,
    pub(crate) shipper: Option<Shipper>,
    pub(crate) postgres: Postgres,
    pub(crate) wanted: Configuration,
    /// Of the running cluster.
    pub(crate) system: u64,
    pub(crate) timeline: TimelineId,
    pub(crate) segment_size: SegmentSize,
}

/// Data that waits for its swap.
pub(crate) struct Ready {
    pub(crate) backup: String,
    pub(crate) prepared: Prepared,
}

/// Prepares it, and tells how far it is. When `cancel` is called it comes back soon.
///
/// # Errors
/// Why it does not come to that, in words. What lies beside the data is to be removed.
pub(crate) async fn prepare(
    work: Preparation,
    told: watch::Sender<RollbackClaim>,
    cancel: CancellationToken,
) -> Result<Ready, String> {
    let planned = cancel.run_until_cancelled(plan(&work, &told)).await.ok_or_else(cancelled)??;
    let backup = planned.id().to_string();
    info!(%backup, target = %work.goal.target, about = %planned.estimate(), "preparing a rollback beside the data");
    told.send_modify(|claim| claim.backup = Some(backup.clone()));
    let words = |fault: Error| causes(&fault);
    work.postgres.begin_rollback(&work.id).map_err(words)?;
    copy(&work, planned.clone(), &told, &cancel).await?;
    let recovering = recover(&work, &planned, &told);
    let prepared = cancel.run_until_cancelled(recovering).await.ok_or_else(cancelled)?.map_err(words)?;
    let Prepared { system_identifier, timeline, begins } = prepared;
    if system_identifier != work.system {
        return Err(words(Error::ForeignBackup { found: system_identifier, expected: work.system }));
    }
    if timeline <= work.timeline {
        return Err(format!(
            "the prepared data is on timeline {timeline} and the cluster on {} already: its history is not in the archive yet",
            work.timeline
        ));
    }
    info!(%timeline, %begins, "the rolled back data is prepared");
    phase(&told, "checkpoint before the swap", 0);
    let checkpoint = cancel.run_until_cancelled(work.postgres.checkpoint()).await;
    checkpoint.ok_or_else(cancelled)?.map_err(words)?;
    // So that the archive has what is thrown away, too, and all of it can be had back.
    cancel.run_until_cancelled(ship_the_last(&work)).await.ok_or_else(cancelled)?;
    Ok(Ready { backup, prepared })
}

fn cancelled() -> String {
    "it was cancelled".to_owned()
}

async fn plan(work: &Preparation, told: &watch::Sender<RollbackClaim>) -> Result<Plan, String> {
    phase(told, "archiving the last WAL", 0);
    ship_the_last(work).await;
    phase(told, "planning", 0);
    let planned = restore::plan(&work.archive, work.goal.clone(), work.backup.clone()).await?;
    if let Some(found) = planned.backup.system_identifier.filter(|found| *found != work.system) {
        return Err(causes(&Error::ForeignBackup { found, expected: work.system }));
    }
    if let Some(space) = planned.backup.tablespaces.first() {
        return Err(format!(
            "the backup {} has tablespaces ({}), which lie outside the data directory: use `outrider restore`",
            planned.id(),
            space.name
        ));
    }
    let files = planned.plain_bytes.unwrap_or(planned.stored_bytes * 4);
    let needed = files + files / 10 + planned.wal_bytes.min(WAL_ROOM);
    match work.postgres.rollback_obstacle(needed).map_err(|fault| causes(&fault))? {
        Some(obstacle) => Err(obstacle),
        None => Ok(planned),
    }
}

/// Ends the segment that is being written, and waits until the archive has it: the target may lie in it.
async fn ship_the_last(work: &Preparation) {
    let Some(shipper) = &work.shipper else { return };
    let ended = match work.postgres.switch_wal(None).await {
        Ok(ended) => ended,
        Err(fault) => return warn!(fault = %causes(&fault), "cannot end the WAL segment"),
    };
    // It is the first byte after the record, or of a segment in which nothing was written.
    let last = Lsn::new(ended.get().saturating_sub(1));
    let segment = SegmentName::holding(work.timeline, last, work.segment_size);
    match timeout(SHIP_LIMIT, shipper.durable(WalFileName::Segment(segment))).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => warn!(%segment, fault = %causes(&fault), "the last WAL is not in the archive"),
        Err(_) => warn!(%segment, limit = ?SHIP_LIMIT, "the last WAL is not in the archive in time"),
    }
}

async fn copy(
    work: &Preparation,
    planned: Plan,
    told: &watch::Sender<RollbackClaim>,
    cancel: &CancellationToken,
) -> Result<(), String> {
    phase(told, "copying", planned.plain_bytes.unwrap_or_default());
    let far = watch::Sender::new(outrider_restore::RestoreProgress::default());
    let mut heard = far.subscribe();
    let directory = work.postgres.rollback_directory();
    let copying = restore::files(&work.archive, planned, directory, String::new(), far, cancel.clone());
    tokio::pin!(copying);
    loop {
        tokio::select! {
            copied = &mut copying => {
                return copied.map_err(|problem| causes(&Error::Archive { problem }));
            }
            Ok(()) = heard.changed() => {
                let now = *heard.borrow_and_update();
                told.send_modify(|claim| {
                    if now.phase == Phase::Syncing {
                        "making the files durable".clone_into(&mut claim.phase);
                    }
                    advance(claim, now.bytes, now.bytes_total, now.elapsed);
                });
            }
        }
    }
}

async fn recover(
    work: &Preparation,
    planned: &Plan,
    told: &watch::Sender<RollbackClaim>,
) -> Result<Prepared, Error> {
    phase(told, "recovering", planned.wal_bytes);
    let Some(command) = work.postgres.settings().restore_command.clone() else {
        return Err(Error::Archive { problem: "there is no restore_command".to_owned() });
    };
    let target = planned.recovery(command);
    let begun = clock::monotonic();
    let mut news = work.postgres.supervisor().news();
    let recovering = work.postgres.recover_beside(&work.wanted, &target);
    tokio::pin!(recovering);
    let (mut segments, mut ended) = (0, false);
    loop {
        tokio::select! {
            recovered = &mut recovering => return recovered,
            heard = news.recv(), if !ended => match heard {
                Ok(News::Event(Event::ToolOutput { line, .. })) if line.contains(RESTORED) => {
                    segments += 1;
                    told.send_modify(|claim| show_replayed(claim, segments, work.segment_size, begun));
                }
                Ok(News::Event(_) | News::ConnectionLost) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => ended = true,
            },
        }
    }
}

fn show_replayed(claim: &mut RollbackClaim, segments: u64, size: SegmentSize, begun: Instant) {
    let total = claim.bytes_total;
    advance(claim, segments.saturating_mul(size.bytes()).min(total), total, begun.elapsed());
}

/// Begins with something else.
fn phase(told: &watch::Sender<RollbackClaim>, words: &str, total: u64) {
    told.send_modify(|claim| {
        words.clone_into(&mut claim.phase);
        (claim.bytes_done, claim.bytes_total, claim.rate, claim.seconds_left) = (0, total, 0, None);
    });
}

fn advance(claim: &mut RollbackClaim, done: u64, total: u64, elapsed: Duration) {
    let rate = (done as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    (claim.bytes_done, claim.bytes_total, claim.rate) = (done, total.max(done), rate);
    claim.seconds_left = total.saturating_sub(done).checked_div(rate);
}
