//! What holds for every view, however odd: a plan comes out, it breaks no rule, and it comes out again from the record.

#[path = "properties/any_view.rs"]
mod any_view;

use outrider_ha::{Dcs, Lease, Plan, Postgres, Step, View, decide, invariant, leave, whom_to_ask};
use proptest::prelude::*;

use any_view::any_view;

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_view_has_a_plan_that_breaks_no_rule(view in any_view()) {
        prop_assert_eq!(invariant::check(&view, &decide(&view)), Ok(()));
    }

    #[test]
    fn an_agent_that_ends_breaks_no_rule(view in any_view()) {
        prop_assert_eq!(invariant::check(&view, &leave(&view)), Ok(()));
    }

    #[test]
    fn the_same_view_gives_the_same_plan(view in any_view()) {
        prop_assert_eq!(decide(&view), decide(&view.clone()));
    }

    #[test]
    fn only_a_primary_that_knows_itself_alone_goes_on_without_the_lease(view in any_view()) {
        let Postgres::Primary { .. } = view.local.postgres else { return Ok(()) };
        let leads = matches!(&view.dcs, Dcs::Seen(cluster) if cluster.lease == Lease::Mine);
        let plan = decide(&view);
        let stops = plan.steps.iter().any(|step| matches!(step, Step::Stop(_)));
        let reclaims = plan.steps.iter().any(|step| matches!(step, Step::AcquireLease { .. }));
        let fuse_lives = view.local.fuse.is_some_and(|left| !left.is_zero());
        // Neither a DCS that says nothing nor one that has lost everything names another leader.
        let says_nothing = match &view.dcs {
            Dcs::Silent { .. } => true,
            Dcs::Seen(cluster) => cluster.blank,
        };
        // Whoever has not entered yet reclaims when it has.
        let may_reclaim = reclaims || !view.local.entered;
        let goes_on_rightly = leads || view.job.is_some() || fuse_lives && (may_reclaim || says_nothing);
        prop_assert!(goes_on_rightly || stops);
    }

    #[test]
    fn long_work_is_begun_only_when_none_is_under_way(view in any_view()) {
        let begins: Vec<Step> = decide(&view).steps.into_iter().filter(Step::begins_job).collect();
        prop_assert!(begins.len() <= 1, "{begins:?}");
        // Stopping may interrupt anything.
        let may = view.job.is_none() || begins.iter().all(|step| matches!(step, Step::Stop(_)));
        prop_assert!(may, "{:?} during {:?}", begins, view.job);
    }

    #[test]
    fn only_other_members_are_asked(view in any_view()) {
        for (name, _) in whom_to_ask(&view) {
            prop_assert!(view.member(&name).is_some());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_recorded_view_gives_the_recorded_plan(view in any_view()) {
        let recorded = serde_json::to_string(&view).unwrap();
        let read: View = serde_json::from_str(&recorded).unwrap();
        prop_assert_eq!(&read, &view);
        let plan = decide(&view);
        let recorded: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        prop_assert_eq!(recorded, decide(&read));
    }
}
