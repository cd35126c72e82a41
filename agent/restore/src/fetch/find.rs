//! Finds the object of a file in an archive, whatever its suffix. Reads no object.
//!
//! Whoever asks for a file may well ask for one that is not there: a standby at the end of the archive, PostgreSQL for the
//! history of the next timeline. So a list comes first of what there is by its name, and for a segment, before that, one
//! of its streamed chunks: two requests at most when the file is absent, and a GET more when it is not. What is read
//! ahead is asked for by the GET alone, which nearly always finds it. Nothing but lists of this moment say that a file is
//! absent.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use outrider_wal::{SegmentName, WalFileName};

use super::receive::{Budget, Wanted};
use outrider_archive::compression::Format;
use outrider_archive::{Compression, Layout};
use outrider_store::{Download, Error, Listed, Store};

/// Objects in one answer to a list.
const PAGE: usize = 500;

/// One server's archive, and what is known of it.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) store: Arc<dyn Store>,
    layout: Layout,
    /// 0: not known.
    system_identifier: AtomicU64,
    pub(super) budget: Budget,
    /// The suffix that was seen last, by which the next segments are read ahead. `None`: none yet.
    format: Mutex<Option<Format>>,
    /// The segment that was joined of chunks last, which is told once.
    pub(super) joined: Mutex<Option<SegmentName>>,
}

/// Where a file is.
#[derive(Debug)]
pub(super) enum Located {
    /// It has an object, which is on its way. `whole` is false when that is its `.partial`.
    Object { key: String, format: Format, whole: bool, download: Download },
    /// It was streamed before everything was lost. There may be a `.partial` too.
    Chunks { chunks: Vec<Chunk>, partials: Vec<Candidate> },
    /// Nowhere.
    Nowhere,
}

/// An object that a list shows.
#[derive(Debug)]
pub(super) struct Candidate {
    partial: bool,
    format: Format,
    key: String,
}

/// One object with a part of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) key: String,
}

impl Chunk {
    /// `file`: the last part of its key, such as `00000000-00002000.gz`.
    fn of(file: &str, object: &Listed) -> Option<Self> {
        let (from, to) = file.strip_suffix(".gz")?.split_once('-')?;
        let offset = |digits: &str| {
            let all = digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            all.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let (from, to) = (offset(from)?, offset(to)?);
        (from < to).then(|| Chunk { from, to, key: object.key.clone() })
    }
}

impl Archive {
    pub(super) fn new(store: Arc<dyn Store>, layout: Layout) -> Self {
        Archive {
            store,
            layout,
            system_identifier: AtomicU64::new(0),
            budget: Budget::default(),
            format: Mutex::default(),
            joined: Mutex::new(None),
        }
    }

    pub(super) fn expect_system_identifier(&self, system_identifier: u64) {
        self.system_identifier.store(system_identifier, Ordering::Relaxed);
    }

    pub(super) fn system_identifier(&self) -> Option<u64> {
        Some(self.system_identifier.load(Ordering::Relaxed)).filter(|known| *known != 0)
    }

    pub(super) fn wanted(&self, name: WalFileName, key: String, format: Format, beside: &Path) -> Wanted {
        let system_identifier = self.system_identifier();
        Wanted { name, key, format, beside: beside.to_owned(), system_identifier }
    }

    /// The object with the suffix that was seen last, if there is one: one request.
    pub(super) async fn direct(
        &self,
        name: WalFileName,
    ) -> Result<Option<(String, Format, Download)>, Error> {
        let Some(format) = *lock(&self.format) else { return Ok(None) };
        let key = self.plain_key(name) + format.suffix();
        Ok(self.store.get(&key).await?.map(|download| (key, format, download)))
    }

    /// Looks everywhere.
    pub(super) async fn find(&self, name: WalFileName) -> Result<Located, Error> {
        // In this order: chunks go away when their segment is stored, so it is seen where they are not seen any more.
        let chunks = self.chunks(name).await?;
        let candidates = self.candidates(name).await?;
        let (partials, wholes): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|found| found.partial);
        if let Some(found) = self.first(wholes).await? {
            if let Located::Object { format, .. } = &found {
                *lock(&self.format) = Some(*format);
            }
            return Ok(found);
        }
        if !chunks.is_empty() {
            return Ok(Located::Chunks { chunks, partials });
        }
        Ok(self.first(partials).await?.unwrap_or(Located::Nowhere))
    }

    /// The first of these that is still there.
    pub(super) async fn first(&self, candidates: Vec<Candidate>) -> Result<Option<Located>, Error> {
        for Candidate { partial, format, key } in candidates {
            // Gone since the list when it is `None`.
            if let Some(download) = self.store.get(&key).await? {
                return Ok(Some(Located::Object { key, format, whole: !partial, download }));
            }
        }
        Ok(None)
    }

    /// Every object that could serve `name`, the preferred ones first.
    async fn candidates(&self, name: WalFileName) -> Result<Vec<Candidate>, Error> {
        let prefix = self.plain_key(name);
        let partial_serves = matches!(name, WalFileName::Segment(_));
        let mut found: Vec<Candidate> = Vec::new();
        for object in self.list(&prefix).await? {
            let Some(rest) = object.key.strip_prefix(&prefix) else { continue };
            let partial = rest.strip_prefix(".partial").filter(|_| partial_serves);
            let suffix = partial.unwrap_or(rest);
            if let Some(format) = Format::ALL.into_iter().find(|format| format.suffix() == suffix) {
                found.push(Candidate { partial: partial.is_some(), format, key: object.key });
            }
        }
        let rank = |format: Format| Format::ALL.iter().position(|known| *known == format);
        found.sort_by_key(|candidate| rank(candidate.format));
        Ok(found)
    }

    /// What was streamed of the segment, in order.
    async fn chunks(&self, name: WalFileName) -> Result<Vec<Chunk>, Error> {
        let WalFileName::Segment(segment) = name else { return Ok(Vec::new()) };
        let prefix = self.layout.stream(Some(segment));
        let mut chunks: Vec<Chunk> = self
            .list(&prefix)
            .await?
            .into_iter()
            .filter_map(|object| Chunk::of(object.key.strip_prefix(&prefix)?, &object))
            .collect();
        chunks.sort_by_key(|chunk| (chunk.from, chunk.to));
        Ok(chunks)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let mut objects: Vec<Listed> = Vec::new();
        loop {
            let after = objects.last().map(|object| object.key.as_str());
            let page = self.store.list(prefix, after, PAGE).await?;
            let more = page.more && !page.objects.is_empty();
            objects.extend(page.objects);
            if !more {
                return Ok(objects);
            }
        }
    }

    fn plain_key(&self, name: WalFileName) -> String {
        self.layout.wal(name, Compression::None)
    }
}

/// What the lock guards is a value of one word, so also after a panic it is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
