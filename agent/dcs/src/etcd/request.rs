//! One request, sent to as many endpoints as its deadline and its meaning permit.

use std::future::Future;
use std::time::Duration;

use etcd_client::{Client, Error as EtcdError};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::clock;
use crate::error::Cause;
use crate::store::{Repeat, StoreError};

use super::endpoints::{Endpoints, random_below};
use super::failure::{Failure, classify, out_of_time};

/// Pause after all endpoints have failed, and before authenticating again: 20 to 60 ms, so that a store electing its leader is not
/// hammered.
const PAUSE_MS: usize = 20;
const PAUSE_JITTER_MS: usize = 40;

/// What the attempts so far have shown.
#[derive(Default)]
struct Attempts {
    made: usize,
    /// An attempt may have been carried out.
    unknown: Option<Cause>,
    distrusted: usize,
    last: Option<Cause>,
}

impl Attempts {
    fn verdict(self, until: Instant) -> StoreError {
        match (self.unknown, self.last) {
            (Some(cause), _) => StoreError::Unknown(cause),
            (None, Some(cause)) if self.distrusted > 0 && self.distrusted == self.made => {
                StoreError::Refused(cause)
            }
            (None, Some(cause)) => StoreError::Unreachable(cause),
            (None, None) => StoreError::Unreachable(out_of_time(until)),
        }
    }
}

impl Endpoints {
    /// Sends with `send`, on a connection that has answered before, until an endpoint answers or `until` passes. When the
    /// request must not be sent twice, a missing answer ends it at once.
    pub(super) async fn request<T, F>(
        &self,
        repeat: Repeat,
        until: Instant,
        send: impl Fn(usize, Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let mut attempts = Attempts::default();
        while clock::monotonic() < until {
            let index = self.current();
            let failure = match self.attempt(index, until, &send).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            attempts.made += 1;
            match failure {
                Failure::LeaseGone => return Err(StoreError::LeaseGone),
                Failure::Refused(cause) => return Err(StoreError::Refused(cause)),
                Failure::NoUser(cause) if !self.has_credentials() => return Err(StoreError::Refused(cause)),
                Failure::StaleToken(cause) | Failure::NoUser(cause) => {
                    self.reconnect(index);
                    attempts.last = Some(cause);
                    self.pause(until).await;
                    continue;
                }
                Failure::Distrusted(cause) => {
                    attempts.distrusted += 1;
                    attempts.last = Some(cause);
                }
                Failure::NotDone(cause) => attempts.last = Some(cause),
                Failure::MaybeDone(cause) => attempts.unknown = Some(cause),
            }
            self.leave(index);
            if repeat == Repeat::Never && attempts.unknown.is_some() {
                break;
            }
            if attempts.made.is_multiple_of(self.len()) {
                if attempts.distrusted == attempts.made {
                    break;
                }
                self.pause(until).await;
            }
        }
        Err(attempts.verdict(until))
    }

    async fn pause(&self, until: Instant) {
        let pause = PAUSE_MS + random_below(PAUSE_JITTER_MS);
        sleep_until(until.min(clock::monotonic() + Duration::from_millis(pause as u64))).await;
    }

    async fn attempt<T, F>(
        &self,
        index: usize,
        until: Instant,
        send: impl Fn(usize, Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let client = self.client(index, until).await?;
        let answer = timeout_at(self.request_until(until), send(index, client)).await;
        answer.map_err(Failure::late)?.map_err(classify)
    }
}
