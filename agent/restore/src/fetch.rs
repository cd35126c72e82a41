//! Brings a file of the WAL from the archive to where PostgreSQL wants it: whole, checked, or not at all.

mod ahead;
mod error;
mod find;
mod growing;
mod receive;
mod stitch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outrider_wal::WalFileName;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

pub use self::ahead::AheadOptions;
pub use self::error::FetchError;

use self::ahead::Ahead;
use self::find::{Archive, Located};
use self::receive::{Received, Urgency, receive};
use self::stitch::Joined;
use crate::clock;
use outrider_archive::Layout;
use outrider_store::Backoff;
use outrider_store::{self as store, Store};

/// How long a store that gave no answer is not asked again on behalf of a standby: its replay and its promotion
/// would stand still for the whole of [`Patience::limit`] with each file that it asks for.
const SILENCE: Duration = Duration::from_secs(10);

/// How long to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Once and briefly: a standby can stream instead.
    Standby,
    /// Again and again, for half a minute: a recovery has no other source.
    Recovery,
}

impl Patience {
    /// How long a fetch takes at most: a standby streams nothing meanwhile, a recovery has nothing else to do.
    #[must_use]
    pub const fn limit(self) -> Duration {
        match self {
            Patience::Standby => Duration::from_secs(3),
            Patience::Recovery => Duration::from_secs(30),
        }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is at its destination.
    Written {
        /// Its bytes.
        bytes: u64,
    },
    /// The store confirmed that it has no such file.
    Absent,
}

/// Reads one server's WAL from its archive. Clones share what is known.
///
/// Fetches of several files, and of one file twice, may run beside each other: each writes to a file that only it knows, checks
/// that, and renames it to its destination.
#[derive(Clone, Debug)]
pub struct Fetcher {
    archive: Arc<Archive>,
    ahead: Option<Arc<Ahead>>,
    silent_until: Arc<watch::Sender<Option<Instant>>>,
}

/// Where a file is to go.
#[derive(Clone, Copy)]
struct Destination<'a> {
    path: &'a Path,
    owner: Option<(u32, u32)>,
}

impl Fetcher {
    /// Reads what lies at `layout` in `store`, and not ahead.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, layout: Layout) -> Self {
        let (silent_until, _) = watch::channel(None);
        let archive = Arc::new(Archive::new(store, layout));
        Fetcher { archive, ahead: None, silent_until: Arc::new(silent_until) }
    }

    /// Reads what lies at `layout` in `store`, and ahead. When the directory for that cannot be made, that is logged and
    /// WAL is not read ahead.
    #[must_use]
    pub fn reading_ahead(store: Arc<dyn Store>, layout: Layout, options: AheadOptions) -> Self {
        let fetcher = Self::new(store, layout);
        let ahead = ahead::open(options, &fetcher.archive);
        Fetcher { ahead, ..fetcher }
    }

    /// From now on only segments of this server are good.
    pub fn expect_system_identifier(&self, system_identifier: u64) {
        self.archive.expect_system_identifier(system_identifier);
    }

    /// Throws away what was read ahead and stops reading: PostgreSQL is promoted or stopped, and nothing must take its
    /// bandwidth. What is asked for next begins it anew.
    pub fn forget_ahead(&self) {
        if let Some(ahead) = &self.ahead {
            ahead.clear();
        }
    }

    /// Brings `name` to `destination`, which appears whole or not at all; `owner` (user and group) gets it.
    ///
    /// # Errors
    /// Only [`Fetched::Absent`] says that there is no such file; after an error nobody knows.
    pub async fn fetch(
        &self,
        name: WalFileName,
        destination: &Path,
        owner: Option<(u32, u32)>,
        patience: Patience,
    ) -> Result<Fetched, FetchError> {
        let limit = patience.limit();
        if patience == Patience::Standby
            && self.silent_until.borrow().is_some_and(|until| clock::monotonic() < until)
        {
            return Err(FetchError::Silent { url: self.archive.store.url().to_owned(), name });
        }
        let end = clock::monotonic() + limit;
        let destination = Destination { path: destination, owner };
        let mut backoff = Backoff::default();
        let mut last = None;
        // A recovery surely wants what comes next, unless there is hardly room for what it wants now.
        let mut eager = patience == Patience::Recovery;
        loop {
            let attempt = timeout(end - clock::monotonic(), self.attempt(name, destination, eager)).await;
            let failure = match attempt {
                Ok(Ok(fetched)) => {
                    self.silent_until.send_replace(None);
                    return Ok(fetched);
                }
                Ok(Err(failure)) => failure,
                Err(_) => {
                    self.silent_until.send_replace(Some(clock::monotonic() + SILENCE));
                    return Err(FetchError::Late { name, limit, last });
                }
            };
            if failure.is_disk_full() && self.make_room() {
                last = Some(Box::new(failure));
                eager = false;
                continue;
            }
            let FetchError::Store { source, .. } = &failure else { return Err(failure) };
            if source.is_silence() {
                self.silent_until.send_replace(Some(clock::monotonic() + SILENCE));
            }
            let wait = backoff.next_wait();
            if patience == Patience::Standby || clock::monotonic() + wait >= end {
                return Err(failure);
            }
            last = Some(Box::new(failure));
            sleep(wait).await;
        }
    }

    async fn attempt(
        &self,
        name: WalFileName,
        destination: Destination<'_>,
        eager: bool,
    ) -> Result<Fetched, FetchError> {
        if let Some(fetched) = self.take_ahead(name, destination).await {
            self.advance(name, fetched, eager);
            return Ok(fetched);
        }
        let store_error = |source| FetchError::Store { name, source };
        let mut found = self.archive.find(name).await.map_err(store_error)?;
        if let (Located::Chunks { chunks, partials }, WalFileName::Segment(segment)) = (&mut found, name) {
            let chunks = std::mem::take(chunks);
            match stitch::join(&self.archive, self.ahead.as_ref(), segment, chunks, destination.path).await? {
                Joined::Segment(received) => return put(received, destination),
                Joined::Known => return Ok(Fetched::Absent),
                Joined::Changed => return Err(store_error(self.changed(name))),
                Joined::Nothing => {
                    let partial = self.archive.first(std::mem::take(partials)).await;
                    found = partial.map_err(store_error)?.unwrap_or(Located::Nowhere);
                }
            }
        }
        let Located::Object { key, format, whole, download } = found else { return Ok(Fetched::Absent) };
        if let (true, Some(ahead), WalFileName::Segment(segment)) = (whole && eager, &self.ahead, name) {
            ahead.begin(segment);
        }
        let wanted = self.archive.wanted(name, key, format, destination.path);
        let received = receive(download, &self.archive.budget, wanted, Urgency::Now).await?;
        let fetched = put(received, destination)?;
        if whole {
            self.advance(name, fetched, eager);
        }
        Ok(fetched)
    }

    /// Answers with a file that is here already.
    async fn take_ahead(&self, name: WalFileName, destination: Destination<'_>) -> Option<Fetched> {
        let (Some(ahead), WalFileName::Segment(segment)) = (&self.ahead, name) else { return None };
        let put = put(ahead.take(segment).await?, destination);
        put.inspect_err(|failure| debug!(%name, "what was read ahead cannot be used: {failure}")).ok()
    }

    fn advance(&self, name: WalFileName, fetched: Fetched, eager: bool) {
        if let (Some(ahead), WalFileName::Segment(segment), Fetched::Written { bytes }) =
            (&self.ahead, name, fetched)
        {
            ahead.advance(segment, bytes, eager);
        }
    }

    /// Whether there was something to throw away.
    fn make_room(&self) -> bool {
        let something = self.ahead.as_ref().is_some_and(|ahead| !ahead.is_empty());
        self.forget_ahead();
        something
    }

    fn changed(&self, name: WalFileName) -> store::Error {
        store::Error::Busy {
            act: "read",
            url: format!("{}: {name}", self.archive.store.url()),
            status: 404,
            code: "Changed".to_owned(),
            message: "its streamed chunks disappeared while they were read".to_owned(),
        }
    }
}

fn put(received: Received, destination: Destination<'_>) -> Result<Fetched, FetchError> {
    let path = destination.path;
    received
        .put(path, destination.owner)
        .map(|bytes| Fetched::Written { bytes })
        .map_err(|source| FetchError::Write { path: path.to_owned(), source })
}
