//! An archive in a directory of this machine or of a network file system. Keeps no metadata beside the objects.

mod upload;
mod walk;
mod write;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use super::{
    Body, Conditions, Download, Error, Metadata, ObjectInfo, Page, Payload, Replaced, Store, StoreTime,
    Stored, Upload, Version, causes, check_key, check_range,
};
use upload::DirectoryUpload;

/// Time limit for a call. A network file system that hangs keeps its thread; the caller goes on.
const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes in a piece of a download.
const PIECE: usize = 256 * 1024;
/// Prefix of temporary files, which are in no listing.
const TEMPORARY: &str = ".outrider-";

/// A directory whose files are the objects.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    root: PathBuf,
    url: String,
}

impl DirectoryStore {
    /// The store in `root`, an absolute path; created with the first put if it does not exist.
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
        // A hard link never replaces, so the only thing to find out is whether the directory supports them.
        self.put_if_absent(key, Bytes::from_static(b"outrider\n").into(), &Metadata::new()).await?;
        Ok(Conditions::Honoured)
    }

    async fn put_if_absent(&self, key: &str, body: Payload, _metadata: &Metadata) -> Result<Stored, Error> {
        let path = self.path(key)?;
        let root = self.root.clone();
        self.run("write", path, move |path| write::put_if_absent(&root, path, &body)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, Error> {
        let look = |path: &Path| absent_is_none(fs::metadata(path).and_then(|found| info(&found)));
        self.run("look at", self.path(key)?, look).await
    }

    async fn get(&self, key: &str) -> Result<Option<Download>, Error> {
        let path = self.path(key)?;
        let opened = self.run("open", path.clone(), |path| open(path, 0)).await?;
        let Some((info, file)) = opened else { return Ok(None) };
        let body = FileBody { store: self.clone(), path, file: Some(file), left: info.size };
        Ok(Some(Download { info, body: Box::new(body) }))
    }

    async fn get_range(&self, key: &str, from: u64, to: u64) -> Result<Option<Download>, Error> {
        let path = self.path(key)?;
        check_range(path.display().to_string(), from, to, None)?;
        let opened = self.run("open", path.clone(), move |path| open(path, from)).await?;
        let Some((info, file)) = opened else { return Ok(None) };
        check_range(path.display().to_string(), from, to, Some(info.size))?;
        let left = to.min(info.size) - from;
        Ok(Some(Download {
            info,
            body: Box::new(FileBody { store: self.clone(), path, file: Some(file), left }),
        }))
    }

    async fn put(&self, key: &str, body: Payload, _metadata: &Metadata) -> Result<(), Error> {
        let (path, root) = (self.path(key)?, self.root.clone());
        self.run("write", path, move |path| write::put(&root, path, &body)).await
    }

    async fn replace(&self, key: &str, body: Payload, seen: Option<&Version>) -> Result<Replaced, Error> {
        let (path, root, seen) = (self.path(key)?, self.root.clone(), seen.cloned());
        let replace = move |path: &Path| match seen {
            Some(seen) => write::replace(&root, path, &body, &seen),
            None => Ok(match write::put_if_absent(&root, path, &body)? {
                Stored::Created => Replaced::Done,
                Stored::AlreadyThere => Replaced::Changed,
            }),
        };
        self.run("write", path, replace).await
    }

    async fn begin_upload(&self, key: &str) -> Result<Box<dyn Upload>, Error> {
        Ok(Box::new(DirectoryUpload::new(self.clone(), self.path(key)?)))
    }

    async fn sweep_uploads(&self, prefix: &str) -> Result<usize, Error> {
        let prefix = prefix.to_owned();
        self.run("sweep", self.root.clone(), move |root| walk::sweep(root, &prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let (path, root) = (self.path(key)?, self.root.clone());
        self.run("remove", path, move |path| write::delete(&root, path)).await
    }

    async fn time(&self) -> Result<Option<StoreTime>, Error> {
        // A file server's clock may be another's; that of a local directory is this machine's own.
        let time = self.run("write to", self.root.clone(), write::time).await?;
        Ok(Timestamp::try_from(time).ok().map(|time| StoreTime { time, is_elsewhere: false }))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let walk = move |root: &Path| walk::list(root, &prefix, after.as_deref(), limit.clamp(1, 1000));
        self.run("list", self.root.clone(), walk).await
    }
}

struct FileBody {
    store: DirectoryStore,
    path: PathBuf,
    file: Option<File>,
    /// Bytes still to come.
    left: u64,
}

#[async_trait]
impl Body for FileBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(mut file) = self.file.take().filter(|_| self.left > 0) else { return Ok(None) };
        let wanted = self.left.min(PIECE as u64) as usize;
        let read = move |_: &Path| {
            let mut piece = BytesMut::zeroed(wanted);
            let length = file.read(&mut piece)?;
            piece.truncate(length);
            if length == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the file became shorter"));
            }
            Ok((file, piece.freeze()))
        };
        let (file, piece) = self.store.run("read", self.path.clone(), read).await?;
        self.left -= piece.len() as u64;
        self.file = Some(file);
        Ok(Some(piece))
    }
}

/// Opens an object to be read from this byte.
fn open(path: &Path, from: u64) -> io::Result<Option<(ObjectInfo, File)>> {
    absent_is_none(File::open(path).and_then(|mut file| {
        let info = info(&file.metadata()?)?;
        file.seek(SeekFrom::Start(from))?;
        Ok((info, file))
    }))
}

/// Properties of a file. A directory is not an object, as in S3.
fn info(found: &fs::Metadata) -> io::Result<ObjectInfo> {
    if found.is_dir() {
        return Err(ErrorKind::NotFound.into());
    }
    Ok(ObjectInfo { size: found.len(), metadata: Metadata::new(), version: Some(write::version(found)) })
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
