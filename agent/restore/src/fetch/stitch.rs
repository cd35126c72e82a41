//! Joins what was streamed of a segment before it was finished: the last second before everything was lost. A standby
//! asks for it again every few seconds; then only what was streamed since comes from the store.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use outrider_wal::{SegmentName, WalFileName};
use tracing::{info, warn};

use super::ahead::Ahead;
use super::error::FetchError;
use super::find::{Archive, Chunk, lock};
use super::growing::Growing;
use super::receive::{self, Received};
use outrider_store::Error;

/// Chunks on their way at one time.
const AT_ONCE: usize = 8;

/// What came of joining.
pub(super) enum Joined {
    /// The segment, with zeros where nothing was streamed yet: to PostgreSQL the WAL ends there.
    Segment(Received),
    /// The beginning is missing, so none of it is of use.
    Nothing,
    /// The server itself has all of it, and perhaps more.
    Known,
    /// A chunk went away meanwhile: the segment was finished, as a rule. It is to be looked for anew.
    Changed,
}

/// Joins the chunks, sorted by their place, as far as there is no gap between them.
pub(super) async fn join(
    archive: &Archive,
    ahead: Option<&Arc<Ahead>>,
    segment: SegmentName,
    chunks: Vec<Chunk>,
    beside: &Path,
) -> Result<Joined, FetchError> {
    let name = WalFileName::Segment(segment);
    let listed = chunks.len();
    let mut chunks = contiguous(chunks);
    if chunks.len() < listed {
        warn!(%segment, used = chunks.len(), listed, "the streamed chunks of a segment have a gap");
    }
    let Some(first) = chunks.first().map(|chunk| chunk.key.clone()) else { return Ok(Joined::Nothing) };
    let cannot_write = |source| FetchError::Write { path: beside.to_owned(), source };
    let mut growing = match ahead.and_then(|ahead| ahead.kept(segment)) {
        Some(kept) => kept,
        None => {
            let lasting = ahead.map(|ahead| ahead.place(segment));
            Growing::begin(lasting.as_deref(), beside).map_err(cannot_write)?
        }
    };
    chunks.drain(..growing.resume(&chunks));
    let coming = futures_util::stream::iter(chunks).map(|chunk| load(archive, chunk)).buffered(AT_ONCE);
    let mut coming = std::pin::pin!(coming);
    let mut differs = false;
    while let Some((chunk, packed)) =
        coming.try_next().await.map_err(|source| FetchError::Store { name, source })?
    {
        let Some(packed) = packed else { return Ok(Joined::Changed) };
        let path = beside.to_owned();
        let adding = tokio::task::spawn_blocking(move || growing.add(chunk, &packed, &path)).await;
        let (grown, same) =
            adding.unwrap_or_else(|panicked| Err(cannot_write(io::Error::other(panicked))))?;
        growing = grown;
        if !same {
            warn!(%segment, end = growing.end, "two streams of a segment differ; the part before that is used");
            differs = true;
            break;
        }
    }
    let end = growing.end;
    let system_identifier = archive.system_identifier();
    let path = beside.to_owned();
    let (same, growing) = {
        let own = beside.with_file_name(segment.to_string());
        let comparing =
            tokio::task::spawn_blocking(move || growing.is_beginning_of(&own).map(|same| (same, growing)));
        let compared = comparing.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        compared.map_err(cannot_write)?
    };
    if same {
        if let (Some(ahead), true, false) = (ahead, growing.stays, differs) {
            ahead.keep(segment, growing);
        }
        return Ok(Joined::Known);
    }
    let ending = tokio::task::spawn_blocking(move || growing.finish(name, first, system_identifier, &path));
    let (received, kept) = match ending.await {
        Ok(finished) => match finished? {
            Some(finished) => finished,
            None => return Ok(Joined::Nothing),
        },
        Err(panicked) => return Err(cannot_write(io::Error::other(panicked))),
    };
    if let (Some(ahead), Some(kept), false) = (ahead, kept, differs) {
        ahead.keep(segment, kept);
    }
    if lock(&archive.joined).replace(segment) != Some(segment) {
        info!(%segment, bytes = end, "an unfinished segment was assembled from its streamed chunks");
    }
    Ok(Joined::Segment(received))
}

/// The chunks from the beginning to the first gap.
fn contiguous(chunks: Vec<Chunk>) -> Vec<Chunk> {
    let mut end = 0;
    let follows = |chunk: &Chunk| {
        let follows = chunk.from <= end;
        end = end.max(chunk.to);
        follows
    };
    chunks.into_iter().take_while(follows).collect()
}

/// `None` when the object is gone.
async fn load(archive: &Archive, chunk: Chunk) -> Result<(Chunk, Option<Vec<u8>>), Error> {
    // Held until the bytes are here; how many wait after that is bounded by `AT_ONCE`.
    let _place = receive::place(&archive.budget, chunk.to - chunk.from).await;
    let packed = match archive.store.get(&chunk.key).await? {
        Some(download) => Some(receive::collect(download).await?),
        None => None,
    };
    Ok((chunk, packed))
}
