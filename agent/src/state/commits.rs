//! Whom commits wait for, as far as this process has set it, and the proof that they do.

use outrider_ha::{MemberName, Synchronous};
use outrider_postgres::{Error, Observation};
use outrider_wal::Lsn;
use tracing::warn;

use super::work::{Work, ended};
use crate::log::causes;

/// What is remembered of it.
#[derive(Default)]
pub(crate) struct Commits {
    wait_for: Synchronous,
    /// The proof, under way, that the setting is in effect.
    proof: Option<Work<Lsn>>,
}

impl Commits {
    /// Whom they wait for.
    pub(crate) fn wait_for(&self) -> &Synchronous {
        &self.wait_for
    }

    /// They wait for these standbys as soon as Postgres has read it; that nobody is waited for needs no proof.
    pub(crate) fn were_set_to(&mut self, names: &[MemberName]) {
        let since = names.is_empty().then_some(Lsn::INVALID);
        self.wait_for = Synchronous { names: names.to_vec(), since };
        self.proof = None;
    }

    /// Nothing is known of it.
    pub(crate) fn forget(&mut self) {
        *self = Commits::default();
    }

    /// Whether somebody is to be waited for, and nothing proves it yet.
    pub(crate) fn need_proof(&self) -> bool {
        !self.wait_for.names.is_empty() && self.wait_for.since.is_none() && self.proof.is_none()
    }

    /// It is being proven.
    pub(crate) fn are_being_proven(&mut self, proof: Work<Lsn>) {
        self.proof = Some(proof);
    }

    /// Waits for the proof to end; for ever when there is none under way.
    pub(crate) async fn proof_ended(&mut self) -> Result<Lsn, Error> {
        ended(self.proof.as_mut()).await
    }

    /// It has ended.
    pub(crate) fn were_proven(&mut self, outcome: Result<Lsn, Error>) {
        self.proof = None;
        match outcome {
            Ok(since) => self.wait_for.since = Some(since),
            Err(fault) => {
                warn!(fault = %causes(&fault), "cannot prove which standbys commits wait for; setting it anew");
                self.forget();
            }
        }
    }

    /// Somebody else may have set it (`ALTER SYSTEM`): then it is set and proven anew. `wanted`: as Postgres was given it.
    pub(crate) fn check(&mut self, seen: &Observation, wanted: &str) {
        if self.proof.is_some() || self.wait_for.since.is_none() || seen.synchronous_standby_names == wanted {
            return;
        }
        warn!(
            wanted,
            found = seen.synchronous_standby_names,
            "somebody changed synchronous_standby_names; setting it again"
        );
        self.forget();
    }
}
