//! What is broken on purpose: each rule of ours, what is decided without it, and the property that must notice. The product itself has
//! no such switch. What some break of a step or an event is beside that, in `perform` and `apply`.

use outrider_ha::{
    Cluster, Dcs, Lease, Member, MemberName, NotRebuilt, Plan, Postgres, Reason, Rebuilding, Role, StartAs,
    Step, StopMode, SynchronousMode, TurnChange, Unusable, View, Watermark, Witness, decide, invariant,
    rebuild,
};

use crate::property_names::{
    COMES_TO_REST_WHOLE, HANDED_OVER_READY, IN_ORDER, NOTHING_LOST, ONE_AT_A_TIME, ONE_CLUSTER,
    ONLY_WHOLE_DATA, ROLLED_BACK, RULES_KEPT, SINGLE_WRITER, SWITCHED_FIRST, WAL_KEPT,
};

/// A rule that is broken on purpose, to see that the search finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A standby that is not recorded as synchronous stands.
    StandsUnsynchronous,
    /// A primary without the lease goes on.
    NeverStepsDown,
    /// A standby is promoted first and takes the lease then, and the supervisor lets it.
    PromotesFirst,
    /// The supervisor lets a writable Postgres live when the fuse blows.
    FuseIgnored,
    /// Commits stop waiting for a standby before `/sync` says that it may not be promoted.
    RelaxesSettingFirst,
    /// A standby is recorded as promotable as soon as the setting is written, without proof that it has everything.
    RecordsWithoutProof,
    /// The lease is taken without a comparison of `/sync` with what was seen.
    TakesLeaseBlindly,
    /// A new primary does not strike the others from `/sync` before it is promoted.
    PromotesWithoutRecord,
    /// A new primary that crashes puts those back into `/sync` whom it struck for its promotion, although that has ended.
    PutsBackAfterServing,
    /// A member whose promotion failed for ever releases the lease and does not put those back into `/sync` whom it struck for it.
    NeverPutsBack,
    /// A crashed primary comes back and its commits wait for nobody, whoever `/sync` names.
    RevivesWaitingForNobody,
    /// A primary takes a free lease again without asking who held it in between.
    ReclaimsBlindly,
    /// An agent that was restarted takes the setting for empty because it remembers none.
    TrustsItsMemory,
    /// A standby that diverged goes on as if it could follow.
    FollowsDiverged,
    /// A new primary never records where its timeline began.
    KeepsHistoryToItself,
    /// A member stands although another one has seen more of the DCS.
    IgnoresWhoKnowsMore,
    /// The member that a failover names stands, whatever it lacks.
    PassesOver,
    /// A switchover hands over to a member that has received everything, and replayed it or not.
    HandsOverUnreplayed,
    /// A leader whose Postgres does not answer hands the lease over as if that had stopped.
    TakesSilenceForDeath,
    /// What a broken off rewind has left is started as a standby.
    StartsHalfRewound,
    /// A member without data makes a cluster although there is one.
    MakesAnotherCluster,
    /// Keys that are gone are written anew although not every member has said that it finds the same.
    RecreatesUnasked,
    /// They are written anew by a primary whose fuse is dead.
    RecreatesWithoutFuse,
    /// Keys are rebuilt for the member that has seen the least.
    RebuildsOnLess,
    /// A primary makes no slots for members that have none.
    MakesNoSlots,
    /// A standby keeps no WAL for the members that follow its leader.
    HoldsNoCopies,
    /// A standby that is promoted drops its copies.
    DropsCopies,
    /// A standby moves its copies on to where its leader is.
    MovesCopiesTooFar,
    /// A member whose data directory was emptied is not cloned.
    NeverClones,
    /// Data is swapped for a rollback while another member may still be promoted.
    SwapsBeforeRelaxing,
    /// In asynchronous mode a member stands although a rollback may have swapped the data of the leader that was lost.
    StandsDuringSwap,
    /// The timeline that a rollback began is not kept as the least.
    ForgetsTheSwap,
    /// A member is restarted while another one is down.
    RestartsTogether,
    /// A primary is restarted where it is although a standby could lead.
    RestartsThePrimary,
    /// The primary is not restarted first where it must be.
    IgnoresTheOrder,
    /// A lease is shortened before its fuse.
    ShortensLeaseFirst,
    /// A member takes part whose entry does not stand in the DCS.
    ActsFromOutside,
}

/// The property that must catch a mutant.
#[must_use]
pub const fn catches(mutant: Mutant) -> &'static str {
    match mutant {
        Mutant::StandsUnsynchronous
        | Mutant::RelaxesSettingFirst
        | Mutant::RecordsWithoutProof
        | Mutant::TakesLeaseBlindly
        | Mutant::PromotesWithoutRecord
        | Mutant::PutsBackAfterServing
        | Mutant::RevivesWaitingForNobody
        | Mutant::IgnoresWhoKnowsMore
        | Mutant::RebuildsOnLess
        | Mutant::ReclaimsBlindly => NOTHING_LOST,
        Mutant::NeverStepsDown
        | Mutant::TrustsItsMemory
        | Mutant::NeverPutsBack
        | Mutant::MakesNoSlots
        | Mutant::NeverClones
        | Mutant::FollowsDiverged
        | Mutant::KeepsHistoryToItself => COMES_TO_REST_WHOLE,
        Mutant::HoldsNoCopies | Mutant::DropsCopies | Mutant::MovesCopiesTooFar => WAL_KEPT,
        Mutant::PassesOver => NOTHING_LOST,
        Mutant::RestartsTogether => ONE_AT_A_TIME,
        Mutant::RestartsThePrimary => SWITCHED_FIRST,
        Mutant::IgnoresTheOrder => IN_ORDER,
        Mutant::SwapsBeforeRelaxing | Mutant::StandsDuringSwap | Mutant::ForgetsTheSwap => ROLLED_BACK,
        Mutant::StartsHalfRewound => ONLY_WHOLE_DATA,
        Mutant::MakesAnotherCluster => ONE_CLUSTER,
        Mutant::HandsOverUnreplayed => HANDED_OVER_READY,
        Mutant::RecreatesWithoutFuse | Mutant::ActsFromOutside => RULES_KEPT,
        Mutant::PromotesFirst
        | Mutant::FuseIgnored
        | Mutant::TakesSilenceForDeath
        | Mutant::ShortensLeaseFirst
        | Mutant::RecreatesUnasked => SINGLE_WRITER,
    }
}

/// The plan that is carried out, and whether the shipped one broke a rule.
pub(crate) fn decide_as(mutant: Option<Mutant>, view: &View) -> (Plan, bool) {
    let plan = match mutant {
        Some(Mutant::IgnoresTheOrder) => decide(&standbys_first(view)),
        Some(Mutant::ActsFromOutside) => decide(&entered(view)),
        _ => decide(view),
    };
    let rule_broken = invariant::check(view, &plan).is_err();
    let plan = match mutant {
        None => plan,
        Some(mutant) => broken(mutant, view, plan),
    };
    // The agent asks this before it acts, whatever was decided.
    let refused =
        mutant.is_some_and(|mutant| catches(mutant) == RULES_KEPT) && invariant::check(view, &plan).is_err();
    (plan, rule_broken || refused)
}

fn broken(mutant: Mutant, view: &View, mut plan: Plan) -> Plan {
    match (mutant, &plan.reason) {
        (Mutant::StandsUnsynchronous, Reason::NotSynchronous) => plan.steps.push(acquire(view)),
        (Mutant::NeverStepsDown, Reason::SteppingDown) => plan.steps.clear(),
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
        (Mutant::TakesSilenceForDeath, Reason::Unresponsive) => plan.steps.extend(hand_over_to_anyone(view)),
        (Mutant::StartsHalfRewound, Reason::Cloning | Reason::WaitingForLeader) if is_half_rewound(view) => {
            plan.steps = vec![Step::Start(StartAs::Standby { upstream: None })];
        }
        (Mutant::MakesAnotherCluster, Reason::NothingToLead) => {
            plan.steps = vec![Step::RenewLease, Step::Initdb];
        }
        (Mutant::MakesAnotherCluster, Reason::WaitingForLeader) if is_empty(view) && is_free(view) => {
            plan.steps = vec![acquire(view)];
        }
        (Mutant::RecreatesUnasked, Reason::WaitingToRecreate { .. }) => {
            plan.steps.push(Step::RecreateCluster { standbys: Some(Vec::new()) })
        }
        (Mutant::RecreatesWithoutFuse, Reason::DcsWentBack { .. }) if is_primary(view) => {
            plan.steps = vec![Step::RecreateCluster { standbys: Some(Vec::new()) }];
        }
        (Mutant::SwapsBeforeRelaxing, Reason::SynchronousRelaxed) if view.local.rollback_prepared => {
            plan.steps = vec![Step::RenewLease, Step::Rollback];
        }
        (Mutant::StandsDuringSwap, Reason::SwapUnknown { .. }) => plan.steps = vec![acquire(view)],
        (Mutant::RestartsTogether, Reason::RestartWaiting) => plan.steps = begin_restart(view),
        (Mutant::RestartsThePrimary, Reason::Restarting) if plan.steps.contains(&Step::AskSwitchover) => {
            plan.steps = begin_restart(view);
        }
        (Mutant::MakesNoSlots, Reason::Leading) => {
            plan.steps.retain(|step| !matches!(step, Step::CreateSlots { .. }));
        }
        (Mutant::NeverClones, Reason::Cloning) => plan.steps.clear(),
        (Mutant::ShortensLeaseFirst, _) => {
            plan.steps.sort_by_key(|step| matches!(step, Step::ShortenFuse { .. }));
        }
        (Mutant::FollowsDiverged, Reason::Diverged) => plan.steps.clear(),
        (Mutant::KeepsHistoryToItself, Reason::Leading) => {
            plan.steps.retain(|step| *step != Step::RecordHistory);
        }
        (Mutant::IgnoresWhoKnowsMore, Reason::MemberKnowsMore { .. }) => plan.steps = vec![acquire(view)],
        _ => broken_promotion(mutant, view, &mut plan),
    }
    plan
}

fn broken_promotion(mutant: Mutant, view: &View, plan: &mut Plan) {
    match (mutant, &plan.reason) {
        (Mutant::PromotesFirst, Reason::Standing) => plan.steps.insert(0, Step::Promote),
        (Mutant::PromotesWithoutRecord, Reason::Promoting) => {
            plan.steps.retain(|step| !matches!(step, Step::RecordSync { .. }));
        }
        (Mutant::PutsBackAfterServing, Reason::Reviving) => {
            if let Some(before) = view.local.promotion.struck.clone() {
                plan.steps = vec![Step::RestoreSync { before }, Step::ReleaseLease];
            }
        }
        (Mutant::NeverPutsBack, Reason::NeverPromoted) => plan.steps = vec![Step::ReleaseLease],
        // The others change what a step does, not what is decided.
        _ => {}
    }
}

fn acquire(view: &View) -> Step {
    let revision = match &view.dcs {
        Dcs::Seen(cluster) => cluster.sync.as_ref().map(|sync| sync.revision),
        Dcs::Silent { .. } => None,
    };
    Step::AcquireLease { sync_revision: revision, request: None }
}

/// To the first standby that answers.
fn hand_over_to_anyone(view: &View) -> Option<Step> {
    let is_standby = |member: &&Member| member.answered().is_some_and(|state| state.role == Role::Standby);
    view.members.iter().find(is_standby).map(|member| Step::HandOverLease { to: member.name.clone() })
}

/// Whose data the keys are rebuilt for.
pub(crate) fn rebuild_as(
    mutant: Option<Mutant>,
    witnesses: &[Witness],
    dcs: &Watermark,
    mode: SynchronousMode,
) -> Result<Rebuilding, NotRebuilt> {
    let mut outcome = rebuild(witnesses, dcs, mode, false)?;
    if mutant == Some(Mutant::RebuildsOnLess) {
        let heard = witnesses.iter().filter_map(|witness| Some((witness, witness.says.as_ref()?)));
        let least = heard.min_by_key(|(_, says)| says.watermark.extent());
        outcome.best = least.map_or(outcome.best, |(witness, _)| witness.name.clone());
    }
    Ok(outcome)
}

fn standbys_first(view: &View) -> View {
    let mut view = view.clone();
    if let Dcs::Seen(Cluster { restart: Some(restart), .. }) = &mut view.dcs {
        restart.primary_first = false;
    }
    view
}

fn entered(view: &View) -> View {
    let mut view = view.clone();
    view.local.entered = true;
    view
}

fn begin_restart(view: &View) -> Vec<Step> {
    let change = TurnChange::Begun { started: "before".into(), switching: false };
    let begins = Step::RecordRestart { member: view.me.clone(), change, revision: 0 };
    vec![begins, Step::Stop(StopMode::Fast)]
}

fn is_primary(view: &View) -> bool {
    matches!(view.local.postgres, Postgres::Primary { .. })
}

fn is_half_rewound(view: &View) -> bool {
    view.local.postgres == Postgres::Unusable(Unusable::HalfRewound)
}

fn is_empty(view: &View) -> bool {
    view.local.postgres == Postgres::Empty
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
