//! Reading archives as they are found: of any suffix, damaged, ending in a `.partial` or in what was streamed; ahead of
//! replay; and how many requests that takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use outrider_archive::{Format, Layout};
use outrider_restore::client::{self, Exit, Reader};
use outrider_restore::{AheadOptions, Fetched, Fetcher, Patience};
use outrider_store::{Metadata, Store, Stored};
use tempfile::TempDir;
use tokio::time::timeout;

use super::PATIENCE;
use super::bench::{Bench, names, wait_until};
use super::pg_wal::{SERVER, SYSTEM_IDENTIFIER, segment};
use super::watched::Watched;

super::on_every_store!(
    every_suffix_of_barman_is_read,
    a_damaged_object_of_any_format_stops_a_recovery,
    a_partial_serves_only_when_there_is_nothing_whole,
    what_was_streamed_of_a_segment_is_joined,
    segments_in_order_are_read_ahead_and_are_the_same,
);

const HISTORY: &[u8] = b"1\t0/300148\tno recovery target specified\n";

fn name(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

fn layout() -> Layout {
    Layout::new(SERVER).unwrap()
}

fn fetcher(store: Arc<dyn Store>) -> Fetcher {
    let fetcher = Fetcher::new(store, layout());
    fetcher.expect_system_identifier(SYSTEM_IDENTIFIER);
    fetcher
}

/// A directory as a server's pg_wal, to fetch into.
struct Target(TempDir);

impl Target {
    fn new() -> Self {
        Target(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("RECOVERYXLOG")
    }

    /// As a recovery does; the bytes when there are some.
    async fn exit(&self, fetcher: &Fetcher, name: &str) -> (Exit, Option<Vec<u8>>) {
        let path = self.path();
        let fetch = client::fetch_without_agent(fetcher, name, &path, Reader::Recovery);
        let exit = timeout(PATIENCE, fetch).await.unwrap();
        let bytes = std::fs::read(&path).ok();
        let _ = std::fs::remove_file(&path);
        assert_eq!(names(self.0.path()), Vec::<String>::new(), "nothing else is left");
        (exit, bytes)
    }

    async fn get(&self, fetcher: &Fetcher, name: &str) -> Vec<u8> {
        let (exit, bytes) = self.exit(fetcher, name).await;
        assert_eq!(exit, Exit { code: 0, message: None }, "{name}");
        bytes.unwrap()
    }

    async fn assert_absent(&self, fetcher: &Fetcher, name: &str) {
        assert_eq!(self.exit(fetcher, name).await, (Exit { code: 1, message: None }, None), "{name}");
    }

    async fn assert_refused(&self, fetcher: &Fetcher, name: &str, words: &str) {
        let (exit, bytes) = self.exit(fetcher, name).await;
        assert_eq!((exit.code, bytes), (254, None), "{name}");
        let message = exit.message.unwrap();
        assert!(message.contains(name) && message.contains(words), "{message}");
    }
}

async fn put(store: &dyn Store, key: &str, body: Vec<u8>) {
    let stored = store.put_if_absent(key, Bytes::from(body).into(), &Metadata::new()).await.unwrap();
    assert_eq!(stored, Stored::Created, "{key}");
}

fn wal_key(file: &str, suffix: &str) -> String {
    let folder = if file.ends_with(".history") { String::new() } else { format!("{}/", &file[..16]) };
    format!("{SERVER}/wals/{folder}{file}{suffix}")
}

/// What other programs make of it.
fn packed(format: Format, plain: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    match format {
        Format::Plain => plain.to_vec(),
        Format::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Format::Zstd => zstd::stream::encode_all(plain, 3).unwrap(),
        Format::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Format::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Format::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Format::Snappy => {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(plain).unwrap();
            encoder.into_inner().unwrap()
        }
    }
}

async fn every_suffix_of_barman_is_read(bench: &Bench) {
    let (store, target) = (bench.store(), Target::new());
    for (number, format) in (1..).zip(Format::ALL) {
        let file = name(number);
        put(&*store, &wal_key(&file, format.suffix()), packed(format, &segment(&file, 1))).await;
        let history = format!("{:08X}.history", number + 1);
        put(&*store, &wal_key(&history, format.suffix()), packed(format, HISTORY)).await;
    }
    // What barman ignores, too: a backup's history and other programs' files.
    put(&*store, &wal_key(&format!("{}.00000028.backup", name(1)), ".gz"), packed(Format::Gzip, b"x")).await;
    put(&*store, &wal_key(&name(9), ".gz.sha256"), b"x".to_vec()).await;
    let fetcher = fetcher(store);
    // Twice: the suffix that was seen last is another one each time.
    for _ in 0..2 {
        for number in 1..=7 {
            let file = name(number);
            assert!(target.get(&fetcher, &file).await == segment(&file, 1), "{file}");
            assert!(target.get(&fetcher, &format!("{:08X}.history", number + 1)).await == HISTORY);
        }
        for absent in [name(8).as_str(), &name(9), "00000009.history"] {
            target.assert_absent(&fetcher, absent).await;
        }
    }
}

async fn a_damaged_object_of_any_format_stops_a_recovery(bench: &Bench) {
    let (store, target) = (bench.store(), Target::new());
    let mut number = 0;
    for format in Format::ALL {
        let whole = |number| packed(format, &segment(&name(number), 1));
        for damage in ["cut off", "emptied", "longer", "of another segment"] {
            number += 1;
            let body = match damage {
                "cut off" => {
                    let bytes = whole(number);
                    bytes[..bytes.len() - bytes.len() / 3].to_vec()
                }
                "emptied" => Vec::new(),
                "longer" => [whole(number), whole(number)].concat(),
                _ => whole(number + 100),
            };
            put(&*store, &wal_key(&name(number), format.suffix()), body).await;
        }
    }
    let fetcher = fetcher(store);
    for number in 1..=number {
        target.assert_refused(&fetcher, &name(number), "the object").await;
    }
}

async fn a_partial_serves_only_when_there_is_nothing_whole(bench: &Bench) {
    let (store, target) = (bench.store(), Target::new());
    for (number, fill) in [(1, 7), (2, 7)] {
        let file = format!("{}.partial", name(number));
        put(&*store, &wal_key(&file, ".gz"), packed(Format::Gzip, &segment(&name(number), fill))).await;
    }
    // barman would take the .partial here: its name comes first.
    put(&*store, &wal_key(&name(2), ".zst"), packed(Format::Zstd, &segment(&name(2), 1))).await;
    let fetcher = fetcher(store);
    for _ in 0..2 {
        assert!(target.get(&fetcher, &name(1)).await == segment(&name(1), 7));
        assert!(target.get(&fetcher, &name(2)).await == segment(&name(2), 1));
        assert!(target.get(&fetcher, &format!("{}.partial", name(2))).await == segment(&name(2), 7));
        target.assert_absent(&fetcher, &format!("{}.partial", name(3))).await;
    }
}

async fn stream(store: &dyn Store, number: u32, from: usize, to: usize, bytes: &[u8]) {
    let key = layout().stream_chunk(name(number).parse().map(segment_of).unwrap(), from as u64, to as u64);
    put(store, &key, packed(Format::Gzip, bytes)).await;
}

fn segment_of(file: outrider_wal::WalFileName) -> outrider_wal::SegmentName {
    let outrider_wal::WalFileName::Segment(segment) = file else { panic!("{file} is no segment") };
    segment
}

async fn what_was_streamed_of_a_segment_is_joined(bench: &Bench) {
    let (store, target) = (bench.store(), Target::new());
    let whole = |number: u32| segment(&name(number), 5);
    let padded = |number: u32, end: usize| {
        let mut bytes = whole(number);
        bytes[end..].fill(0);
        bytes
    };
    let chunks: [(u32, &[(usize, usize)]); 5] = [
        // A writer that started again overlaps.
        (1, &[(0, 8192), (8192, 24_576), (16_384, 40_000), (40_000, 40_001)]),
        // A gap.
        (2, &[(0, 8192), (10_000, 20_000)]),
        // No beginning.
        (3, &[(8192, 16_384)]),
        // The segment was finished after all.
        (4, &[(0, 8192)]),
        // The beginning is missing and there is a .partial.
        (5, &[(8192, 16_384)]),
    ];
    for (number, places) in chunks {
        for (from, to) in places {
            stream(&*store, number, *from, *to, &whole(number)[*from..*to]).await;
        }
    }
    put(&*store, &wal_key(&name(4), ".gz"), packed(Format::Gzip, &whole(4))).await;
    put(&*store, &wal_key(&format!("{}.partial", name(5)), ".gz"), packed(Format::Gzip, &whole(5))).await;
    // Two writers that do not agree: what both say is used.
    stream(&*store, 6, 0, 10_000, &whole(6)[..10_000]).await;
    stream(&*store, 6, 9000, 20_000, &[whole(6)[9000..9500].to_vec(), vec![9; 10_500]].concat()).await;
    // Damaged, and of another server.
    stream(&*store, 7, 0, 8192, &whole(7)[..8000]).await;
    let mut foreign = whole(8);
    foreign[24] ^= 1;
    stream(&*store, 8, 0, 8192, &foreign[..8192]).await;

    let (plain, directory) = (fetcher(store.clone()), tempfile::tempdir().unwrap());
    let keeping = ahead(store.clone(), directory.path(), 4);
    for fetcher in [&plain, &keeping, &plain, &keeping] {
        assert!(target.get(fetcher, &name(1)).await == padded(1, 40_001));
        assert!(target.get(fetcher, &name(2)).await == padded(2, 8192));
        target.assert_absent(fetcher, &name(3)).await;
        assert!(target.get(fetcher, &name(4)).await == whole(4));
        assert!(target.get(fetcher, &name(5)).await == whole(5));
        assert!(target.get(fetcher, &name(6)).await == padded(6, 9500));
        target.assert_refused(fetcher, &name(7), "it has 8000 bytes").await;
        target.assert_refused(fetcher, &name(8), "system identifier").await;
    }
    // It was streamed and is finished now.
    put(&*store, &wal_key(&name(1), ".gz"), packed(Format::Gzip, &whole(1))).await;
    for fetcher in [&plain, &keeping] {
        assert!(target.get(fetcher, &name(1)).await == whole(1));
    }
}

#[tokio::test]
async fn a_segment_that_grows_costs_only_what_was_streamed_since() {
    let (bench, directory) = (Bench::directory(), tempfile::tempdir().unwrap());
    let (store, target) = (Watched::new(bench.store()), Target::new());
    let whole = segment(&name(1), 5);
    let chunk = async |from: usize, to: usize| stream(&*store, 1, from, to, &whole[from..to]).await;
    let fetcher = ahead(store.clone(), directory.path(), 4);
    let cost = async |end: usize| {
        store.new_requests();
        let mut expected = whole.clone();
        expected[end..].fill(0);
        assert!(target.get(&fetcher, &name(1)).await == expected, "up to {end}");
        store.new_requests()
    };
    chunk(0, 8192).await;
    chunk(8192, 16_384).await;
    assert_eq!(cost(16_384).await, 2 + 2, "two lists and two chunks");
    assert_eq!(cost(16_384).await, 2, "the lists");
    chunk(16_384, 20_000).await;
    assert_eq!(cost(20_000).await, 2 + 1);
    // They are joined into a larger one.
    chunk(0, 20_000).await;
    let joined = [(0, 8192), (8192, 16_384), (16_384, 20_000)];
    for (from, to) in joined {
        store.delete(&layout().stream_chunk(segment_of(name(1).parse().unwrap()), from, to)).await.unwrap();
    }
    assert_eq!(cost(20_000).await, 2 + 1);
    assert_eq!(names(directory.path()).len(), 1);
    // What is kept does not hide that the archive says something else now, however that came about.
    let key = layout().stream_chunk(segment_of(name(1).parse().unwrap()), 0, 20_000);
    store.delete(&key).await.unwrap();
    chunk(0, 12_000).await;
    assert_eq!(cost(12_000).await, 2 + 1);
    fetcher.forget_ahead();
    assert_eq!(names(directory.path()), Vec::<String>::new());
    assert_eq!(cost(12_000).await, 2 + 1);
}

/// A fetcher that reads ahead into `directory`.
fn ahead(store: Arc<dyn Store>, directory: &Path, segments: usize) -> Fetcher {
    let options = AheadOptions { directory: directory.to_owned(), segments };
    let fetcher = Fetcher::reading_ahead(store, layout(), options);
    fetcher.expect_system_identifier(SYSTEM_IDENTIFIER);
    fetcher
}

async fn segments_in_order_are_read_ahead_and_are_the_same(bench: &Bench) {
    let (store, target, directory) =
        (Watched::new(bench.store()), Target::new(), tempfile::tempdir().unwrap());
    let body = |number: u32| segment(&name(number), number as u8);
    for number in 1..=12 {
        put(&*store, &wal_key(&name(number), ".gz"), packed(Format::Gzip, &body(number))).await;
    }
    // What a process before this one left is not trusted but removed.
    let stale = directory.path().join(format!("{}.outrider-0123456789abcdef.tmp", name(2)));
    std::fs::write(&stale, segment(&name(2), 99)).unwrap();
    let fetcher = ahead(store.clone(), directory.path(), 4);
    assert!(!stale.exists());

    for number in 1..=4 {
        assert!(target.get(&fetcher, &name(number)).await == body(number), "{number}");
    }
    wait_until("two are here at least", async || names(directory.path()).len() >= 2).await;
    assert!(names(directory.path()).iter().all(|file| (5..=8).any(|number| file.starts_with(&name(number)))));
    for number in 5..=12 {
        assert!(target.get(&fetcher, &name(number)).await == body(number), "{number}");
    }
    // The end of the archive is no end for ever.
    target.assert_absent(&fetcher, &name(13)).await;
    target.assert_absent(&fetcher, &name(13)).await;
    put(&*store, &wal_key(&name(13), ".gz"), packed(Format::Gzip, &body(13))).await;
    assert!(target.get(&fetcher, &name(13)).await == body(13));
    // Elsewhere: what was ahead goes, and what comes then is a recovery's from its first segment on.
    assert!(target.get(&fetcher, &name(1)).await == body(1));
    wait_until("two are here", async || names(directory.path()).len() == 2).await;
    assert!(names(directory.path()).iter().all(|file| (2..=3).any(|number| file.starts_with(&name(number)))));
    for number in 2..=4 {
        assert!(target.get(&fetcher, &name(number)).await == body(number), "{number}");
    }
    fetcher.forget_ahead();
    wait_until("nothing is ahead", async || names(directory.path()).is_empty()).await;
}

#[tokio::test]
async fn what_cannot_be_read_ahead_is_fetched_as_ever() {
    let (bench, target, directory) = (Bench::directory(), Target::new(), tempfile::tempdir().unwrap());
    let store = bench.store();
    for number in 1..=8 {
        // The fifth is damaged, the sixth has another suffix.
        let bytes = segment(&name(number), 3);
        let (suffix, body) = match number {
            5 => (".gz", packed(Format::Gzip, &bytes[..1000])),
            6 => (".xz", packed(Format::Xz, &bytes)),
            _ => (".gz", packed(Format::Gzip, &bytes)),
        };
        put(&*store, &wal_key(&name(number), suffix), body).await;
    }
    // A file where the directory should be: nothing is read ahead at all.
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    // A directory that goes away under it.
    let (gone, good) = (directory.path().join("gone"), directory.path().join("good"));
    for place in [&file, &gone, &good] {
        let fetcher = ahead(store.clone(), place, 8);
        if place == &gone {
            std::fs::remove_dir(place).unwrap();
        }
        for number in [1, 2, 3, 4, 6, 7, 8] {
            assert!(target.get(&fetcher, &name(number)).await == segment(&name(number), 3), "{number}");
            if number == 4 {
                target.assert_refused(&fetcher, &name(5), "1000 bytes").await;
            }
        }
    }
}

#[tokio::test]
async fn a_destination_that_cannot_be_written_is_named_and_left_clean() {
    let (bench, target) = (Bench::directory(), Target::new());
    let store = bench.store();
    put(&*store, &wal_key(&name(1), ".gz"), packed(Format::Gzip, &segment(&name(1), 1))).await;
    let nowhere = target.0.path().join("no/such/RECOVERYXLOG");
    let exit = client::fetch_without_agent(&fetcher(store), &name(1), &nowhere, Reader::Recovery).await;
    assert_eq!(exit.code, 254);
    let message = exit.message.unwrap();
    assert!(message.contains("cannot write") && message.contains("RECOVERYXLOG"), "{message}");
}

#[tokio::test]
async fn an_absent_file_costs_two_requests_at_most_and_one_that_is_there_one_more() {
    let bench = Bench::directory();
    let (store, target) = (Watched::new(bench.store()), Target::new());
    put(&*store, &wal_key(&name(1), ".gz"), packed(Format::Gzip, &segment(&name(1), 1))).await;
    put(&*store, &wal_key(&name(2), ".zst"), packed(Format::Zstd, &segment(&name(2), 1))).await;
    put(&*store, &wal_key("00000002.history", ".gz"), packed(Format::Gzip, HISTORY)).await;
    store.new_requests();
    let fetcher = fetcher(store.clone());
    let cost = async |file: &str| {
        let fetched = fetcher.fetch(file.parse().unwrap(), &target.path(), None, Patience::Recovery).await;
        (fetched.unwrap() != Fetched::Absent, store.new_requests())
    };
    // The very first, too: a list of what there is by its name, and one of what was streamed of it.
    assert_eq!(cost(&name(3)).await, (false, 2));
    assert_eq!(cost(&name(1)).await, (true, 3));
    assert_eq!(cost(&name(2)).await, (true, 3));
    assert_eq!(cost(&name(3)).await, (false, 2));
    assert_eq!(cost("00000003.history").await, (false, 1));
    assert_eq!(cost("00000002.history").await, (true, 2));
}

#[tokio::test]
async fn what_replay_waits_for_makes_more_come_beside_each_other() {
    let (bench, directory) = (Bench::directory(), tempfile::tempdir().unwrap());
    let (store, target) = (Watched::new(bench.store()), Target::new());
    for number in 1..=7 {
        let bytes = packed(Format::Gzip, &segment(&name(number), 1));
        put(&*store, &wal_key(&name(number), ".gz"), bytes).await;
    }
    let fetcher = ahead(store.clone(), directory.path(), 4);
    let get =
        async |number: u32| assert!(target.get(&fetcher, &name(number)).await == segment(&name(number), 1));
    store.hold(Some(&name(2)));
    get(1).await;
    let released = async {
        wait_until("the third is here beside it", async || names(directory.path()).len() == 1).await;
        store.hold(None);
    };
    tokio::join!(get(2), released);
    wait_until("three are ahead", async || names(directory.path()).len() == 3).await;
}

#[tokio::test]
async fn a_segment_that_was_read_ahead_cost_one_request() {
    for format in [Format::Gzip, Format::Zstd] {
        let (bench, directory) = (Bench::directory(), tempfile::tempdir().unwrap());
        let (store, target) = (Watched::new(bench.store()), Target::new());
        for number in 1..=3 {
            let bytes = packed(format, &segment(&name(number), 1));
            put(&*store, &wal_key(&name(number), format.suffix()), bytes).await;
        }
        store.new_requests();
        let fetcher = ahead(store.clone(), directory.path(), 1);
        for number in 1..=3 {
            assert!(target.get(&fetcher, &name(number)).await == segment(&name(number), 1), "{number}");
        }
        target.assert_absent(&fetcher, &name(4)).await;
        // One GET for each, of which all but the first were sent ahead, and two lists for the first and for the absent one.
        assert_eq!(store.new_requests(), 4 + 2 * 2, "{format:?}");
    }
}

#[tokio::test]
async fn a_standby_reads_nothing_ahead_before_it_asks_for_segments_in_a_row() {
    let (bench, directory) = (Bench::directory(), tempfile::tempdir().unwrap());
    let (store, target) = (Watched::new(bench.store()), Target::new());
    for number in 1..=6 {
        let bytes = packed(Format::Gzip, &segment(&name(number), 1));
        put(&*store, &wal_key(&name(number), ".gz"), bytes).await;
    }
    store.new_requests();
    let fetcher = ahead(store.clone(), directory.path(), 4);
    let ask = async |number: u32| {
        let wanted = name(number).parse().unwrap();
        fetcher.fetch(wanted, &target.path(), None, Patience::Standby).await.unwrap();
    };
    for number in [1, 3, 5, 2] {
        ask(number).await;
    }
    assert_eq!(store.new_requests(), 4 * 3);
    ask(3).await;
    wait_until("the next is here", async || names(directory.path()).len() == 1).await;
    assert_eq!(store.new_requests(), 3 + 1);
}

/// Between two lists a segment is finished, and what was streamed of it goes away.
#[tokio::test]
async fn a_segment_that_is_finished_meanwhile_is_not_taken_for_absent() {
    let bench = Bench::directory();
    let (store, target) = (Watched::new(bench.store()), Target::new());
    let whole = segment(&name(1), 5);
    stream(&*store, 1, 0, 8192, &whole[..8192]).await;
    let (behind, finished) = (bench.store(), packed(Format::Gzip, &whole));
    store.after_next_list(|_| true, async move {
        put(&*behind, &wal_key(&name(1), ".gz"), finished).await;
        let chunk = layout().stream_chunk(segment_of(name(1).parse().unwrap()), 0, 8192);
        behind.delete(&chunk).await.unwrap();
    });
    assert!(target.get(&fetcher(store), &name(1)).await == whole);
}
