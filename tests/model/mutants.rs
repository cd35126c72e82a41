//! The same worlds with one rule broken on purpose: the property that guards the rule finds it. Each in the smallest
//! world that does, in which the unbroken decision holds.

use outrider_world::{Fuse, Mutant, Setup, catches, search, search_for};

#[track_caller]
fn caught(mutant: Mutant, setup: Setup) {
    let shipped = search(&setup);
    assert_eq!(shipped.violated, [], "without a mutant nothing is violated in {setup:?}");
    let property = catches(mutant);
    let finding = search_for(&Setup { mutant: Some(mutant), ..setup }, property);
    assert!(
        finding.violated.iter().any(|(name, _)| *name == property),
        "{mutant:?} passed \"{property}\" in {} states",
        finding.unique_states
    );
}

#[test]
fn a_standby_that_is_not_synchronous_must_not_stand() {
    caught(Mutant::StandsUnsynchronous, Setup::new(2, 1, 1));
}

/// With a live fuse this rule only is faster: the fuse has blown before the lease was another's.
#[test]
fn a_primary_without_the_lease_must_step_down() {
    caught(Mutant::NeverStepsDown, Setup { fuse: Fuse::Dead, ..Setup::new(2, 1, 1) });
}

#[test]
fn the_lease_must_be_held_before_a_promotion() {
    caught(Mutant::PromotesFirst, Setup::new(2, 1, 1));
}

#[test]
fn a_fuse_that_blows_must_stop_a_writable_postgres() {
    caught(Mutant::FuseIgnored, Setup::new(2, 1, 1));
}

#[test]
fn sync_must_be_relaxed_before_the_setting() {
    caught(Mutant::RelaxesSettingFirst, Setup::new(2, 1, 2));
}

#[test]
fn a_standby_must_prove_that_it_has_everything_before_it_is_recorded() {
    caught(Mutant::RecordsWithoutProof, Setup::new(2, 1, 1));
}

#[test]
fn the_lease_must_be_taken_on_the_sync_that_was_seen() {
    caught(Mutant::TakesLeaseBlindly, Setup::new(2, 1, 2));
}

#[test]
fn a_new_primary_must_strike_the_others_from_sync_first() {
    caught(Mutant::PromotesWithoutRecord, Setup::new(2, 1, 2));
}

#[test]
fn a_promotion_that_has_ended_must_not_be_taken_back() {
    caught(Mutant::PutsBackAfterServing, Setup { promotions_fail: true, ..Setup::new(2, 1, 2) });
}

#[test]
fn a_revived_primary_must_wait_for_whom_sync_names() {
    caught(Mutant::RevivesWaitingForNobody, Setup::new(2, 1, 2));
}

#[test]
fn a_free_lease_must_be_reclaimed_only_when_nobody_led_in_between() {
    caught(Mutant::ReclaimsBlindly, Setup { fuse: Fuse::Dead, ..Setup::new(2, 1, 2) });
}

#[test]
fn a_restarted_agent_must_set_anew_whom_commits_wait_for() {
    caught(Mutant::TrustsItsMemory, Setup { losses: true, ..Setup::new(2, 1, 1) });
}

#[test]
fn a_diverged_standby_must_not_go_on_following() {
    caught(Mutant::FollowsDiverged, Setup::new(2, 1, 1));
}

#[test]
fn a_new_primary_must_record_where_its_timeline_began() {
    caught(Mutant::KeepsHistoryToItself, Setup::new(2, 1, 1));
}

#[test]
fn a_member_that_a_failover_names_must_not_pass_over_whoever_has_more() {
    caught(Mutant::PassesOver, Setup { failovers: 1, ..Setup::new(2, 1, 1) });
}

#[test]
fn a_switchover_must_hand_over_only_to_who_has_replayed() {
    caught(Mutant::HandsOverUnreplayed, Setup { requests: 1, late_replay: true, ..Setup::new(2, 1, 0) });
}

#[test]
fn a_primary_that_does_not_answer_must_not_be_taken_for_one_that_has_stopped() {
    caught(Mutant::TakesSilenceForDeath, Setup { slow: true, ..Setup::new(2, 1, 1) });
}

#[test]
fn what_a_broken_off_rewind_has_left_must_not_be_started() {
    caught(Mutant::StartsHalfRewound, Setup { broken_data: true, ..Setup::new(2, 1, 2) });
}

#[test]
fn a_member_without_data_must_not_make_a_cluster_beside_the_one_there_is() {
    caught(Mutant::MakesAnotherCluster, Setup { broken_data: true, ..Setup::new(2, 1, 1) });
}

#[test]
fn keys_must_be_written_anew_only_when_every_member_finds_none() {
    caught(Mutant::RecreatesUnasked, Setup { led_elsewhere: true, ..Setup::new(2, 1, 0) });
}

/// The agent refuses its own plan.
#[test]
fn keys_must_be_written_anew_only_while_the_fuse_lives() {
    caught(Mutant::RecreatesWithoutFuse, Setup { led_elsewhere: true, ..Setup::new(2, 0, 1) });
}

#[test]
fn keys_must_be_rebuilt_for_who_has_seen_the_most() {
    caught(Mutant::RebuildsOnLess, Setup { restores: true, rebuilds: true, ..Setup::new(2, 1, 2) });
}

#[test]
fn data_must_be_swapped_only_when_nobody_else_may_be_promoted() {
    caught(Mutant::SwapsBeforeRelaxing, Setup { rollbacks: 1, ..Setup::new(2, 1, 1) });
}

#[test]
fn nobody_must_stand_while_the_lost_leader_may_have_swapped_its_data() {
    caught(Mutant::StandsDuringSwap, Setup { rollbacks: 1, synchronous: false, ..Setup::new(2, 1, 1) });
}

#[test]
fn whoever_lacks_the_timeline_of_a_rollback_must_not_stand() {
    caught(Mutant::ForgetsTheSwap, Setup { rollbacks: 1, synchronous: false, ..Setup::new(2, 1, 1) });
}

#[test]
fn a_member_must_not_be_restarted_while_another_is_down() {
    caught(Mutant::RestartsTogether, Setup { restarts: 1, ..Setup::new(2, 0, 1) });
}

#[test]
fn a_primary_must_not_be_restarted_while_a_standby_can_lead() {
    caught(Mutant::RestartsThePrimary, Setup { restarts: 1, ..Setup::new(2, 0, 0) });
}

#[test]
fn a_primary_with_lowered_settings_must_be_restarted_first() {
    caught(Mutant::IgnoresTheOrder, Setup { restarts: 1, ..Setup::new(2, 0, 0) });
}

/// The copy names a standby that had been replaced since, or a primary that had gone on alone.
#[test]
fn nobody_must_stand_while_a_member_that_answers_has_seen_more_of_the_dcs() {
    caught(Mutant::IgnoresWhoKnowsMore, Setup { restores: true, ..Setup::new(2, 1, 2) });
}

#[test]
fn whoever_has_not_entered_must_take_no_part() {
    caught(Mutant::ActsFromOutside, Setup { enters: true, ..Setup::new(2, 1, 1) });
}

#[test]
fn the_fuse_must_be_shortened_before_the_lease() {
    caught(Mutant::ShortensLeaseFirst, Setup { shortens: true, ..Setup::new(2, 1, 1) });
}
