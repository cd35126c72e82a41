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
mod tests {
    use outrider_dcs::{Entry, Leader};
    use outrider_ha::StoreId;

    use super::*;

    fn snapshot(revision: i64, sync_revision: i64) -> Snapshot {
        let leader = Leader { name: "n1".into(), term: 5, revision: 5, lease: 1, mine: false };
        let initialize = Some(Entry { value: "7".to_owned(), revision: 1 });
        Snapshot { revision, sync_revision, term: 5, leader: Some(leader), initialize, ..Snapshot::default() }
    }

    fn watermark(snapshot: &Snapshot) -> Watermark {
        Watermark {
            term: Term(snapshot.term),
            revision: snapshot.revision,
            sync_revision: snapshot.sync_revision,
            ..Watermark::default()
        }
    }

    async fn see(memory: &mut DcsMemory, snapshot: &Snapshot) {
        memory.saw(snapshot, &watermark(snapshot)).unwrap();
        // What is on its way is not awaited by a round; here it is.
        if let Some(writing) = memory.writing.take() {
            writing.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_seen_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = DcsMemory::open(directory.path()).unwrap();
        see(&mut memory, &snapshot(100, 40)).await;
        see(&mut memory, &snapshot(120, 40)).await;
        let again = DcsMemory::open(directory.path()).unwrap();
        assert_eq!(again.watermark(), watermark(&snapshot(120, 40)));
        assert_eq!(again.record().system_identifier, "7");
        assert_eq!(again.record().leader.as_deref(), Some("n1"));
    }

    #[tokio::test]
    async fn a_store_that_went_back_is_remembered_however_far_it_comes_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = DcsMemory::open(directory.path()).unwrap();
        see(&mut memory, &snapshot(100, 40)).await;
        see(&mut memory, &snapshot(60, 40)).await;
        see(&mut memory, &snapshot(200, 150)).await;
        let again = DcsMemory::open(directory.path()).unwrap().watermark();
        assert!(again.lost_by(&watermark(&snapshot(300, 150))).is_some());
        let rebuilt = Watermark { generation: 1, term: Term(6), revision: 2, ..Watermark::default() };
        assert_eq!(again.lost_by(&rebuilt), None);
    }

    #[tokio::test]
    async fn a_new_member_that_was_led_to_an_empty_store_first_has_seen_nothing_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = DcsMemory::open(directory.path()).unwrap();
        let of_store = |store| move |mark| Watermark { store: Some(StoreId(store)), ..mark };
        let empty = Snapshot { revision: 900, ..Snapshot::default() };
        memory.saw(&empty, &of_store(1)(watermark(&empty))).unwrap();
        let right = of_store(2)(watermark(&snapshot(100, 40)));
        assert_eq!(memory.watermark().lost_by(&right), None);
        memory.saw(&snapshot(100, 40), &right).unwrap();
        assert_eq!(memory.watermark(), right);
    }

    #[tokio::test]
    async fn keys_that_are_gone_do_not_take_the_memory_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = DcsMemory::open(directory.path()).unwrap();
        see(&mut memory, &snapshot(100, 40)).await;
        see(&mut memory, &Snapshot { revision: 110, ..Snapshot::default() }).await;
        assert_eq!(DcsMemory::open(directory.path()).unwrap().record().system_identifier, "7");
    }

    /// The DCS may be lost before this member looks again, and whoever it named may have led since.
    #[tokio::test]
    async fn who_was_recorded_as_promotable_is_remembered_with_the_revision() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = DcsMemory::open(directory.path()).unwrap();
        see(&mut memory, &snapshot(100, 40)).await;
        let both = SyncState {
            leader: Some("n1".into()),
            sync_standby: ["n2".to_owned()].into(),
            ..SyncState::default()
        };
        memory.changed_sync(&both, 101);
        memory.writing.take().unwrap().await.unwrap().unwrap();
        let again = DcsMemory::open(directory.path()).unwrap();
        assert_eq!((again.watermark().sync_revision, again.record().sync()), (101, both));
    }

    #[tokio::test]
    async fn to_whom_the_lease_was_handed_is_remembered_without_another_look() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = DcsMemory::open(directory.path()).unwrap();
        see(&mut memory, &snapshot(100, 40)).await;
        memory.hands_over("n2");
        memory.writing.take().unwrap().await.unwrap().unwrap();
        let again = DcsMemory::open(directory.path()).unwrap();
        assert_eq!(again.record().leader.as_deref(), Some("n2"));
    }

    #[tokio::test]
    async fn a_damaged_term_is_taken_from_the_record() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = DcsMemory::open(directory.path()).unwrap();
        see(&mut memory, &snapshot(100, 40)).await;
        fs::write(directory.path().join("term"), "five").unwrap();
        assert_eq!(DcsMemory::open(directory.path()).unwrap().watermark().term, Term(5));
        assert_eq!(fs::read_to_string(directory.path().join("term")).unwrap(), "5\n");
    }

    #[tokio::test]
    async fn a_damaged_record_leaves_the_term() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = DcsMemory::open(directory.path()).unwrap();
        see(&mut memory, &snapshot(100, 40)).await;
        fs::write(directory.path().join(RECORD), "{").unwrap();
        let again = DcsMemory::open(directory.path()).unwrap().watermark();
        assert_eq!((again.term, again.revision), (Term(5), 0));
    }
}
