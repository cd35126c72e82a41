//! A store in front of another one: counts what is asked of it, and can be down or lose answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use outrider_archive::store::{
    Conditions, Download, Error, Metadata, ObjectInfo, Page, Payload, Replaced, Store, Stored, Upload,
    Version,
};

#[derive(Debug)]
pub(crate) struct Watched {
    store: Arc<dyn Store>,
    requests: AtomicU64,
    down: AtomicBool,
    loses_answers: AtomicBool,
}

impl Watched {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        let (down, loses_answers) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Watched { store, requests: AtomicU64::new(0), down, loses_answers })
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Nothing is done and nothing answered.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Puts are done, and the answer never comes.
    pub(crate) fn set_loses_answers(&self, loses: bool) {
        self.loses_answers.store(loses, Ordering::SeqCst);
    }

    fn ask(&self) -> Result<(), Error> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) { Err(silence()) } else { Ok(()) }
    }
}

fn silence() -> Error {
    Error::Unreachable { act: "ask", url: "watched".to_owned(), cause: "it is down".to_owned() }
}

#[async_trait]
impl Store for Watched {
    fn url(&self) -> &str {
        self.store.url()
    }

    async fn probe(&self, key: &str) -> Result<Conditions, Error> {
        self.ask()?;
        self.store.probe(key).await
    }

    async fn put_if_absent(&self, key: &str, body: Payload, metadata: &Metadata) -> Result<Stored, Error> {
        self.ask()?;
        let stored = self.store.put_if_absent(key, body, metadata).await?;
        if self.loses_answers.load(Ordering::SeqCst) { Err(silence()) } else { Ok(stored) }
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, Error> {
        self.ask()?;
        self.store.head(key).await
    }

    async fn get(&self, key: &str) -> Result<Option<Download>, Error> {
        self.ask()?;
        self.store.get(key).await
    }

    async fn get_range(&self, key: &str, from: u64, to: u64) -> Result<Option<Download>, Error> {
        self.ask()?;
        self.store.get_range(key, from, to).await
    }

    async fn put(&self, key: &str, body: Payload, metadata: &Metadata) -> Result<(), Error> {
        self.ask()?;
        self.store.put(key, body, metadata).await
    }

    async fn replace(&self, key: &str, body: Payload, seen: Option<&Version>) -> Result<Replaced, Error> {
        self.ask()?;
        self.store.replace(key, body, seen).await
    }

    async fn begin_upload(&self, key: &str) -> Result<Box<dyn Upload>, Error> {
        self.ask()?;
        self.store.begin_upload(key).await
    }

    async fn sweep_uploads(&self, prefix: &str) -> Result<usize, Error> {
        self.ask()?;
        self.store.sweep_uploads(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.ask()?;
        self.store.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.ask()?;
        self.store.list(prefix, after, limit).await
    }
}
