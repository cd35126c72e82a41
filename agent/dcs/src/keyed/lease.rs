//! The agent's one lease, which its member entry and the leader key are attached to: kept alive, granted again, moved,
//! ended. Whether the leader key really is attached to it is not known here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::dcs::Session;
use crate::error::Error;
use crate::session::SessionFile;
use crate::store::{Compare, KeptAlive, NO_LEASE, Op, Repeat, Store, StoreError, Transaction};

use super::{Keyed, Operation, conflict};

/// What is known of the lease.
pub(super) struct Lease {
    state: Mutex<State>,
    /// Held while the lease is exchanged for another, so that only one exchange runs at a time.
    exchange: tokio::sync::Mutex<()>,
    file: Option<SessionFile>,
}

#[derive(Clone, Copy)]
struct State {
    current: Option<i64>,
    /// The lease that the keys are being moved to; whether they were moved is not known.
    moving_to: Option<i64>,
    /// As requested. The store may have granted more.
    ttl: Duration,
    kept_alive: Option<KeptAlive>,
}

impl Lease {
    pub(super) fn resumed(file: Option<SessionFile>, leases: &[i64], ttl: Duration) -> Self {
        let mut leases = leases.iter().copied().filter(|lease| *lease > 0);
        let (current, moving_to) = (leases.next(), leases.next());
        let state = Mutex::new(State { current, moving_to, ttl, kept_alive: None });
        Lease { state, exchange: tokio::sync::Mutex::new(()), file }
    }

    /// The leases that are this agent's: two while the keys are being moved.
    pub(super) fn mine(&self) -> Vec<i64> {
        let state = *self.state();
        state.current.into_iter().chain(state.moving_to).collect()
    }

    /// What `kept_alive` promises: no more than was requested, whatever the store granted.
    pub(super) fn ttl(&self, kept_alive: &KeptAlive) -> Duration {
        self.state().ttl.min(kept_alive.ttl)
    }

    /// Forgets a lease that the store no longer knows.
    pub(super) fn forget(&self, lease: i64) {
        let mut state = self.state();
        if state.current == Some(lease) {
            (state.current, state.kept_alive) = (None, None);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment, so a panic elsewhere leaves it consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn remember(&self, change: impl FnOnce(&mut State)) {
        let leases = {
            let mut state = self.state();
            change(&mut state);
            state.current.into_iter().chain(state.moving_to).collect()
        };
        if let Some(file) = &self.file {
            file.write(leases).await;
        }
    }
}

impl<S: Store> Keyed<S> {
    /// The lease to compare with: [`NO_LEASE`] when there is none.
    pub(super) async fn own_lease(&self, operation: Operation) -> Result<i64, Error> {
        if self.lease.state().moving_to.is_some() {
            let _turn = self.lease.exchange.lock().await;
            self.settle(operation).await?;
        }
        Ok(self.lease.state().current.unwrap_or(NO_LEASE))
    }

    /// Keeps the lease alive, or gets a new one when there is none or it has expired.
    pub(super) async fn keep_session(&self, operation: Operation) -> Result<(i64, Session), Error> {
        let own = self.own_lease(operation).await?;
        if own != NO_LEASE {
            if self.kept_alive_lately() {
                return Ok((own, Session::Same));
            }
            match self.keep_alive(own, operation).await {
                Ok(_) => return Ok((own, Session::Same)),
                Err(StoreError::LeaseGone) => {}
                Err(fault) => return Err(fault.before_the_act().on(operation.act, &self.keys.my_member())),
            }
        }
        let _turn = self.lease.exchange.lock().await;
        let (current, ttl) = {
            let state = self.lease.state();
            (state.current, state.ttl)
        };
        if let Some(lease) = current {
            return Ok((lease, Session::New));
        }
        let granted = self.store.grant(ttl, operation.until).await;
        let lease =
            granted.map_err(|fault| fault.before_the_act().on(operation.act, &self.keys.my_member()))?;
        self.lease.remember(|state| (state.current, state.kept_alive) = (Some(lease), None)).await;
        Ok((lease, Session::New))
    }

    pub(super) async fn keep_alive(&self, lease: i64, operation: Operation) -> Result<KeptAlive, StoreError> {
        let outcome = self.store.keep_alive(lease, operation.until).await;
        match &outcome {
            Ok(kept_alive) => self.lease.state().kept_alive = Some(*kept_alive),
            Err(StoreError::LeaseGone) => self.lease.forget(lease),
            Err(_) => {}
        }
        outcome
    }

    /// The leader has just renewed: the same round need not do so twice.
    fn kept_alive_lately(&self) -> bool {
        let state = *self.lease.state();
        let current = state.kept_alive.filter(|kept_alive| Some(kept_alive.lease) == state.current);
        current.is_some_and(|kept_alive| kept_alive.sent_at.elapsed() < state.ttl / 10)
    }

    /// Finds out which of two leases the keys are attached to, after a move whose answer was lost or during which the agent
    /// died.
    async fn settle(&self, operation: Operation) -> Result<(), Error> {
        let state = *self.lease.state();
        let Some(moving_to) = state.moving_to else { return Ok(()) };
        let key = self.keys.my_member();
        let entry = self.look(operation, &key).await?;
        let moved = entry.is_some_and(|entry| entry.lease == moving_to);
        let other = if moved { state.current } else { Some(moving_to) };
        // Without its lease, a late transaction can move nothing.
        if let Some(other) = other {
            match self.store.revoke(other, operation.until).await {
                Ok(()) | Err(StoreError::LeaseGone) => {}
                Err(fault) => return Err(fault.before_the_act().on(operation.act, &key)),
            }
        }
        self.lease
            .remember(|state| {
                if moved {
                    state.current = Some(moving_to);
                }
                (state.moving_to, state.kept_alive) = (None, None);
            })
            .await;
        Ok(())
    }

    pub(super) async fn move_to_new_lease(&self, operation: Operation, ttl: Duration) -> Result<(), Error> {
        let own = self.own_lease(operation).await?;
        let _turn = self.lease.exchange.lock().await;
        let key = self.keys.my_member();
        if own == NO_LEASE {
            self.lease.state().ttl = ttl;
            return Ok(());
        }
        let granted = self.store.grant(ttl, operation.until).await;
        let next = granted.map_err(|fault| fault.before_the_act().on(operation.act, &key))?;
        self.lease.remember(|state| state.moving_to = Some(next)).await;
        let keys = &self.keys;
        let moves =
            [keys.my_member(), keys.leader(), keys.initialize(), keys.backup(), keys.rollback()].map(|key| {
                let when = vec![Compare::Lease(key.clone(), own)];
                Op::Nested(Transaction {
                    when,
                    then: vec![Op::Move { key, lease: next }],
                    otherwise: Vec::new(),
                })
            });
        let transaction = Transaction { then: moves.into(), ..Transaction::default() };
        let moved = self.store.commit(transaction, Repeat::Harmless, operation.until).await;
        match moved {
            Ok(_) => {}
            Err(StoreError::LeaseGone) => {
                self.lease.remember(|state| state.moving_to = None).await;
                return Err(conflict(
                    operation,
                    &key,
                    "the new session expired before anything was moved to it",
                ));
            }
            Err(fault) => return Err(fault.on(operation.act, &key)),
        }
        self.lease
            .remember(|state| {
                (state.current, state.moving_to) = (Some(next), None);
                (state.ttl, state.kept_alive) = (ttl, None);
            })
            .await;
        // Nothing is attached to the old one; if this fails it expires by itself.
        if let Err(fault) = self.store.revoke(own, operation.until).await {
            tracing::debug!(?fault, lease = own, "the former session is left to expire");
        }
        Ok(())
    }

    pub(super) async fn end_session(&self, operation: Operation) -> Result<(), Error> {
        let own = self.own_lease(operation).await?;
        let _turn = self.lease.exchange.lock().await;
        if own == NO_LEASE {
            return Ok(());
        }
        match self.store.revoke(own, operation.until).await {
            Ok(()) | Err(StoreError::LeaseGone) => {}
            Err(fault) => return Err(fault.on(operation.act, &self.keys.my_member())),
        }
        self.lease.remember(|state| (state.current, state.kept_alive) = (None, None)).await;
        Ok(())
    }
}
