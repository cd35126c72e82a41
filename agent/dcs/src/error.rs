//! What can go wrong between the agent and the DCS. Tells apart what did not happen, what lost, and what nobody knows.

/// The source of an error: a gRPC status, a deadline, a lost connection.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The variants differ in what the caller may do next. Merging `Unknown` with `Unreachable` is what loses data.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not happen and will not: no request was sent, or there was nothing to change. Trying again is safe.
    #[error("cannot {act} {object}: the DCS is unreachable")]
    Unreachable {
        /// What was tried, as a verb: "acquire", "read".
        act: &'static str,
        /// The key it was tried on.
        object: String,
        /// Why the last endpoint failed.
        #[source]
        source: Cause,
    },
    /// It did not happen, because the store holds something else than was seen: someone else was first. Read again.
    #[error("cannot {act} {object}: {found}")]
    Conflict {
        /// What was tried.
        act: &'static str,
        /// On which key.
        object: String,
        /// What the store holds instead, in words.
        found: String,
    },
    /// Sent without an answer: it may have happened, or may still happen. Read before acting on either.
    #[error("cannot tell whether it was possible to {act} {object}: no answer")]
    Unknown {
        /// What was tried.
        act: &'static str,
        /// On which key.
        object: String,
        /// What came instead of the answer.
        #[source]
        source: Cause,
    },
    /// The store refuses this agent (password, permission, certificate) or the request itself. No retry helps.
    #[error("cannot {act} {object}: the DCS refuses")]
    Refused {
        /// What was tried.
        act: &'static str,
        /// On which key.
        object: String,
        /// The store's words.
        #[source]
        source: Cause,
    },
}

impl Error {
    /// Whether the store answered that it holds something else.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Error::Conflict { .. })
    }
}
