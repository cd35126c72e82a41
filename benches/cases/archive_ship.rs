//! From a finished segment to the store that has it: one at a time, and 24 that waited; and back again.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use outrider_archive::{Compression, Layout, Leadership, ShipOptions, Shipper};
use outrider_bed::process;
use outrider_store::{S3Options, S3Store, Secret, Store};
use outrider_wal::{SegmentSize, WalFileName};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::depot::{Depot, text};
use crate::figures::{Measure, Outcome, Row, Target};
use crate::others::{self, REPLAY};

/// Segments that wait at once, and are then fetched in order.
const SEGMENTS: usize = 24;
/// For all of them to be drained.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// Questions for a file that is not there.
const ABSENT: usize = 20;
/// Each fetches all segments in order.
const RECOVERIES: usize = 5;

const FINISHED: Measure = milliseconds("archive, finished segment until stored", Target::Ranks(60.0, 60.0));
const PUSH: Measure = milliseconds("archive, wal-push of a segment shipped ahead", Target::Ranks(5.0, 5.0));
const FETCH: Measure = milliseconds("archive, wal-fetch in order beside replay", Target::Ranks(8.0, 8.0));
const FIRST: Measure = milliseconds("archive, wal-fetch, the first of a recovery of these", Target::None);
const ABSENT_FILE: Measure = milliseconds("archive, wal-fetch of an absent file", Target::Ranks(6.0, 6.0));
const GZIP: Measure = seconds("archive, drain of 24, gzip", Target::Ranks(0.8, 0.8));
const ZSTD: Measure = seconds("archive, drain of 24, zstd", Target::Ranks(0.9, 0.9));
const NONE: Measure = seconds("archive, drain of 24, uncompressed", Target::None);
const MEMORY: Measure = Measure {
    name: "archive, drain of 24, gzip, most memory more",
    unit: "MiB",
    digits: 1,
    target: Target::Below(64.0),
};
const PROCESSOR: Measure = Measure {
    name: "archive, drain of 24, gzip, processor time of a GiB",
    unit: "s",
    digits: 2,
    target: Target::None,
};

const REQUESTS: Measure =
    Measure { name: "archive, requests of a segment", unit: "", digits: 2, target: Target::None };

const fn milliseconds(name: &'static str, target: Target) -> Measure {
    Measure { name, unit: "ms", digits: 1, target }
}

const fn seconds(name: &'static str, target: Target) -> Measure {
    Measure { name, unit: "s", digits: 2, target }
}

pub(super) async fn run(runs: u32) -> anyhow::Result<Outcome> {
    let depot = Depot::open(20, json!({"stream_interval": 0})).await?;
    let connection = depot.connect().await?;
    let socket = depot.socket();
    let store = depot.cluster.store.as_ref().context("the cluster has no object store")?;
    let [mut finished, mut push, mut fetch, mut first, mut absent, mut requests] =
        [FINISHED, PUSH, FETCH, FIRST, ABSENT_FILE, REQUESTS].map(Row::new);
    let before = store.requests().await?;
    let mut segments = Vec::new();
    for _ in 0..SEGMENTS {
        let segment = depot.fill_segment(&connection).await?;
        let begun = Instant::now();
        let path = depot.pg_wal().join(&segment);
        depot.outrider(&["wal-push", "--socket", text(&socket)?, text(&path)?])?;
        finished.figures.push(in_milliseconds(begun));
        let again = Instant::now();
        depot.outrider(&["wal-push", "--socket", text(&socket)?, text(&path)?])?;
        push.figures.push(in_milliseconds(again));
        segments.push(segment);
    }
    let last = segments.last().context("no segment")?;
    depot.archived(&connection, last).await?;
    let asked = store.requests().await? - before;
    requests.figures.push(asked as f64 / SEGMENTS as f64);
    let fetched = depot.scratch("fetched");
    // By it wal-fetch knows that a recovery asks, and not a standby, which would rather stream.
    let recovers = depot.member().directory().join("recovery.signal");
    std::fs::write(&recovers, "")?;
    for segment in std::iter::repeat_n(&segments, RECOVERIES).flatten() {
        let begun = Instant::now();
        depot.outrider(&["wal-fetch", "--socket", text(&socket)?, segment, text(&fetched)?])?;
        fetch.figures.push(in_milliseconds(begun));
        if segment == &segments[0] {
            first.figures.push(in_milliseconds(begun));
        }
        let same = std::fs::read(&fetched)? == std::fs::read(depot.pg_wal().join(segment))?;
        ensure!(same, "{segment} came back different");
        // PostgreSQL has put it elsewhere before it asks for the next one.
        std::fs::remove_file(&fetched)?;
        tokio::time::sleep(REPLAY).await;
    }
    std::fs::remove_file(&recovers)?;
    for number in 0..ABSENT {
        let name = format!("000000090000000000{number:06X}");
        let begun = Instant::now();
        let output =
            depot.member().outrider(&["wal-fetch", "--socket", text(&socket)?, &name, text(&fetched)?])?;
        absent.figures.push(in_milliseconds(begun));
        ensure!(output.status.code() == Some(1), "{name} is not there, and wal-fetch ended with {output:?}");
    }
    let waiting = depot.scratch("waiting");
    lay_out(&depot, &segments, &waiting)?;
    let mut rows = vec![finished, push, fetch, first, absent, requests];
    rows.extend(drains(&depot, &waiting.join("pg_wal"), &segments, runs).await?);
    rows.extend(others::wal(&depot, &segments, &waiting).await?);
    for row in &rows {
        println!("  {}", row.summary());
    }
    Ok(Outcome { case: "archive-ship", rows, books: None, faults: Vec::new() })
}

fn in_milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// As much of a data directory as the tools want, in whose pg_wal all these segments wait.
fn lay_out(depot: &Depot, segments: &[String], directory: &Path) -> anyhow::Result<()> {
    let mut paths = ["", "global", "pg_wal", "pg_wal/archive_status"].map(str::to_owned).to_vec();
    for path in &paths {
        std::fs::create_dir(directory.join(path))?;
    }
    let data = depot.member().data_directory();
    let copied = segments.iter().map(|segment| format!("pg_wal/{segment}"));
    for path in copied.chain(["global/pg_control".to_owned()]) {
        std::fs::copy(data.join(&path), directory.join(&path))?;
        paths.push(path);
    }
    for segment in segments {
        let path = format!("pg_wal/archive_status/{segment}.ready");
        std::fs::write(directory.join(&path), "")?;
        paths.push(path);
    }
    paths.iter().try_for_each(|path| depot.own(&directory.join(path)))
}

/// Each time into an empty archive.
async fn drains(depot: &Depot, directory: &Path, segments: &[String], runs: u32) -> anyhow::Result<Vec<Row>> {
    let identifier = std::fs::read(directory.join(&segments[0]))?;
    let identifier = u64::from_ne_bytes(identifier[24..32].try_into().context("a short segment")?);
    let store = open(depot)?;
    let mut rows = Vec::new();
    let (mut memory, mut processor) = (Row::new(MEMORY), Row::new(PROCESSOR));
    for (measure, compression) in
        [(GZIP, Compression::GZIP), (ZSTD, Compression::ZSTD), (NONE, Compression::None)]
    {
        let mut row = Row::new(measure);
        for run in 0..runs {
            let layout =
                Layout::new(format!("drain-{}-{run}", compression.suffix().trim_start_matches('.')))?;
            let before = usage()?;
            let took = drain(directory, layout, compression, store.clone(), segments, identifier).await?;
            row.figures.push(took.as_secs_f64());
            if measure.name == GZIP.name {
                let after = usage()?;
                let gibibytes = (SEGMENTS as f64) * 16.0 / 1024.0;
                memory.figures.push(after.most_memory - before.memory);
                processor.figures.push((after.processor - before.processor).as_secs_f64() / gibibytes);
            }
        }
        rows.push(row);
    }
    rows.push(memory);
    rows.push(processor);
    Ok(rows)
}

async fn drain(
    directory: &Path,
    layout: Layout,
    compression: Compression,
    store: Arc<dyn Store>,
    segments: &[String],
    system_identifier: u64,
) -> anyhow::Result<Duration> {
    let parallelism: NonZeroUsize = ShipOptions::default_parallelism();
    let options = ShipOptions {
        pg_wal: directory.to_owned(),
        member: "bench".to_owned(),
        layout,
        compression,
        parallelism,
    };
    let last: WalFileName = segments.last().context("no segment")?.parse()?;
    let begun = Instant::now();
    let shipper = Shipper::start(options, store);
    let timeline = last.timeline();
    shipper.enable(Leadership { term: 1, system_identifier, segment_size: SegmentSize::DEFAULT, timeline });
    let mut status = shipper.status();
    let count = segments.len() as u64;
    let drained = status.wait_for(|status| status.counters.segments >= count);
    timeout(DRAIN_LIMIT, drained).await.context("the archive was not drained")??;
    Ok(begun.elapsed())
}

/// This process: MiB now, MiB at the most so far, processor time.
struct Usage {
    memory: f64,
    most_memory: f64,
    processor: Duration,
}

fn usage() -> anyhow::Result<Usage> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mebibytes = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        number.map(|kibibytes| kibibytes / 1024.0).with_context(|| format!("no {key} in /proc/self/status"))
    };
    let us = i32::try_from(std::process::id())?;
    let processor = process::stat(us).context("no /proc/self/stat")?.cpu;
    Ok(Usage { memory: mebibytes("VmRSS:")?, most_memory: mebibytes("VmHWM:")?, processor })
}

fn open(depot: &Depot) -> anyhow::Result<Arc<dyn Store>> {
    let store = depot.cluster.store.as_ref().context("the cluster has no object store")?;
    let options = S3Options {
        bucket: outrider_bed::BUCKET.to_owned(),
        path: "drain".to_owned(),
        endpoint: Some(store.endpoint()),
        region: "us-east-1".to_owned(),
        path_style: true,
        access_key_id: Secret::new(outrider_bed::ACCESS_KEY),
        secret_access_key: Secret::new(outrider_bed::SECRET_KEY),
        session_token: None,
        credential_files: Default::default(),
        ca_file: store.ca_file(),
        request_timeout: Duration::from_secs(30),
        create_bucket: false,
    };
    Ok(Arc::new(S3Store::open(&options)?))
}
