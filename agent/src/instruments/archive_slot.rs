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

use crate::log::{Said, causes};

/// What the round does not see: a slot that stands where this server has not come to.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
/// While this server has not come to where the archive is: the slot is moved no further than the server.
const BEHIND_INTERVAL: Duration = Duration::from_secs(60);
/// From one that did not work to the next.
const AGAIN_INTERVAL: Duration = Duration::from_secs(5);

/// The task. It ends when this is dropped.
pub(crate) struct SlotKeeper {
    wanted: watch::Sender<Option<Wanted>>,
    kept_for_gap: watch::Receiver<Option<Lsn>>,
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
    /// Where the gaps begin which the leader cannot fill.
    gaps: Vec<Lsn>,
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
        let (kept, kept_for_gap) = watch::channel(None);
        SlotKeeper { wanted, kept_for_gap, task: tokio::spawn(keep(postgres, archives, seen, kept)) }
    }

    /// Where the WAL begins that this member keeps because it alone may fill a gap of the archive.
    pub(crate) fn kept_for_gap(&self) -> Option<Lsn> {
        *self.kept_for_gap.borrow()
    }

    /// Takes in what the round saw.
    pub(crate) fn follow(&self, seen: Option<&Observation>, cluster: Option<&Snapshot>) {
        let wanted = seen.map(|seen| wanted(seen, cluster));
        self.wanted.send_if_modified(|current| {
            let changed = *current != wanted;
            *current = wanted;
            changed
        });
    }
}

/// Of another timeline it says nothing: this server's WAL may be another from where the two part.
fn wanted(seen: &Observation, cluster: Option<&Snapshot>) -> Wanted {
    let archived = cluster.and_then(|cluster| cluster.status.as_ref()?.value.archived.as_ref());
    let archived = archived.filter(|archived| archived.timeline == seen.timeline);
    // It is the primary that has looked and found nothing to fill them with.
    let gaps = archived.filter(|_| !seen.is_primary()).map(|archived| archived.gaps.clone());
    Wanted {
        started: seen.postmaster_start_time.clone(),
        stands: seen.slots.iter().any(|slot| slot.name == ARCHIVE_SLOT),
        archived: archived.map(|archived| archived.lsn),
        gaps: gaps.unwrap_or_default(),
    }
}

async fn keep(
    postgres: Postgres,
    archives: bool,
    mut wanted: watch::Receiver<Option<Wanted>>,
    kept_for_gap: watch::Sender<Option<Lsn>>,
) {
    let mut fault = Said::default();
    loop {
        let now = wanted.borrow_and_update().clone();
        let mut wait = LOOK_INTERVAL;
        if let Some(now) = now {
            match tend(&postgres, archives, &now).await {
                Ok(slot) => {
                    fault.forget();
                    note(&kept_for_gap, slot);
                    if is_behind(slot, now.archived) {
                        wait = BEHIND_INTERVAL;
                    }
                }
                Err(error) => {
                    wait = AGAIN_INTERVAL;
                    tell(&error, &mut fault, "the WAL that the archive lacks");
                }
            }
        }
        match timeout(wait, wanted.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return,
        }
    }
}

/// What became of the slot; `None` when there is to be none.
async fn tend(postgres: &Postgres, archives: bool, wanted: &Wanted) -> Result<Option<ArchiveSlot>, Error> {
    if !archives {
        return postgres.drop_archive_slot().await.map(|()| None);
    }
    let slot = postgres.hold_archive_slot(wanted.archived, &wanted.gaps).await?;
    match slot {
        ArchiveSlot::Kept { from } => debug!(%from, "keeping the WAL that the archive lacks"),
        ArchiveSlot::KeptForGap { .. } => {}
        ArchiveSlot::Made => info!("keeping the WAL that the archive lacks, from the last checkpoint on"),
        ArchiveSlot::MadeAnew => warn!(
            "the WAL that the archive lacks was more than max_slot_wal_keep_size, or this server was put back: what \
             is older than the last checkpoint may be removed here"
        ),
    }
    Ok(Some(slot))
}

/// Whether the slot has to be moved on when this server has come further.
fn is_behind(slot: Option<ArchiveSlot>, archived: Option<Lsn>) -> bool {
    match slot {
        Some(ArchiveSlot::Kept { from }) => archived.is_some_and(|archived| from < archived),
        Some(ArchiveSlot::KeptForGap { .. } | ArchiveSlot::Made | ArchiveSlot::MadeAnew) | None => false,
    }
}

fn note(kept_for_gap: &watch::Sender<Option<Lsn>>, slot: Option<ArchiveSlot>) {
    let gap = match slot {
        Some(ArchiveSlot::KeptForGap { from }) => Some(from),
        Some(ArchiveSlot::Kept { .. } | ArchiveSlot::Made | ArchiveSlot::MadeAnew) | None => None,
    };
    let is_news = kept_for_gap.send_if_modified(|known| std::mem::replace(known, gap) != gap);
    match gap.filter(|_| is_news) {
        Some(from) => warn!(
            %from,
            "keeping WAL that neither the archive nor the leader has, up to max_slot_wal_keep_size: switch over to this \
             member, and it ships the WAL; or drop its slot outrider_archive to abandon it"
        ),
        None if is_news => info!("no longer keeping WAL for a gap in the archive"),
        None => {}
    }
}

/// Says once what cannot be kept, and why.
pub(super) fn tell(error: &Error, said: &mut Said, what: &str) {
    // A Postgres that is gone or stopping is the round's to tell.
    if matches!(error, Error::Connect { .. }) {
        return;
    }
    let text = causes(error);
    if said.is_news(&text) {
        warn!(fault = %text, "cannot keep {what}");
    }
}

#[cfg(test)]
mod tests {
    use outrider_dcs::{ArchivedTo, Entry, Status};
    use outrider_postgres::Role;
    use outrider_wal::TimelineId;

    use super::*;
    use crate::sample::observation;

    #[test]
    fn a_standby_minds_the_gaps_of_its_timeline_and_the_primary_that_found_them_does_not() {
        let archived = |timeline| {
            let archived = ArchivedTo { timeline, lsn: Lsn::new(900), gaps: vec![Lsn::new(100)] };
            let status = Status { archived: Some(archived), ..Status::default() };
            Snapshot { status: Some(Entry { value: status, revision: 1 }), ..Snapshot::default() }
        };
        let standby = observation();
        let cluster = archived(standby.timeline);
        let seen = wanted(&standby, Some(&cluster));
        assert_eq!((seen.archived, seen.gaps), (Some(Lsn::new(900)), vec![Lsn::new(100)]));
        let primary = Observation { role: Role::Primary { flushed: Lsn::new(950) }, ..observation() };
        let seen = wanted(&primary, Some(&cluster));
        assert_eq!((seen.archived, seen.gaps), (Some(Lsn::new(900)), Vec::new()));
        let another = wanted(&standby, Some(&archived(TimelineId::new(7))));
        assert_eq!((another.archived, another.gaps), (None, Vec::new()));
    }
}
