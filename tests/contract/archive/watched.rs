//! A store in front of another one: counts what is asked of it, can be down, hold or lose answers, and
//! lets something happen between two questions.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use outrider_store::{
    Conditions, Download, Error, Metadata, ObjectInfo, Page, Payload, Replaced, Store, Stored, Upload,
    Version,
};
use tokio::sync::watch;

/// After a list of which prefix, and what.
type Happening = (fn(&str) -> bool, Pin<Box<dyn Future<Output = ()> + Send>>);

pub(crate) struct Watched {
    store: Arc<dyn Store>,
    requests: AtomicU64,
    down: AtomicBool,
    loses_answers: AtomicBool,
    held: watch::Sender<Option<String>>,
    after_list: Mutex<Option<Happening>>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Watched {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        let (down, loses_answers) = (AtomicBool::new(false), AtomicBool::new(false));
        let (requests, held, after_list) = (AtomicU64::new(0), watch::Sender::default(), Mutex::default());
        Arc::new(Watched { store, requests, down, loses_answers, held, after_list })
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Those since this was asked last.
    pub(crate) fn new_requests(&self) -> u64 {
        self.requests.swap(0, Ordering::SeqCst)
    }

    /// From now on objects with this in their key are not given out; with `None` all are again.
    pub(crate) fn hold(&self, part: Option<&str>) {
        self.held.send_replace(part.map(str::to_owned));
    }

    /// What happens once, when the next list of such a prefix was made and before its answer comes.
    pub(crate) fn after_next_list(
        &self,
        of: fn(&str) -> bool,
        happens: impl Future<Output = ()> + Send + 'static,
    ) {
        *self.after_list.lock().unwrap() = Some((of, Box::pin(happens)));
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
        let free = |held: &Option<String>| held.as_ref().is_none_or(|part| !key.contains(part));
        self.held.subscribe().wait_for(free).await.unwrap();
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
        let page = self.store.list(prefix, after, limit).await;
        let happening = self.after_list.lock().unwrap().take_if(|(of, _)| of(prefix));
        if let Some((_, happens)) = happening {
            happens.await;
        }
        page
    }
}
