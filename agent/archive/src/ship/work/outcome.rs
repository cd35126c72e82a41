//! What comes of the tasks that ship: who is answered, what waits again, and what the status shows. Starts none.

use std::time::Duration;

use outrider_wal::WalFileName;
use tokio::task::{Id, JoinError};
use tracing::{debug, error, info, warn};

use super::{CHECK_INTERVAL, CHECK_SOON, CLAIM_INTERVAL, Done, Job, Shipping};
use crate::ready::{Ready, WalFile};
use crate::ship::NotDurable;
use crate::ship::gaps::{CheckError, GapCheck};
use crate::ship::queue::Refusal;
use crate::ship::unbroken::Unbroken;
use crate::ship::writer::Claimed;
use crate::upload::{UploadError, Uploaded};
use crate::{Archived, ContentError, Failure, clock};
use outrider_store::{self as store, Conditions, causes};

/// From a look at who may write that got no answer, or the answer that another may, to the next.
const CLAIM_AGAIN: Duration = Duration::from_secs(5);
/// Refused files that the status names.
const REFUSED_SHOWN: usize = 16;

impl Shipping {
    pub(super) fn finished(&mut self, done: Result<(Id, Done), JoinError>) {
        match done {
            Ok((id, done)) => {
                self.jobs.remove(&id);
                match done {
                    Done::Scanned(Ok(ready)) => self.scanned(&ready),
                    Done::Scanned(Err(error)) => {
                        self.failed(None, format!("cannot scan archive_status: {error}"));
                    }
                    Done::Probed(Ok(conditions)) => self.probed(conditions),
                    Done::Probed(Err(error)) => self.store_failed(None, causes(&error)),
                    Done::Claimed(claim) => self.claimed(claim),
                    Done::Checked(found) => self.checked(found),
                    Done::Uploaded(file, Ok(uploaded)) => self.uploaded(file, uploaded),
                    Done::Uploaded(file, Err(error)) => self.upload_failed(file, error),
                }
            }
            Err(panicked) => {
                let job = self.jobs.remove(&panicked.id());
                let file = if let Some(Job::Upload(file)) = job { Some(file) } else { None };
                self.store_failed(file, panicked.to_string());
            }
        }
    }

    fn scanned(&mut self, ready: &Ready) {
        self.status.oldest_waiting = ready.oldest;
        self.status.free_bytes = ready.free;
        self.queue.scanned(ready);
        self.refusals.retain(|file, _| self.queue.is_refused(*file));
        let waiting = self.waiting_bytes();
        self.status.full_in = self.growth.seen(clock::monotonic(), waiting, ready.free);
    }

    fn probed(&mut self, conditions: Conditions) {
        self.conditions = Some(conditions);
        self.store_works();
        if conditions == Conditions::Ignored {
            warn!(
                archive = self.uploader.store.url(),
                "the store overwrites objects although it is asked not to (If-None-Match): checking before each \
                    put instead, which cannot stop two primaries at the same time"
            );
        }
    }

    fn claimed(&mut self, claim: Result<Claimed, store::Error>) {
        let claim = match claim {
            Ok(claim) => claim,
            // What was known stays so: the guard is that no put overwrites.
            Err(error) if self.claim.is_some() => {
                self.claim_at = clock::monotonic() + CLAIM_AGAIN;
                return self.failed(None, causes(&error));
            }
            Err(error) => return self.store_failed(None, causes(&error)),
        };
        let interval = if claim == Claimed::Ours { CLAIM_INTERVAL } else { CLAIM_AGAIN };
        self.claim_at = clock::monotonic() + interval;
        self.store_works();
        if self.claim.as_ref() == Some(&claim) {
            return;
        }
        match &claim {
            Claimed::Ours => {
                debug!(archive = self.uploader.store.url(), "the archive is claimed");
                self.status.writer_conflict = None;
                for file in self.waiters.keys() {
                    self.queue.ask(*file);
                }
            }
            Claimed::Others(text) => {
                error!(fault = text, "no WAL is archived");
                self.failed(None, text.clone());
                self.status.writer_conflict = Some(text.clone());
                for waiter in self.waiters.drain().flat_map(|(_, waiters)| waiters) {
                    let _ = waiter.send(Err(NotDurable::Writer(text.clone())));
                }
            }
        }
        self.claim = Some(claim);
    }

    fn checked(&mut self, found: Result<GapCheck, CheckError>) {
        let now = clock::monotonic();
        let found = match found {
            Ok(found) => found,
            // What PostgreSQL marks as ready leaves meanwhile, also where nobody may list.
            Err(error) => {
                self.check_at = now + CHECK_SOON;
                let cause = match error {
                    CheckError::Store(error) => causes(&error),
                    CheckError::PgWal(error) => causes(&error),
                };
                return self.failed(None, format!("cannot compare pg_wal with the archive: {cause}"));
            }
        };
        if let Some(leadership) = self.leadership {
            self.unbroken = Unbroken::compared(leadership, &found, |file| self.queue.is_confirmed(file));
        }
        let GapCheck { holes, gaps, more, .. } = found;
        // The rest is found when these have left; gaps alone are only named.
        self.check_at = if more && !holes.is_empty() { now } else { now + CHECK_INTERVAL };
        self.status.compared_at = Some(clock::wall());
        if let (Some(first), Some(last)) = (holes.first(), holes.last()) {
            info!(
                files = holes.len(),
                first = %first.name(),
                last = %last.name(),
                "pg_wal has files that the archive lacks: they are archived now"
            );
        }
        if gaps != self.status.gaps {
            for (first, last) in &gaps {
                error!(
                    %first,
                    %last,
                    "the archive has a gap that pg_wal cannot fill: nobody can recover across it; switch over to a member \
                     that reports keeping this WAL, or take a base backup"
                );
            }
            self.status.gaps = gaps;
        }
        self.queue.fill(&holes);
    }

    fn uploaded(&mut self, file: WalFile, uploaded: Uploaded) {
        let was_hole = self.queue.confirm(file);
        if let Some(unbroken) = &mut self.unbroken {
            unbroken.confirm(file, |file| self.queue.is_confirmed(file));
        }
        self.refusals.remove(&file);
        self.store_works();
        let counters = &mut self.status.counters;
        counters.files += 1;
        counters.refilled += u64::from(was_hole);
        counters.segments += u64::from(matches!(file.name(), WalFileName::Segment(_)));
        counters.bytes_in += uploaded.bytes_in;
        counters.bytes_out += uploaded.bytes_out;
        counters.compressing += uploaded.compressing;
        debug!(file = %file.name(), bytes = uploaded.bytes_out, "archived");
        self.status.last_archived = Some(Archived { name: file.name(), at: clock::wall() });
        if self.status.conflict.as_ref().is_some_and(|conflict| conflict.name == file.name()) {
            self.status.conflict = None;
        }
        self.answer(file, &Ok(()));
    }

    fn upload_failed(&mut self, file: WalFile, failure: UploadError) {
        let text = failure.text();
        match failure {
            UploadError::Store(_) | UploadError::Task(_) => self.store_failed(Some(file), text),
            UploadError::Content(ContentError::Missing { .. }) if matches!(file, WalFile::History(_)) => {
                warn!(file = %file.name(), "the timeline history is not in pg_wal and cannot be archived");
                self.queue.go_without_history(file.timeline());
                self.answer(file, &Err(NotDurable::Content(text)));
            }
            UploadError::Content(ContentError::Missing { .. }) if self.queue.go_without(file) => {
                // PostgreSQL may remove what is not marked as ready: now it is a gap, or someone else filled it.
                self.check_soon();
            }
            UploadError::Content(_) => {
                error!(file = %file.name(), fault = text, "not archived");
                self.queue.refuse(file, Refusal::Damaged);
                self.check_soon();
                self.refused(file, text.clone());
                self.answer(file, &Err(NotDurable::Content(text)));
            }
            UploadError::Conflict(conflict) => {
                error!(file = %file.name(), fault = text, "not archived: conflict");
                self.queue.refuse(file, Refusal::Conflict);
                self.status.conflict = Some(conflict);
                self.check_soon();
                // Whoever wrote the other one may have claimed the archive.
                self.claim_at = clock::monotonic();
                self.refused(file, text.clone());
                self.answer(file, &Err(NotDurable::Conflict(text)));
            }
        }
    }

    fn check_soon(&mut self) {
        self.check_at = self.check_at.min(clock::monotonic() + CHECK_SOON);
    }

    /// Answers everyone who waits for this file.
    fn answer(&mut self, file: WalFile, answer: &Result<(), NotDurable>) {
        for waiter in self.waiters.remove(&file).unwrap_or_default() {
            let _ = waiter.send(answer.clone());
        }
    }

    fn refused(&mut self, file: WalFile, text: String) {
        self.failed(Some(file), text.clone());
        self.refusals.insert(file, text);
    }

    fn failed(&mut self, file: Option<WalFile>, text: String) {
        self.status.counters.failures += 1;
        self.status.last_failure = Some(Failure { name: file.map(WalFile::name), text, at: clock::wall() });
    }

    /// The store did not do it: wait longer each time. WAL waits in pg_wal meanwhile.
    fn store_failed(&mut self, file: Option<WalFile>, text: String) {
        if let Some(file) = file {
            self.queue.put_back(file);
        }
        if !self.status.store_failing {
            self.status.store_failing = true;
            warn!(error = text, "the archive accepts no WAL: it accumulates in pg_wal");
        }
        self.failed(file, text);
        // Files that were under way together fail together: that is one failure.
        if self.resume_at.is_none() {
            self.resume_at = Some(clock::monotonic() + self.backoff.next_wait());
        }
    }

    fn store_works(&mut self) {
        self.backoff.reset();
        if self.status.store_failing {
            self.status.store_failing = false;
            info!("the archive accepts WAL again");
        }
    }

    fn waiting_bytes(&self) -> u64 {
        let (_, large) = self.queue.missing();
        large * self.leadership.map_or(0, |leadership| leadership.segment_size.bytes())
    }

    /// Shows the state to the readers, when it changed.
    pub(super) fn show(&mut self) {
        let (files, _) = self.queue.missing();
        self.status.term = self.leadership.map(|leadership| leadership.term);
        self.status.claimed = self.claim == Some(Claimed::Ours);
        self.status.conditions = self.conditions;
        self.status.archived_to = self.unbroken.as_ref().map(Unbroken::end);
        self.status.waiting = files;
        self.status.waiting_bytes = self.waiting_bytes();
        if files == 0 {
            self.status.oldest_waiting = None;
            self.status.full_in = None;
        }
        self.status.in_flight = self.queue.in_flight();
        let refused = self.queue.refused().take(REFUSED_SHOWN);
        let text = |file: WalFile| (file.name(), self.refusals.get(&file).cloned().unwrap_or_default());
        self.status.refused = refused.map(text).collect();
        self.shown.send_replace(self.status.clone());
    }
}
