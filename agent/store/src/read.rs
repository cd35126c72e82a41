//! Reads what a store has, by bounded pieces: every key of a listing, a small object whole, and an object of any size as a
//! reader for a thread that computes. Knows nothing of what is in them.

use std::io::{self, ErrorKind, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{Download, Error, Store};

/// Objects in one page of a listing: as many as S3 gives at once.
const PAGE: usize = 1000;
/// Pieces between the network and a thread that reads.
const PIECES: usize = 8;

/// Calls `each` with the key and the stored bytes of every object below `prefix`, in the order of the keys.
///
/// # Errors
/// When the store does not answer; `each` has seen the pages before.
pub async fn each_object(
    store: &dyn Store,
    prefix: &str,
    mut each: impl FnMut(&str, u64),
) -> Result<(), Error> {
    let mut after: Option<String> = None;
    loop {
        let page = store.list(prefix, after.as_deref(), PAGE).await?;
        page.objects.iter().for_each(|object| each(&object.key, object.size));
        match page.objects.into_iter().next_back() {
            Some(last) if page.more => after = Some(last.key),
            Some(_) | None => return Ok(()),
        }
    }
}

/// The bytes of an object as stored; `None` when it is not there, and why not when it has more than `max`.
///
/// # Errors
/// When the store does not answer.
pub async fn read_small(
    store: &dyn Store,
    key: &str,
    max: u64,
) -> Result<Option<Result<Vec<u8>, String>>, Error> {
    let Some(mut download) = store.get(key).await? else { return Ok(None) };
    let mut bytes = Vec::new();
    while let Some(piece) = download.body.next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > max {
            return Ok(Some(Err(format!("{key} has more than {max} bytes"))));
        }
    }
    Ok(Some(Ok(bytes)))
}

/// An object that is coming, for a thread that may block. One that broke off is an error, never an end.
#[derive(Debug)]
pub struct ObjectReader {
    /// `None` is the end, said by whoever knows that the object came whole.
    pieces: mpsc::Receiver<Option<Bytes>>,
    rest: Bytes,
    ended: bool,
}

/// The other side of an [`ObjectReader`]: what comes from the network.
#[derive(Debug)]
pub struct ObjectSender(mpsc::Sender<Option<Bytes>>);

impl ObjectReader {
    /// The two sides.
    #[must_use]
    pub fn channel() -> (ObjectSender, ObjectReader) {
        let (sender, pieces) = mpsc::channel(PIECES);
        (ObjectSender(sender), ObjectReader { pieces, rest: Bytes::new(), ended: false })
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Some(bytes)) => self.rest = bytes,
                Some(None) => self.ended = true,
                // Not as UnexpectedEof, which some decoders forgive.
                None => return Err(io::Error::new(ErrorKind::ConnectionAborted, "it ended early")),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

impl ObjectSender {
    /// Passes on what comes next. False when the reader wants no more: its thread has ended, and says itself why.
    pub async fn send(&self, piece: Bytes) -> bool {
        self.0.send(Some(piece)).await.is_ok()
    }

    /// The object came whole. Dropped without this, the reader takes it for one that broke off.
    pub async fn end(self) {
        // A reader that hung up wants no end either.
        let _ = self.0.send(None).await;
    }

    /// Passes on a whole download, as fast as it is read. Returns the bytes that came.
    ///
    /// # Errors
    /// When the rest of it does not come.
    pub async fn send_all(self, mut download: Download) -> Result<u64, Error> {
        let mut bytes = 0;
        while let Some(piece) = download.body.next().await? {
            bytes += piece.len() as u64;
            if !self.send(piece).await {
                return Ok(bytes);
            }
        }
        self.end().await;
        Ok(bytes)
    }
}

/// Gives the object to `work` on a thread that may block; returns what that makes of it, and the bytes that came.
///
/// # Errors
/// When the object does not come whole.
pub async fn read_on_a_thread<T: Send + 'static>(
    download: Download,
    work: impl FnOnce(ObjectReader) -> T + Send + 'static,
) -> Result<(T, u64), Error> {
    let (sender, reader) = ObjectReader::channel();
    let working = tokio::task::spawn_blocking(move || work(reader));
    let bytes = sender.send_all(download).await?;
    let done = working.await.map_err(|panicked| Error::Unreachable {
        act: "read",
        url: String::new(),
        cause: panicked.to_string(),
    })?;
    Ok((done, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(end: bool) -> io::Result<Vec<u8>> {
        let (sender, mut reader) = ObjectReader::channel();
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        for piece in ["some ", "", "bytes"] {
            assert!(sender.send(Bytes::from(piece)).await);
        }
        if end {
            sender.end().await;
        } else {
            drop(sender);
        }
        reading.await.unwrap()
    }

    #[tokio::test]
    async fn an_object_that_broke_off_has_no_end() {
        assert_eq!(read(true).await.unwrap(), b"some bytes");
        assert_eq!(read(false).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }
}
