//! What may be done next with a job, and whose it is: the same for every kind.

/// Who holds the claim in the DCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// Nobody.
    Free,
    /// This member's session. The agent that made the claim may have died.
    Mine,
    /// Another session: another member, or this one before its session ran out.
    Others,
}

/// One step. `GivenUp` is why a job of this kind may be given up, `Own` what only this kind does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step<GivenUp, Own> {
    /// Nothing to do now.
    Wait,
    /// Claim the request and start.
    Take,
    /// Claim the request only to record why it fails.
    Refuse,
    /// Claim again what is in hand: the session had expired, and nobody else has claimed it.
    TakeAgain,
    /// Write the progress.
    Report,
    /// Tell the job to stop.
    GiveUp(GivenUp),
    /// Write the outcome, which removes claim and request.
    Record,
    /// Drop what is in hand: the outcome is recorded, or another member will record it.
    Forget,
    /// The same, and log that the outcome stays unrecorded: the request is gone, or somebody else has claimed it.
    LeaveUnrecorded,
    /// What only this kind does.
    Own(Own),
}

/// The job in hand has ended, which is to be recorded. `asked`: the request is still there. `recorded`: the last outcome in the
/// DCS is this one's, though the answer to that write was lost.
pub(crate) fn record<GivenUp, Own>(claim: Claim, asked: bool, recorded: bool) -> Step<GivenUp, Own> {
    match claim {
        Claim::Mine => Step::Record,
        Claim::Free | Claim::Others if recorded => Step::Forget,
        // What is done need not be done again.
        Claim::Free if asked => Step::TakeAgain,
        Claim::Free | Claim::Others => Step::LeaveUnrecorded,
    }
}
