//! What is recorded of the end of a rollback.

use outrider_dcs::{RollbackClaim, RollbackOutcome, RollbackRequest};

use crate::clock;

/// All that is known. `swapped`: the prepared data is in its place.
pub(super) fn outcome(request: &RollbackRequest, claim: &RollbackClaim, swapped: bool) -> RollbackOutcome {
    let mut outcome = outcome_of(request, &claim.member);
    outcome.backup = claim.backup.clone().or(outcome.backup);
    if !claim.target.is_empty() {
        outcome.target.clone_from(&claim.target);
    }
    outcome.began.clone_from(&claim.began);
    if let Some(swap) = request.swap.as_ref().filter(|_| swapped) {
        outcome.old_timeline = Some(swap.old_timeline);
        outcome.old_lsn = Some(swap.old_lsn);
        outcome.new_timeline = Some(swap.new_timeline);
        outcome.new_lsn = Some(swap.new_lsn);
        outcome.old_data = Some(swap.old_data.clone());
    }
    outcome
}

/// As far as the request tells.
pub(super) fn outcome_of(request: &RollbackRequest, member: &str) -> RollbackOutcome {
    let swap = request.swap.clone().unwrap_or_default();
    RollbackOutcome {
        request: request.id.clone(),
        by: request.by.clone(),
        asked: request.at.clone(),
        member: member.to_owned(),
        target: swap.target,
        backup: Some(swap.backup).filter(|backup| !backup.is_empty()),
        began: swap.began,
        finished: clock::wall().to_string(),
        ..RollbackOutcome::default()
    }
}
