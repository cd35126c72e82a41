//! The addresses that the members of this cluster connect from, for `pg_hba.conf`: those of the hosts they publish. Names are
//! resolved beside the round.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use outrider_dcs::Snapshot;
use outrider_postgres::Upstream;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Maximum number of members remembered; the first ones seen count.
const MEMBERS_MAX: usize = 64;
/// Interval at which a name is resolved again: a container comes back with another address.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(5);
/// Time limit for resolving a name.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(2);

/// What is known of the members' addresses.
pub(crate) struct Addresses {
    /// The host of every member ever seen: one that was away comes back, and must be let in.
    hosts: BTreeMap<String, String>,
    names: watch::Sender<BTreeSet<String>>,
    found: watch::Receiver<BTreeMap<String, Vec<IpAddr>>>,
    task: JoinHandle<()>,
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Addresses {
    /// Knows only this member, which connects to itself after a change of roles on one machine.
    pub(crate) fn new(name: &str, connect_address: &str) -> Self {
        let names = watch::Sender::new(BTreeSet::new());
        let (found_seen, found) = watch::channel(BTreeMap::new());
        let task = tokio::spawn(look_up(names.subscribe(), found_seen));
        let mut addresses = Addresses { hosts: BTreeMap::new(), names, found, task };
        addresses.note(name, host(connect_address));
        addresses
    }

    /// The addresses of all members, ascending; those of a name as soon as it is resolved.
    pub(crate) fn of(&mut self, cluster: &Snapshot) -> Vec<IpAddr> {
        for member in &cluster.members {
            if let Some(upstream) = member.conn_url().and_then(Upstream::from_url) {
                self.note(&member.name, &upstream.host);
            }
        }
        let found = self.found.borrow();
        let all = self.hosts.values().flat_map(|host| match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => found.get(host).cloned().unwrap_or_default(),
        });
        let all: BTreeSet<IpAddr> = all.filter(|address| !address.is_unspecified()).collect();
        all.into_iter().collect()
    }

    fn note(&mut self, member: &str, host: &str) {
        let is_known = self.hosts.get(member).is_some_and(|known| known == host);
        if is_known || (!self.hosts.contains_key(member) && self.hosts.len() >= MEMBERS_MAX) {
            return;
        }
        self.hosts.insert(member.to_owned(), host.to_owned());
        let names = self.hosts.values().filter(|host| host.parse::<IpAddr>().is_err()).cloned().collect();
        self.names.send_if_modified(|before: &mut BTreeSet<String>| {
            let is_new = *before != names;
            *before = names;
            is_new
        });
    }
}

/// Without the port, and without the brackets of IPv6.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

async fn look_up(
    mut wanted: watch::Receiver<BTreeSet<String>>,
    found: watch::Sender<BTreeMap<String, Vec<IpAddr>>>,
) {
    loop {
        let names = wanted.borrow_and_update().clone();
        let mut looks = JoinSet::new();
        for name in names.clone() {
            looks.spawn(async move {
                let answer = timeout(LOOK_UP_LIMIT, lookup_host((name.as_str(), 0))).await;
                let addresses = answer.ok()?.ok()?.map(|address| address.ip()).collect::<BTreeSet<_>>();
                Some((name, addresses.into_iter().collect::<Vec<_>>()))
            });
        }
        let mut news = Vec::new();
        while let Some(look) = looks.join_next().await {
            news.extend(look.ok().flatten());
        }
        found.send_if_modified(|known| {
            let before = known.clone();
            // A name that cannot be resolved right now keeps its address.
            known.retain(|name, _| names.contains(name));
            known.extend(news);
            *known != before
        });
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = sleep(LOOK_UP_INTERVAL), if !names.is_empty() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::entry;

    fn cluster(members: &[(&str, &str)]) -> Snapshot {
        let member = |(name, host): &(&str, &str)| {
            entry(name, json!({"conn_url": format!("postgres://{host}:5432/postgres")}))
        };
        Snapshot { members: members.iter().map(member).collect(), ..Snapshot::default() }
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn members_are_known_by_what_they_publish_and_stay_known_when_they_are_away() {
        let mut known = Addresses::new("p1", "10.0.0.1:5432");
        let both = known.of(&cluster(&[("p1", "10.0.0.1"), ("p2", "10.0.0.2")]));
        assert_eq!(both, addresses(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(known.of(&cluster(&[])), both);
        // One that has moved is known only at its new place.
        assert_eq!(known.of(&cluster(&[("p2", "10.0.0.9")])), addresses(&["10.0.0.1", "10.0.0.9"]));
        let mut wildcard = Addresses::new("p1", "0.0.0.0:5432");
        assert_eq!(wildcard.of(&cluster(&[])), addresses(&[]));
    }

    #[tokio::test]
    async fn names_are_looked_up() {
        let mut known = Addresses::new("p1", "localhost:5432");
        let mut found = known.found.clone();
        timeout(Duration::from_secs(30), found.wait_for(|found| !found.is_empty())).await.unwrap().unwrap();
        assert!(known.of(&cluster(&[])).iter().all(IpAddr::is_loopback));
        assert!(!known.of(&cluster(&[])).is_empty());
    }
}
