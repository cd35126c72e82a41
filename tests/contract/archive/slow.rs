//! A store that takes its time: few files are under way however many wait, and `wal-push` is told why it must wait.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use outrider_archive::Layout;
use outrider_restore::{Fetcher, Server, ServerOptions, client};
use outrider_store::{
    Conditions, Download, Error, Metadata, ObjectInfo, Page, Payload, Replaced, Store, Stored, Upload,
    Version,
};
use tokio::sync::Semaphore;

use super::bench::{Bench, wait_until};
use super::pg_wal::{PgWal, SERVER, leadership, segment, shown};

/// Lets through as many puts of WAL as were allowed.
#[derive(Debug)]
struct Slow {
    store: Arc<dyn Store>,
    allowed: Semaphore,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Store for Slow {
    fn url(&self) -> &str {
        self.store.url()
    }

    async fn probe(&self, key: &str) -> Result<Conditions, Error> {
        self.store.probe(key).await
    }

    async fn put_if_absent(&self, key: &str, body: Payload, metadata: &Metadata) -> Result<Stored, Error> {
        if !key.contains("/wals/") {
            return self.store.put_if_absent(key, body, metadata).await;
        }
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.allowed.acquire().await.unwrap().forget();
        let stored = self.store.put_if_absent(key, body, metadata).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        stored
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, Error> {
        self.store.head(key).await
    }

    async fn get(&self, key: &str) -> Result<Option<Download>, Error> {
        self.store.get(key).await
    }

    async fn get_range(&self, key: &str, from: u64, to: u64) -> Result<Option<Download>, Error> {
        self.store.get_range(key, from, to).await
    }

    async fn put(&self, key: &str, body: Payload, metadata: &Metadata) -> Result<(), Error> {
        self.store.put(key, body, metadata).await
    }

    async fn replace(&self, key: &str, body: Payload, seen: Option<&Version>) -> Result<Replaced, Error> {
        self.store.replace(key, body, seen).await
    }

    async fn begin_upload(&self, key: &str) -> Result<Box<dyn Upload>, Error> {
        self.store.begin_upload(key).await
    }

    async fn sweep_uploads(&self, prefix: &str) -> Result<usize, Error> {
        self.store.sweep_uploads(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.store.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.store.list(prefix, after, limit).await
    }
}

fn name(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

/// Takes as long as `wal-push` waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_files_are_under_way_and_wal_push_is_told_why_it_waits() {
    let (bench, pg_wal, directory) = (Bench::directory(), PgWal::new(), tempfile::tempdir().unwrap());
    let slow = Arc::new(Slow {
        store: bench.store(),
        allowed: Semaphore::new(0),
        under_way: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    for number in 1..=24 {
        pg_wal.add(&name(number), &segment(&name(number), 1));
    }
    let shipper = pg_wal.shipper(slow.clone());
    let mut status = shipper.status();
    let options = ServerOptions { socket: directory.path().join("a.sock"), pg_wal: pg_wal.path().to_owned() };
    let socket = options.socket.clone();
    let fetcher = Fetcher::new(bench.store(), Layout::new(SERVER).unwrap());
    let _server = Server::start(options, shipper.clone(), fetcher).await.unwrap();
    shipper.enable(leadership(1));

    let file = pg_wal.file(&name(1));
    let push = tokio::task::spawn_blocking(move || client::push(Path::new(&socket), &file));
    wait_until("three are under way", async || slow.under_way.load(Ordering::SeqCst) == 3).await;
    let exit = push.await.unwrap();
    let message = exit.message.unwrap();
    assert_eq!(exit.code, 1, "{message}");
    assert!(message.contains("24 files wait before or with it"), "{message}");
    assert_eq!(shipper.status().borrow().in_flight, 3);

    slow.allowed.add_permits(100);
    let done = shown(&mut status, "all archived", |status| status.counters.files == 24).await;
    assert_eq!((done.waiting, slow.most.load(Ordering::SeqCst)), (0, 3));
}
