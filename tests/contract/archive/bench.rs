//! A store of each kind for one test, gone with it.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outrider_store::{Body, DirectoryStore, Store};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::PATIENCE;
use super::embedded::{Embedded, Obedience};
use super::minio::Minio;
use super::s3::{open, options};

/// One store.
pub(crate) struct Bench {
    place: Place,
}

enum Place {
    Directory(TempDir),
    Embedded(Embedded),
    Minio(Minio),
}

impl Bench {
    pub(crate) fn directory() -> Self {
        Bench { place: Place::Directory(tempfile::tempdir().unwrap()) }
    }

    pub(crate) fn embedded() -> Self {
        Bench { place: Place::Embedded(Embedded::start(Obedience::Full)) }
    }

    /// `None`, said aloud, when there is no MinIO on this machine.
    pub(crate) async fn minio() -> Option<Self> {
        let minio = Minio::start(None).await?;
        Some(Bench { place: Place::Minio(minio) })
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match &self.place {
            Place::Directory(directory) => Arc::new(DirectoryStore::new(directory.path().join("archive"))),
            Place::Embedded(embedded) => open(&options(&embedded.endpoint())),
            Place::Minio(minio) => open(&options(&minio.endpoint())),
        }
    }

    /// Of an S3 store.
    pub(crate) fn endpoint(&self) -> String {
        match &self.place {
            Place::Directory(_) => panic!("a directory has no endpoint"),
            Place::Embedded(embedded) => embedded.endpoint(),
            Place::Minio(minio) => minio.endpoint(),
        }
    }

    /// Only S3 keeps metadata beside an object.
    pub(crate) fn keeps_metadata(&self) -> bool {
        !matches!(self.place, Place::Directory(_))
    }
}

/// The whole object; `None` when there is none.
pub(crate) async fn read(store: &dyn Store, key: &str) -> Option<Vec<u8>> {
    let download = store.get(key).await.unwrap()?;
    let bytes = bytes_of(download.body).await;
    assert_eq!(bytes.len() as u64, download.info.size, "{key}");
    Some(bytes)
}

/// All that comes.
pub(crate) async fn bytes_of(mut body: Box<dyn Body>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await.unwrap() {
        assert!(!piece.is_empty(), "a piece is empty");
        bytes.extend_from_slice(&piece);
    }
    bytes
}

/// Every key of the store, by small pages.
pub(crate) async fn keys(store: &dyn Store) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    loop {
        let page = store.list("", keys.last().map(String::as_str), 7).await.unwrap();
        keys.extend(page.objects.into_iter().map(|object| object.key));
        if !page.more {
            return keys;
        }
    }
}

/// Waits until `condition` holds.
pub(crate) async fn wait_until(what: impl Display, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// What `gunzip` would make of it.
pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    try_gunzip(bytes).unwrap()
}

fn try_gunzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain)?;
    Ok(plain)
}

/// With a bit in the middle changed, gzip or not. One in a hundred makes no difference to what is unpacked, such as from how
/// far back zeros are copied; then the next.
pub(crate) fn with_a_bit_changed(object: &[u8]) -> Vec<u8> {
    let good = try_gunzip(object).ok();
    let changed = |at: usize| {
        let mut changed = object.to_vec();
        changed[at] ^= 0x04;
        changed
    };
    let mut changes = (object.len() / 2..object.len()).map(changed);
    changes.find(|changed| good.is_none() || try_gunzip(changed).ok() != good).unwrap()
}

/// The names in a directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
