//! Keeps on this member the WAL that the archive does not have, so that nothing is missing from the archive when this
//! member is promoted while the store is down. What the archive has, the leader publishes. A task of its own: no round
//! waits for it.

use std::time::Duration;

use outrider_dcs::Snapshot;
use outrider_postgres::{ARCHIVE_SLOT, ArchiveSlot, Error, Observation, Postgres};
use outrider_wal::Lsn;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::report::{Said, causes};

/// What the round does not see: a slot that stands where this server has not come to.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
/// While this server has not come to where the archive is: the slot is moved no further than the server.
const BEHIND_INTERVAL: Duration = Duration::from_secs(60);
/// From one that did not work to the next.
const AGAIN_INTERVAL: Duration = Duration::from_secs(5);

/// The task. It ends when this is dropped.
pub(crate) struct SlotKeeper {
    wanted: watch::Sender<Option<Wanted>>,
    task: JoinHandle<()>,
}

/// What the slot is to be on the Postgres that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// Names the run of the server.
    started: String,
    /// Whether it was there when the round looked: somebody may drop it, and it may come to keep too much.
    stands: bool,
    /// Up to where the archive has everything; `None` when nobody says so of this server's timeline.
    archived: Option<Lsn>,
}

impl Drop for SlotKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SlotKeeper {
    /// `archives`: whether this member has an archive; without one the slot is dropped.
    pub(crate) fn start(postgres: Postgres, archives: bool) -> Self {
        let (wanted, seen) = watch::channel(None);
        SlotKeeper { wanted, task: tokio::spawn(keep(postgres, archives, seen)) }
    }

    /// Takes in what the round saw.
    pub(crate) fn follow(&self, seen: Option<&Observation>, cluster: Option<&Snapshot>) {
        let wanted = seen.map(|seen| Wanted {
            started: seen.postmaster_start_time.clone(),
            stands: seen.slots.iter().any(|slot| slot == ARCHIVE_SLOT),
            archived: archived(seen, cluster),
        });
        self.wanted.send_if_modified(|current| {
            let changed = *current != wanted;
            *current = wanted;
            changed
        });
    }
}

/// Of another timeline it says nothing: this server's WAL may be another from where the two part.
fn archived(seen: &Observation, cluster: Option<&Snapshot>) -> Option<Lsn> {
    let archived = cluster?.status.as_ref()?.value.archived?;
    (archived.timeline == seen.timeline).then_some(archived.lsn)
}

async fn keep(postgres: Postgres, archives: bool, mut wanted: watch::Receiver<Option<Wanted>>) {
    let mut fault = Said::default();
    loop {
        let now = wanted.borrow_and_update().clone();
        let mut wait = LOOK_INTERVAL;
        if let Some(Wanted { archived, .. }) = now {
            match tend(&postgres, archives, archived).await {
                Ok(kept) => {
                    fault.forget();
                    if kept.is_some_and(|from| archived.is_some_and(|archived| from < archived)) {
                        wait = BEHIND_INTERVAL;
                    }
                }
                Err(error) => {
                    wait = AGAIN_INTERVAL;
                    tell(&error, &mut fault);
                }
            }
        }
        match timeout(wait, wanted.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return,
        }
    }
}

/// From where on the WAL is kept, when the slot was there already.
async fn tend(postgres: &Postgres, archives: bool, archived: Option<Lsn>) -> Result<Option<Lsn>, Error> {
    if !archives {
        return postgres.drop_archive_slot().await.map(|()| None);
    }
    match postgres.hold_archive_slot(archived).await? {
        ArchiveSlot::Kept { from } => {
            debug!(%from, "keeping the WAL that the archive lacks");
            return Ok(Some(from));
        }
        ArchiveSlot::Made => info!("keeping the WAL that the archive lacks, from the last checkpoint on"),
        ArchiveSlot::MadeAnew => warn!(
            "the WAL that the archive lacks was more than max_slot_wal_keep_size, or this server was put back: what \
             is older than the last checkpoint may be removed here"
        ),
    }
    Ok(None)
}

fn tell(error: &Error, said: &mut Said) {
    // A Postgres that is gone or stopping is the round's to tell.
    if matches!(error, Error::Connect { .. }) {
        return;
    }
    let text = causes(error);
    if said.is_news(&text) {
        warn!(fault = %text, "cannot keep the WAL that the archive lacks");
    }
}
