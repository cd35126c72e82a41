//! From wherever faults and clients have led to, the cluster can become whole again by itself, in synchronous mode.
//!
//! Not in asynchronous mode: two members that were promoted at the same position, the first gone before it could record
//! its history, have timelines that nothing in a view tells apart.

use outrider_world::{Fuse, Mutant, Setup, search_recovery};

#[track_caller]
fn recovers(setup: &Setup, unique_states: usize) {
    let recovery = search_recovery(setup);
    assert_eq!(recovery.stranded, None, "never whole again in {setup:?}");
    assert_eq!(recovery.unique_states, unique_states, "{setup:?}");
}

#[test]
fn two_nodes_after_two_faults_and_a_switchover() {
    recovers(&Setup { requests: 1, ..Setup::new(2, 1, 2) }, 1_617_725);
}

#[test]
fn three_nodes_after_the_loss_of_one_and_a_switchover() {
    recovers(&Setup { requests: 1, losses: true, ..Setup::new(3, 0, 1) }, 702_577);
}

#[test]
fn three_nodes_that_read_early_after_the_loss_of_one() {
    recovers(&Setup { early_reads: true, losses: true, ..Setup::new(3, 1, 1) }, 290_764);
}

#[test]
fn two_nodes_that_publish_late_after_a_fault_and_a_switchover() {
    recovers(&Setup { late_members: true, requests: 1, ..Setup::new(2, 1, 1) }, 912_580);
}

#[test]
fn two_nodes_after_a_fault_and_a_restart() {
    recovers(&Setup { terminations: 1, ..Setup::new(2, 1, 1) }, 152_901);
}

/// Whoever cannot be promoted lets go of the lease, and of `/sync`.
#[test]
fn two_nodes_of_which_one_can_never_be_promoted() {
    recovers(&Setup { promotions_fail: true, ..Setup::new(2, 1, 2) }, 89_555);
}

#[test]
fn a_member_that_keeps_what_it_took_for_a_promotion_that_failed_strands_the_cluster() {
    let setup = Setup { mutant: Some(Mutant::NeverPutsBack), promotions_fail: true, ..Setup::new(2, 1, 2) };
    assert!(search_recovery(&setup).stranded.is_some());
}

#[test]
fn two_nodes_after_one_was_frozen() {
    recovers(&Setup { fuse: Fuse::Dead, requests: 1, ..Setup::new(2, 1, 1) }, 47_663);
}

#[test]
fn two_nodes_after_a_postgres_did_not_answer() {
    recovers(&Setup { slow: true, ..Setup::new(2, 1, 2) }, 79_847);
}

#[test]
fn two_nodes_after_a_rewind_was_broken_off_or_data_was_lost() {
    recovers(&Setup { broken_data: true, ..Setup::new(2, 1, 2) }, 91_889);
}

#[test]
fn a_standby_that_never_finds_out_that_it_diverged_is_found_to_be_stranded() {
    let setup = Setup { mutant: Some(Mutant::FollowsDiverged), ..Setup::new(2, 1, 1) };
    assert!(search_recovery(&setup).stranded.is_some());
}
