//! Copies the files: one thread lays out the tars, several make blocks, one task joins and sends them.
//!
//! Memory: besides a part of the manifest, three parts on their way and one being filled of 8 MiB each, and for each
//! worker 1 MiB plain and three blocks of at most 1 MiB compressed. With two workers about 45 MiB, whatever the size.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::block::{self, Job, Pages, TarName};
use super::feed::{Feed, Header, RateLimit};
use super::join::Joiner;
use super::source::{Begun, Ended, Source};
use super::walk::{self, Entry, Visitor};
use super::{BackupError, BackupOptions, control_file};

/// Workers at most: beyond, the network or the disk is slower.
const WORKERS_MAX: usize = 8;
/// Blocks under way for each worker.
const ROOM: usize = 3;
/// Between two looks at whether the session is there.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// For the threads to notice that they are to stop; one that hangs in a read is left to itself.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Copies everything into `joiner` and ends the backup on the server.
pub(crate) async fn copy(
    source: &mut dyn Source,
    begun: &Begun,
    options: &BackupOptions,
    joiner: &mut Joiner<'_>,
    cancel: &CancellationToken,
) -> Result<Ended, BackupError> {
    let stop = cancel.child_token();
    let workers = workers(options);
    let (jobs, jobs_out) = mpsc::sync_channel(ROOM * workers);
    let (blocks_in, mut blocks) = tokio::sync::mpsc::channel((ROOM + 1) * workers);
    let pages = begun.data_checksums.then_some(Pages {
        size: begun.page_size as usize,
        per_file: begun.pages_per_file,
        start: begun.start,
    });
    let (jobs_out, level) = (Arc::new(Mutex::new(jobs_out)), options.level);
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for _ in 0..workers {
        let (jobs, blocks) = (jobs_out.clone(), blocks_in.clone());
        threads.push(tokio::task::spawn_blocking(move || block::work(&jobs, &blocks, level, pages)));
    }
    drop((jobs_out, blocks_in));
    let (all_read, was_read) = oneshot::channel();
    let (label_in, label) = oneshot::channel();
    let feed = feed(jobs, workers, begun, options, &stop);
    let layout = {
        let begun = begun.clone();
        move || lay_out(feed, &begun, all_read, label)
    };
    let layout = tokio::task::spawn_blocking(layout);

    let joining = async {
        let joined = joiner.run(&mut blocks, &stop).await;
        if joined.is_err() {
            stop.cancel();
        }
        blocks.close();
        joined
    };
    let ending = async {
        let ended = end(source, was_read, label_in, &stop).await;
        if ended.is_err() {
            stop.cancel();
        }
        ended
    };
    let (joined, ended) = tokio::join!(joining, ending);
    let laid_out = match timeout(STOP_LIMIT, layout).await {
        Ok(Ok(laid_out)) => laid_out,
        Ok(Err(error)) => Err(BackupError::Thread { source: error }),
        Err(_) => Err(BackupError::Cancelled),
    };
    for thread in threads {
        if let Ok(Err(error)) = timeout(STOP_LIMIT, thread).await {
            return Err(BackupError::Thread { source: error });
        }
    }
    // One failure stops the others: what broke first is the one that is no cancellation.
    let outcomes = [laid_out.err(), joined.err()];
    let mut failures = outcomes.into_iter().flatten().collect::<Vec<_>>();
    match ended {
        Ok(ended) if failures.is_empty() && joiner.is_complete() => Ok(ended),
        Ok(_) => Err(first(failures)),
        Err(error) => {
            failures.push(error);
            Err(first(failures))
        }
    }
}

fn first(failures: Vec<BackupError>) -> BackupError {
    let is_cause = |error: &BackupError| !matches!(error, BackupError::Cancelled);
    let mut failures = failures;
    let place = failures.iter().position(is_cause).unwrap_or(0);
    if failures.is_empty() { BackupError::Cancelled } else { failures.swap_remove(place) }
}

/// Bytes of all files that will be copied; and a proof that the directories can be read. Blocks.
pub(crate) fn measure(begun: &Begun) -> Result<u64, BackupError> {
    struct Sum(u64);
    impl Visitor for Sum {
        fn visit(&mut self, entry: Entry) -> Result<(), BackupError> {
            self.0 += if entry.metadata.is_dir() { 0 } else { entry.metadata.len() };
            Ok(())
        }
    }
    let mut sum = Sum(0);
    control_file::read(&begun.data_directory)?;
    for tablespace in tablespaces(begun) {
        walk::tablespace(Path::new(&tablespace.location), &begun.version_directory, &mut sum)?;
    }
    walk::data_directory(&begun.data_directory, &mut sum)?;
    Ok(sum.0)
}

/// Those with a tar of their own: the others lie in the data directory (allow_in_place_tablespaces).
pub(crate) fn tablespaces(begun: &Begun) -> impl Iterator<Item = &crate::Tablespace> {
    begun.tablespaces.iter().filter(|tablespace| Path::new(&tablespace.location).is_absolute())
}

fn workers(options: &BackupOptions) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    options.threads.map_or(cores, NonZeroUsize::get).min(WORKERS_MAX)
}

fn feed(
    jobs: mpsc::SyncSender<Job>,
    workers: usize,
    begun: &Begun,
    options: &BackupOptions,
    stop: &CancellationToken,
) -> Feed {
    let room_size = ROOM * workers;
    Feed {
        jobs,
        room: Arc::new(Semaphore::new(room_size)),
        room_size: u32::try_from(room_size).expect("a few"),
        runtime: Handle::current(),
        stop: stop.clone(),
        page_size: u64::from(begun.page_size),
        tar_max: options.tar_max,
        rate_limit: options.rate_limit.map(RateLimit::new),
        sequence: 0,
        tar: TarName { tablespace: None, number: 0 },
        tar_bytes: 0,
        spans: Vec::new(),
        files: 0,
        length: 0,
    }
}

/// The tars in barman's order: tablespaces, then the data directory with pg_control and backup_label at its end. Blocks.
fn lay_out(
    mut feed: Feed,
    begun: &Begun,
    all_read: oneshot::Sender<()>,
    label: oneshot::Receiver<String>,
) -> Result<(), BackupError> {
    for tablespace in tablespaces(begun) {
        feed.begin(Some(tablespace.oid));
        walk::tablespace(Path::new(&tablespace.location), &begun.version_directory, &mut feed)?;
        feed.end()?;
    }
    feed.begin(None);
    walk::data_directory(&begun.data_directory, &mut feed)?;
    // On a standby recovery ends where pg_control says, so it must be younger than everything else (basebackup.c).
    feed.drain()?;
    let path = begun.data_directory.join("global/pg_control");
    let metadata = path.metadata().map_err(|source| BackupError::Read { path, source })?;
    let like = Header::of(&metadata, tar::EntryType::Regular);
    feed.content("global/pg_control", control_file::read(&begun.data_directory)?, &like)?;
    let gone = all_read.send(()).is_err();
    let label = if gone { None } else { label.blocking_recv().ok() };
    feed.content("backup_label", label.ok_or(BackupError::Cancelled)?.into_bytes(), &like)?;
    feed.end()
}

/// Waits until all is read, and ends the backup on the server.
async fn end(
    source: &mut dyn Source,
    mut was_read: oneshot::Receiver<()>,
    label: oneshot::Sender<String>,
    stop: &CancellationToken,
) -> Result<Ended, BackupError> {
    loop {
        tokio::select! {
            read = &mut was_read => match read {
                Ok(()) => break,
                Err(_) => return Err(BackupError::Cancelled),
            },
            () = stop.cancelled() => return Err(BackupError::Cancelled),
            () = sleep(ALIVE_INTERVAL) => if !source.is_alive() {
                return Err(BackupError::SessionLost);
            },
        }
    }
    let ended = stop.run_until_cancelled(source.end()).await.ok_or(BackupError::Cancelled)?;
    let ended = ended.map_err(|source| BackupError::Source { act: "end the backup", source })?;
    if ended.stop_timeline != ended.start_timeline {
        let (from, to) = (ended.start_timeline, ended.stop_timeline);
        return Err(BackupError::TimelineChanged { from: from.get(), to: to.get() });
    }
    // When nobody takes it, the layout has its own reason.
    let _ = label.send(ended.label.clone());
    Ok(ended)
}
