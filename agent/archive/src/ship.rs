//! Ships finished WAL to the archive, ahead of PostgreSQL's asking, while this member holds the leader lease.
//! Does not mark anything as done: PostgreSQL does, when its `archive_command` was told that the file is durable.

mod capacity;
mod gaps;
mod queue;
mod unbroken;
mod work;
mod writer;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use outrider_wal::{SegmentSize, TimelineId, WalFileName};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::upload::{Suffixes, Uploader};
use crate::{Compression, Layout, Status};
use outrider_store::Store;

/// Questions of `wal-push` that wait to be looked at. PostgreSQL asks one at a time.
const QUESTIONS_MAX: usize = 16;

/// What is shipped, and how.
#[derive(Clone, Debug)]
pub struct ShipOptions {
    /// The server's `pg_wal`.
    pub pg_wal: PathBuf,
    /// The member's name, under which it claims the archive.
    pub member: String,
    /// Where the files lie in the store.
    pub layout: Layout,
    /// How they are compressed.
    pub compression: Compression,
    /// Files under way at one time; fewer when segments are larger than 32 MiB. Each takes what is left of it after
    /// compression, at most the size of a segment: with 4 and segments of 16 MiB at most 64 MiB, and with WAL that
    /// shrinks to a seventh, as most does, 10 MiB. See [`ShipOptions::default_parallelism`].
    pub parallelism: NonZeroUsize,
}

/// The right to ship: the leader lease is held, and this is the server that it is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The term of the lease.
    pub term: u64,
    /// The server's, from its control file. A segment of another server is refused.
    pub system_identifier: u64,
    /// The server's, from its control file.
    pub segment_size: SegmentSize,
    /// The timeline that it writes on.
    pub timeline: TimelineId,
}

impl ShipOptions {
    /// For this machine: while each core compresses a file, as many as that may be on their way to the store, which
    /// answers when it has made them durable. 4 on two cores, and never more than 8.
    #[must_use]
    pub fn default_parallelism() -> NonZeroUsize {
        NonZeroUsize::new((cores() * 2).clamp(2, 8)).unwrap_or(NonZeroUsize::MIN)
    }
}

/// Why a file is not known to be durable. Each says what a DBA reads in PostgreSQL's log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDurable {
    /// The file is not what its name says.
    #[error("not archived: {0}")]
    Content(String),
    /// The archive has another content for this name.
    #[error("not archived, and nobody may overwrite it: {0}")]
    Conflict(String),
    /// Another writes to this archive, or it is another cluster's.
    #[error("not archived: {0}")]
    Writer(String),
    /// It is not yet; said only to who does not want to wait.
    #[error("not archived yet")]
    NotYet,
    /// Too many ask at once.
    #[error("not archived: too many requests are waiting")]
    Busy,
    /// The shipper has ended.
    #[error("not archived: the agent is stopping")]
    Ended,
}

/// Passes on who leads, to a task that does not know it yet. Whether it was news.
pub(crate) fn tell(known: &watch::Sender<Option<Leadership>>, now: Option<Leadership>) -> bool {
    known.send_if_modified(|known| std::mem::replace(known, now) != now)
}

/// Files that are compressed at one time: more would only take room.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Speaks to the task that ships. The task ends with the last of its handles.
#[derive(Clone, Debug)]
pub struct Shipper {
    leadership: Arc<watch::Sender<Option<Leadership>>>,
    questions: mpsc::Sender<Question>,
    status: watch::Receiver<Status>,
}

/// Is this file durable? Answered at once, or when it is or cannot become so.
#[derive(Debug)]
struct Question {
    name: WalFileName,
    waits: bool,
    answer: oneshot::Sender<Result<(), NotDurable>>,
}

impl Shipper {
    /// Starts the task, which ships nothing until it is enabled. Must be called in a tokio runtime.
    #[must_use]
    pub fn start(options: ShipOptions, store: Arc<dyn Store>) -> Self {
        let (leadership, leadership_seen) = watch::channel(None);
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let (status_shown, status) = watch::channel(Status::default());
        let ShipOptions { pg_wal, member, layout, compression, parallelism } = options;
        let packers = Arc::new(Semaphore::new(cores()));
        let suffixes = Suffixes::default();
        let uploader = Uploader { store, layout, compression, suffixes, pg_wal, packers };
        let work = work::Shipping::new(uploader, member, parallelism.get(), status_shown);
        tokio::spawn(work.run(leadership_seen, asked));
        Shipper { leadership: Arc::new(leadership), questions, status }
    }

    /// Ships from now on. With the leadership that it has already, nothing changes. Whether it is a new one.
    pub fn enable(&self, leadership: Leadership) -> bool {
        tell(&self.leadership, Some(leadership))
    }

    /// Ships no more. A put that the store has received already may still happen; it can only add what is ours.
    pub fn disable(&self) {
        tell(&self.leadership, None);
    }

    /// What is going on. The receiver sees each change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until the archive has `name` for good. Waits for ever while the store is down or this member ships
    /// nothing: the caller sets the deadline.
    ///
    /// # Errors
    /// When the file cannot be archived as it is.
    pub async fn durable(&self, name: WalFileName) -> Result<(), NotDurable> {
        self.ask(name, true).await
    }

    /// Whether the archive has `name` for good, as far as is known without asking the store.
    ///
    /// # Errors
    /// [`NotDurable::NotYet`] when it is not known to.
    pub async fn durable_already(&self, name: WalFileName) -> Result<(), NotDurable> {
        self.ask(name, false).await
    }

    async fn ask(&self, name: WalFileName, waits: bool) -> Result<(), NotDurable> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { name, waits, answer }).await.map_err(|_| NotDurable::Ended)?;
        answered.await.unwrap_or(Err(NotDurable::Ended))
    }
}
