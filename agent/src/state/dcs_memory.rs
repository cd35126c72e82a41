//! What this member remembers of the DCS, on its disk: how far it has seen it, by which a DCS that went back is noticed, and
//! what the keys of the cluster said last, by which they can be written anew. Does not judge what the DCS shows.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrider_dcs::{Generation, HistoryRow, RebuiltKeys, RollbackOutcome, Snapshot, SyncState};
use outrider_ha::{MemberName, Term, Watermark};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::Instant;
use tracing::warn;

use super::term::{Durable, TermError, TermFile, replace};
use crate::clock;

/// The file in the state directory.
const RECORD: &str = "dcs.json";
/// Beside it, the last revision; written without a sync, since it changes with the WAL.
const REVISION: &str = "dcs-revision";
/// A member that has not been in the DCS for longer is not asked whether it finds the same when the DCS is empty.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 60);

/// The keys of the cluster, as they were last seen whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DcsRecord {
    /// How far the DCS has been seen.
    pub(crate) watermark: Watermark,
    /// The members, with the URL of their REST API.
    pub(crate) members: BTreeMap<String, String>,
    /// The system identifier, decimal; empty before the cluster is made.
    pub(crate) system_identifier: String,
    /// Who led last, or was to be handed the lease.
    pub(crate) leader: Option<String>,
    /// The dynamic configuration.
    pub(crate) config: Option<Value>,
    /// Who may be promoted, in the shape of the key; `None` in asynchronous mode.
    pub(crate) sync: Option<Value>,
    /// The timeline history, in the shape of the key.
    pub(crate) history: Value,
    /// How the last rollback ended.
    pub(crate) rollback_last: Option<RollbackOutcome>,
}

impl DcsRecord {
    /// Reads the file of a member; `None` when it never saw a cluster.
    ///
    /// # Errors
    /// When it cannot be read or holds something else.
    pub(crate) fn read(state_directory: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(state_directory.join(RECORD)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut record: DcsRecord = serde_json::from_slice(&text)?;
        if let Some(revision) = last_revision(state_directory, record.watermark.generation) {
            record.watermark.revision = record.watermark.revision.max(revision);
        }
        Ok(Some(record))
    }

    /// The keys as they are to be written anew by the member `by`, with this `/sync`.
    pub(crate) fn rebuilt(&self, by: &str, sync: Option<SyncState>) -> RebuiltKeys {
        let generation = Generation {
            generation: self.watermark.generation + 1,
            term_base: self.watermark.term.0,
            by: by.to_owned(),
            at: clock::wall().to_string(),
        };
        RebuiltKeys {
            generation,
            system_identifier: self.system_identifier.clone(),
            config: self.config.clone(),
            sync,
            history: HistoryRow::parse_all(&self.history.to_string()),
            rollback_last: self.rollback_last.clone(),
        }
    }

    /// Who could be promoted; nobody where that was not recorded.
    pub(crate) fn sync(&self) -> SyncState {
        self.sync.as_ref().map(|sync| SyncState::parse(&sync.to_string())).unwrap_or_default()
    }

    fn differs_only_in_revision(&self, other: &DcsRecord) -> bool {
        let mut other = other.clone();
        other.watermark.revision = self.watermark.revision;
        *self == other
    }

    /// What the keys say now, with the members that were there before.
    fn take_over(&mut self, snapshot: &Snapshot) {
        let identifier = snapshot.initialize.as_ref().map(|entry| entry.value.trim()).unwrap_or_default();
        identifier.clone_into(&mut self.system_identifier);
        self.leader = snapshot.leader.as_ref().map(|leader| leader.name.clone()).or(self.leader.take());
        self.config = snapshot.config.as_ref().map(|entry| (*entry.value).clone());
        self.sync = snapshot.sync.as_ref().map(|entry| in_json(&entry.value));
        self.history = snapshot.history.as_ref().map(|entry| in_json(&entry.value)).unwrap_or_default();
        self.rollback_last = snapshot.rollback_last.as_ref().map(|entry| entry.value.clone());
    }
}

/// The record of who may be promoted, last changed at `revision`.
pub(crate) fn sync_state(record: &SyncState, revision: i64) -> outrider_ha::SyncState {
    outrider_ha::SyncState {
        leader: record.leader.as_deref().map(MemberName::from),
        standbys: record.sync_standby.iter().map(|name| MemberName::from(name.as_str())).collect(),
        given_up: record.given_up,
        revision,
    }
}

fn in_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn last_revision(state_directory: &Path, generation: u64) -> Option<i64> {
    let text = fs::read_to_string(state_directory.join(REVISION)).ok()?;
    let (of, revision) = text.trim().split_once(' ')?;
    (of.parse::<u64>().ok()? == generation).then(|| revision.parse().ok())?
}

/// The memory, and its files.
pub(crate) struct DcsMemory {
    directory: PathBuf,
    term: TermFile,
    record: Arc<DcsRecord>,
    /// When each member was last in the DCS.
    seen_at: BTreeMap<String, Instant>,
    /// What is on the disk, or on its way there.
    written: Arc<DcsRecord>,
    writing: Option<oneshot::Receiver<io::Result<()>>>,
    failed: bool,
}

impl DcsMemory {
    /// Reads the files; missing ones are those of a member that has seen nothing.
    ///
    /// # Errors
    /// When the term cannot be read. A record that is damaged is left behind, with a warning: the term is kept apart.
    pub(crate) fn open(state_directory: &Path) -> Result<Self, TermError> {
        let mut record = DcsRecord::read(state_directory)
            .unwrap_or_else(|error| {
                warn!(%error, "cannot read {RECORD}: this member remembers only the term of the DCS");
                None
            })
            .unwrap_or_default();
        let term = match TermFile::open(state_directory) {
            Err(error @ TermError::Damaged { .. }) if record.watermark.term > Term(0) => {
                warn!(%error, "taking the term from {RECORD} instead");
                TermFile::mended(state_directory, record.watermark.term)?
            }
            outcome => outcome?,
        };
        record.watermark.term = record.watermark.term.max(term.highest());
        let now = clock::monotonic();
        let seen_at = record.members.keys().map(|name| (name.clone(), now)).collect();
        let record = Arc::new(record);
        let (directory, written) = (state_directory.to_owned(), Arc::clone(&record));
        Ok(DcsMemory { directory, term, record, seen_at, written, writing: None, failed: false })
    }

    /// How far the DCS has been seen.
    pub(crate) fn watermark(&self) -> Watermark {
        self.record.watermark
    }

    /// The keys as they were last seen whole.
    pub(crate) fn record(&self) -> Arc<DcsRecord> {
        Arc::clone(&self.record)
    }

    /// Where a member's REST API is, also of one whose entry is gone.
    pub(crate) fn api_url(&self, name: &str) -> Option<&str> {
        self.record.members.get(name).map(String::as_str)
    }

    /// A term that is about to be relied on is on the disk first.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn relies_on(&mut self, term: Term) -> Result<(), TermError> {
        self.term.saw(term)
    }

    /// The DCS shows `snapshot`, and is at `now`. The term is on the disk before this returns, the rest a moment later. A store in
    /// which nothing of a cluster stands is not remembered: it may be another one, of which nobody has anything to say.
    ///
    /// # Errors
    /// When the term cannot be written: without it a DCS that goes back would not be noticed.
    pub(crate) fn saw(&mut self, snapshot: &Snapshot, now: &Watermark) -> Result<(), TermError> {
        if snapshot.is_blank() {
            return Ok(());
        }
        let went_back = self.record.watermark.lost_by(now).is_some();
        if !went_back && now.term > Term(0) {
            self.term.saw(now.term)?;
        }
        // Readers of an earlier round keep theirs.
        let record = Arc::make_mut(&mut self.record);
        record.watermark = record.watermark.after(now);
        if !went_back {
            record.take_over(snapshot);
            let now = clock::monotonic();
            for member in &snapshot.members {
                let Some(url) = member.api_url() else { continue };
                record.members.insert(member.name.clone(), url.to_owned());
                self.seen_at.insert(member.name.clone(), now);
            }
            self.seen_at.retain(|_, at| now.saturating_duration_since(*at) < FORGOTTEN_AFTER);
            record.members.retain(|name, _| self.seen_at.contains_key(name));
        }
        self.write();
        Ok(())
    }

    /// This member has changed `/sync` itself, at this revision: nobody may know it yet.
    pub(crate) fn changed_sync(&mut self, sync: &SyncState, revision: i64) {
        let record = Arc::make_mut(&mut self.record);
        if revision > record.watermark.sync_revision {
            record.watermark.sync_revision = revision;
            record.sync = Some(in_json(sync));
        }
        self.write();
    }

    /// This member is about to hand the lease to another, which from then on may have what nobody else has, recorded in `/sync` or
    /// not. Before the DCS says that it is done: this member may end without another look.
    pub(crate) fn hands_over(&mut self, to: &str) {
        Arc::make_mut(&mut self.record).leader = Some(to.to_owned());
        self.write();
    }

    /// One write at a time, and always of the last state; what comes meanwhile is written in the next round.
    fn write(&mut self) {
        match self.writing.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => return,
            Some(Ok(outcome)) => self.note(&outcome),
            Some(Err(TryRecvError::Closed)) | None => {}
        }
        if self.written == self.record && !self.failed {
            return;
        }
        let only_revision = !self.failed && self.record.differs_only_in_revision(&self.written);
        self.written = Arc::clone(&self.record);
        let (directory, record) = (self.directory.clone(), Arc::clone(&self.record));
        let (done, writing) = oneshot::channel();
        self.writing = Some(writing);
        tokio::task::spawn_blocking(move || {
            let outcome = if only_revision {
                let Watermark { generation, revision, .. } = record.watermark;
                let text = format!("{generation} {revision}\n");
                replace(&directory.join(REVISION), text.as_bytes(), Durable::InTime)
            } else {
                let text = serde_json::to_vec_pretty(&*record).map_err(io::Error::from);
                text.and_then(|text| replace(&directory.join(RECORD), &text, Durable::AtOnce))
            };
            // Nobody waits for it any more when the agent ends.
            let _ = done.send(outcome);
        });
    }

    fn note(&mut self, outcome: &io::Result<()>) {
        if let Err(error) = outcome
            && !self.failed
        {
            warn!(%error, "cannot write {RECORD}; retrying every round");
        }
        self.failed = outcome.is_err();
    }
}

#[cfg(test)]
mod tests;
