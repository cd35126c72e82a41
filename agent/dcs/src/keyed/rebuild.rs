//! Rewrites the keys of a cluster in a DCS that has lost them or went back to an older copy. Who may do so, and what they say,
//! is decided elsewhere.

use crate::dcs::Leadership;
use crate::error::Error;
use crate::keys::revision_as_term;
use crate::store::{Compare, Op, Repeat, Store, Transaction};
use crate::values::{Failover, RebuiltKeys, compact_json};

use super::leader::leader_in_words;
use super::{Keyed, Operation, conflict};

impl<S: Store> Keyed<S> {
    /// Like [`Keyed::acquire`], where there are no keys of a cluster.
    pub(super) async fn recreate(
        &self,
        operation: Operation,
        keys: &RebuiltKeys,
    ) -> Result<Leadership, Error> {
        let (key, entry) = (self.keys.leader(), self.keys.my_member());
        let (lease, kept_alive) = self.session_to_lead_on(operation, &key).await?;
        let gone = [
            self.keys.leader(),
            self.keys.term(),
            self.keys.generation(),
            self.keys.initialize(),
            self.keys.config(),
            self.keys.sync(),
            self.keys.history(),
        ];
        let mut when = vec![Compare::Lease(entry, lease)];
        when.extend(gone.into_iter().map(Compare::Absent));
        let mut then = self.rebuilt(keys);
        then.push(Op::Put { key: key.clone(), value: self.keys.me().to_owned(), lease });
        let transaction = Transaction { when, then, otherwise: Vec::new() };
        let outcome = self.commit(operation, &key, Repeat::Never, transaction).await?;
        if !outcome.succeeded {
            return Err(conflict(operation, &key, "keys of a cluster exist there by now"));
        }
        let term = keys.generation.term_base + revision_as_term(outcome.revision);
        self.lead_since(operation, term, outcome.epoch, &kept_alive).await
    }

    /// Writes the keys while nobody leads.
    pub(super) async fn rebuild(
        &self,
        operation: Operation,
        keys: &RebuiltKeys,
        seen: i64,
    ) -> Result<(), Error> {
        let (leader, initialize, generation) =
            (self.keys.leader(), self.keys.initialize(), self.keys.generation());
        let mut when = vec![Compare::Absent(leader.clone()), Compare::Revision(generation.clone(), seen)];
        // A bootstrap claim, or another cluster's identifier, is not overwritten.
        let stands = self.look(operation, &initialize).await?;
        when.push(match &stands {
            None => Compare::Absent(initialize.clone()),
            Some(pair) => Compare::Value(initialize.clone(), pair.text()),
        });
        if let Some(other) = stands.filter(|pair| pair.text().trim() != keys.system_identifier) {
            let found = match other.text().as_str() {
                "" => "another member is creating a new cluster there".to_owned(),
                other => format!("the cluster there has the system identifier {other}"),
            };
            return Err(conflict(operation, &initialize, found));
        }
        let mut then = self.rebuilt(keys);
        if keys.sync.is_none() {
            then.push(Op::Delete(self.keys.sync()));
        }
        then.push(Op::put(self.keys.failover(), Failover::CLEARED));
        let under_way = [
            self.keys.intent(),
            self.keys.failsafe(),
            self.keys.backup_request(),
            self.keys.backup(),
            self.keys.rollback_request(),
            self.keys.rollback(),
        ];
        then.extend(under_way.into_iter().map(Op::Delete));
        let transaction = Transaction { when, then, otherwise: vec![Op::Get(leader.clone())] };
        let outcome = self.commit(operation, &generation, Repeat::Never, transaction).await?;
        if outcome.succeeded {
            return Ok(());
        }
        let found = match outcome.found.first() {
            Some(Some(_)) => leader_in_words(&outcome.found),
            _ => "somebody else has written them in the meantime".to_owned(),
        };
        Err(conflict(operation, &generation, found))
    }

    fn rebuilt(&self, keys: &RebuiltKeys) -> Vec<Op> {
        let mut puts = vec![
            Op::put(self.keys.generation(), compact_json(&keys.generation)),
            Op::put(self.keys.term(), self.keys.me()),
            Op::put(self.keys.initialize(), keys.system_identifier.as_str()),
            Op::put(self.keys.history(), compact_json(&keys.history)),
        ];
        puts.extend(keys.config.as_ref().map(|config| Op::put(self.keys.config(), compact_json(config))));
        puts.extend(keys.sync.as_ref().map(|sync| Op::put(self.keys.sync(), compact_json(sync))));
        let rollback = keys.rollback_last.as_ref();
        puts.extend(rollback.map(|last| Op::put(self.keys.rollback_last(), compact_json(last))));
        puts
    }
}
