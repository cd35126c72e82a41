//! Ends a request on which one member after the other has died. Takes no backup.

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Order, Progress, TakeError, Taken, Taker};

/// Says so instead of a further attempt.
pub(super) struct Hopeless {
    /// How many there were.
    pub(super) attempts: u32,
}

#[async_trait]
impl Taker for Hopeless {
    async fn take(
        &self,
        _: Order,
        _: watch::Sender<Progress>,
        _: CancellationToken,
    ) -> Result<Taken, TakeError> {
        let attempts = self.attempts;
        let why = format!("{attempts} attempts did not come to their end; see the logs of the members");
        Err(TakeError::Failed(why))
    }
}
