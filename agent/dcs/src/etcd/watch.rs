//! Notices that something below the base path has changed, never what: whoever wakes reads everything again. So a watch may
//! restart at any time without catching up.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Event, EventType, WatchOptions, WatchStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout, timeout_at};

use crate::clock;
use crate::dcs::Changes;
use crate::error::Cause;
use crate::keys::Keys;

use super::endpoints::{Endpoints, random_below};
use super::failure::{Failure, classify};

/// A stream that was quiet for this long is asked whether it is alive. Not more often: an agent asks the same endpoint for the
/// cluster's keys in every round, and when that fails the watch restarts at once.
const QUIET: Duration = Duration::from_secs(5);
/// Time limit for creating a watch.
const OPEN_LIMIT: Duration = Duration::from_secs(1);

/// Pause between two attempts: 100 to 300 ms, so that agents do not all come back at once.
const PAUSE_MS: usize = 100;
const PAUSE_JITTER_MS: usize = 200;

/// Runs until it is aborted.
pub(super) async fn watch_for_ever(endpoints: Arc<Endpoints>, base: String, changes: watch::Sender<Changes>) {
    let mut index = endpoints.current();
    let mut told = false;
    loop {
        let ended = match watch_at(&endpoints, index, &base).await {
            Ok(stream) => {
                if told {
                    tracing::info!(endpoint = endpoints.url(index), "watching etcd again");
                    told = false;
                }
                // What happened in between is unknown.
                changes.send_modify(|changes| {
                    changes.all = changes.all.wrapping_add(1);
                    changes.urgent = changes.urgent.wrapping_add(1);
                });
                tokio::select! {
                    cause = follow(stream, &endpoints, &base, &changes) => cause,
                    () = endpoints.is_left(index) => "another request to this endpoint failed".into(),
                }
            }
            Err(cause) => cause,
        };
        if !told {
            tracing::info!(endpoint = endpoints.url(index), error = %ended, "the watch of etcd ended, trying the next endpoint");
            told = true;
        }
        index = (index + 1) % endpoints.len();
        sleep(Duration::from_millis((PAUSE_MS + random_below(PAUSE_JITTER_MS)) as u64)).await;
    }
}

/// A watch confirmed by etcd: it will report every later change.
async fn watch_at(endpoints: &Endpoints, index: usize, base: &str) -> Result<WatchStream, Cause> {
    let mut client = endpoints.client_for_watch(index).await.map_err(cause)?;
    let until = endpoints.request_until(clock::monotonic() + OPEN_LIMIT);
    let opened = async {
        let mut stream = client.watch(base, Some(WatchOptions::new().with_prefix())).await?;
        let first = stream.message().await?;
        Ok((stream, first))
    };
    let (stream, first) = timeout_at(until, opened).await?.map_err(|error| cause(classify(error)))?;
    match first {
        Some(first) if first.created() && !first.canceled() => Ok(stream),
        Some(first) => Err(format!("etcd refuses the watch: {}", first.cancel_reason()).into()),
        None => Err("etcd ended the watch before it began".into()),
    }
}

/// Counts the changes. Returns why it ended.
async fn follow(
    mut stream: WatchStream,
    endpoints: &Endpoints,
    base: &str,
    changes: &watch::Sender<Changes>,
) -> Cause {
    let mut asked = false;
    loop {
        let limit = if asked { endpoints.request_limit() } else { QUIET };
        let message = match timeout(limit, stream.message()).await {
            Ok(message) => message,
            Err(quiet) if asked => return quiet.into(),
            Err(_) => {
                asked = true;
                match timeout(limit, stream.request_progress()).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => return cause(classify(error)),
                    Err(late) => return late.into(),
                }
            }
        };
        asked = false;
        match message {
            Ok(Some(message)) if message.canceled() => {
                return format!("etcd ended the watch: {}", message.cancel_reason()).into();
            }
            Ok(Some(message)) if message.events().is_empty() => {}
            Ok(Some(message)) => changes.send_modify(|changes| {
                message.events().iter().for_each(|event| count(base, event, changes));
            }),
            Ok(None) => return "etcd ended the stream".into(),
            Err(error) => return cause(classify(error)),
        }
    }
}

fn count(base: &str, event: &Event, changes: &mut Changes) {
    let Some(pair) = event.kv() else { return };
    let created = pair.create_revision() == pair.mod_revision();
    let fresh = created || event.event_type() == EventType::Delete;
    Keys::count(base, &String::from_utf8_lossy(pair.key()), fresh, changes);
}

fn cause(failure: Failure) -> Cause {
    match failure {
        Failure::NotDone(cause)
        | Failure::MaybeDone(cause)
        | Failure::StaleToken(cause)
        | Failure::NoUser(cause)
        | Failure::Distrusted(cause)
        | Failure::Refused(cause) => cause,
        Failure::LeaseGone => "etcd mentions a lease where none was given".into(),
    }
}
