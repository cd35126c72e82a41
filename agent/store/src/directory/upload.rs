//! A large object of a directory store being uploaded: each part is a file beside the object until all are there.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{DirectoryStore, absent_is_none, write};
use crate::backoff::random;
use crate::{Error, Payload, Stored, Upload, check_parts};

/// Prefix of a part's name: `.outrider-upload-ID-PART-OBJECT`.
const UPLOAD: &str = ".outrider-upload-";

/// One upload in progress.
pub(super) struct DirectoryUpload {
    store: DirectoryStore,
    path: PathBuf,
    id: u64,
    parts: Mutex<BTreeSet<u32>>,
}

/// The id of the upload and the name of the object, from the name of a part.
pub(super) fn taken_apart(name: &str) -> Option<(&str, &str)> {
    let (id, rest) = name.strip_prefix(UPLOAD)?.split_once('-')?;
    let (_part, object) = rest.split_once('-')?;
    Some((id, object))
}

impl DirectoryUpload {
    pub(super) fn new(store: DirectoryStore, path: PathBuf) -> Self {
        DirectoryUpload { store, path, id: random(), parts: Mutex::default() }
    }

    fn part_path(&self, number: u32) -> PathBuf {
        let object = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!("{UPLOAD}{:016x}-{number}-{object}", self.id))
    }
}

#[async_trait]
impl Upload for DirectoryUpload {
    async fn part(&self, number: u32, body: Payload) -> Result<(), Error> {
        let root = self.store.root.clone();
        let write = move |part: &Path| {
            let directory = write::parent(&root, part)?;
            // Under a name of its own first, so that a retry never meets the unfinished part of the first attempt.
            let temporary = write::temporary(directory);
            let written = write::write_durably(&temporary, &body).and_then(|()| fs::rename(&temporary, part));
            if written.is_err() {
                absent_is_none(fs::remove_file(&temporary))?;
            }
            written
        };
        self.store.run("write a part of", self.part_path(number), write).await?;
        self.parts.lock().await.insert(number);
        Ok(())
    }

    async fn complete(self: Box<Self>) -> Result<Stored, Error> {
        let parts = self.parts.lock().await.clone();
        check_parts(self.path.display().to_string(), parts.iter())?;
        // All parts are appended to the first, one after the other, so that at most one part exists twice.
        let whole = self.part_path(1);
        for number in parts.into_iter().skip(1) {
            let whole = whole.clone();
            let append = move |part: &Path| append(&whole, part);
            self.store.run("append", self.part_path(number), append).await?;
        }
        let path = self.path.clone();
        let name = move |whole: &Path| {
            let directory = path.parent().unwrap_or(Path::new("/"));
            let stored = write::name_it(whole, &path, directory)?;
            fs::remove_file(whole)?;
            Ok(stored)
        };
        self.store.run("complete", whole, name).await
    }

    async fn abort(self: Box<Self>) -> Result<(), Error> {
        for number in self.parts.lock().await.iter() {
            let remove = |part: &Path| absent_is_none(fs::remove_file(part)).map(drop);
            self.store.run("remove", self.part_path(*number), remove).await?;
        }
        Ok(())
    }
}

/// Moves a part to the end of the file, durably.
fn append(whole: &Path, part: &Path) -> io::Result<()> {
    // Not opened for appending: the system copies between files by itself only into files opened otherwise.
    let mut whole = OpenOptions::new().write(true).open(whole)?;
    whole.seek(SeekFrom::End(0))?;
    io::copy(&mut File::open(part)?, &mut whole)?;
    whole.sync_data()?;
    fs::remove_file(part)
}
