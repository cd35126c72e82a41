//! What may be done next with a job, and whose it is: the same for every kind.

/// Who has taken the request up, by the claim in the DCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// Nobody.
    Free,
    /// The claim hangs on this member's session. It may be left from an agent that has died.
    Mine,
    /// Another session: another member, or this one before its session ran out.
    Others,
}

/// One step. `GivenUp` is why a job of this kind may be given up, `Own` what only this kind does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step<GivenUp, Own> {
    /// Nothing: what is waited for shows by itself.
    Wait,
    /// Claim the request, and begin.
    Take,
    /// Claim the request only to record why nobody goes on with it.
    Refuse,
    /// Claim again what is in hand: the session had run out, and nobody else has taken it up.
    TakeAgain,
    /// Write how far it is.
    Report,
    /// Tell the job to stop.
    GiveUp(GivenUp),
    /// Write the outcome; claim and request go with that.
    Record,
    /// Let go of what is in hand: the outcome is recorded, or another's to record.
    Forget,
    /// The same, and say that the outcome stays unrecorded: the request is gone, or another has taken it up.
    LeaveUnrecorded,
    /// What only this kind does.
    Own(Own),
}

/// The job in hand has ended, and that is to be recorded. `asked`: the request still stands. `recorded`: the last outcome in the
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
