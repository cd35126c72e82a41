//! Removes the chunks of segments that the archive has whole. Removes no other, and streams nothing.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use outrider_wal::{SegmentName, WalFileName};
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::debug;

use super::chunk::ChunkError;
use crate::{Compression, Layout, Shipper};
use outrider_store::Backoff;
use outrider_store::{self as store, Store, causes};

/// Segments whose chunks wait to be removed. Those beyond are found when streaming begins the next time.
const LEFT_MAX: usize = 4096;
/// Objects of one answer.
const PAGE: usize = 1000;

/// What the streaming side tells the sweeping side.
#[derive(Debug, Default)]
pub(super) struct Left {
    segments: Mutex<BTreeSet<SegmentName>>,
    added: Notify,
}

pub(super) struct Sweeper<'work> {
    pub(super) store: &'work dyn Store,
    pub(super) layout: &'work Layout,
    pub(super) shipper: &'work Shipper,
    pub(super) left: &'work Left,
    /// Requests to the store so far.
    pub(super) requests: &'work AtomicU64,
}

impl Left {
    /// There are chunks of a segment that is not being written any more.
    pub(super) fn add(&self, segment: SegmentName) {
        let mut segments = self.segments.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if segments.len() < LEFT_MAX {
            segments.insert(segment);
        }
        drop(segments);
        self.added.notify_one();
    }

    fn all(&self) -> Vec<SegmentName> {
        let segments = self.segments.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        segments.iter().copied().collect()
    }

    fn remove(&self, segment: SegmentName) {
        let mut segments = self.segments.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        segments.remove(&segment);
    }
}

impl Sweeper<'_> {
    /// Never ends. Asks the store for something only at the start, once the archive is claimed, and when a segment was
    /// confirmed.
    pub(super) async fn run(&self) {
        let mut backoff = Backoff::default();
        if self.shipper.status().wait_for(|status| status.claimed).await.is_err() {
            // The program is ending.
            return std::future::pending().await;
        }
        while let Err(error) = self.survey().await {
            debug!(error = causes(&error), "not looking for chunks of earlier segments yet");
            sleep(backoff.next_wait()).await;
        }
        let mut status = self.shipper.status();
        let mut seen = None;
        loop {
            match self.sweep().await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    debug!(error = error.text(), "keeping chunks of finished segments for now");
                    sleep(backoff.next_wait()).await;
                    continue;
                }
            }
            let more_files = async {
                let shown = status.wait_for(|status| Some(status.counters.files) != seen).await;
                shown.ok().map(|status| status.counters.files)
            };
            tokio::select! {
                () = self.left.added.notified() => {}
                files = more_files => match files {
                    Some(files) => seen = Some(files),
                    // The program is ending.
                    None => std::future::pending().await,
                },
            }
        }
    }

    /// Looks for chunks from before: one request for each segment that has any, and one more.
    async fn survey(&self) -> Result<(), store::Error> {
        let prefix = self.layout.stream(None);
        let mut after: Option<String> = None;
        for _ in 0..LEFT_MAX {
            self.count();
            let page = self.store.list(&prefix, after.as_deref(), 1).await?;
            let Some(object) = page.objects.first() else { break };
            let folder = object.key.strip_prefix(&prefix).and_then(|rest| rest.split('/').next());
            let segment = folder.map(str::parse::<WalFileName>);
            if let Some(Ok(WalFileName::Segment(segment))) = segment {
                if self.is_archived(segment).await? {
                    self.remove(segment).await?;
                } else {
                    self.left.add(segment);
                }
            }
            // Behind all that lies in this folder: no name of a chunk has a tilde.
            after = Some(format!("{prefix}{}/~", folder.unwrap_or_default()));
        }
        Ok(())
    }

    /// Whether the archive has the segment, whole or, of a timeline that was left, as far as it goes.
    async fn is_archived(&self, segment: SegmentName) -> Result<bool, store::Error> {
        let whole = self.layout.wal(WalFileName::Segment(segment), Compression::None);
        self.count();
        let page = self.store.list(&whole, None, PAGE).await?;
        let mut names = page.objects.iter().filter_map(|object| object.key.strip_prefix(&whole));
        // Beside them may lie where base backups began: `.00000028.backup`.
        Ok(names.any(|rest| !rest.contains(".backup")))
    }

    /// Removes what the shipper has confirmed since.
    async fn sweep(&self) -> Result<(), ChunkError> {
        for segment in self.left.all() {
            let names = [WalFileName::Segment(segment), WalFileName::Partial(segment)];
            let mut confirmed = false;
            for name in names {
                confirmed = confirmed || self.shipper.durable_already(name).await.is_ok();
            }
            if confirmed {
                self.remove(segment).await.map_err(ChunkError::Store)?;
                self.left.remove(segment);
            }
        }
        Ok(())
    }

    async fn remove(&self, segment: SegmentName) -> Result<(), store::Error> {
        let prefix = self.layout.stream(Some(segment));
        loop {
            self.count();
            let page = self.store.list(&prefix, None, PAGE).await?;
            for object in &page.objects {
                self.count();
                self.store.delete(&object.key).await?;
            }
            if !page.more {
                debug!(%segment, "its chunks are removed: the archive has it");
                return Ok(());
            }
        }
    }

    fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}
