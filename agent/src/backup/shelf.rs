//! What the archive holds, as it was last looked at: for visitors and metrics. Looks seldom, since each look lists the whole
//! archive, and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use outrider_archive::Layout;
use outrider_archive::catalog::Catalog;
use outrider_restore::verify::read_record;
use outrider_store::{self as store, Store};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::clock;
use crate::log::{Said, causes};
use crate::report::Board;

/// Between two looks that nobody asked for: a listing has a request for each thousand segments.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
/// Between two looks at the outcome of the last `outrider verify`: one small object.
const VERIFIED_INTERVAL: Duration = Duration::from_secs(60);
/// For one look: the store has a deadline for each request, an archive of years has many.
const LOOK_LIMIT: Duration = Duration::from_secs(120);

/// Clones are the same shelf.
#[derive(Clone)]
pub(crate) struct Shelf {
    store: Arc<dyn Store>,
    layout: Layout,
    seen: Arc<watch::Sender<Option<Arc<Seen>>>>,
    verified: Arc<watch::Sender<Option<Timestamp>>>,
    drills: Arc<watch::Sender<Drills>>,
    /// One look at a time: whoever waits for it gets what the other saw.
    turn: Arc<Mutex<()>>,
}

/// One look.
pub(crate) struct Seen {
    /// What is there.
    pub(crate) catalog: Catalog,
    /// When, by the clock on the wall.
    pub(crate) at: Timestamp,
    looked: Instant,
}

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

/// Why there was nothing to see.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShelfError {
    /// The store did not answer, or refused.
    #[error("cannot read the archive")]
    Store(#[source] store::Error),
    /// It takes too long.
    #[error("cannot read the archive within {limit:?}")]
    Late {
        /// The time.
        limit: Duration,
    },
}

impl Shelf {
    /// Of one server in its archive; not looked at yet.
    pub(crate) fn new(store: Arc<dyn Store>, layout: Layout) -> Self {
        Shelf {
            store,
            layout,
            seen: Arc::new(watch::Sender::new(None)),
            verified: Arc::new(watch::Sender::new(None)),
            drills: Arc::new(watch::Sender::new(Drills::default())),
            turn: Arc::default(),
        }
    }

    /// Where the archive is.
    pub(crate) fn url(&self) -> &str {
        self.store.url()
    }

    /// What was seen last, however long ago; `None` before the first look.
    pub(crate) fn last(&self) -> Option<Arc<Seen>> {
        self.seen.borrow().clone()
    }

    /// When `outrider verify` last restored a backup to the end; `None` when it never did.
    pub(crate) fn verified(&self) -> Option<Timestamp> {
        *self.verified.borrow()
    }

    /// What became of the drills of this member.
    pub(crate) fn drills(&self) -> Drills {
        self.drills.borrow().clone()
    }

    /// Notes something of them.
    pub(crate) fn note_drill(&self, note: impl FnOnce(&mut Drills)) {
        self.drills.send_modify(note);
    }

    /// Reads when `outrider verify` last restored a backup to the end.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn look_verified(&self) -> Result<(), store::Error> {
        let seen = read_record(&*self.store, &self.layout).await?.and_then(|record| record.restored_at);
        let before = self.verified.send_replace(seen);
        if before != seen {
            info!(at = seen.map(|at| at.to_string()), "a backup was last verified by restoring it");
        }
        Ok(())
    }

    /// What is there now, or was so long ago at the most.
    ///
    /// # Errors
    /// When the store does not let itself be read.
    pub(crate) async fn look(&self, age: Duration) -> Result<Arc<Seen>, ShelfError> {
        let _turn = self.turn.lock().await;
        if let Some(seen) = self.last().filter(|seen| seen.looked.elapsed() <= age) {
            return Ok(seen);
        }
        let looked = clock::monotonic();
        let reading = async { tokio::join!(Catalog::read(&*self.store, &self.layout), self.look_verified()) };
        // Without the second the first is worth telling.
        let (catalog, _) =
            timeout(LOOK_LIMIT, reading).await.map_err(|_| ShelfError::Late { limit: LOOK_LIMIT })?;
        let catalog = catalog.map_err(ShelfError::Store)?;
        let seen = Arc::new(Seen { catalog, at: clock::wall(), looked });
        self.seen.send_replace(Some(seen.clone()));
        Ok(seen)
    }

    /// Looks now and then, and when a backup has ended.
    pub(crate) fn keep(&self, board: Board) -> ShelfTask {
        ShelfTask {
            tasks: [
                tokio::spawn(look_now_and_then(self.clone(), board)),
                tokio::spawn(verify_watch(self.clone())),
            ],
        }
    }
}

/// Ends when it is dropped.
pub(crate) struct ShelfTask {
    tasks: [JoinHandle<()>; 2],
}

impl Drop for ShelfTask {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn look_now_and_then(shelf: Shelf, mut board: Board) {
    let mut ended = None;
    let mut fault = Said::default();
    loop {
        match shelf.look(Duration::ZERO).await {
            Ok(_) => fault.forget(),
            Err(error) => {
                let text = causes(&error);
                if fault.is_news(&text) {
                    warn!(fault = %text, "cannot list the archive");
                }
            }
        }
        let another = async {
            loop {
                let last = board
                    .borrow_and_update()
                    .as_ref()
                    .and_then(|report| Some(report.cluster.as_ref()?.backup_last.as_ref()?.revision));
                if last != ended {
                    return last;
                }
                if board.changed().await.is_err() {
                    // The agent ends, and this task with it.
                    std::future::pending::<()>().await;
                }
            }
        };
        if let Ok(last) = timeout(LOOK_INTERVAL, another).await {
            ended = last;
        }
    }
}

async fn verify_watch(shelf: Shelf) {
    loop {
        // A store that does not answer is told of elsewhere; what was seen before still holds.
        let _ = shelf.look_verified().await;
        sleep(VERIFIED_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use outrider_store::DirectoryStore;

    use super::*;

    #[tokio::test]
    async fn what_was_seen_a_moment_ago_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(DirectoryStore::new(directory.path().to_owned()));
        let shelf = Shelf::new(store, Layout::new("demo").unwrap());
        let first = shelf.look(Duration::from_secs(3600)).await.unwrap();
        assert!(first.catalog.backups.is_empty());
        let folder = directory.path().join("demo/base/20260101T000000");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("data.tar.gz"), "x").unwrap();
        let again = shelf.look(Duration::from_secs(3600)).await.unwrap();
        assert!(again.catalog.backups.is_empty());
        let now = shelf.look(Duration::ZERO).await.unwrap();
        assert_eq!(now.catalog.backups.len(), 1);
        assert_eq!(shelf.last().unwrap().catalog.backups.len(), 1);
    }
}
