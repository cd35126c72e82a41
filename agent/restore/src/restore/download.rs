//! Gets objects and parts of objects into memory, and asks a store that fails again for a while. Unpacks nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::RestoreError;
use outrider_store::Backoff;
use outrider_store::{self as store, Download, Store};

/// How long a store that does not answer is asked again, counted from its last byte.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bytes `from..to` of an object, with room for `more` behind them.
pub(super) async fn range(
    store: &dyn Store,
    key: &str,
    from: u64,
    to: u64,
    more: usize,
) -> Result<Vec<u8>, RestoreError> {
    let mut trouble = Trouble::default();
    let wanted = usize::try_from(to - from).unwrap_or(usize::MAX);
    loop {
        match store.get_range(key, from, to).await {
            Err(fault) => trouble.wait(fault).await?,
            Ok(None) => return Err(format!("the object {key} is gone").into()),
            Ok(Some(download)) => match collect(download, wanted, more).await {
                Ok(bytes) if bytes.len() == wanted => return Ok(bytes),
                Ok(bytes) => {
                    let fault = format!("{} bytes of it came where {wanted} should be", bytes.len());
                    return Err(fault.into());
                }
                Err(fault) => trouble.wait(fault).await?,
            },
        }
    }
}

/// All bytes of a download, at most a piece more than wanted.
async fn collect(mut download: Download, wanted: usize, more: usize) -> Result<Vec<u8>, store::Error> {
    // What the store says of the size; of a range that is at most the range.
    let room = usize::try_from(download.info.size).unwrap_or(wanted).min(wanted);
    let mut bytes = Vec::with_capacity(room + more);
    while let Some(piece) = download.body.next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > wanted {
            break;
        }
    }
    Ok(bytes)
}

/// A whole small object; `None` when it is not there.
pub(super) async fn small(
    store: &dyn Store,
    key: &str,
    limit: usize,
) -> Result<Option<Vec<u8>>, RestoreError> {
    let mut trouble = Trouble::default();
    loop {
        match store.get(key).await {
            Err(fault) => trouble.wait(fault).await?,
            Ok(None) => return Ok(None),
            Ok(Some(download)) if download.info.size > limit as u64 => {
                return Err(RestoreError::Damaged {
                    object: key.to_owned(),
                    fault: format!("it has {} bytes, at most {limit} are read", download.info.size),
                });
            }
            Ok(Some(download)) => match collect(download, limit, 0).await {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(fault) => trouble.wait(fault).await?,
            },
        }
    }
}

/// A store that failed: it is asked again until it has been silent for too long.
#[derive(Default)]
pub(super) struct Trouble {
    backoff: Backoff,
    since: Option<Instant>,
}

impl Trouble {
    pub(super) async fn wait(&mut self, fault: store::Error) -> Result<(), RestoreError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let wait = self.backoff.next_wait();
        if fault.needs_a_person() || since.elapsed() + wait > PATIENCE {
            return Err(RestoreError::Store(fault));
        }
        sleep(wait).await;
        Ok(())
    }
}
