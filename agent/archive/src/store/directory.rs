//! An archive in a directory of this machine or of a network file system. Keeps no metadata beside the objects.

use std::collections::BinaryHeap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{
    Body, Conditions, Download, Error, Listed, Metadata, ObjectInfo, Page, Payload, Store, Stored, causes,
    check_key,
};
use crate::backoff::random;

/// How long a call may take. A network file system that hangs keeps its thread, the caller goes on.
const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes in a piece of a download.
const PIECE: usize = 256 * 1024;
/// Temporary files start with this and are in no listing.
const TEMPORARY: &str = ".outrider-";

/// A directory whose files are the objects.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    root: PathBuf,
    url: String,
}

impl DirectoryStore {
    /// The store in `root`, an absolute path; made with the first put when it is not there.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        DirectoryStore { url: format!("file://{}", root.display()), root }
    }

    fn path(&self, key: &str) -> Result<PathBuf, Error> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    /// Runs `work` off the async threads, with a deadline.
    async fn run<T, F>(&self, act: &'static str, path: PathBuf, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Path) -> io::Result<T> + Send + 'static,
    {
        let url = path.display().to_string();
        let task = tokio::task::spawn_blocking(move || work(&path).map_err(|source| (path, source)));
        match tokio::time::timeout(DEADLINE, task).await {
            Ok(Ok(done)) => done.map_err(|(path, source)| Error::Directory { act, path, source }),
            Ok(Err(panicked)) => Err(Error::Unreachable { act, url, cause: causes(&panicked) }),
            Err(_) => Err(Error::Unreachable { act, url, cause: format!("no answer within {DEADLINE:?}") }),
        }
    }
}

#[async_trait]
impl Store for DirectoryStore {
    fn url(&self) -> &str {
        &self.url
    }

    async fn probe(&self, key: &str) -> Result<Conditions, Error> {
        // A hard link never replaces, so there is nothing to find out but whether the directory takes one.
        self.put_if_absent(key, Bytes::from_static(b"outrider\n").into(), &Metadata::new()).await?;
        Ok(Conditions::Honoured)
    }

    async fn put_if_absent(&self, key: &str, body: Payload, _metadata: &Metadata) -> Result<Stored, Error> {
        let path = self.path(key)?;
        let root = self.root.clone();
        self.run("write", path, move |path| put(&root, path, &body)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, Error> {
        let size = |path: &Path| absent_is_none(fs::metadata(path).map(|found| found.len()));
        let size = self.run("look at", self.path(key)?, size).await?;
        Ok(size.map(|size| ObjectInfo { size, ..ObjectInfo::default() }))
    }

    async fn get(&self, key: &str) -> Result<Option<Download>, Error> {
        let path = self.path(key)?;
        let open = |path: &Path| {
            absent_is_none(File::open(path).and_then(|file| Ok((file.metadata()?.len(), file))))
        };
        let Some((size, file)) = self.run("open", path.clone(), open).await? else { return Ok(None) };
        let info = ObjectInfo { size, ..ObjectInfo::default() };
        let body = FileBody { store: self.clone(), path, file: Some(file) };
        Ok(Some(Download { info, body: Box::new(body) }))
    }

    async fn get_range(&self, key: &str, _from: u64, _to: u64) -> Result<Option<Download>, Error> {
        Err(Error::BadKey { key: key.to_owned() })
    }

    async fn put(&self, key: &str, _body: Payload, _metadata: &Metadata) -> Result<(), Error> {
        Err(Error::BadKey { key: key.to_owned() })
    }

    async fn replace(
        &self,
        key: &str,
        _body: Payload,
        _seen: Option<&super::Version>,
    ) -> Result<super::Replaced, Error> {
        Err(Error::BadKey { key: key.to_owned() })
    }

    async fn begin_upload(&self, key: &str) -> Result<Box<dyn super::Upload>, Error> {
        Err(Error::BadKey { key: key.to_owned() })
    }

    async fn sweep_uploads(&self, prefix: &str) -> Result<usize, Error> {
        Err(Error::BadKey { key: prefix.to_owned() })
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        Err(Error::BadKey { key: key.to_owned() })
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let walk = move |root: &Path| list(root, &prefix, after.as_deref(), limit.clamp(1, 1000));
        self.run("list", self.root.clone(), walk).await
    }
}

struct FileBody {
    store: DirectoryStore,
    path: PathBuf,
    file: Option<File>,
}

#[async_trait]
impl Body for FileBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(mut file) = self.file.take() else { return Ok(None) };
        let read = move |_: &Path| {
            let mut piece = BytesMut::zeroed(PIECE);
            let length = file.read(&mut piece)?;
            piece.truncate(length);
            Ok((file, piece.freeze()))
        };
        let (file, piece) = self.store.run("read", self.path.clone(), read).await?;
        if piece.is_empty() {
            return Ok(None);
        }
        self.file = Some(file);
        Ok(Some(piece))
    }
}

/// Writes a temporary file beside the object, makes it durable and links it under the object's name: link(2) fails
/// when the name is taken, so of two writers one wins, and no reader sees half an object.
fn put(root: &Path, path: &Path, body: &Payload) -> io::Result<Stored> {
    let directory = path.parent().unwrap_or(root);
    make_directories(directory)?;
    if path.try_exists()? {
        return settle(path, directory);
    }
    let temporary = directory.join(format!("{TEMPORARY}{:016x}.tmp", random()));
    let written = write_durably(&temporary, body).and_then(|()| match fs::hard_link(&temporary, path) {
        Ok(()) => Ok(Stored::Created),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Stored::AlreadyThere),
        Err(error) => Err(error),
    });
    // The object has its own name now, or there is none: the temporary name is of no more use either way.
    let removed = fs::remove_file(&temporary);
    match written? {
        Stored::AlreadyThere => settle(path, directory),
        Stored::Created => {
            removed?;
            File::open(directory)?.sync_all()?;
            Ok(Stored::Created)
        }
    }
}

/// Whoever wrote the object may have died before it made it durable, so this caller does.
fn settle(path: &Path, directory: &Path) -> io::Result<Stored> {
    File::open(path)?.sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok(Stored::AlreadyThere)
}

fn write_durably(path: &Path, body: &Payload) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    for piece in body.pieces() {
        file.write_all(piece)?;
    }
    file.sync_all()
}

/// Makes the missing directories from the top and writes each into its parent for good.
fn make_directories(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().ok_or(ErrorKind::NotFound)?;
    make_directories(parent)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    File::open(parent)?.sync_all()
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Walks the tree and keeps the smallest `limit` keys, so that memory does not grow with the archive.
fn list(root: &Path, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<Page> {
    let mut smallest: BinaryHeap<(String, u64)> = BinaryHeap::new();
    let mut more = false;
    let mut waiting = vec![(root.to_owned(), String::new())];
    while let Some((directory, above)) = waiting.pop() {
        let Some(entries) = absent_is_none(fs::read_dir(&directory))? else { continue };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let key = format!("{above}{name}");
            if entry.file_type()?.is_dir() {
                let below = format!("{key}/");
                if below.starts_with(prefix) || prefix.starts_with(&below) {
                    waiting.push((entry.path(), below));
                }
                continue;
            }
            if name.starts_with(TEMPORARY)
                || !key.starts_with(prefix)
                || after.is_some_and(|after| *key <= *after)
            {
                continue;
            }
            let Some(found) = absent_is_none(entry.metadata())? else { continue };
            smallest.push((key, found.len()));
            if smallest.len() > limit {
                smallest.pop();
                more = true;
            }
        }
    }
    let objects = smallest.into_sorted_vec().into_iter().map(|(key, size)| Listed { key, size }).collect();
    Ok(Page { objects, more })
}
