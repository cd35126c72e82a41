//! The task that ships: one loop that owns all its state; files under way and scans are tasks of its own.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use outrider_wal::WalFileName;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use super::line::{Line, Refusal};
use super::{Leadership, NotDurable, Question};
use crate::backoff::Backoff;
use crate::content::Expected;
use crate::queue::{self, Ready, Turn};
use crate::store::{self, Conditions, causes};
use crate::upload::{UploadError, Uploaded, Uploader};
use crate::{Archived, Failure, Fault, Status, clock};

/// The net under the notifications of the file system, which do not cross every kind of mount.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);
/// Callers that wait for one file or another.
const WAITERS_MAX: usize = 64;
/// Refused files that the status names.
const REFUSED_SHOWN: usize = 16;

pub(super) struct Work {
    uploader: Uploader,
    parallelism: usize,
    leadership: Option<Leadership>,
    line: Line,
    waiters: HashMap<Turn, Vec<oneshot::Sender<Result<(), NotDurable>>>>,
    refusals: HashMap<Turn, String>,
    conditions: Option<Conditions>,
    running: JoinSet<Done>,
    jobs: HashMap<Id, Job>,
    backoff: Backoff,
    /// Nothing is asked of the store before this.
    resume_at: Option<Instant>,
    scan_at: Instant,
    watcher: Option<RecommendedWatcher>,
    woken: mpsc::Sender<()>,
    wakes: Option<mpsc::Receiver<()>>,
    status: Status,
    shown: watch::Sender<Status>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Scan,
    Probe,
    Upload(Turn),
}

enum Done {
    Scanned(io::Result<Ready>),
    Probed(Result<Conditions, store::Error>),
    Uploaded(Turn, Result<Uploaded, UploadError>),
}

impl Work {
    pub(super) fn new(uploader: Uploader, parallelism: usize, shown: watch::Sender<Status>) -> Self {
        let (woken, wakes) = mpsc::channel(1);
        Work {
            uploader,
            parallelism,
            leadership: None,
            line: Line::default(),
            waiters: HashMap::new(),
            refusals: HashMap::new(),
            conditions: None,
            running: JoinSet::new(),
            jobs: HashMap::new(),
            backoff: Backoff::default(),
            resume_at: None,
            scan_at: Instant::now(),
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
        mut leadership: watch::Receiver<Option<Leadership>>,
        mut questions: mpsc::Receiver<Question>,
    ) {
        let Some(mut wakes) = self.wakes.take() else { return };
        loop {
            self.start_work();
            self.show();
            let pause = self.resume_at;
            let scan_at = self.scan_at;
            tokio::select! {
                changed = leadership.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = *leadership.borrow_and_update();
                    self.lead(now);
                }
                Some(question) = questions.recv() => self.asked(question),
                Some(done) = self.running.join_next_with_id() => self.finished(done),
                Some(()) = wakes.recv() => self.scan_at = Instant::now(),
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
        self.line.stop();
        self.refusals.clear();
        self.watcher = None;
        self.resume_at = None;
        self.backoff.reset();
        self.conditions = None;
        self.scan_at = Instant::now();
        self.leadership = leadership;
        self.status = Status { counters: self.status.counters, ..Status::default() };
        self.status.last_archived = self.shown.borrow().last_archived.clone();
        match leadership {
            Some(Leadership { term, .. }) => {
                info!(term, archive = self.uploader.store.url(), "shipping WAL");
                for turn in self.waiters.keys() {
                    self.line.ask(*turn);
                }
            }
            None => info!("no longer shipping WAL"),
        }
    }

    fn asked(&mut self, Question { name, waits, answer }: Question) {
        let turn = Turn::from(name);
        if self.line.is_confirmed(turn) {
            // Whoever asked may have gone; then nobody needs the answer.
            let _ = answer.send(Ok(()));
            return;
        }
        if !waits {
            let _ = answer.send(Err(NotDurable::NotYet));
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
        self.waiters.entry(turn).or_default().push(answer);
        if self.leadership.is_some() {
            self.line.ask(turn);
        }
    }

    /// Answers everyone who waits for this file.
    fn answer(&mut self, turn: Turn, answer: &Result<(), NotDurable>) {
        for waiter in self.waiters.remove(&turn).unwrap_or_default() {
            let _ = waiter.send(answer.clone());
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
        self.scan_at = Instant::now() + SCAN_INTERVAL;
        self.watch();
        let (pg_wal, confirmed) = (self.uploader.pg_wal.clone(), self.line.confirmed().clone());
        self.spawn(Job::Scan, async move {
            let scan = tokio::task::spawn_blocking(move || queue::scan(&pg_wal, &confirmed));
            Done::Scanned(scan.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked))))
        });
    }

    /// Lets the file system tell of new files, when it can. The scans find them anyway.
    fn watch(&mut self) {
        if self.watcher.is_some() {
            return;
        }
        let woken = self.woken.clone();
        let wake = move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            let appeared = matches!(
                event.kind,
                EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To))
            );
            let ready = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "ready");
            if appeared && event.paths.iter().any(ready) {
                // Full means that it will wake already.
                let _ = woken.try_send(());
            }
        };
        let directory = self.uploader.pg_wal.join("archive_status");
        let watcher = notify::recommended_watcher(wake).and_then(|mut watcher| {
            watcher.watch(&directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => debug!(%error, "archive_status is not watched, only scanned"),
        }
    }

    /// Starts as many files as may leave now.
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
        let system_identifier = Some(leadership.system_identifier);
        let expected = Expected { system_identifier, segment_size: leadership.segment_size };
        while self.line.in_flight() < self.parallelism {
            let Some(turn) = self.line.take() else { break };
            let uploader = self.uploader.clone();
            self.spawn(Job::Upload(turn), async move {
                Done::Uploaded(turn, uploader.upload(turn.name(), expected).await)
            });
        }
        if self.line.wants_scan() && !self.is_running(Job::Scan) && self.line.in_flight() == 0 {
            self.scan_at = self.scan_at.min(Instant::now() + Duration::from_millis(200));
        }
    }

    fn finished(&mut self, done: Result<(Id, Done), JoinError>) {
        match done {
            Ok((id, done)) => {
                self.jobs.remove(&id);
                match done {
                    Done::Scanned(Ok(ready)) => {
                        self.status.oldest_waiting = ready.oldest;
                        self.line.scanned(&ready);
                        self.refusals.retain(|turn, _| self.line.is_refused(*turn));
                    }
                    Done::Scanned(Err(error)) => {
                        self.failed(None, format!("cannot scan archive_status: {error}"))
                    }
                    Done::Probed(Ok(conditions)) => self.probed(conditions),
                    Done::Probed(Err(error)) => self.store_failed(None, causes(&error)),
                    Done::Uploaded(turn, Ok(uploaded)) => self.uploaded(turn, uploaded),
                    Done::Uploaded(turn, Err(error)) => self.upload_failed(turn, error),
                }
            }
            Err(panicked) => {
                let job = self.jobs.remove(&panicked.id());
                let turn = if let Some(Job::Upload(turn)) = job { Some(turn) } else { None };
                self.store_failed(turn, panicked.to_string());
            }
        }
    }

    fn probed(&mut self, conditions: Conditions) {
        self.conditions = Some(conditions);
        self.store_works();
        if conditions == Conditions::Ignored {
            warn!(
                archive = self.uploader.store.url(),
                "the store overwrites objects although it is asked not to (If-None-Match): looking before each put \
                 instead, which two primaries at one time can slip through"
            );
        }
    }

    fn uploaded(&mut self, turn: Turn, uploaded: Uploaded) {
        self.line.confirm(turn);
        self.refusals.remove(&turn);
        self.store_works();
        let counters = &mut self.status.counters;
        counters.files += 1;
        counters.segments += u64::from(matches!(turn.name(), WalFileName::Segment(_)));
        counters.bytes_in += uploaded.bytes_in;
        counters.bytes_out += uploaded.bytes_out;
        counters.compressing += uploaded.compressing;
        debug!(file = %turn.name(), bytes = uploaded.bytes_out, "archived");
        self.status.last_archived = Some(Archived { name: turn.name(), at: clock::now() });
        if self.status.conflict.as_ref().is_some_and(|conflict| conflict.name == turn.name()) {
            self.status.conflict = None;
        }
        self.answer(turn, &Ok(()));
    }

    fn upload_failed(&mut self, turn: Turn, failure: UploadError) {
        let text = failure.text();
        match failure {
            UploadError::Store(_) | UploadError::Task(_) => self.store_failed(Some(turn), text),
            UploadError::Fault(Fault::Missing { .. }) if matches!(turn, Turn::History(_)) => {
                warn!(file = %turn.name(), "the timeline history is not in pg_wal and cannot be archived");
                self.line.go_without_history(turn.timeline());
                self.answer(turn, &Err(NotDurable::Fault(text)));
            }
            UploadError::Fault(_) => {
                error!(file = %turn.name(), fault = text, "not archived");
                self.line.refuse(turn, Refusal::Fault);
                self.refused(turn, text.clone());
                self.answer(turn, &Err(NotDurable::Fault(text)));
            }
            UploadError::Conflict(conflict) => {
                error!(file = %turn.name(), fault = text, "not archived: conflict");
                self.line.refuse(turn, Refusal::Conflict);
                self.status.conflict = Some(conflict);
                self.refused(turn, text.clone());
                self.answer(turn, &Err(NotDurable::Conflict(text)));
            }
        }
    }

    fn refused(&mut self, turn: Turn, text: String) {
        self.failed(Some(turn), text.clone());
        self.refusals.insert(turn, text);
    }

    fn failed(&mut self, turn: Option<Turn>, text: String) {
        self.status.counters.failures += 1;
        self.status.last_failure = Some(Failure { name: turn.map(Turn::name), text, at: clock::now() });
    }

    /// The store did not do it: wait longer each time. WAL waits in pg_wal meanwhile.
    fn store_failed(&mut self, turn: Option<Turn>, text: String) {
        if let Some(turn) = turn {
            self.line.put_back(turn);
        }
        if !self.status.store_failing {
            self.status.store_failing = true;
            warn!(error = text, "the archive takes no WAL: it waits in pg_wal");
        }
        self.failed(turn, text);
        // Files that were under way together fail together: that is one failure.
        if self.resume_at.is_none() {
            self.resume_at = Some(Instant::now() + self.backoff.next());
        }
    }

    fn store_works(&mut self) {
        self.backoff.reset();
        if self.status.store_failing {
            self.status.store_failing = false;
            info!("the archive takes WAL again");
        }
    }

    /// Shows the state to the readers, when it changed.
    fn show(&mut self) {
        let (files, large) = self.line.missing();
        let size = self.leadership.map_or(0, |leadership| leadership.segment_size.bytes());
        self.status.term = self.leadership.map(|leadership| leadership.term);
        self.status.conditions = self.conditions;
        self.status.waiting = files;
        self.status.waiting_bytes = large * size;
        if files == 0 {
            self.status.oldest_waiting = None;
        }
        self.status.in_flight = self.line.in_flight();
        let refused = self.line.refused().take(REFUSED_SHOWN);
        let text = |turn: Turn| (turn.name(), self.refusals.get(&turn).cloned().unwrap_or_default());
        self.status.refused = refused.map(text).collect();
        self.shown.send_replace(self.status.clone());
    }
}
