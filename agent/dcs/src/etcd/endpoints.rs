//! The endpoints of etcd, one connection each, and which one is in use. Does not know the requests.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, GetOptions};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Credentials;
use super::failure::{Failure, classify, is_without_authentication};
use crate::clock;

/// A connection is used only once it has answered a read. A request that fails on it for any reason but a refused
/// connection must therefore count as sent.
pub(super) struct Endpoints {
    urls: Vec<String>,
    connect: ConnectOptions,
    credentials: Option<Credentials>,
    /// Where to read when only checking whether the endpoint answers.
    base: String,
    request_limit: Duration,
    state: Mutex<State>,
    /// How often a request to each has failed.
    left: watch::Sender<Vec<u64>>,
}

struct State {
    current: usize,
    clients: Vec<Option<Client>>,
}

impl Endpoints {
    pub(super) fn new(
        urls: Vec<String>,
        connect: ConnectOptions,
        credentials: Option<Credentials>,
        base: &str,
        request_limit: Duration,
    ) -> Self {
        let current = random_below(urls.len());
        let clients = urls.iter().map(|_| None).collect();
        let state = Mutex::new(State { current, clients });
        let (left, _) = watch::channel(vec![0; urls.len()]);
        Endpoints { urls, connect, credentials, base: base.to_owned(), request_limit, state, left }
    }

    pub(super) fn len(&self) -> usize {
        self.urls.len()
    }

    pub(super) fn url(&self, index: usize) -> &str {
        &self.urls[index]
    }

    /// Until when one request may wait for its answer, within the operation's own deadline.
    pub(super) fn request_until(&self, until: Instant) -> Instant {
        until.min(clock::monotonic() + self.request_limit)
    }

    pub(super) fn request_limit(&self) -> Duration {
        self.request_limit
    }

    pub(super) fn current(&self) -> usize {
        self.state().current
    }

    /// Switches to the next endpoint, unless someone else already has.
    pub(super) fn leave(&self, index: usize) {
        let mut state = self.state();
        state.clients[index] = None;
        if state.current == index {
            state.current = (index + 1) % self.urls.len();
            tracing::debug!(
                from = self.url(index),
                to = self.url(state.current),
                "switching to another etcd endpoint"
            );
        }
        drop(state);
        self.left.send_modify(|left| left[index] += 1);
    }

    /// Waits until a request to this endpoint fails from now on.
    pub(super) async fn is_left(&self, index: usize) {
        let mut left = self.left.subscribe();
        let before = left.borrow_and_update()[index];
        // The sender lives as long as these endpoints.
        let _ = left.wait_for(|left| left[index] != before).await;
    }

    /// Drops the connection, to authenticate again.
    pub(super) fn reconnect(&self, index: usize) {
        self.state().clients[index] = None;
    }

    /// A connection that has answered.
    pub(super) async fn client(&self, index: usize, until: Instant) -> Result<Client, Failure> {
        if let Some(client) = &self.state().clients[index] {
            return Ok(client.clone());
        }
        let client = timeout_at(self.request_until(until), self.connect(index, self.connect.clone())).await;
        let client =
            client.map_err(Failure::late).and_then(|outcome| outcome).map_err(Failure::while_connecting)?;
        self.state().clients[index] = Some(client.clone());
        Ok(client)
    }

    /// A separate connection for a watch: it ends when this endpoint loses contact with etcd's leader.
    pub(super) async fn client_for_watch(&self, index: usize) -> Result<Client, Failure> {
        let connect = self.connect.clone().with_require_leader(true);
        let until = clock::monotonic() + self.request_limit;
        timeout_at(until, self.connect(index, connect)).await.map_err(Failure::late)?
    }

    async fn connect(&self, index: usize, options: ConnectOptions) -> Result<Client, Failure> {
        let mut client = self.log_in(index, options).await?;
        // Linearizable, so that an endpoint cut off from the others fails it.
        let look = GetOptions::new().with_count_only();
        client.get(format!("{}initialize", self.base), Some(look)).await.map_err(classify)?;
        Ok(client)
    }

    /// As the user, unless etcd has authentication turned off: like Patroni, so that it can be turned on later.
    async fn log_in(&self, index: usize, options: ConnectOptions) -> Result<Client, Failure> {
        let connect = |options| Client::connect([self.url(index)], Some(options));
        let Some(Credentials { username, password }) = &self.credentials else {
            return connect(options).await.map_err(classify);
        };
        match connect(options.clone().with_user(username, password)).await {
            Err(error) if is_without_authentication(&error) => connect(options).await.map_err(classify),
            outcome => outcome.map_err(classify),
        }
    }

    /// Whether a request that etcd refused for lack of a user can be sent again with one.
    pub(super) fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment, so a panic elsewhere leaves it consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spreads agents over endpoints and retries over time; not for secrets.
pub(super) fn random_below(bound: usize) -> usize {
    let random = RandomState::new().build_hasher().finish();
    usize::try_from(random % bound.max(1) as u64).unwrap_or_default()
}
