//! One large object on its way to the store: in parts, some at a time, tried again. Knows not what is in it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;
use tokio::time::sleep;

use outrider_store::Backoff;
use outrider_store::{self as store, Metadata, Payload, Store, Upload};

/// Bytes of a part. With 10000 parts, which S3 allows, an object may have 78 GiB.
pub(crate) const PART: usize = 8 << 20;
/// Parts on their way at one time; one more is being filled.
const IN_FLIGHT: usize = 3;
/// How often a request is tried when the store is busy or silent: for about a quarter of a minute beside its deadlines.
const TRIES: u32 = 6;

/// An object that grows. Dropped before [`Object::finish`] it never becomes one; its parts are swept by who owns the key.
pub(crate) struct Object {
    store: Arc<dyn Store>,
    key: String,
    part: BytesMut,
    upload: Option<Arc<Box<dyn Upload>>>,
    parts: u32,
    in_flight: JoinSet<Result<(), store::Error>>,
    stored: u64,
}

impl Object {
    pub(crate) fn new(store: Arc<dyn Store>, key: String) -> Self {
        Object {
            store,
            key,
            part: BytesMut::new(),
            upload: None,
            parts: 0,
            in_flight: JoinSet::new(),
            stored: 0,
        }
    }

    /// Bytes that were pushed.
    pub(crate) fn length(&self) -> u64 {
        self.stored
    }

    pub(crate) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), store::Error> {
        self.stored += bytes.len() as u64;
        while self.part.len() + bytes.len() > PART {
            let (now, later) = bytes.split_at(PART - self.part.len());
            self.part.extend_from_slice(now);
            bytes = later;
            self.send().await?;
        }
        if self.part.capacity() == 0 && self.parts > 0 {
            self.part.reserve(PART);
        }
        self.part.extend_from_slice(bytes);
        Ok(())
    }

    /// Returns when the object is there for good. The key is ours alone: whatever lies there, we wrote.
    pub(crate) async fn finish(mut self) -> Result<(), store::Error> {
        if self.upload.is_none() {
            let body = self.part.freeze();
            return put(&*self.store, &self.key, body).await;
        }
        if !self.part.is_empty() {
            self.send().await?;
        }
        while self.in_flight_ended().await? {}
        let upload = self.upload.take().and_then(Arc::into_inner).expect("every part has ended");
        match upload.complete().await {
            Ok(_) => Ok(()),
            Err(error) => {
                // The answer may be lost and the object there.
                let found = self.store.head(&self.key).await?;
                if found.is_some_and(|found| found.size == self.stored) { Ok(()) } else { Err(error) }
            }
        }
    }

    async fn send(&mut self) -> Result<(), store::Error> {
        let upload = match &self.upload {
            Some(upload) => upload.clone(),
            None => {
                let begun = Arc::new(begin(&*self.store, &self.key).await?);
                self.upload.insert(begun).clone()
            }
        };
        while self.in_flight.len() >= IN_FLIGHT {
            self.in_flight_ended().await?;
        }
        self.parts += 1;
        let (number, bytes) = (self.parts, std::mem::take(&mut self.part).freeze());
        self.in_flight.spawn(async move {
            let body = payload(bytes).await;
            let mut patience = Patience::default();
            loop {
                match upload.part(number, body.clone()).await {
                    Ok(()) => return Ok(()),
                    Err(error) => patience.after(error).await?,
                }
            }
        });
        Ok(())
    }

    /// Whether there was one that ended.
    async fn in_flight_ended(&mut self) -> Result<bool, store::Error> {
        match self.in_flight.join_next().await {
            None => Ok(false),
            Some(Ok(outcome)) => outcome.map(|()| true),
            Some(Err(error)) => Err(store::Error::Unreachable {
                act: "send a part of",
                url: format!("{}/{}", self.store.url(), self.key),
                cause: store::causes(&error),
            }),
        }
    }
}

/// Writes a small object whose key is ours alone, and tries again.
pub(crate) async fn put(store: &dyn Store, key: &str, bytes: Bytes) -> Result<(), store::Error> {
    let body = payload(bytes).await;
    let mut patience = Patience::default();
    loop {
        match store.put_if_absent(key, body.clone(), &Metadata::new()).await {
            Ok(_) => return Ok(()),
            Err(error) => patience.after(error).await?,
        }
    }
}

async fn begin(store: &dyn Store, key: &str) -> Result<Box<dyn Upload>, store::Error> {
    let mut patience = Patience::default();
    loop {
        match store.begin_upload(key).await {
            Ok(upload) => return Ok(upload),
            Err(error) => patience.after(error).await?,
        }
    }
}

/// Its checksum takes a while, so off the async threads.
async fn payload(bytes: Bytes) -> Payload {
    let given = bytes.clone();
    tokio::task::spawn_blocking(move || Payload::from(given)).await.unwrap_or_else(|_| Payload::from(bytes))
}

/// Waits between tries, and gives up in the end.
#[derive(Default)]
struct Patience {
    failures: u32,
    backoff: Backoff,
}

impl Patience {
    async fn after(&mut self, error: store::Error) -> Result<(), store::Error> {
        self.failures += 1;
        let hopeless = error.needs_a_person() || matches!(error, store::Error::Directory { .. });
        if hopeless || self.failures >= TRIES {
            return Err(error);
        }
        sleep(self.backoff.next_wait()).await;
        Ok(())
    }
}
