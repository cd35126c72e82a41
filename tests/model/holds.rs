//! What the shipped decision promises, in whole worlds. The numbers of states are pinned: a world that has become smaller
//! or larger was changed, and whoever changes it says so here.

use outrider_world::{ALL_BACK, FAILOVER, Fuse, ROLLBACK, SWITCHOVER, Setup, search};

/// Searches all of it: nothing is violated, and what must be reachable is, so that the rest does not hold for nothing.
#[track_caller]
fn holds(setup: &Setup, unique_states: usize, reached: &[&str]) {
    let finding = search(setup);
    if let Some((property, trace)) = finding.violated.first() {
        panic!("{setup:?}\nviolates \"{property}\" after\n{trace}");
    }
    assert_eq!(finding.reached, reached, "{setup:?}");
    assert_eq!(finding.unique_states, unique_states, "{setup:?}");
}

#[test]
fn two_nodes_survive_three_faults() {
    holds(&Setup::new(2, 2, 3), 3_390_625, &[FAILOVER, ALL_BACK]);
}

#[test]
fn three_nodes_survive_two_faults() {
    holds(&Setup::new(3, 1, 2), 2_032_792, &[FAILOVER]);
}

#[test]
fn three_nodes_survive_two_faults_with_two_synchronous_standbys() {
    let setup = Setup { synchronous_node_count: 2, ..Setup::new(3, 1, 2) };
    holds(&setup, 4_038_904, &[FAILOVER]);
}

/// An agent whose turn does not come is frozen. Its fuse blows before its lease is another's.
#[test]
fn a_frozen_agent_costs_a_failover_and_no_second_primary() {
    let setup = Setup { early_reads: true, ..Setup::new(2, 2, 2) };
    holds(&setup, 794_359, &[FAILOVER, ALL_BACK]);
}

/// The whole node is frozen and its lease runs out; then it wakes, with a writable Postgres, and goes on where it was.
#[test]
fn a_frozen_node_of_two_loses_no_acknowledged_commit() {
    let setup = Setup { fuse: Fuse::Dead, ..Setup::new(2, 2, 3) };
    holds(&setup, 1_941_350, &[FAILOVER, ALL_BACK]);
}

#[test]
fn a_frozen_node_of_three_loses_no_acknowledged_commit() {
    let setup = Setup { fuse: Fuse::Dead, ..Setup::new(3, 1, 2) };
    holds(&setup, 1_128_296, &[FAILOVER]);
}

#[test]
fn a_frozen_node_that_acts_on_what_it_read_long_ago_loses_no_acknowledged_commit() {
    let setup = Setup { fuse: Fuse::Dead, early_reads: true, ..Setup::new(2, 1, 2) };
    holds(&setup, 128_808, &[FAILOVER, ALL_BACK]);
}

#[test]
fn in_asynchronous_mode_two_nodes_have_one_writable_primary() {
    let setup = Setup { synchronous: false, early_reads: true, ..Setup::new(2, 2, 2) };
    holds(&setup, 1_111_140, &[FAILOVER, ALL_BACK]);
}

#[test]
fn in_asynchronous_mode_three_nodes_have_one_writable_primary() {
    let setup = Setup { synchronous: false, ..Setup::new(3, 1, 2) };
    holds(&setup, 2_386_510, &[FAILOVER]);
}

#[test]
fn three_agents_that_read_early_decide_as_well() {
    let setup = Setup { early_reads: true, ..Setup::new(3, 1, 1) };
    holds(&setup, 286_614, &[FAILOVER]);
}

#[test]
fn two_members_that_publish_late_decide_as_well() {
    let setup = Setup { late_members: true, ..Setup::new(2, 1, 2) };
    holds(&setup, 1_163_952, &[FAILOVER, ALL_BACK]);
}

#[test]
fn three_members_that_publish_late_decide_as_well() {
    let setup = Setup { late_members: true, ..Setup::new(3, 1, 1) };
    holds(&setup, 458_600, &[FAILOVER]);
}

#[test]
fn a_frozen_node_among_members_that_read_early_and_publish_late_loses_no_acknowledged_commit() {
    let setup = Setup { fuse: Fuse::Dead, early_reads: true, late_members: true, ..Setup::new(2, 1, 2) };
    holds(&setup, 924_638, &[FAILOVER, ALL_BACK]);
}

#[test]
fn a_node_of_three_that_can_never_be_promoted_loses_no_acknowledged_commit() {
    let setup = Setup { promotions_fail: true, ..Setup::new(3, 1, 2) };
    holds(&setup, 2_399_532, &[FAILOVER]);
}

#[test]
fn the_loss_of_one_node_of_two_is_survived() {
    let setup = Setup { losses: true, ..Setup::new(2, 2, 2) };
    holds(&setup, 239_087, &[FAILOVER, ALL_BACK]);
}

#[test]
fn the_loss_of_two_nodes_of_three_loses_no_acknowledged_commit() {
    let setup = Setup { losses: true, ..Setup::new(3, 1, 2) };
    holds(&setup, 2_174_256, &[FAILOVER]);
}

#[test]
fn a_switchover_among_two_nodes_survives_two_faults() {
    let setup = Setup { requests: 1, ..Setup::new(2, 1, 2) };
    holds(&setup, 1_617_725, &[FAILOVER, SWITCHOVER, ALL_BACK]);
}

#[test]
fn a_switchover_among_three_nodes_survives_a_fault() {
    let setup = Setup { requests: 1, losses: true, ..Setup::new(3, 1, 1) };
    holds(&setup, 5_307_081, &[FAILOVER, SWITCHOVER]);
}

#[test]
fn a_switchover_with_a_dead_fuse_loses_no_acknowledged_commit() {
    let setup = Setup { requests: 1, fuse: Fuse::Dead, ..Setup::new(3, 1, 1) };
    holds(&setup, 3_592_138, &[FAILOVER, SWITCHOVER]);
}

#[test]
fn a_switchover_in_asynchronous_mode_has_one_writable_primary() {
    let setup = Setup { requests: 1, synchronous: false, ..Setup::new(3, 1, 1) };
    holds(&setup, 3_699_808, &[FAILOVER, SWITCHOVER]);
}

#[test]
fn a_node_of_two_that_is_told_to_end_hands_over_and_comes_back() {
    let setup = Setup { terminations: 1, requests: 1, ..Setup::new(2, 1, 1) };
    holds(&setup, 3_032_987, &[FAILOVER, SWITCHOVER]);
}

#[test]
fn nodes_of_three_are_restarted_one_after_the_other_or_together() {
    let setup = Setup { terminations: 2, ..Setup::new(3, 1, 0) };
    holds(&setup, 3_450_618, &[FAILOVER]);
}

#[test]
fn a_node_that_is_told_to_end_while_one_is_frozen_loses_no_acknowledged_commit() {
    let setup = Setup { terminations: 1, fuse: Fuse::Dead, ..Setup::new(2, 1, 1) };
    holds(&setup, 104_580, &[FAILOVER]);
}

#[test]
fn a_node_that_is_told_to_end_in_asynchronous_mode_leaves_one_writable_primary() {
    let setup = Setup { terminations: 1, synchronous: false, ..Setup::new(2, 1, 1) };
    holds(&setup, 220_056, &[FAILOVER]);
}

#[test]
fn a_failover_by_hand_among_two_nodes_loses_no_acknowledged_commit() {
    let setup = Setup { failovers: 1, ..Setup::new(2, 1, 2) };
    holds(&setup, 3_058_408, &[FAILOVER, ALL_BACK]);
}

#[test]
fn a_switchover_to_a_standby_that_replays_late_survives_a_fault() {
    let setup = Setup { requests: 1, late_replay: true, ..Setup::new(2, 1, 1) };
    holds(&setup, 121_097, &[FAILOVER, SWITCHOVER]);
}

#[test]
fn a_postgres_that_does_not_answer_or_stops_slowly_loses_no_acknowledged_commit() {
    let setup = Setup { slow: true, ..Setup::new(2, 1, 3) };
    holds(&setup, 1_129_671, &[FAILOVER, ALL_BACK]);
}

#[test]
fn a_postgres_among_three_that_does_not_answer_loses_no_acknowledged_commit() {
    let setup = Setup { slow: true, ..Setup::new(3, 1, 2) };
    holds(&setup, 2_321_993, &[FAILOVER]);
}

#[test]
fn a_switchover_whose_stop_takes_long_survives_two_faults() {
    let setup = Setup { slow: true, requests: 1, ..Setup::new(2, 1, 2) };
    holds(&setup, 1_842_007, &[FAILOVER, SWITCHOVER, ALL_BACK]);
}

#[test]
fn in_asynchronous_mode_a_postgres_that_does_not_answer_leaves_one_writable_primary() {
    let setup = Setup { slow: true, synchronous: false, ..Setup::new(2, 1, 2) };
    holds(&setup, 96_161, &[FAILOVER, ALL_BACK]);
}

/// It cannot even be killed: its lease runs out, a standby leads, and then it wakes.
#[test]
fn a_postgres_that_cannot_be_killed_and_wakes_up_loses_no_acknowledged_commit() {
    let setup = Setup { slow: true, fuse: Fuse::Dead, ..Setup::new(2, 1, 3) };
    holds(&setup, 657_978, &[FAILOVER, ALL_BACK]);
}

#[test]
fn two_nodes_whose_copies_break_off_and_whose_data_gets_lost_start_only_what_is_whole() {
    let setup = Setup { broken_data: true, ..Setup::new(2, 1, 3) };
    holds(&setup, 1_238_579, &[FAILOVER, ALL_BACK]);
}

#[test]
fn in_asynchronous_mode_nodes_that_lose_their_data_have_one_cluster() {
    let setup = Setup { broken_data: true, synchronous: false, ..Setup::new(2, 1, 2) };
    holds(&setup, 117_336, &[FAILOVER, ALL_BACK]);
}

#[test]
fn three_nodes_that_lose_their_data_have_one_cluster() {
    let setup = Setup { broken_data: true, ..Setup::new(3, 1, 2) };
    holds(&setup, 2_780_051, &[FAILOVER]);
}

/// One after the other: an agent is led astray, or all are because the store was wiped. Nobody ever leads beside the cluster.
#[test]
fn agents_that_are_led_to_an_empty_dcs_make_no_second_primary() {
    let setup = Setup { led_elsewhere: true, rebuilds: true, ..Setup::new(2, 1, 0) };
    holds(&setup, 59_039, &[FAILOVER]);
}

#[test]
fn agents_that_are_led_to_an_empty_dcs_survive_a_fault() {
    let setup = Setup { led_elsewhere: true, rebuilds: true, ..Setup::new(2, 0, 1) };
    holds(&setup, 394_498, &[FAILOVER]);
}

#[test]
fn keys_that_are_rebuilt_after_the_dcs_went_back_lose_no_acknowledged_commit() {
    let setup = Setup { restores: true, rebuilds: true, ..Setup::new(2, 1, 2) };
    holds(&setup, 1_445_798, &[FAILOVER, ALL_BACK]);
}

/// Its leader crashes, loses its lease or its agent at any moment of the swap.
#[test]
fn a_rollback_brings_nothing_back_and_loses_no_acknowledged_commit_before_its_target() {
    let setup = Setup { rollbacks: 1, ..Setup::new(2, 2, 1) };
    holds(&setup, 706_852, &[FAILOVER, ROLLBACK]);
}

#[test]
fn a_rollback_whose_leader_is_lost_in_asynchronous_mode_brings_nothing_back() {
    let setup = Setup { rollbacks: 1, losses: true, synchronous: false, ..Setup::new(2, 1, 1) };
    holds(&setup, 171_521, &[FAILOVER, ROLLBACK]);
}

#[test]
fn a_rollback_whose_leader_is_frozen_brings_nothing_back() {
    let setup = Setup { rollbacks: 1, fuse: Fuse::Dead, ..Setup::new(2, 1, 1) };
    holds(&setup, 114_086, &[FAILOVER, ROLLBACK]);
}

#[test]
fn a_rollback_whose_leader_is_lost_in_synchronous_mode_brings_nothing_back() {
    let setup = Setup { rollbacks: 1, losses: true, ..Setup::new(2, 1, 1) };
    holds(&setup, 195_071, &[FAILOVER, ROLLBACK]);
}

#[test]
fn a_restart_of_two_members_takes_one_down_at_a_time_and_moves_the_primary() {
    let setup = Setup { restarts: 1, ..Setup::new(2, 0, 1) };
    holds(&setup, 200_114, &[FAILOVER]);
}

/// A standby whose turn has begun is promoted before it stops, among others.
#[test]
fn a_restart_of_two_members_survives_two_faults() {
    let setup = Setup { restarts: 1, ..Setup::new(2, 0, 2) };
    holds(&setup, 3_901_767, &[FAILOVER, ALL_BACK]);
}

#[test]
fn a_dcs_that_goes_back_to_an_old_copy_loses_no_acknowledged_commit() {
    let setup = Setup { restores: true, ..Setup::new(2, 1, 2) };
    holds(&setup, 913_661, &[FAILOVER, ALL_BACK]);
}

/// Until its entry stands, an agent that begins only stops Postgres; its lease may run out meanwhile.
#[test]
fn agents_that_enter_late_lose_no_acknowledged_commit() {
    let setup = Setup { enters: true, ..Setup::new(2, 1, 2) };
    holds(&setup, 73_282, &[FAILOVER, ALL_BACK]);
}

#[test]
fn a_ttl_that_is_shortened_leaves_one_writable_primary() {
    let setup = Setup { shortens: true, ..Setup::new(2, 1, 2) };
    holds(&setup, 837_336, &[FAILOVER, ALL_BACK]);
}
