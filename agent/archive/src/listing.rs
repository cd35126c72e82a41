//! What the archive has of a timeline, told by the names in its listing and in few requests. Reads no object.

use outrider_wal::{SegmentName, SegmentSize, TimelineId, WalFileName};

use crate::{Compression, Layout};
use outrider_store::{self as store, Store};

/// Keys in a page: as many as S3 gives at once.
const PAGE: usize = 1000;
/// Keys asked for where one segment is looked for. Some, since `.backup` and `.partial` files lie between.
const FEW: usize = 20;

/// The names below `wals/` of one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) layout: &'a Layout,
    pub(crate) size: SegmentSize,
}

/// The numbers of segments from the first to the second, both of them.
pub(crate) type Range = (u64, u64);

/// What a search goes through.
#[derive(Clone, Copy, Debug)]
enum Axis {
    Timelines,
    SegmentsOf(TimelineId),
}

impl Listing<'_> {
    /// The first whole segment of any timeline from this one on.
    pub(crate) async fn first(&self, timeline: TimelineId) -> Result<Option<SegmentName>, store::Error> {
        let wals = self.layout.wals();
        self.find(&wals, format!("{wals}{:08X}", timeline.get()), |segment| segment.timeline >= timeline)
            .await
    }

    /// The whole segments of `timeline` numbered `from` to `to` (not itself) that the archive lacks, in order, at most
    /// `ranges_max` ranges, and whether there are more.
    pub(crate) async fn missing(
        &self,
        timeline: TimelineId,
        from: u64,
        to: u64,
        ranges_max: usize,
    ) -> Result<(Vec<Range>, bool), store::Error> {
        let (prefix, mut after) = (self.prefix(timeline), self.before(timeline, from));
        let mut missing: Vec<Range> = Vec::new();
        // All below this are present or in `missing`.
        let mut next = from;
        while next < to {
            let page = self.store.list(&prefix, Some(&after), PAGE).await?;
            for object in &page.objects {
                let Some(WalFileName::Segment(segment)) = file_name(&object.key) else { continue };
                let number = segment.number(self.size).min(to);
                if number > next {
                    if missing.len() == ranges_max {
                        return Ok((missing, true));
                    }
                    missing.push((next, number - 1));
                }
                next = next.max(number.saturating_add(1));
            }
            match page.objects.last() {
                Some(last) if page.more => after.clone_from(&last.key),
                Some(_) | None => break,
            }
        }
        if next < to {
            if missing.len() == ranges_max {
                return Ok((missing, true));
            }
            missing.push((next, to - 1));
        }
        Ok((missing, false))
    }

    /// The last whole segment of the highest timeline.
    pub(crate) async fn newest(&self) -> Result<Option<SegmentName>, store::Error> {
        let highest = self.search(Axis::Timelines, 0, 1 << 32).await?;
        let Some(timeline) = highest.and_then(|number| u32::try_from(number).ok()).map(TimelineId::new)
        else {
            return Ok(None);
        };
        let number = self.search(Axis::SegmentsOf(timeline), 0, u64::MAX / self.size.bytes()).await?;
        Ok(number.map(|number| SegmentName::numbered(timeline, number, self.size)))
    }

    /// The key of the whole segment, whatever its compression.
    pub(crate) async fn key_of(&self, segment: SegmentName) -> Result<Option<String>, store::Error> {
        let keys = self.keys_of(segment).await?;
        Ok(keys.into_iter().find(|key| file_name(key) == Some(WalFileName::Segment(segment))))
    }

    /// Whether the archive has the segment, whole or partial.
    pub(crate) async fn has_any(&self, segment: SegmentName) -> Result<bool, store::Error> {
        let wanted = [WalFileName::Segment(segment), WalFileName::Partial(segment)].map(Some);
        Ok(self.keys_of(segment).await?.iter().any(|key| wanted.contains(&file_name(key))))
    }

    async fn keys_of(&self, segment: SegmentName) -> Result<Vec<String>, store::Error> {
        let page = self.store.list(&self.key(segment), None, FEW).await?;
        Ok(page.objects.into_iter().map(|object| object.key).collect())
    }

    /// The last place on the axis from `from` to `to` (not itself) where the archive has something. It steps wider
    /// and wider, then halves: about twice the logarithm of the distance.
    async fn search(&self, axis: Axis, from: u64, to: u64) -> Result<Option<u64>, store::Error> {
        let Some(mut found) = self.next(axis, from).await?.filter(|found| *found < to) else {
            return Ok(None);
        };
        let (mut step, mut end) = (1_u64, to);
        while found + 1 < end {
            let middle = found + 1 + (end - found - 1) / 2;
            let probe = middle.min(found.saturating_add(step));
            match self.next(axis, probe).await? {
                Some(later) if later < to => {
                    found = later;
                    step = step.saturating_mul(2);
                }
                Some(_) | None => {
                    end = probe;
                    step = u64::MAX;
                }
            }
        }
        Ok(Some(found))
    }

    async fn next(&self, axis: Axis, from: u64) -> Result<Option<u64>, store::Error> {
        match axis {
            Axis::Timelines => {
                let Ok(number) = u32::try_from(from) else { return Ok(None) };
                let first = self.first(TimelineId::new(number)).await?;
                Ok(first.map(|segment| u64::from(segment.timeline.get())))
            }
            Axis::SegmentsOf(timeline) => {
                let reached = |segment: SegmentName| segment.number(self.size) >= from;
                let found = self.find(&self.prefix(timeline), self.before(timeline, from), reached).await?;
                Ok(found.map(|segment| segment.number(self.size)))
            }
        }
    }

    async fn find(
        &self,
        prefix: &str,
        mut after: String,
        wanted: impl Fn(SegmentName) -> bool,
    ) -> Result<Option<SegmentName>, store::Error> {
        loop {
            let page = self.store.list(prefix, Some(&after), FEW).await?;
            let segments = page.objects.iter().filter_map(|object| match file_name(&object.key)? {
                WalFileName::Segment(segment) => Some(segment),
                WalFileName::Partial(_) | WalFileName::BackupHistory { .. } | WalFileName::History(_) => None,
            });
            if let Some(found) = segments.into_iter().find(|segment| wanted(*segment)) {
                return Ok(Some(found));
            }
            match page.objects.last() {
                Some(last) if page.more => after.clone_from(&last.key),
                Some(_) | None => return Ok(None),
            }
        }
    }

    fn prefix(&self, timeline: TimelineId) -> String {
        format!("{}{:08X}", self.layout.wals(), timeline.get())
    }

    fn key(&self, segment: SegmentName) -> String {
        self.layout.wal(WalFileName::Segment(segment), Compression::None)
    }

    /// A text before the keys of this segment and after those of the sixteenth before it.
    fn before(&self, timeline: TimelineId, number: u64) -> String {
        let mut key = self.key(SegmentName::numbered(timeline, number, self.size));
        key.pop();
        key
    }
}

/// The file that an object holds, whatever its compression.
fn file_name(key: &str) -> Option<WalFileName> {
    let last = key.rsplit('/').next()?;
    last.parse().ok().or_else(|| last.rsplit_once('.')?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::memory::MemoryStore;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn name(timeline: u32, number: u64) -> SegmentName {
        SegmentName::numbered(TimelineId::new(timeline), number, SIZE)
    }

    fn store(layout: &Layout, segments: impl IntoIterator<Item = SegmentName>) -> Arc<MemoryStore> {
        let store = Arc::new(MemoryStore::default());
        for segment in segments {
            store.add(&layout.wal(WalFileName::Segment(segment), Compression::GZIP), b"x");
        }
        store
    }

    #[tokio::test]
    async fn missing_segments_are_found_with_a_request_for_each_thousand() {
        let layout = Layout::new("s").unwrap();
        let present = (3000..6000).filter(|number| ![3000, 4096, 4097, 5999].contains(number));
        let store =
            store(&layout, present.map(|number| name(2, number)).chain([name(1, 3000), name(3, 5999)]));
        store.add("s/wals/00000002.history.gz", b"x");
        store.add(&layout.wal(WalFileName::Partial(name(2, 4096)), Compression::GZIP), b"x");
        let listing = Listing { store: &*store, layout: &layout, size: SIZE };
        let missing = listing.missing(TimelineId::new(2), 3000, 6000, 10).await.unwrap();
        assert_eq!(missing, (vec![(3000, 3000), (4096, 4097), (5999, 5999)], false));
        assert_eq!(store.requests(), 3);
        let missing = listing.missing(TimelineId::new(2), 3001, 6001, 1).await.unwrap();
        assert_eq!(missing, (vec![(4096, 4097)], true));
        let missing = listing.missing(TimelineId::new(7), 5, 9, 1).await.unwrap();
        assert_eq!(missing, (vec![(5, 8)], false));
    }

    #[tokio::test]
    async fn the_newest_is_found_in_few_requests() {
        let layout = Layout::new("s").unwrap();
        let store = store(&layout, (10..5000).map(|number| name(1, number)).chain([name(3, 5000)]));
        store.add("s/wals/00000009.history.gz", b"x");
        let listing = Listing { store: &*store, layout: &layout, size: SIZE };
        assert_eq!(listing.newest().await.unwrap(), Some(name(3, 5000)));
        assert_eq!(listing.first(TimelineId::new(2)).await.unwrap(), Some(name(3, 5000)));
        assert!(store.requests() < 50, "{}", store.requests());
    }

    #[test]
    fn names_are_read_whatever_the_compression() {
        for (key, name) in [
            ("s/wals/0000000100000000/000000010000000000000002", Some("000000010000000000000002")),
            ("s/wals/0000000100000000/000000010000000000000002.snappy", Some("000000010000000000000002")),
            (
                "s/wals/0000000100000000/000000010000000000000002.partial.zst",
                Some("000000010000000000000002.partial"),
            ),
            (
                "s/wals/0000000100000000/000000010000000000000002.partial",
                Some("000000010000000000000002.partial"),
            ),
            ("s/wals/0000000100000000/000000010000000000000002.gz.tmp", None),
        ] {
            assert_eq!(file_name(key).map(|name| name.to_string()).as_deref(), name, "{key}");
        }
    }
}
