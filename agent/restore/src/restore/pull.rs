//! Brings one tar of a base backup from the store to its files: in parallel where an index says how, else from front
//! to end. Chooses no place and checks no manifest.

use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use futures_util::{StreamExt as _, stream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::download::{Trouble, range};
use super::files::{self, Destination, Output, Shared};
use super::untar::Untar;
use crate::error::RestoreError;
use outrider_archive::TarIndex;
use outrider_archive::compression::{self, Format};
use outrider_store::{ObjectReader, ObjectSender, Store};

/// Ranges under way from the store at one time.
const FETCHES: usize = 4;
/// Threads that unpack and write at one time are as many as there are cores, but at most this many: memory is bounded by
/// ([`FETCHES`] + 2 × threads) × (a span stored and unpacked).
const THREADS_MAX: usize = 8;
/// A longer span of an index is not trusted; ours have some MiB.
const SPAN_MAX: u64 = 128 << 20;
/// Bytes of a tar that are unpacked before they are written, where there is no index.
const PIECE: usize = 1 << 20;
/// An empty final block with fixed codes: it ends a stream of deflate that was cut at a byte (RFC 1951, 3.2.6).
const DEFLATE_END: [u8; 2] = [3, 0];

/// One tar in the store.
#[derive(Clone, Debug)]
pub(super) struct Tar {
    pub(super) key: String,
    /// Its name beside `backup.info`.
    pub(super) name: String,
    /// Bytes as stored.
    pub(super) size: u64,
    pub(super) format: Format,
    /// The tablespace whose files it holds; `None` for the data directory.
    pub(super) tablespace: Option<u32>,
    pub(super) index: Option<TarIndex>,
}

/// Part of a tar that can be unpacked by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: u64,
    to: u64,
    plain: usize,
}

/// Brings the tar to its files. When this returns no thread of it writes any more.
pub(super) async fn pull(
    store: &Arc<dyn Store>,
    tar: &Tar,
    destination: Destination,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    let shared = destination.shared.clone();
    if shared.stop.load(Ordering::Relaxed) {
        return Err(RestoreError::Cancelled { removed: false });
    }
    let spans = tar.index.as_ref().filter(|index| index.stored == tar.size).and_then(spans);
    let pulled = match spans {
        Some(spans) => in_parallel(store, tar, spans, destination, cancel).await,
        None => in_order(store, tar, destination, cancel).await,
    };
    pulled.inspect_err(|_| shared.stop.store(true, Ordering::Relaxed)).map_err(|fault| match fault {
        RestoreError::Damaged { object, fault } if object.is_empty() => {
            RestoreError::Damaged { object: tar.name.clone(), fault }
        }
        fault => fault,
    })
}

/// The parts that an index names, when it is one that can be trusted.
fn spans(index: &TarIndex) -> Option<Vec<Span>> {
    let ends = index.points.iter().skip(1).map(|point| (point.stored, point.plain));
    let ends = ends.chain([(index.stored_end, index.plain)]);
    let mut spans = Vec::with_capacity(index.points.len());
    for (point, (stored_end, plain_end)) in index.points.iter().zip(ends) {
        let plain = plain_end.checked_sub(point.plain).filter(|plain| *plain <= SPAN_MAX)?;
        stored_end.checked_sub(point.stored).filter(|stored| (1..=SPAN_MAX).contains(stored))?;
        spans.push(Span { from: point.stored, to: stored_end, plain: usize::try_from(plain).ok()? });
    }
    let begins = index.points.first().is_some_and(|point| point.plain == 0);
    (begins && index.stored_end <= index.stored).then_some(spans)
}

/// What the threads of one tar share. Three things are done with each span: it is inflated, beside all others, since it was
/// compressed by itself; the headers in it are read, one span after the other, since only what lies before tells where the next
/// header is; and its files are written, beside all others again, since no byte of a file is in two spans.
///
/// A thread waits for earlier spans only. They are begun in order, so that the earliest that is not read yet always has a
/// thread, and that one waits for nobody.
struct Pipeline {
    headers: Mutex<Headers>,
    moved: Condvar,
    shared: Arc<Shared>,
    /// Memory to be used again.
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// How far the headers are read.
struct Headers {
    /// The place of the span whose headers are read next.
    next: usize,
    untar: Untar<Arc<Output>>,
    destination: Destination,
}

async fn in_parallel(
    store: &Arc<dyn Store>,
    tar: &Tar,
    spans: Vec<Span>,
    destination: Destination,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    let shared = destination.shared.clone();
    let pipeline = Arc::new(Pipeline {
        headers: Mutex::new(Headers { next: 0, untar: Untar::new(), destination }),
        moved: Condvar::new(),
        shared,
        buffers: Mutex::default(),
    });
    let fetches = spans.into_iter().enumerate().map(|(place, span)| {
        let (store, key) = (store.clone(), tar.key.clone());
        async move {
            // Tasks of their own: while all threads are taken nobody polls the stream, and the network must not rest.
            let fetch =
                tokio::spawn(
                    async move { range(&*store, &key, span.from, span.to, DEFLATE_END.len()).await },
                );
            let fetched = AbortOnDropHandle::new(fetch).await.unwrap_or_else(|gone| Err(panicked(&gone)));
            fetched.map(|stored| (place, span, stored))
        }
    });
    // In order, or the threads could all be taken by spans that wait for one which has none.
    let mut fetches = stream::iter(fetches).buffered(FETCHES);
    let threads = thread::available_parallelism().map_or(2, usize::from).clamp(2, THREADS_MAX);
    let mut working = JoinSet::new();
    let mut outcome = Ok(());
    loop {
        let fetched = tokio::select! {
            () = cancel.cancelled() => Some(Err(RestoreError::Cancelled { removed: false })),
            done = working.join_next(), if working.len() >= threads => {
                outcome = joined(done);
                if outcome.is_ok() { continue } else { break }
            }
            fetched = fetches.next(), if working.len() < threads => fetched,
        };
        match fetched {
            None => break,
            Some(Err(fault)) => {
                outcome = Err(fault);
                break;
            }
            Some(Ok((place, span, stored))) => {
                let pipeline = pipeline.clone();
                working.spawn_blocking(move || pipeline.work(place, span, stored));
            }
        }
    }
    if outcome.is_err() {
        pipeline.give_up();
    }
    // A thread cannot be broken off: whoever removes the files after a failure must not find one that still writes.
    while let Some(done) = working.join_next().await {
        outcome = weightier(outcome, joined(Some(done)));
    }
    outcome?;
    let headers = pipeline.headers.lock().unwrap_or_else(PoisonError::into_inner);
    check_end(&headers.untar)
}

impl Pipeline {
    fn work(&self, place: usize, span: Span, stored: Vec<u8>) -> Result<(), RestoreError> {
        self.unpack(place, span, stored).inspect_err(|_| self.give_up())
    }

    fn unpack(&self, place: usize, span: Span, stored: Vec<u8>) -> Result<(), RestoreError> {
        let mut plain = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        plain.resize(span.plain, 0);
        inflate(stored, &mut plain)?;
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        while headers.next != place {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(RestoreError::Cancelled { removed: false });
            }
            headers = self.moved.wait(headers).unwrap_or_else(PoisonError::into_inner);
        }
        let Headers { next, untar, destination } = &mut *headers;
        let parts = untar.feed(&plain, destination)?;
        *next += 1;
        drop(headers);
        self.moved.notify_all();
        files::write(&plain, parts, &self.shared)?;
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(plain);
        Ok(())
    }

    /// Wakes those who wait for a span that is never read.
    fn give_up(&self) {
        // Under the lock, or one that is about to wait would miss it.
        let _headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.stop.store(true, Ordering::Relaxed);
        self.moved.notify_all();
    }
}

fn inflate(mut stored: Vec<u8>, plain: &mut [u8]) -> Result<(), RestoreError> {
    stored.extend_from_slice(&DEFLATE_END);
    match libdeflater::Decompressor::new().deflate_decompress(&stored, plain) {
        Ok(bytes) if bytes == plain.len() => Ok(()),
        Ok(bytes) => Err(format!("{} bytes were expected and {bytes} came out", plain.len()).into()),
        Err(fault) => Err(format!("it cannot be unpacked: {fault}").into()),
    }
}

async fn in_order(
    store: &Arc<dyn Store>,
    tar: &Tar,
    destination: Destination,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    let (sender, received) = ObjectReader::channel();
    let format = tar.format;
    let working = tokio::task::spawn_blocking(move || unpack_in_order(received, format, destination));
    let sent = tokio::select! {
        () = cancel.cancelled() => Err(RestoreError::Cancelled { removed: false }),
        sent = send(&**store, tar, sender) => sent,
    };
    let worked = working.await.unwrap_or_else(|gone| Err(panicked(&gone)));
    // Without its last piece the thread only knows that the tar broke off.
    sent.and(worked)
}

/// Sends the object piece by piece, and goes on where the store broke off.
async fn send(store: &dyn Store, tar: &Tar, sender: ObjectSender) -> Result<(), RestoreError> {
    let mut sent = 0;
    let mut trouble = Trouble::default();
    while sent < tar.size {
        let begun = if sent == 0 {
            store.get(&tar.key).await
        } else {
            store.get_range(&tar.key, sent, tar.size).await
        };
        let mut broken = match begun {
            Err(fault) => Some(fault),
            Ok(None) => return Err(format!("the object {} is gone", tar.key).into()),
            Ok(Some(mut download)) => loop {
                match download.body.next().await {
                    Err(fault) => break Some(fault),
                    Ok(None) => break None,
                    Ok(Some(piece)) => {
                        sent += piece.len() as u64;
                        trouble = Trouble::default();
                        // The thread hangs up when it cannot go on, and says itself why.
                        if !sender.send(piece).await {
                            return Ok(());
                        }
                    }
                }
            },
        };
        match broken.take() {
            None if sent < tar.size => {
                return Err(format!("it has {sent} bytes, in the listing it has {}", tar.size).into());
            }
            None => {}
            Some(fault) => trouble.wait(fault).await?,
        }
    }
    sender.end().await;
    Ok(())
}

fn unpack_in_order(
    received: ObjectReader,
    format: Format,
    mut destination: Destination,
) -> Result<(), RestoreError> {
    let shared = destination.shared.clone();
    let damaged = |fault: io::Error| RestoreError::from(format!("it cannot be unpacked: {fault}"));
    let mut reader = compression::reader(format, received).map_err(damaged)?;
    let mut untar = Untar::new();
    let mut piece = vec![0; PIECE];
    loop {
        let mut filled = 0;
        while filled < piece.len() {
            match reader.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(fault) => return Err(damaged(fault)),
            }
        }
        if filled == 0 {
            return check_end(&untar);
        }
        if shared.stop.load(Ordering::Relaxed) {
            return Err(RestoreError::Cancelled { removed: false });
        }
        let parts = untar.feed(&piece[..filled], &mut destination)?;
        files::write(&piece[..filled], parts, &shared)?;
    }
}

fn check_end(untar: &Untar<Arc<Output>>) -> Result<(), RestoreError> {
    if untar.is_complete() { Ok(()) } else { Err("the tar is cut off".to_owned().into()) }
}

fn joined(
    done: Option<Result<Result<(), RestoreError>, tokio::task::JoinError>>,
) -> Result<(), RestoreError> {
    done.unwrap_or(Ok(Ok(()))).unwrap_or_else(|gone| Err(panicked(&gone)))
}

/// That a thread gave up because of another says nothing.
fn weightier(one: Result<(), RestoreError>, other: Result<(), RestoreError>) -> Result<(), RestoreError> {
    match (&one, &other) {
        (Ok(()) | Err(RestoreError::Cancelled { .. }), Err(_)) => other,
        (Ok(()) | Err(_), Ok(()) | Err(_)) => one,
    }
}

fn panicked(gone: &tokio::task::JoinError) -> RestoreError {
    format!("a thread ended early: {gone}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_archive::Point;

    fn index(points: &[(u64, u64)], stored_end: u64, plain: u64) -> TarIndex {
        TarIndex {
            name: "data.tar.gz".to_owned(),
            tablespace: None,
            plain,
            stored: stored_end + 10,
            stored_end,
            crc32: 0,
            points: points
                .iter()
                .map(|(stored, plain)| Point { stored: *stored, plain: *plain, inside: None })
                .collect(),
        }
    }

    #[test]
    fn an_index_becomes_spans_without_a_gap() {
        let found = spans(&index(&[(10, 0), (500, 9000)], 700, 20_000)).unwrap();
        assert_eq!(
            found,
            [Span { from: 10, to: 500, plain: 9000 }, Span { from: 500, to: 700, plain: 11_000 }]
        );
    }

    #[test]
    fn an_index_that_makes_no_sense_is_not_used() {
        for bad in [
            index(&[], 700, 20_000),
            index(&[(10, 1)], 700, 20_000),
            index(&[(10, 0), (5, 9000)], 700, 20_000),
            index(&[(10, 0), (500, 9000)], 700, 8000),
            index(&[(10, 0)], 700, 1 << 40),
            TarIndex { stored: 600, ..index(&[(10, 0)], 700, 20_000) },
        ] {
            assert_eq!(spans(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_cut_of_deflate_is_unpacked_by_itself() {
        use flate2::{Compress, FlushCompress};
        let plain: Vec<u8> = (0..200_000u32).flat_map(|number| (number / 5).to_le_bytes()).collect();
        let mut deflate = Compress::new(flate2::Compression::fast(), false);
        let mut stored = Vec::with_capacity(plain.len() * 2);
        deflate.compress_vec(&plain, &mut stored, FlushCompress::Sync).unwrap();
        let mut unpacked = vec![0; plain.len()];
        inflate(stored.clone(), &mut unpacked).unwrap();
        assert!(unpacked == plain);
        assert!(inflate(stored.clone(), &mut vec![0; plain.len() - 1]).is_err());
        assert!(inflate(stored.clone(), &mut vec![0; plain.len() + 1]).is_err());
        stored.truncate(stored.len() / 2);
        assert!(inflate(stored, &mut unpacked).is_err());
    }
}
