//! A store to test on, and a way to it past the DCS: what a person with the store's own client would see and do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, GetOptions};
use outrider_dcs::{Dcs, EtcdOptions, Identity, MemoryCluster, base_path, open_etcd};
use serde_json::json;

use super::etcd_process::EtcdCluster;

/// Long enough that no busy machine lets it lapse between two steps of a test.
pub(crate) const TTL: Duration = Duration::from_secs(20);

pub(crate) enum Bench {
    Etcd(EtcdCluster),
    Memory(MemoryCluster),
}

impl Bench {
    pub(crate) async fn etcd() -> Self {
        Bench::Etcd(EtcdCluster::start(1, &[]).await)
    }

    pub(crate) fn memory() -> Self {
        Bench::Memory(MemoryCluster::new())
    }

    /// An agent without a session file.
    pub(crate) fn agent(&self, name: &str) -> Arc<dyn Dcs> {
        self.agent_with(&identity(name))
    }

    pub(crate) fn agent_with(&self, identity: &Identity) -> Arc<dyn Dcs> {
        match self {
            Bench::Etcd(etcd) => open_etcd(identity, &options(etcd.urls())).unwrap(),
            Bench::Memory(memory) => memory.member(identity).unwrap(),
        }
    }

    /// An agent whose entry is published.
    pub(crate) async fn member(&self, name: &str) -> Arc<dyn Dcs> {
        let agent = self.agent(name);
        agent.touch_member(&json!({"state": "running"})).await.unwrap();
        agent
    }

    /// An agent that holds the leader lease.
    pub(crate) async fn leader(&self, name: &str) -> Arc<dyn Dcs> {
        let agent = self.member(name).await;
        agent.acquire_leader(None).await.unwrap();
        agent
    }

    /// The bytes and the lease of a key below the base path.
    pub(crate) async fn get(&self, key: &str) -> Option<(String, i64)> {
        let key = format!("{}{key}", base());
        match self {
            Bench::Etcd(etcd) => {
                let answer = etcd.client().await.get(key, None).await.unwrap();
                answer.kvs().first().map(|pair| (pair.value_str().unwrap().to_owned(), pair.lease()))
            }
            Bench::Memory(memory) => memory.get(&key),
        }
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        let key = format!("{}{key}", base());
        match self {
            Bench::Etcd(etcd) => drop(etcd.client().await.put(key, value, None).await.unwrap()),
            Bench::Memory(memory) => memory.put(&key, value),
        }
    }

    pub(crate) async fn delete(&self, key: &str) {
        let key = format!("{}{key}", base());
        match self {
            Bench::Etcd(etcd) => drop(etcd.client().await.delete(key, None).await.unwrap()),
            Bench::Memory(memory) => memory.delete(&key),
        }
    }

    /// Ends the session of a member, as if it had been silent for its ttl.
    pub(crate) async fn expire(&self, name: &str) {
        let (_, lease) = self.get(&format!("members/{name}")).await.unwrap();
        match self {
            Bench::Etcd(etcd) => drop(etcd.client().await.lease_revoke(lease).await.unwrap()),
            Bench::Memory(memory) => memory.expire_sessions(name),
        }
    }
}

pub(crate) fn base() -> String {
    base_path("", "homepage")
}

pub(crate) fn identity(name: &str) -> Identity {
    Identity { name: name.to_owned(), base_path: base(), ttl: TTL, session_file: None, boottime_ns: || 1 }
}

pub(crate) fn identity_with_file(name: &str, session_file: PathBuf) -> Identity {
    Identity { session_file: Some(session_file), ..identity(name) }
}

/// Generous, since tests share the machine: what is asserted is the outcome, not how soon.
pub(crate) fn options(endpoints: Vec<String>) -> EtcdOptions {
    EtcdOptions {
        endpoints,
        retry_timeout: Duration::from_secs(8),
        request_timeout: Some(Duration::from_secs(2)),
        credentials: None,
        tls: None,
    }
}

/// The number of keys below the base path.
pub(crate) async fn count_keys(client: &mut Client) -> i64 {
    client.get(base(), Some(GetOptions::new().with_prefix().with_count_only())).await.unwrap().count()
}
