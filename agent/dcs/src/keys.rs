//! The path of every key: Patroni's below the base path, Outrider's own under `outrider/`. Reads them into a snapshot.

use serde_json::Value;

use crate::dcs::Changes;
use crate::documents::Documents;
use crate::snapshot::{BackupTaken, Entry, Leader, Member, RollbackTaken, Snapshot};
use crate::store::{KeyValue, Range};
use crate::values::{
    Failover, FailoverAnswer, HistoryRow, Status, SwitchoverIntent, SyncState, parse_record,
};

/// The base path as Patroni builds it: `/<namespace>/<scope>/`, with `service` for an empty namespace.
#[must_use]
pub fn base_path(namespace: &str, scope: &str) -> String {
    let namespace = if namespace.is_empty() { "service" } else { namespace };
    let mut base = String::from("/");
    for part in namespace.split('/').chain(scope.split('/')).filter(|part| !part.is_empty()) {
        base.push_str(part);
        base.push('/');
    }
    base
}

/// The keys of one cluster, as seen by the member `me`.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    base: String,
    me: String,
}

impl Keys {
    pub(crate) fn new(base: &str, me: &str) -> Self {
        Keys { base: base.to_owned(), me: me.to_owned() }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn me(&self) -> &str {
        &self.me
    }

    pub(crate) fn member(&self, name: &str) -> String {
        format!("{}members/{name}", self.base)
    }

    pub(crate) fn my_member(&self) -> String {
        self.member(&self.me)
    }

    pub(crate) fn initialize(&self) -> String {
        self.at("initialize")
    }

    pub(crate) fn config(&self) -> String {
        self.at("config")
    }

    pub(crate) fn leader(&self) -> String {
        self.at("leader")
    }

    pub(crate) fn status(&self) -> String {
        self.at("status")
    }

    pub(crate) fn failover(&self) -> String {
        self.at("failover")
    }

    pub(crate) fn sync(&self) -> String {
        self.at("sync")
    }

    pub(crate) fn history(&self) -> String {
        self.at("history")
    }

    pub(crate) fn failsafe(&self) -> String {
        self.at("failsafe")
    }

    /// Put at every change of holder. A hand-over does not change the leader key's create_revision, but it changes this
    /// key's mod_revision: that is the term.
    pub(crate) fn term(&self) -> String {
        self.at("outrider/term")
    }

    /// Put when the cluster's keys are rebuilt.
    pub(crate) fn generation(&self) -> String {
        self.at("outrider/generation")
    }

    /// Put when a leader deletes `sync`, so that its absence is known to be intended.
    pub(crate) fn sync_cleared(&self) -> String {
        self.at("outrider/sync-cleared")
    }

    pub(crate) fn intent(&self) -> String {
        self.at("outrider/switchover")
    }

    pub(crate) fn backup_request(&self) -> String {
        self.at("outrider/backup-request")
    }

    pub(crate) fn backup(&self) -> String {
        self.at("outrider/backup")
    }

    pub(crate) fn backup_last(&self) -> String {
        self.at("outrider/backup-last")
    }

    pub(crate) fn restart(&self) -> String {
        self.at("outrider/restart")
    }

    pub(crate) fn rollback_request(&self) -> String {
        self.at("outrider/rollback-request")
    }

    pub(crate) fn rollback(&self) -> String {
        self.at("outrider/rollback")
    }

    pub(crate) fn rollback_last(&self) -> String {
        self.at("outrider/rollback-last")
    }

    fn at(&self, key: &str) -> String {
        format!("{}{key}", self.base)
    }

    /// `mine`: this agent's leases. `documents`: what was parsed last time.
    pub(crate) fn snapshot(&self, range: &Range, mine: &[i64], documents: &Documents) -> Snapshot {
        let mut seen = Snapshot { store: range.store, revision: range.revision, ..Snapshot::default() };
        let mut older_status = None;
        for pair in &range.keys {
            let Some(key) = pair.key.strip_prefix(&self.base) else { continue };
            match key {
                "initialize" => seen.initialize = Some(entry(pair, pair.text())),
                "config" => seen.config = Some(entry(pair, documents.read(pair, |_| Value::Null))),
                "leader" => seen.leader = Some(self.leader_of(pair, mine)),
                "status" => seen.status = Some(entry(pair, Status::parse(&pair.text()))),
                "optime/leader" => older_status = Some(entry(pair, Status::parse(&pair.text()))),
                "failover" => {
                    seen.failover = Failover::parse(&pair.text()).map(|request| entry(pair, request));
                    seen.failover_answer = FailoverAnswer::parse(&pair.text());
                }
                "sync" => {
                    seen.sync = Some(entry(pair, SyncState::parse(&pair.text())));
                    seen.sync_revision = seen.sync_revision.max(pair.mod_revision);
                }
                "outrider/sync-cleared" => seen.sync_revision = seen.sync_revision.max(pair.mod_revision),
                "outrider/generation" => seen.generation = Some(entry(pair, parse_record(&pair.text()))),
                "history" => seen.history = Some(entry(pair, HistoryRow::parse_all(&pair.text()))),
                "failsafe" => {
                    seen.failsafe =
                        serde_json::from_slice(&pair.value).ok().map(|members| entry(pair, members));
                }
                "outrider/term" => seen.term = seen.term.max(revision_as_term(pair.mod_revision)),
                "outrider/switchover" => {
                    seen.intent = SwitchoverIntent::parse(&pair.text()).map(|intent| entry(pair, intent));
                }
                "outrider/backup-request" => {
                    seen.backup_request = Some(entry(pair, parse_record(&pair.text())));
                }
                "outrider/backup" => {
                    let mine = pair.lease != 0 && mine.contains(&pair.lease);
                    seen.backup = Some(BackupTaken { claim: parse_record(&pair.text()), mine });
                }
                "outrider/backup-last" => {
                    seen.backup_last = Some(entry(pair, parse_record(&pair.text())));
                }
                "outrider/restart" => seen.restart = Some(entry(pair, parse_record(&pair.text()))),
                "outrider/rollback-request" => {
                    seen.rollback_request = Some(entry(pair, parse_record(&pair.text())));
                }
                "outrider/rollback" => {
                    let mine = pair.lease != 0 && mine.contains(&pair.lease);
                    seen.rollback = Some(RollbackTaken { claim: parse_record(&pair.text()), mine });
                }
                "outrider/rollback-last" => {
                    seen.rollback_last = Some(entry(pair, parse_record(&pair.text())));
                }
                other => seen
                    .members
                    .extend(other.strip_prefix("members/").map(|name| member(pair, name, documents))),
            }
        }
        documents.keep_only(range);
        seen.status = seen.status.or(older_status);
        // A leader written by Patroni does not know our term; it then created the key later than we last put ours.
        let base = seen.generation.as_ref().map_or(0, |entry| entry.value.term_base);
        if seen.term > 0 {
            seen.term += base;
        }
        if let Some(leader) = &mut seen.leader {
            leader.term = (leader.term + base).max(seen.term);
            seen.term = leader.term;
        }
        seen
    }

    fn leader_of(&self, pair: &KeyValue, mine: &[i64]) -> Leader {
        let name = pair.text();
        let mine = name == self.me && pair.lease != 0 && mine.contains(&pair.lease);
        let term = revision_as_term(pair.create_revision);
        Leader { name, term, revision: pair.mod_revision, lease: pair.lease, mine }
    }

    /// Counts a change of this key. `fresh`: created or deleted, not refreshed.
    pub(crate) fn count(base: &str, key: &str, fresh: bool, changes: &mut Changes) {
        changes.all = changes.all.wrapping_add(1);
        let key = key.strip_prefix(base).unwrap_or(key);
        let moves_with_the_wal = key.starts_with("members/") || key == "status" || key == "optime/leader";
        // The progress of a backup or rollback changes no decision; its start and end do.
        let moves_with_work = key.starts_with("outrider/backup") || key == "outrider/rollback";
        if fresh || !(moves_with_the_wal || moves_with_work) {
            changes.urgent = changes.urgent.wrapping_add(1);
        }
    }
}

/// Revisions are positive, and so are terms.
pub(crate) fn revision_as_term(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or_default()
}

fn entry<T>(pair: &KeyValue, value: T) -> Entry<T> {
    Entry { value, revision: pair.mod_revision }
}

fn member(pair: &KeyValue, name: &str, documents: &Documents) -> Member {
    let value = documents.read(pair, |pair| Value::String(pair.text()));
    let (created, revision) = (pair.create_revision, pair.mod_revision);
    Member { name: name.to_owned(), value, lease: pair.lease, created, revision }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_base_path_is_patronis() {
        assert_eq!(base_path("", "homepage"), "/service/homepage/");
        assert_eq!(base_path("/db//", "a"), "/db/a/");
        assert_eq!(base_path("x/y", "a"), "/x/y/a/");
    }

    #[test]
    fn only_a_key_on_my_lease_is_mine() {
        let keys = Keys::new("/service/a/", "p1");
        let leader = |lease| {
            let key = KeyValue {
                key: keys.leader(),
                value: b"p1".to_vec(),
                create_revision: 3,
                mod_revision: 9,
                lease,
            };
            let range = Range { store: 1, revision: 9, keys: vec![key] };
            keys.snapshot(&range, &[0, 5], &Documents::default()).leader.unwrap()
        };
        assert!(leader(5).mine && !leader(6).mine && !leader(0).mine);
        assert_eq!(leader(5).term, 3);
    }

    #[test]
    fn a_document_is_read_again_when_it_has_changed() {
        let keys = Keys::new("/service/a/", "p1");
        let documents = Documents::default();
        let read = |value: &str| {
            let key = keys.config();
            let pair = KeyValue { key, value: value.into(), create_revision: 3, mod_revision: 9, lease: 0 };
            let range = Range { store: 1, revision: 9, keys: vec![pair] };
            keys.snapshot(&range, &[], &documents).config.unwrap().value
        };
        let first = read(r#"{"ttl":5}"#);
        assert!(Arc::ptr_eq(&first, &read(r#"{"ttl":5}"#)));
        // At the same revision, as in a store that was restored.
        assert_eq!(*read(r#"{"ttl":6}"#), serde_json::json!({"ttl": 6}));
        assert_eq!(*read("no JSON"), Value::Null);
        keys.snapshot(&Range { store: 1, revision: 10, keys: Vec::new() }, &[], &documents);
        assert!(!Arc::ptr_eq(&first, &read(r#"{"ttl":5}"#)));
    }
}
