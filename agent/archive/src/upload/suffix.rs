//! How the files of a timeline are compressed: decided once for each timeline of an archive, by whoever comes first. Two servers
//! that compress differently would else each find the name free, since what they put ends in another suffix.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use outrider_wal::{TimelineId, WalFileName};
use tokio::sync::Mutex;
use tracing::warn;

use crate::compression::split_suffix;
use crate::{Compression, Format, Layout};
use outrider_store::{self as store, Metadata, Store, Stored, read_small};

/// The object has one word.
const WORD_MAX: u64 = 64;
/// Keys that are looked at for what was there before.
const FEW: usize = 20;

/// What was decided, as far as this program knows. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suffixes(Arc<Mutex<HashMap<TimelineId, Compression>>>);

impl Suffixes {
    /// How the files of this timeline are compressed: `wanted` unless the archive has them otherwise.
    pub(crate) async fn decided(
        &self,
        store: &dyn Store,
        layout: &Layout,
        timeline: TimelineId,
        wanted: Compression,
    ) -> Result<Compression, store::Error> {
        // Held over the requests: files of one timeline leave at the same time, and one of them asks.
        let mut known = self.0.lock().await;
        if let Some(decided) = known.get(&timeline) {
            return Ok(*decided);
        }
        let decided = decide(store, layout, timeline, wanted).await?;
        if decided.format() != wanted.format() {
            warn!(
                %timeline,
                decided = word(decided),
                configured = word(wanted),
                "the archive has files of this timeline compressed otherwise, and goes on so; the configured compression \
                 begins with the next timeline"
            );
        }
        known.insert(timeline, decided);
        Ok(decided)
    }
}

async fn decide(
    store: &dyn Store,
    layout: &Layout,
    timeline: TimelineId,
    wanted: Compression,
) -> Result<Compression, store::Error> {
    let key = layout.compression(timeline);
    if let Some(decided) = read(store, &key).await? {
        return Ok(of(decided, wanted));
    }
    // What was written before anybody decided, by another program or an older one.
    let there = present(store, layout, timeline).await?;
    let ours = there.map_or(wanted, |format| of(format, wanted));
    let body = Bytes::from(format!("{}\n", word(ours)));
    match store.put_if_absent(&key, body.into(), &Metadata::new()).await? {
        Stored::Created => Ok(ours),
        Stored::AlreadyThere => Ok(read(store, &key).await?.map_or(ours, |decided| of(decided, wanted))),
    }
}

/// `None` when nobody decided.
async fn read(store: &dyn Store, key: &str) -> Result<Option<Format>, store::Error> {
    let Some(found) = read_small(store, key, WORD_MAX).await? else { return Ok(None) };
    let text = found.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    let formats = [Compression::None, Compression::GZIP, Compression::ZSTD];
    let format = formats.into_iter().find(|compression| text.as_deref() == Ok(word(*compression)));
    match format {
        Some(format) => Ok(Some(format.format())),
        None => Err(store::Error::Unreachable {
            act: "understand",
            url: format!("{}/{key}", store.url()),
            cause: format!("expected none, gzip or zstd, found {:?}", text.unwrap_or_else(|fault| fault)),
        }),
    }
}

/// How what lies there of this timeline is compressed. What this program does not write decides nothing.
async fn present(
    store: &dyn Store,
    layout: &Layout,
    timeline: TimelineId,
) -> Result<Option<Format>, store::Error> {
    let prefix = format!("{}{:08X}", layout.wals(), timeline.get());
    let page = store.list(&prefix, None, FEW).await?;
    let mut formats = page.objects.iter().filter_map(|object| {
        let (name, format) = split_suffix(object.key.rsplit('/').next()?);
        let writable = matches!(format, Format::Plain | Format::Gzip | Format::Zstd);
        (writable && name.parse::<WalFileName>().is_ok()).then_some(format)
    });
    Ok(formats.next_back())
}

/// The one that is wanted where its format is that; else that format as it is used unless configured.
fn of(format: Format, wanted: Compression) -> Compression {
    match format {
        format if format == wanted.format() => wanted,
        Format::Gzip => Compression::GZIP,
        Format::Zstd => Compression::ZSTD,
        Format::Plain | Format::Bzip2 | Format::Lz4 | Format::Snappy | Format::Xz => Compression::None,
    }
}

fn word(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip { .. } => "gzip",
        Compression::Zstd { .. } => "zstd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;

    fn layout() -> Layout {
        Layout::new("s").unwrap()
    }

    async fn decided(store: &MemoryStore, timeline: u32, wanted: Compression) -> Compression {
        Suffixes::default().decided(store, &layout(), TimelineId::new(timeline), wanted).await.unwrap()
    }

    #[tokio::test]
    async fn who_comes_first_decides_for_the_timeline_and_no_other() {
        let store = MemoryStore::default();
        let level = Compression::Gzip { level: 9 };
        assert_eq!(decided(&store, 2, level).await, level);
        for wanted in [Compression::ZSTD, Compression::None] {
            assert_eq!(decided(&store, 2, wanted).await, Compression::GZIP);
        }
        assert_eq!(decided(&store, 2, level).await, level);
        assert_eq!(decided(&store, 3, Compression::ZSTD).await, Compression::ZSTD);
    }

    #[tokio::test]
    async fn what_was_there_before_anybody_decided_decides() {
        for (key, expected) in [
            ("s/wals/00000002.history.gz", Compression::GZIP),
            ("s/wals/0000000200000000/000000020000000000000003.partial.zst", Compression::ZSTD),
            ("s/wals/0000000200000000/000000020000000000000003", Compression::None),
            ("s/wals/0000000200000000/000000020000000000000003.bz2", Compression::ZSTD),
            ("s/wals/0000000200000000/notes.gz", Compression::ZSTD),
        ] {
            let store = MemoryStore::default();
            store.add(key, b"x");
            assert_eq!(decided(&store, 2, Compression::ZSTD).await.format(), expected.format(), "{key}");
        }
    }

    #[tokio::test]
    async fn it_is_asked_for_once() {
        let (store, suffixes) = (MemoryStore::default(), Suffixes::default());
        for _ in 0..3 {
            let decided = suffixes.decided(&store, &layout(), TimelineId::FIRST, Compression::GZIP).await;
            assert_eq!(decided.unwrap(), Compression::GZIP);
        }
        assert_eq!(store.requests(), 3);
    }

    #[tokio::test]
    async fn a_decision_that_cannot_be_read_is_not_guessed() {
        let store = MemoryStore::default();
        store.add(&layout().compression(TimelineId::FIRST), b"brotli");
        let decided =
            Suffixes::default().decided(&store, &layout(), TimelineId::FIRST, Compression::GZIP).await;
        assert!(decided.unwrap_err().to_string().contains("brotli"));
    }
}
