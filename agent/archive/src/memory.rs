//! A store in memory for the unit tests of shipping, which counts what it is asked. Not a part of the program.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use outrider_store::{
    Body, Conditions, Download, Error, Listed, Metadata, ObjectInfo, Page, Payload, Replaced, Store, Stored,
    Upload, Version,
};

#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<String, (Vec<u8>, u64)>,
    changes: u64,
    requests: u64,
}

impl MemoryStore {
    /// The archive `s`, which this leader has claimed.
    pub(crate) fn claimed(term: u64, system_identifier: &str, member: &str) -> Self {
        let store = MemoryStore::default();
        let text = format!(
            r#"{{"term":{term},"system_identifier":"{system_identifier}","member":"{member}","claimed_at":"x"}}"#
        );
        store.add("s/outrider/writer.json", text.as_bytes());
        store
    }

    pub(crate) fn add(&self, key: &str, bytes: &[u8]) {
        let mut inner = self.inner.lock().expect("a test that panicked holding it has failed");
        inner.put(key, bytes.to_vec());
    }

    pub(crate) fn read(&self, key: &str) -> Option<Vec<u8>> {
        self.inner
            .lock()
            .expect("a test that panicked holding it has failed")
            .objects
            .get(key)
            .map(|(bytes, _)| bytes.clone())
    }

    pub(crate) fn requests(&self) -> u64 {
        self.inner.lock().expect("a test that panicked holding it has failed").requests
    }

    fn asked(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().expect("a test that panicked holding it has failed");
        inner.requests += 1;
        inner
    }
}

impl Inner {
    fn put(&mut self, key: &str, bytes: Vec<u8>) {
        self.changes += 1;
        self.objects.insert(key.to_owned(), (bytes, self.changes));
    }

    fn info(&self, key: &str) -> Option<ObjectInfo> {
        let (bytes, version) = self.objects.get(key)?;
        let version = Some(Version(version.to_string()));
        Some(ObjectInfo { size: bytes.len() as u64, metadata: Metadata::new(), version })
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn url(&self) -> &str {
        "memory://store"
    }

    async fn probe(&self, _key: &str) -> Result<Conditions, Error> {
        Ok(Conditions::Honoured)
    }

    async fn put_if_absent(&self, key: &str, body: Payload, _metadata: &Metadata) -> Result<Stored, Error> {
        let mut inner = self.asked();
        if inner.objects.contains_key(key) {
            return Ok(Stored::AlreadyThere);
        }
        inner.put(key, body.pieces().concat());
        Ok(Stored::Created)
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, Error> {
        Ok(self.asked().info(key))
    }

    async fn get(&self, key: &str) -> Result<Option<Download>, Error> {
        let inner = self.asked();
        let Some(info) = inner.info(key) else { return Ok(None) };
        let body = Box::new(Once(Some(Bytes::from(inner.objects[key].0.clone()))));
        Ok(Some(Download { info, body }))
    }

    async fn get_range(&self, _key: &str, _from: u64, _to: u64) -> Result<Option<Download>, Error> {
        unreachable!("shipping reads no ranges")
    }

    async fn put(&self, key: &str, body: Payload, _metadata: &Metadata) -> Result<(), Error> {
        self.asked().put(key, body.pieces().concat());
        Ok(())
    }

    async fn replace(&self, key: &str, body: Payload, seen: Option<&Version>) -> Result<Replaced, Error> {
        let mut inner = self.asked();
        if inner.info(key).and_then(|info| info.version).as_ref() != seen {
            return Ok(Replaced::Changed);
        }
        inner.put(key, body.pieces().concat());
        Ok(Replaced::Done)
    }

    async fn begin_upload(&self, _key: &str) -> Result<Box<dyn Upload>, Error> {
        unreachable!("shipping uploads no parts")
    }

    async fn sweep_uploads(&self, _prefix: &str) -> Result<usize, Error> {
        unreachable!("shipping uploads no parts")
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.asked().objects.remove(key);
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        let inner = self.asked();
        let after = after.unwrap_or_default();
        let mut found = inner
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after)
            .map(|(key, (bytes, _))| Listed { key: key.clone(), size: bytes.len() as u64 });
        let objects: Vec<Listed> = found.by_ref().take(limit).collect();
        Ok(Page { objects, more: found.next().is_some() })
    }
}

struct Once(Option<Bytes>);

#[async_trait]
impl Body for Once {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}
