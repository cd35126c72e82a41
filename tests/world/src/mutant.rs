//! The shipped decision, and the same with a rule broken on purpose. The product itself has no such switch.

use outrider_ha::{
    Dcs, Lease, Member, MemberName, Plan, Postgres, Reason, StartAs, Step, View, decide, invariant,
};

use crate::setup::Mutant;

/// The plan that is carried out, and whether the shipped one broke a rule.
pub(crate) fn decide_as(mutant: Option<Mutant>, view: &View) -> (Plan, bool) {
    let plan = decide(view);
    let rule_broken = invariant::check(view, &plan).is_err();
    let plan = match mutant {
        None => plan,
        Some(mutant) => broken(mutant, view, plan),
    };
    (plan, rule_broken)
}

fn broken(mutant: Mutant, view: &View, mut plan: Plan) -> Plan {
    match (mutant, &plan.reason) {
        (Mutant::StandsUnsynchronous, Reason::NotSynchronous) => plan.steps.push(acquire(view)),
        (Mutant::NeverStepsDown, Reason::SteppingDown) => plan.steps.clear(),
        (Mutant::PromotesFirst, Reason::Standing) => plan.steps.insert(0, Step::Promote),
        (Mutant::RelaxesSettingFirst, Reason::SynchronousRelaxed) => {
            let kept = plan.steps.iter().find_map(|step| match step {
                Step::RecordSync { standbys, .. } => Some(standbys.clone()),
                _ => None,
            });
            plan.steps.insert(1, Step::SetSynchronous { names: kept.expect("relaxing records") });
        }
        (Mutant::RecordsWithoutProof, Reason::SynchronousChanged) => {
            let set = plan.steps.iter().find_map(|step| match step {
                Step::SetSynchronous { names } => Some(names.clone()),
                _ => None,
            });
            plan.steps.push(Step::RecordSync { standbys: set.expect("changing sets"), revision: Some(0) });
        }
        (Mutant::PromotesWithoutRecord, Reason::Promoting) => {
            plan.steps.retain(|step| !matches!(step, Step::RecordSync { .. }));
        }
        (Mutant::RevivesWaitingForNobody, Reason::Reviving) => {
            plan.steps = vec![Step::RenewLease, Step::Start(StartAs::Primary { synchronous: Vec::new() })];
        }
        (Mutant::ReclaimsBlindly, Reason::SteppingDown) if is_free(view) => plan.steps = vec![acquire(view)],
        (Mutant::TrustsItsMemory, Reason::SynchronousChanged) => {
            let sets_nobody =
                |step: &Step| matches!(step, Step::SetSynchronous { names } if names.is_empty());
            plan.steps.retain(|step| !sets_nobody(step));
        }
        (Mutant::PassesOver, Reason::FailoverRefused { .. }) => plan.steps = vec![acquire(view)],
        (Mutant::HandsOverUnreplayed, Reason::WaitingForCandidate { to }) if has_received(view, to) => {
            plan.steps = vec![Step::HandOverLease { to: to.clone() }];
        }
        (Mutant::FollowsDiverged, Reason::Diverged) => plan.steps.clear(),
        (Mutant::KeepsHistoryToItself, Reason::Leading) => {
            plan.steps.retain(|step| *step != Step::RecordHistory);
        }
        (Mutant::IgnoresWhoKnowsMore, Reason::MemberKnowsMore { .. }) => plan.steps = vec![acquire(view)],
        // The others change what a step does, not what is decided.
        _ => {}
    }
    plan
}

fn acquire(view: &View) -> Step {
    let revision = match &view.dcs {
        Dcs::Seen(cluster) => cluster.sync.as_ref().map(|sync| sync.revision),
        Dcs::Silent { .. } => None,
    };
    Step::AcquireLease { sync_revision: revision, request: None }
}

fn is_free(view: &View) -> bool {
    match &view.dcs {
        Dcs::Seen(cluster) => matches!(cluster.lease, Lease::Free { .. }),
        Dcs::Silent { .. } => false,
    }
}

/// Whether a member has received everything that this one wrote.
fn has_received(view: &View, to: &MemberName) -> bool {
    let Postgres::Stopped { timeline, end, .. } = view.local.postgres else { return false };
    view.member(to)
        .and_then(Member::answered)
        .is_some_and(|state| state.timeline == timeline && state.position >= end)
}
