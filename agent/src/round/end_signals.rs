//! The signals by which the agent is told to end: SIGTERM, and SIGINT of a terminal.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from the moment it is made: what comes before somebody waits is not lost.
pub(crate) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    /// Also where SIGINT was ignored, as it is for what a shell without job control starts in the background.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(EndSignals { terminate, interrupt })
    }

    /// Waits for one of them. Can be dropped while it waits.
    pub(crate) async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
