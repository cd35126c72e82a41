//! What starts a round: a change in the DCS, news of the supervisor, a finished job, an HTTP request, a signal, or the time.
//! A closed list; none of them acts by itself.

use std::time::Duration;

use outrider_dcs::Changes;
use outrider_postgres::News;
use outrider_supervisor::protocol::Event;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use super::end_signals::EndSignals;
use crate::act;
use crate::instruments::Instruments;
use crate::state::State;
use crate::wake::Wakes;

/// Everything that can end the wait between two rounds.
pub(crate) struct WakeSources {
    wakes: Wakes,
    changes: watch::Receiver<Changes>,
    seen: u64,
    news: broadcast::Receiver<News>,
    signals: EndSignals,
}

/// Why the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wakeup {
    /// A round is due.
    Round,
    /// The agent is to end.
    End,
}

impl WakeSources {
    /// Listens from now on.
    pub(crate) fn new(
        wakes: Wakes,
        changes: watch::Receiver<Changes>,
        news: broadcast::Receiver<News>,
        signals: EndSignals,
    ) -> Self {
        WakeSources { wakes, changes, seen: 0, news, signals }
    }

    /// A round begins: what changes in the DCS from here on may not be in what it reads.
    pub(crate) fn round_begins(&mut self) {
        self.seen = self.changes.borrow_and_update().urgent;
    }

    /// Waits for the next thing that happens, at most for `wait`, and notes it in `state`.
    pub(crate) async fn wait(
        &mut self,
        wait: Duration,
        instruments: &Instruments,
        state: &mut State,
    ) -> Wakeup {
        let mut due = std::pin::pin!(sleep(wait));
        loop {
            let seen = self.seen;
            let urgent = async {
                // The watch ends only with the DCS itself, and that lives as long as the agent.
                if self.changes.wait_for(|changes| changes.urgent != seen).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = &mut due => return Wakeup::Round,
                () = urgent => return Wakeup::Round,
                () = self.wakes.wait() => return Wakeup::Round,
                news = self.news.recv() => {
                    if is_for_the_round(news, state) {
                        return Wakeup::Round;
                    }
                }
                finished = act::finished(state) => {
                    act::conclude(finished, instruments, state);
                    return Wakeup::Round;
                }
                () = self.signals.told() => return Wakeup::End,
            }
        }
    }
}

/// Every round asks the supervisor how things are, so that news only says that there is something to see.
fn is_for_the_round(news: Result<News, RecvError>, state: &mut State) -> bool {
    match news {
        Ok(News::Event(Event::ToolOutput { .. } | Event::ToolExited { .. })) => false,
        Ok(News::Event(Event::Fenced { term, took_ms, .. })) => {
            warn!(term, took_ms, "the fuse blew: Postgres was fenced");
            state.counters.fenced += 1;
            true
        }
        Ok(News::Event(Event::Terminating { handover_ms, .. })) => {
            info!(handover_ms, "the supervisor was told to stop");
            true
        }
        Ok(
            News::Event(Event::PostmasterDied { .. } | Event::PostmasterExited { .. }) | News::ConnectionLost,
        )
        | Err(RecvError::Lagged(_) | RecvError::Closed) => true,
    }
}
