//! Where a rollback that is prepared waits for the round, which alone swaps the data: an order, and the answer to it.

use std::path::PathBuf;

use outrider_ha::Term;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Prepared data that waits for its swap.
#[derive(Debug)]
pub(crate) struct SwapOrder {
    /// Of the request.
    pub(crate) id: String,
    /// Where the old data goes.
    pub(crate) aside: PathBuf,
    /// The term of the lease under which it was prepared. Under another one the cluster may have gone on on another timeline.
    pub(crate) term: Term,
    /// Whom to tell; dropped when the swap was broken off before it did anything.
    pub(crate) done: oneshot::Sender<Result<Swapped, String>>,
}

/// The prepared data is in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Swapped {
    /// When Postgres was told to stop.
    pub(crate) stopping: Instant,
}

/// Where the job leaves an order for the round. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct SwapOffer {
    order: watch::Sender<Option<SwapOrder>>,
}

impl Default for SwapOffer {
    fn default() -> Self {
        SwapOffer { order: watch::Sender::new(None) }
    }
}

impl SwapOffer {
    /// Leaves the order, in the place of any other; tells what became of it.
    pub(crate) fn offer(
        &self,
        id: String,
        aside: PathBuf,
        term: Term,
    ) -> oneshot::Receiver<Result<Swapped, String>> {
        let (done, outcome) = oneshot::channel();
        self.order.send_replace(Some(SwapOrder { id, aside, term, done }));
        outcome
    }

    /// Whether an order waits.
    pub(crate) fn is_offered(&self) -> bool {
        self.order.borrow().is_some()
    }

    /// Takes it, to withdraw it.
    pub(crate) fn take(&self) -> Option<SwapOrder> {
        self.order.send_replace(None)
    }

    /// Takes it, to carry it out under the lease of this term. One of an earlier term is withdrawn: whoever offered it may not have got to
    /// it yet.
    pub(crate) fn take_for(&self, term: Term) -> Option<SwapOrder> {
        self.take().filter(|order| order.term == term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_prepared_under_an_earlier_lease_is_not_swapped() {
        let offer = SwapOffer::default();
        let mut outcome = offer.offer("one".to_owned(), PathBuf::from("/aside"), Term(5));
        assert!(offer.take_for(Term(6)).is_none());
        assert!(!offer.is_offered());
        assert!(outcome.try_recv().is_err(), "whoever offered it is told that nothing was done");
        let _outcome = offer.offer("two".to_owned(), PathBuf::from("/aside"), Term(6));
        assert_eq!(offer.take_for(Term(6)).map(|order| order.id).as_deref(), Some("two"));
    }
}
