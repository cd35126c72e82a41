//! A restore that is killed in the middle: nothing starts what it left, and it can be made anew. The process that is killed
//! is this test binary, started again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_restore::{RestoreError, RestoreOptions, Target};
use outrider_store::{
    Body, Conditions, DirectoryStore, Download, Error, Metadata, ObjectInfo, Page, Payload, Replaced, Store,
    Stored, Upload, Version,
};

use super::bench::wait_until;
use super::postgres::Postgres;
use super::restoring::{MARK, Scene, restore};

const ARCHIVE: &str = "OUTRIDER_TEST_ARCHIVE";
const INTO: &str = "OUTRIDER_TEST_INTO";

/// Gives half of each tar and then nothing more, for ever.
#[derive(Debug)]
struct Stuck(DirectoryStore);

struct Half {
    body: Box<dyn Body>,
    left: u64,
}

#[async_trait]
impl Body for Half {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.left == 0 {
            std::future::pending::<()>().await;
        }
        let piece = self.body.next().await?;
        self.left = self.left.saturating_sub(piece.as_ref().map_or(0, |piece| piece.len() as u64));
        Ok(piece)
    }
}

#[async_trait]
impl Store for Stuck {
    fn url(&self) -> &str {
        self.0.url()
    }

    async fn probe(&self, key: &str) -> Result<Conditions, Error> {
        self.0.probe(key).await
    }

    async fn put_if_absent(&self, key: &str, body: Payload, metadata: &Metadata) -> Result<Stored, Error> {
        self.0.put_if_absent(key, body, metadata).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, Error> {
        self.0.head(key).await
    }

    async fn get(&self, key: &str) -> Result<Option<Download>, Error> {
        let Some(download) = self.0.get(key).await? else { return Ok(None) };
        if !key.contains(".tar") {
            return Ok(Some(download));
        }
        let left = download.info.size / 2;
        Ok(Some(Download { info: download.info, body: Box::new(Half { body: download.body, left }) }))
    }

    async fn get_range(&self, key: &str, from: u64, to: u64) -> Result<Option<Download>, Error> {
        self.0.get_range(key, from, to).await
    }

    async fn put(&self, key: &str, body: Payload, metadata: &Metadata) -> Result<(), Error> {
        self.0.put(key, body, metadata).await
    }

    async fn replace(&self, key: &str, body: Payload, seen: Option<&Version>) -> Result<Replaced, Error> {
        self.0.replace(key, body, seen).await
    }

    async fn begin_upload(&self, key: &str) -> Result<Box<dyn Upload>, Error> {
        self.0.begin_upload(key).await
    }

    async fn sweep_uploads(&self, prefix: &str) -> Result<usize, Error> {
        self.0.sweep_uploads(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.0.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.0.list(prefix, after, limit).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_restore_left_is_refused_until_it_may_be_removed() {
    if let Some(into) = std::env::var_os(INTO) {
        let archive = PathBuf::from(std::env::var_os(ARCHIVE).unwrap());
        let store = Arc::new(Stuck(DirectoryStore::new(archive)));
        let ended = restore(store, Target::Latest, Path::new(&into), RestoreOptions::default()).await;
        panic!("it came to an end: {ended:?}");
    }
    let (scene, _bench) = Scene::in_a_directory().await;
    let copy = Postgres::nowhere();
    let into = copy.data();
    // setpriv becomes the test, and the kernel kills it with the thread that started it.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(std::env::current_exe().unwrap());
    let test = "archive::killed::what_a_killed_restore_left_is_refused_until_it_may_be_removed";
    command.args(["--exact", test]).env(INTO, &into);
    command.env(ARCHIVE, scene.store.url().strip_prefix("file://").unwrap());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("some of it is written", async || {
        assert!(child.try_wait().unwrap().is_none(), "the restore ended by itself");
        // The first file of the tar; the control file is the last.
        into.join("backup_label").exists()
    })
    .await;

    let again = async |overwrite_half| {
        let options = RestoreOptions { overwrite_half, ..RestoreOptions::default() };
        restore(scene.store.clone(), Target::Latest, &into, options).await
    };
    // Not while it runs, whatever is allowed.
    let fault = again(true).await.unwrap_err();
    assert!(fault.to_string().contains("by another process"), "{fault}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(into.join(MARK).exists() && !into.join("global/pg_control").exists());
    let fault = again(false).await.unwrap_err();
    assert!(matches!(fault, RestoreError::InTheWay { .. }), "{fault}");
    assert!(fault.to_string().contains("did not finish"), "{fault}");
    again(true).await.unwrap();
    assert!(!into.join(MARK).exists() && into.join("global/pg_control").exists());
}
