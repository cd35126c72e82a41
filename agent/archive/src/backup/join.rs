//! Puts the blocks in order, one gzip member a tar, and sends them with their manifest and index. Reads no file.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::block::{Block, Failures, LAST_BLOCK, Piece, TarName};
use super::manifest::Manifest;
use super::object::Object;
use super::progress::BackupProgress;
use super::{BackupError, Inside, MANIFEST, Point, TarIndex};
use crate::clock;
use crate::{BackupId, Layout};
use outrider_store::Store;

/// No name, no time, "unknown" system (RFC 1952).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// Checksum failures that are named; the others are counted.
const NAMED: usize = 100;

/// What the tars are made of, so far.
pub(crate) struct Joiner<'a> {
    store: Arc<dyn Store>,
    layout: &'a Layout,
    id: &'a BackupId,
    progress: &'a watch::Sender<BackupProgress>,
    /// Bytes of a tar between two points.
    step: u64,
    open: Option<Tar>,
    manifest_object: Object,
    file: Option<FileSum>,
    pub(crate) manifest: Manifest,
    pub(crate) tars: Vec<TarIndex>,
    pub(crate) files: u64,
    pub(crate) file_bytes: u64,
    /// Of the objects that are whole.
    pub(crate) stored: u64,
    pub(crate) failures: Failures,
}

struct Tar {
    index: TarIndex,
    object: Object,
    crc32: crc32fast::Hasher,
}

impl Tar {
    /// Notes a point of the index before the next block, which begins with `piece` if that is its first.
    fn note(&mut self, step: u64, piece: Option<&Piece>) {
        let index = &mut self.index;
        if index.points.last().is_some_and(|point| index.plain - point.plain < step) {
            return;
        }
        let inside = match piece.filter(|piece| piece.is_first) {
            None => None,
            Some(piece) => {
                let Some(path) = piece.file.path.to_str() else { return };
                Some(Inside { path: path.to_owned(), offset: piece.offset, size: piece.file.size })
            }
        };
        index.points.push(Point { stored: self.object.length(), plain: index.plain, inside });
    }
}

/// The sum of a file that is not complete yet.
struct FileSum {
    crc32c: u32,
    length: u64,
}

impl<'a> Joiner<'a> {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        layout: &'a Layout,
        id: &'a BackupId,
        progress: &'a watch::Sender<BackupProgress>,
        step: u64,
    ) -> Self {
        let manifest_object = Object::new(store.clone(), layout.backup(id, MANIFEST));
        Joiner {
            store,
            layout,
            id,
            progress,
            step,
            open: None,
            manifest_object,
            file: None,
            manifest: Manifest::default(),
            tars: Vec::new(),
            files: 0,
            file_bytes: 0,
            stored: 0,
            failures: Failures::default(),
        }
    }

    /// Takes blocks in any order until there are no more. As many wait here as there is room for blocks.
    pub(crate) async fn run(
        &mut self,
        blocks: &mut mpsc::Receiver<Result<Block, BackupError>>,
        stop: &CancellationToken,
    ) -> Result<(), BackupError> {
        let begun = clock::monotonic();
        let text = self.manifest.begin();
        self.manifest_object.push(text.as_bytes()).await?;
        let (mut waiting, mut next) = (BTreeMap::new(), 0);
        loop {
            let Some(block) = stop.run_until_cancelled(blocks.recv()).await.ok_or(BackupError::Cancelled)?
            else {
                return Ok(());
            };
            let block = block?;
            waiting.insert(block.sequence, block);
            while let Some(block) = waiting.remove(&next) {
                next += 1;
                let is_last = block.is_last;
                // What is on its way may be cut off: it is swept. The completion of an object may not, since nobody
                // would know whether it came to be.
                let taken = stop.run_until_cancelled(self.take(block, begun)).await;
                taken.ok_or(BackupError::Cancelled)??;
                if is_last {
                    self.end().await?;
                }
            }
        }
    }

    /// Sends the end of the manifest.
    pub(crate) async fn finish_manifest(&mut self, text: &str) -> Result<(), BackupError> {
        self.manifest_object.push(text.as_bytes()).await?;
        let next = Object::new(self.store.clone(), String::new());
        let object = std::mem::replace(&mut self.manifest_object, next);
        self.stored += object.length();
        Ok(object.finish().await?)
    }

    /// Whether every tar that was begun is there for good.
    pub(crate) fn is_complete(&self) -> bool {
        self.open.is_none() && self.file.is_none() && !self.tars.is_empty()
    }

    async fn take(&mut self, block: Block, begun: Instant) -> Result<(), BackupError> {
        let mut text = String::new();
        for piece in &block.pieces {
            self.sum(piece, block.tar.tablespace, &mut text);
        }
        self.failures.count += block.failures.count;
        let named = NAMED.saturating_sub(self.failures.named.len());
        self.failures.named.extend(block.failures.named.into_iter().take(named));
        let mut tar = match self.open.take() {
            Some(tar) => tar,
            None => self.begin(&block.tar).await?,
        };
        tar.note(self.step, block.pieces.first());
        tar.crc32.combine(&block.crc32);
        tar.index.plain += block.plain;
        let tar = self.open.insert(tar);
        tar.object.push(&block.deflated).await?;
        let stored = self.stored + tar.object.length();
        self.manifest_object.push(text.as_bytes()).await?;
        drop(block.room);
        self.progress.send_modify(|progress| {
            progress.done += block.file_bytes;
            progress.stored = stored;
            progress.measure(begun);
        });
        Ok(())
    }

    async fn begin(&self, name: &TarName) -> Result<Tar, BackupError> {
        let stem = name.tablespace.map_or_else(|| "data".to_owned(), |oid| oid.to_string());
        let number = if name.number == 0 { String::new() } else { format!("_{:04}", name.number) };
        let file = format!("{stem}{number}.tar.gz");
        let mut object = Object::new(self.store.clone(), self.layout.backup(self.id, &file));
        object.push(&GZIP_HEADER).await?;
        let index = TarIndex {
            name: file,
            tablespace: name.tablespace,
            plain: 0,
            stored: 0,
            stored_end: 0,
            crc32: 0,
            points: Vec::new(),
        };
        Ok(Tar { index, object, crc32: crc32fast::Hasher::new() })
    }

    /// The gzip trailer, and the object for good.
    async fn end(&mut self) -> Result<(), BackupError> {
        let Some(mut tar) = self.open.take() else { return Ok(()) };
        tar.index.stored_end = tar.object.length();
        tar.index.crc32 = tar.crc32.finalize();
        // The length is modulo 2^32 (RFC 1952).
        let length = (tar.index.plain & u64::from(u32::MAX)) as u32;
        let trailer = [&LAST_BLOCK[..], &tar.index.crc32.to_le_bytes(), &length.to_le_bytes()].concat();
        tar.object.push(&trailer).await?;
        tar.index.stored = tar.object.length();
        self.stored += tar.index.stored;
        tar.object.finish().await?;
        self.tars.push(tar.index);
        Ok(())
    }

    fn sum(&mut self, piece: &Piece, tablespace: Option<u32>, text: &mut String) {
        let before = self.file.take().unwrap_or(FileSum { crc32c: 0, length: 0 });
        let crc32c = crc32c::crc32c_combine(before.crc32c, piece.crc32c, piece.length);
        let length = before.length + piece.length as u64;
        let file = &piece.file;
        if length < file.size {
            self.file = Some(FileSum { crc32c, length });
            return;
        }
        let line = match tablespace {
            Some(oid) => {
                let path = std::path::Path::new("pg_tblspc").join(oid.to_string()).join(&file.path);
                self.manifest.file(&path, file.size, file.modified, crc32c)
            }
            None => self.manifest.file(&file.path, file.size, file.modified, crc32c),
        };
        text.push_str(&line);
        self.files += 1;
        self.file_bytes += file.size;
    }
}
