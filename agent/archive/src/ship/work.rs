//! The task that ships: one loop that owns all its state; files under way, scans and questions to the store are tasks
//! of their own. What comes of them is in `outcome`.

mod outcome;
mod watch;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use notify::RecommendedWatcher;
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::capacity::Growth;
use super::gaps::{self, CheckError, GapCheck};
use super::queue::ShipQueue;
use super::unbroken::Unbroken;
use super::writer::{self, Claimed};
use super::{Leadership, NotDurable, Question};
use crate::Status;
use crate::clock;
use crate::content::Expected;
use crate::ready::{self, Ready, WalFile};
use crate::upload::{UploadError, Uploaded, Uploader};
use outrider_store::Backoff;
use outrider_store::{self as store, Conditions};

/// The net under the notifications of the file system, which do not cross every kind of mount.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at who may write to the archive, and so how long a former primary may not know.
const CLAIM_INTERVAL: Duration = Duration::from_secs(30);
/// Between two comparisons of the archive with pg_wal. In between each file that leaves is known.
const CHECK_INTERVAL: Duration = Duration::from_secs(3600);
/// From trouble with a file, or a comparison that failed, to the next.
const CHECK_SOON: Duration = Duration::from_secs(60);
/// Callers that wait for one file or another.
const WAITERS_MAX: usize = 64;
/// Bytes of segments under way at one time, before compression.
const IN_FLIGHT_MAX: u64 = 128 << 20;

pub(super) struct Shipping {
    uploader: Uploader,
    member: String,
    parallelism: usize,
    leadership: Option<Leadership>,
    queue: ShipQueue,
    waiters: HashMap<WalFile, Vec<oneshot::Sender<Result<(), NotDurable>>>>,
    refusals: HashMap<WalFile, String>,
    conditions: Option<Conditions>,
    /// Whether the archive is ours to write to; `None` before it was asked.
    claim: Option<Claimed>,
    claim_at: Instant,
    check_at: Instant,
    unbroken: Option<Unbroken>,
    /// Scan, probe, claim, check and uploads, beside each other; of each but the uploads one at a time. They touch nothing of this
    /// struct: what they found comes back by the loop. A new term aborts them all, and what the store still takes of them is put
    /// if absent under names that nobody else may use for other content.
    running: JoinSet<Done>,
    jobs: HashMap<Id, Job>,
    backoff: Backoff,
    /// Nothing is asked of the store before this.
    resume_at: Option<Instant>,
    scan_at: Instant,
    growth: Growth,
    watcher: Option<RecommendedWatcher>,
    woken: mpsc::Sender<()>,
    wakes: Option<mpsc::Receiver<()>>,
    status: Status,
    shown: channel::Sender<Status>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Scan,
    Probe,
    Claim,
    Check,
    Upload(WalFile),
}

enum Done {
    Scanned(io::Result<Ready>),
    Probed(Result<Conditions, store::Error>),
    Claimed(Result<Claimed, store::Error>),
    Checked(Result<GapCheck, CheckError>),
    Uploaded(WalFile, Result<Uploaded, UploadError>),
}

impl Shipping {
    pub(super) fn new(
        uploader: Uploader,
        member: String,
        parallelism: usize,
        shown: channel::Sender<Status>,
    ) -> Self {
        let (woken, wakes) = mpsc::channel(1);
        Shipping {
            uploader,
            member,
            parallelism,
            leadership: None,
            queue: ShipQueue::default(),
            waiters: HashMap::new(),
            refusals: HashMap::new(),
            conditions: None,
            claim: None,
            claim_at: clock::monotonic(),
            check_at: clock::monotonic(),
            unbroken: None,
            running: JoinSet::new(),
            jobs: HashMap::new(),
            backoff: Backoff::default(),
            resume_at: None,
            scan_at: clock::monotonic(),
            growth: Growth::default(),
            watcher: None,
            woken,
            wakes: Some(wakes),
            status: Status::default(),
            shown,
        }
    }

    /// Runs until the last handle is gone; what is under way then is dropped and may or may not have happened.
    pub(super) async fn run(
        mut self,
        mut leadership: channel::Receiver<Option<Leadership>>,
        mut questions: mpsc::Receiver<Question>,
    ) {
        let Some(mut wakes) = self.wakes.take() else { return };
        loop {
            self.start_work();
            self.show();
            let pause = self.resume_at;
            let scan_at = self.scan_at;
            tokio::select! {
                // So that whoever asks after the member was elected is not answered by what was true before.
                biased;
                changed = leadership.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = *leadership.borrow_and_update();
                    self.lead(now);
                }
                Some(question) = questions.recv() => self.asked(question),
                Some(done) = self.running.join_next_with_id() => self.finished(done),
                Some(()) = wakes.recv() => self.scan_at = clock::monotonic(),
                () = sleep_until(scan_at), if self.leadership.is_some() && !self.is_running(Job::Scan) => {
                    self.scan();
                }
                () = sleep_until(pause.unwrap_or(scan_at)), if pause.is_some() => self.resume_at = None,
            }
        }
    }

    /// Takes up or lays down the right to ship.
    fn lead(&mut self, leadership: Option<Leadership>) {
        if leadership == self.leadership {
            return;
        }
        // With another term the promises of the old one are void: begin anew.
        self.running = JoinSet::new();
        self.jobs.clear();
        self.queue.stop();
        self.refusals.clear();
        self.watcher = None;
        self.resume_at = None;
        self.backoff.reset();
        self.conditions = None;
        self.claim = None;
        self.claim_at = clock::monotonic();
        self.check_at = clock::monotonic();
        self.unbroken = None;
        self.scan_at = clock::monotonic();
        self.growth = Growth::default();
        self.leadership = leadership;
        self.status = Status { counters: self.status.counters, ..Status::default() };
        self.status.last_archived = self.shown.borrow().last_archived.clone();
        match leadership {
            Some(Leadership { term, .. }) => {
                info!(term, archive = self.uploader.store.url(), "shipping WAL");
                for file in self.waiters.keys() {
                    self.queue.ask(*file);
                }
            }
            None => info!("no longer shipping WAL"),
        }
    }

    fn asked(&mut self, Question { name, waits, answer }: Question) {
        let file = WalFile::from(name);
        let settled = match &self.claim {
            _ if self.queue.is_confirmed(file) => Some(Ok(())),
            _ if !waits => Some(Err(NotDurable::NotYet)),
            Some(Claimed::Others(text)) => Some(Err(NotDurable::Writer(text.clone()))),
            Some(Claimed::Ours) | None => None,
        };
        if let Some(settled) = settled {
            // Whoever asked may have gone; then nobody needs the answer.
            let _ = answer.send(settled);
            return;
        }
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        if self.waiters.values().map(Vec::len).sum::<usize>() >= WAITERS_MAX {
            let _ = answer.send(Err(NotDurable::Busy));
            return;
        }
        self.waiters.entry(file).or_default().push(answer);
        if self.leadership.is_some() {
            self.queue.ask(file);
        }
    }

    fn is_running(&self, job: Job) -> bool {
        self.jobs.values().any(|running| *running == job)
    }

    fn spawn(&mut self, job: Job, work: impl Future<Output = Done> + Send + 'static) {
        let id = self.running.spawn(work).id();
        self.jobs.insert(id, job);
    }

    fn scan(&mut self) {
        self.scan_at = clock::monotonic() + SCAN_INTERVAL;
        if self.watcher.is_none() {
            match watch::watch(&self.uploader.pg_wal, self.woken.clone()) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => debug!(%error, "archive_status is not watched, only scanned"),
            }
        }
        let (pg_wal, confirmed) = (self.uploader.pg_wal.clone(), self.queue.confirmed().clone());
        self.spawn(Job::Scan, async move {
            let scan = tokio::task::spawn_blocking(move || ready::scan(&pg_wal, &confirmed));
            Done::Scanned(scan.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked))))
        });
    }

    /// Starts what may be done now: find out what the store does, claim the archive, send files, compare.
    fn start_work(&mut self) {
        let Some(leadership) = self.leadership else { return };
        if self.resume_at.is_some() {
            return;
        }
        if self.conditions.is_none() {
            if !self.is_running(Job::Probe) {
                let (store, key) = (self.uploader.store.clone(), self.uploader.layout.probe());
                self.spawn(Job::Probe, async move { Done::Probed(store.probe(&key).await) });
            }
            return;
        }
        if self.claim_at <= clock::monotonic() && !self.is_running(Job::Claim) {
            let (store, layout) = (self.uploader.store.clone(), self.uploader.layout.clone());
            let member = self.member.clone();
            self.spawn(Job::Claim, async move {
                Done::Claimed(writer::claim(&*store, &layout, leadership, &member).await)
            });
        }
        // While a look is due nothing new leaves: who stood still for longer than that, or met another's file, may not be
        // the leader any more.
        if self.claim != Some(Claimed::Ours) || self.claim_at <= clock::monotonic() {
            return;
        }
        self.send(leadership);
        // Not while holes wait to be filled: they would be found again.
        if self.check_at <= clock::monotonic() && !self.is_running(Job::Check) && !self.queue.has_holes() {
            let uploader = self.uploader.clone();
            self.spawn(Job::Check, async move { Done::Checked(gaps::check(&uploader, leadership).await) });
        }
    }

    /// Sends as many files as may leave now. They may come into the archive in any order: a segment that is there before an
    /// older one is a gap for a moment only, and what is reported as archived ends before it (`unbroken`).
    fn send(&mut self, leadership: Leadership) {
        let system_identifier = Some(leadership.system_identifier);
        let expected = Expected { system_identifier, segment_size: leadership.segment_size };
        let room = usize::try_from(IN_FLIGHT_MAX / leadership.segment_size.bytes()).unwrap_or(usize::MAX);
        while self.queue.in_flight() < self.parallelism.min(room.max(1)) {
            let Some(file) = self.queue.take() else { break };
            let uploader = self.uploader.clone();
            self.spawn(Job::Upload(file), async move {
                Done::Uploaded(file, uploader.upload(file.name(), expected).await)
            });
        }
        if self.queue.wants_scan() && !self.is_running(Job::Scan) && self.queue.in_flight() == 0 {
            self.scan_at = self.scan_at.min(clock::monotonic() + Duration::from_millis(200));
        }
    }
}
