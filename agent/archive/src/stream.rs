//! Streams the WAL segment that is being written to the archive, a chunk each second, while this member holds the
//! leader lease, so that losing every member loses about a second. Ships no finished segment; knows no SQL.
//!
//! Only flushed WAL leaves: what a crash of this machine could still take back, and PostgreSQL write anew, would be a
//! second history in the archive. A crash rewrites no flushed byte: a record that lies on two pages and of which only
//! the first was flushed stays, and is passed over from then on (`XLOG_OVERWRITE_CONTRECORD`).

mod chunk;
mod progress;
mod resume;
mod status;
mod sweep;
mod work;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_wal::{Lsn, TimelineId};
use tokio::sync::watch;

use crate::ship::tell;
use crate::{Layout, Leadership, Shipper};
use outrider_store::Store;
pub use status::{StreamCounters, StreamStatus};

/// Where WAL is safe on this machine's disk.
#[async_trait]
pub trait FlushPosition: fmt::Debug + Send + Sync {
    /// The end of the WAL that the primary has flushed, and the timeline on which it writes; `None` when it does not
    /// answer or is no primary. Asked once each interval. The caller waits for two seconds at most.
    async fn flushed(&self) -> Option<(TimelineId, Lsn)>;

    /// What the next to look at the server for another reason finds, where somebody does: then it need not be asked again. Waits
    /// for as long as nobody looks.
    async fn found_anyway(&self) -> (TimelineId, Lsn) {
        std::future::pending().await
    }
}

/// What is streamed, and how.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The server's `pg_wal`.
    pub pg_wal: PathBuf,
    /// Where the chunks lie in the store.
    pub layout: Layout,
    /// From one look for flushed WAL to the next. With nothing new there is no request to the store.
    pub interval: Duration,
}

/// Speaks to the task that streams. The task ends with the last of its handles.
#[derive(Clone, Debug)]
pub struct Streamer {
    leadership: Arc<watch::Sender<Option<Leadership>>>,
    status: watch::Receiver<StreamStatus>,
}

impl Streamer {
    /// Starts the task, which streams nothing until it is enabled. `shipper` tells which segments the archive has, so
    /// that their chunks can go. Must be called in a tokio runtime.
    #[must_use]
    pub fn start(
        options: StreamOptions,
        store: Arc<dyn Store>,
        position: Arc<dyn FlushPosition>,
        shipper: Shipper,
    ) -> Self {
        let (leadership, leadership_seen) = watch::channel(None);
        let (shown, status) = watch::channel(StreamStatus::default());
        tokio::spawn(work::run(options, store, position, shipper, leadership_seen, shown));
        Streamer { leadership: Arc::new(leadership), status }
    }

    /// Streams from now on. With the leadership that it has already, nothing changes.
    pub fn enable(&self, leadership: Leadership) {
        tell(&self.leadership, Some(leadership));
    }

    /// Streams no more. A put that the store has received already may still happen; it can only add what is ours.
    pub fn disable(&self) {
        tell(&self.leadership, None);
    }

    /// What is going on. The receiver sees each change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<StreamStatus> {
        self.status.clone()
    }
}
