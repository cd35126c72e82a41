//! The store's operations in etcd's terms. Does not know which keys there are.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, Compare as EtcdCompare, CompareOp, Error as EtcdError, GetOptions, KeyValue as EtcdKeyValue,
    LeaseKeepAliveStream, LeaseKeeper, PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clock;
use crate::dcs::Changes;
use crate::keyed::Identity;
use crate::store::{
    Committed, Compare, KeptAlive, KeyValue, Op, Range, Repeat, Store, StoreError, Transaction,
};

use super::endpoints::Endpoints;
use super::watch::watch_for_ever;

pub(super) struct EtcdStore {
    endpoints: Arc<Endpoints>,
    operation_limit: Duration,
    boottime_ns: fn() -> u64,
    changes: watch::Receiver<Changes>,
    watching: AbortHandle,
    /// A stream on which every request so far was answered. One with an outstanding answer is dropped: a late answer to an
    /// earlier request would pass for that to the next.
    idle_stream: Mutex<Option<KeepAliveStream>>,
}

struct KeepAliveStream {
    endpoint: usize,
    lease: i64,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl EtcdStore {
    pub(super) fn start(endpoints: Endpoints, operation_limit: Duration, identity: &Identity) -> Self {
        let endpoints = Arc::new(endpoints);
        let (sender, changes) = watch::channel(Changes::default());
        let watching = watch_for_ever(Arc::clone(&endpoints), identity.base_path.clone(), sender);
        let watching = tokio::spawn(watching).abort_handle();
        let (boottime_ns, idle_stream) = (identity.boottime_ns, Mutex::new(None));
        EtcdStore { endpoints, operation_limit, boottime_ns, changes, watching, idle_stream }
    }

    async fn keep_alive_at(
        &self,
        endpoint: usize,
        client: Client,
        lease: i64,
    ) -> Result<KeptAlive, EtcdError> {
        let (sent_at, sent_at_boottime_ns) = (clock::monotonic(), (self.boottime_ns)());
        let idle = self.idle_stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut stream = match idle.filter(|idle| idle.endpoint == endpoint && idle.lease == lease) {
            Some(idle) => idle,
            None => {
                let (keeper, answers) = client.lease_client().keep_alive(lease).await?;
                KeepAliveStream { endpoint, lease, keeper, answers }
            }
        };
        // The crate swallows the stream's first answer, and the epoch with it; so ask, even on a new stream.
        stream.keeper.keep_alive().await?;
        let Some(answer) = stream.answers.message().await? else {
            return Err(EtcdError::LeaseKeepAliveError("the stream ended".to_owned()));
        };
        let Ok(ttl @ 1..) = u64::try_from(answer.ttl()) else {
            return Err(EtcdError::LeaseKeepAliveError("lease not found".to_owned()));
        };
        let epoch = header(answer.header())?.raft_term();
        *self.idle_stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        Ok(KeptAlive { lease, ttl: Duration::from_secs(ttl), sent_at, sent_at_boottime_ns, epoch })
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn operation_limit(&self) -> Duration {
        self.operation_limit
    }

    async fn range(&self, prefix: &str, until: Instant) -> Result<Range, StoreError> {
        let send = |_, mut client: Client| async move {
            let answer = client.get(prefix, Some(GetOptions::new().with_prefix())).await?;
            let (store, revision) =
                header(answer.header()).map(|header| (header.cluster_id(), header.revision()))?;
            Ok(Range { store, revision, keys: answer.kvs().iter().map(key_value).collect() })
        };
        match self.endpoints.request(Repeat::Harmless, until, send).await {
            // It changed nothing.
            Err(StoreError::Unknown(cause)) => Err(StoreError::Unreachable(cause)),
            other => other,
        }
    }

    async fn commit(
        &self,
        transaction: Transaction,
        repeat: Repeat,
        until: Instant,
    ) -> Result<Committed, StoreError> {
        let transaction = &transaction;
        let send = |_, mut client: Client| async move {
            let answer = client.txn(txn(transaction)).await?;
            let (revision, epoch) =
                header(answer.header()).map(|header| (header.revision(), header.raft_term()))?;
            let mut found = Vec::new();
            let succeeded = collect(&answer, &mut found);
            Ok(Committed { succeeded, revision, found, epoch })
        };
        self.endpoints.request(repeat, until, send).await
    }

    async fn grant(&self, ttl: Duration, until: Instant) -> Result<i64, StoreError> {
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        // Granting twice is harmless: nothing is attached to the other lease, and it expires.
        let send = |_, mut client: Client| async move { Ok(client.lease_grant(seconds, None).await?.id()) };
        self.endpoints.request(Repeat::Harmless, until, send).await
    }

    async fn keep_alive(&self, lease: i64, until: Instant) -> Result<KeptAlive, StoreError> {
        let send = |endpoint, client| self.keep_alive_at(endpoint, client, lease);
        self.endpoints.request(Repeat::Harmless, until, send).await
    }

    async fn revoke(&self, lease: i64, until: Instant) -> Result<(), StoreError> {
        let send = |_, mut client: Client| async move { client.lease_revoke(lease).await.map(drop) };
        self.endpoints.request(Repeat::Harmless, until, send).await
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.clone()
    }
}

fn header(header: Option<&ResponseHeader>) -> Result<&ResponseHeader, EtcdError> {
    header.ok_or_else(|| EtcdError::Internal("etcd's answer has no header".to_owned()))
}

fn key_value(pair: &EtcdKeyValue) -> KeyValue {
    KeyValue {
        key: String::from_utf8_lossy(pair.key()).into_owned(),
        value: pair.value().to_vec(),
        create_revision: pair.create_revision(),
        mod_revision: pair.mod_revision(),
        lease: pair.lease(),
    }
}

fn txn(transaction: &Transaction) -> Txn {
    let when: Vec<_> = transaction.when.iter().map(compare).collect();
    let then: Vec<_> = transaction.then.iter().map(op).collect();
    let otherwise: Vec<_> = transaction.otherwise.iter().map(op).collect();
    Txn::new().when(when).and_then(then).or_else(otherwise)
}

fn compare(compare: &Compare) -> EtcdCompare {
    match compare {
        Compare::Absent(key) => EtcdCompare::create_revision(key.as_str(), CompareOp::Equal, 0),
        Compare::Revision(key, seen) => EtcdCompare::mod_revision(key.as_str(), CompareOp::Equal, *seen),
        Compare::Value(key, value) => EtcdCompare::value(key.as_str(), CompareOp::Equal, value.as_str()),
        Compare::Lease(key, lease) => EtcdCompare::lease(key.as_str(), CompareOp::Equal, *lease),
    }
}

fn op(op: &Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease } => {
            TxnOp::put(key.as_str(), value.as_str(), Some(PutOptions::new().with_lease(*lease)))
        }
        Op::Move { key, lease } => {
            TxnOp::put(key.as_str(), "", Some(PutOptions::new().with_ignore_value().with_lease(*lease)))
        }
        Op::Delete(key) => TxnOp::delete(key.as_str(), None),
        Op::Get(key) => TxnOp::get(key.as_str(), None),
        Op::Nested(nested) => TxnOp::txn(txn(nested)),
    }
}

/// Collects the results of the gets, nested ones too. Returns whether this transaction or a nested one succeeded.
fn collect(answer: &TxnResponse, found: &mut Vec<Option<KeyValue>>) -> bool {
    let mut succeeded = answer.succeeded();
    for answer in answer.op_responses() {
        match answer {
            TxnOpResponse::Get(answer) => found.push(answer.kvs().first().map(key_value)),
            TxnOpResponse::Txn(nested) => succeeded |= collect(&nested, found),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) => {}
        }
    }
    succeeded
}
