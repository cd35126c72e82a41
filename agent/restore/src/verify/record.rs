//! The outcome of the last verification, beside the archive, so that agents can show it. Verifies nothing.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Verification;
use outrider_archive::Layout;
use outrider_store::{self as store, Metadata, Store, read_small};

/// It has a few lines.
const RECORD_MAX: u64 = 1 << 20;
/// Faults that are written into it.
const FAULTS_MAX: usize = 20;

/// The object `outrider/verified.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When the last verification ended.
    #[serde(rename = "time")]
    pub verified_at: Timestamp,
    /// Whether it found nothing wrong.
    #[serde(rename = "ok")]
    pub sound: bool,
    /// Whether it read every object.
    pub full: bool,
    /// When a backup was last restored and recovered to the end with success; kept over later verifications without it.
    pub restored_at: Option<Timestamp>,
    /// Which one.
    pub restored_backup: Option<String>,
    /// What was wrong, the first few.
    pub faults: Vec<String>,
}

impl Record {
    /// Of a verification that ended now. `restored` names the backup that was restored with success along with it.
    #[must_use]
    pub fn new(
        found: &Verification,
        now: Timestamp,
        restored: Option<String>,
        before: Option<&Record>,
    ) -> Self {
        let (restored_at, restored_backup) = match restored {
            Some(backup) => (Some(now), Some(backup)),
            None => (
                before.and_then(|before| before.restored_at),
                before.and_then(|before| before.restored_backup.clone()),
            ),
        };
        Record {
            verified_at: now,
            sound: found.is_sound(),
            full: found.full,
            restored_at,
            restored_backup,
            faults: found.faults.iter().take(FAULTS_MAX).cloned().collect(),
        }
    }
}

/// The last outcome; `None` when there is none that can be read.
///
/// # Errors
/// When the store does not answer.
pub async fn read_record(store: &dyn Store, layout: &Layout) -> Result<Option<Record>, store::Error> {
    let read = read_small(store, &layout.verified(), RECORD_MAX).await?;
    Ok(read.and_then(Result::ok).and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Writes the outcome in place of the last one.
///
/// # Errors
/// When the store does not do it.
pub async fn write_record(store: &dyn Store, layout: &Layout, record: &Record) -> Result<(), store::Error> {
    let text = serde_json::to_vec_pretty(record).expect("a record has only texts and numbers");
    store.put(&layout.verified(), Bytes::from(text).into(), &Metadata::new()).await
}
