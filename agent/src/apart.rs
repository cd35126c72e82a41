//! Runs hard work on a thread and an event loop of its own: the agent's rounds have one thread, and never wait for it.

use tokio::sync::oneshot;

/// There is no thread for it, or it broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApartError {
    /// The system gives none.
    #[error("cannot start a thread for the {what}")]
    Start {
        /// The work.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A defect of ours, told in the log.
    #[error("the {what} ended unexpectedly")]
    BrokeOff {
        /// The work.
        what: &'static str,
    },
}

/// Does the work elsewhere. When this is dropped the work goes on to its end: it is told to stop by its own means.
pub(crate) async fn apart<Work, Outcome>(
    what: &'static str,
    begin: impl FnOnce() -> Work + Send + 'static,
) -> Result<Outcome, ApartError>
where
    Work: Future<Output = Outcome>,
    Outcome: Send + 'static,
{
    let (done, outcome) = oneshot::channel();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => {
                // Nobody waits for it any more when the agent ends.
                let _ = done.send(Ok(runtime.block_on(begin())));
            }
            Err(source) => {
                let _ = done.send(Err(ApartError::Start { what, source }));
            }
        }
    };
    let thread = std::thread::Builder::new().name(what.to_owned());
    thread.spawn(run).map_err(|source| ApartError::Start { what, source })?;
    outcome.await.unwrap_or(Err(ApartError::BrokeOff { what }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_outcome_comes_back_and_a_defect_is_told() {
        assert_eq!(apart("sum", || async { 1 + 1 }).await.unwrap(), 2);
        let broken = apart("sum", || async { panic!("a defect") }).await;
        let broken: Result<(), ApartError> = broken;
        assert!(matches!(broken, Err(ApartError::BrokeOff { .. })));
    }
}
