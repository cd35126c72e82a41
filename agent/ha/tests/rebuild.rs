//! Whose data a cluster goes on with after its DCS was lost: who answers what, and who is taken.

use outrider_ha::{
    MemberName, NotRebuilt, Rebuilding, Role, SyncState, SynchronousMode, SystemId, Term, Testimony,
    Watermark, Witness, rebuild,
};
use outrider_wal::{Lsn, TimelineId};

fn says(term: u64, sync_revision: i64, sync: &[&str], position: u64) -> Testimony {
    let names: Vec<MemberName> = sync.iter().map(|name| MemberName::from(*name)).collect();
    let (leader, standbys) = names
        .split_first()
        .map_or((None, Vec::new()), |(leader, standbys)| (Some(leader.clone()), standbys.to_vec()));
    let record = SyncState { leader, standbys, given_up: TimelineId::default(), revision: sync_revision };
    Testimony {
        watermark: Watermark { term: Term(term), revision: 100, sync_revision, ..Watermark::default() },
        leader: record.leader.clone(),
        sync: (!sync.is_empty()).then_some(record),
        role: Role::Standby,
        system: Some(SystemId(7)),
        timeline: TimelineId::FIRST,
        position: Lsn::new(position),
        may_lead: true,
    }
}

fn members(all: [Option<Testimony>; 3]) -> Vec<Witness> {
    ["a", "b", "c"].into_iter().zip(all).map(|(name, says)| Witness { name: name.into(), says }).collect()
}

fn rebuilt(all: [Option<Testimony>; 3]) -> Result<Rebuilding, NotRebuilt> {
    rebuild(&members(all), &Watermark::default(), SynchronousMode::On, false)
}

/// The fault that this is for: b was away while a and c went on, and the DCS is back at a copy that names b.
#[test]
fn the_newest_sync_decides_and_not_who_is_further() {
    let b = says(5, 40, &["a", "b"], 900);
    let (a, c) = (says(5, 60, &["a", "c"], 800), says(5, 60, &["a", "c"], 850));
    let plan = rebuilt([Some(a), Some(b), Some(c)]).unwrap();
    assert_eq!((plan.best, plan.record_of), ("c".into(), "a".into()));
}

#[test]
fn a_member_of_the_newest_sync_that_is_silent_may_have_more() {
    let (b, c) = (says(5, 40, &["a", "b"], 900), says(5, 60, &["a", "c"], 850));
    let all = [None, Some(b), Some(c)];
    let missing = vec![MemberName::from("a")];
    assert_eq!(rebuilt(all.clone()), Err(NotRebuilt::MayLoseCommits { best: "c".into(), missing }));
    let plan = rebuild(&members(all), &Watermark::default(), SynchronousMode::On, true).unwrap();
    assert_eq!((plan.best, plan.may_lose), ("c".into(), vec!["a".into()]));
}

#[test]
fn a_silent_member_that_was_not_promotable_cannot_have_more() {
    let (a, b) = (says(5, 60, &["a", "b"], 800), says(5, 60, &["a", "b"], 850));
    let plan = rebuilt([Some(a), Some(b), None]).unwrap();
    assert_eq!((plan.best, plan.silent, plan.may_lose), ("b".into(), vec!["c".into()], vec![]));
}

/// It stopped in good order, handed the lease to a standby that had everything and was not recorded, and ended.
#[test]
fn whoever_was_handed_the_lease_may_have_more() {
    let a = Testimony { leader: Some("b".into()), ..says(5, 60, &["a"], 800) };
    let missing = vec![MemberName::from("b")];
    assert_eq!(
        rebuilt([Some(a.clone()), None, None]),
        Err(NotRebuilt::MayLoseCommits { best: "a".into(), missing })
    );
    let b = Testimony { leader: Some("b".into()), ..says(6, 61, &["b"], 850) };
    let plan = rebuilt([Some(a), Some(b), None]).unwrap();
    assert_eq!((plan.best, plan.silent), ("b".into(), vec!["c".into()]));
}

#[test]
fn a_later_term_counts_more_than_a_later_sync_of_an_earlier_one() {
    let (a, b) = (says(5, 60, &["a", "b"], 900), says(6, 55, &["b"], 850));
    let plan = rebuilt([Some(a), Some(b), None]).unwrap();
    assert_eq!(plan.best, "b".into());
}

#[test]
fn in_asynchronous_mode_everybody_is_asked_and_the_furthest_is_taken() {
    let (a, b, c) = (says(5, 0, &[], 800), says(5, 0, &[], 850), says(5, 0, &[], 840));
    let asynchronous = |all| rebuild(&members(all), &Watermark::default(), SynchronousMode::Off, false);
    assert_eq!(asynchronous([Some(a.clone()), Some(b.clone()), Some(c)]).unwrap().best, "b".into());
    assert!(matches!(asynchronous([Some(a), Some(b), None]), Err(NotRebuilt::MayLoseCommits { .. })));
}

#[test]
fn terms_and_generations_go_on_from_the_highest_that_anybody_knows() {
    let a = says(5, 60, &["a"], 800);
    let mut b = says(9, 10, &["a"], 100);
    b.watermark.generation = 2;
    let copy = Watermark { generation: 3, term: Term(4), ..Watermark::default() };
    let plan = rebuild(&members([Some(a), Some(b), None]), &copy, SynchronousMode::On, false).unwrap();
    assert_eq!((plan.generation, plan.term_base, plan.record_of), (4, Term(9), "b".into()));
}

#[test]
fn a_member_that_has_other_data_or_none_or_may_not_lead_is_not_taken() {
    let a = Testimony { system: None, ..says(5, 60, &["a", "b"], 0) };
    let b = says(5, 60, &["a", "b"], 700);
    let c = Testimony { system: Some(SystemId(8)), ..says(5, 60, &["a", "b"], 900) };
    let all = [Some(a), Some(b.clone()), Some(c)];
    let missing = vec![MemberName::from("a")];
    assert_eq!(rebuilt(all), Err(NotRebuilt::MayLoseCommits { best: "b".into(), missing }));
    let tagged = Testimony { may_lead: false, ..b };
    assert_eq!(rebuilt([None, Some(tagged), None]), Err(NotRebuilt::NobodyHasData));
}

#[test]
fn nothing_is_rebuilt_under_a_primary_or_from_nothing() {
    let a = Testimony { role: Role::Primary, ..says(5, 60, &["a"], 800) };
    assert_eq!(rebuilt([Some(a), None, None]), Err(NotRebuilt::PrimaryRuns { member: "a".into() }));
    assert_eq!(rebuilt([None, None, None]), Err(NotRebuilt::NothingIsRemembered));
    let fresh = Testimony { watermark: Watermark::default(), ..says(0, 0, &[], 0) };
    assert_eq!(rebuilt([Some(fresh), None, None]), Err(NotRebuilt::NothingIsRemembered));
}
