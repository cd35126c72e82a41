//! The fuse with a real Postgres: what it refuses, and that nothing is left when it blows.

use std::time::Duration;

use outrider_supervisor::boottime_ns;
use outrider_supervisor::protocol::{Answer, Command, Event, RefusalCode, StopMode};

use crate::agent::{Agent, from_now};
use crate::member::{Member, all_pids, signal, state_and_parent, wait_until};

const SOON: Duration = Duration::from_millis(300);

/// The three events of a fencing, in their order, and that they agree with each other.
fn expect_fencing(agent: &mut Agent, postmaster: i32, deadline_ns: u64) {
    let died = agent.event();
    assert!(
        matches!(died, Event::PostmasterDied { pid, expected: true, .. } if pid == postmaster),
        "{died:?}"
    );
    let exited = agent.event();
    assert!(matches!(exited, Event::PostmasterExited { pid, .. } if pid == postmaster), "{exited:?}");
    match agent.event() {
        Event::Fenced { term: 1, deadline_ns: fenced_ns, at_ns, .. } => {
            assert_eq!(fenced_ns, deadline_ns);
            assert!(at_ns >= deadline_ns);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lapsed_fuse_kills_busy_backends_and_nothing_is_left() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    let _sessions = member.keep_busy();
    let deadline_ns = agent.arm(SOON);
    expect_fencing(&mut agent, postmaster, deadline_ns);
    assert!(member.processes().is_empty());
    let status = agent.status();
    assert_eq!(status.postmaster, None);
    assert!(status.last_exit.is_some_and(|last| last.fenced && last.expected && last.pid == postmaster));
    assert!(status.fuse.is_some_and(|fuse| fuse.expired));
    // What it guarded is gone, so a new lease may begin.
    assert_eq!(agent.refused(member.start_command(true)), RefusalCode::FuseExpired);
    member.start_writable(&mut agent);
}

#[test]
fn a_lapsed_fuse_kills_a_postgres_whose_postmaster_and_backends_are_frozen() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    let _sessions = member.keep_busy();
    member.processes().into_iter().for_each(|pid| signal(pid, libc::SIGSTOP));
    let deadline_ns = agent.arm(SOON);
    expect_fencing(&mut agent, postmaster, deadline_ns);
    assert!(member.processes().is_empty());
}

#[test]
fn an_orphan_that_a_backend_left_in_a_session_of_its_own_is_killed_too() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    member.sql("copy (select 1) to program 'setsid -f sleep 100000 > /dev/null 2>&1'").unwrap();
    let supervisor = member.supervisor_pid();
    let orphan = || {
        let adopted = |pid: &i32| state_and_parent(*pid).is_some_and(|(_, parent)| parent == supervisor);
        all_pids().into_iter().filter(adopted).find(|&pid| pid != postmaster)
    };
    wait_until("the supervisor has adopted the orphan", || orphan().is_some());
    let deadline_ns = agent.arm(SOON);
    expect_fencing(&mut agent, postmaster, deadline_ns);
    assert_eq!(orphan(), None);
}

#[test]
fn a_fuse_that_lapses_during_a_fast_stop_ends_it() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    // With its checkpointer frozen, the shutdown checkpoint never comes.
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let checkpointer = member.processes().into_iter().find(|pid| name(pid).contains("checkpointer")).unwrap();
    signal(checkpointer, libc::SIGSTOP);
    agent.stop(StopMode::Fast);
    let deadline_ns = agent.arm(SOON);
    expect_fencing(&mut agent, postmaster, deadline_ns);
    assert!(member.processes().is_empty());
}

#[test]
fn a_thawed_supervisor_fences_before_it_listens_to_anybody() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    let _sessions = member.keep_busy();
    let deadline_ns = agent.arm(Duration::from_secs(1));
    signal(member.supervisor_pid(), libc::SIGSTOP);
    wait_until("the deadline has passed", || boottime_ns() > deadline_ns);
    assert!(member.processes().contains(&postmaster), "nobody was awake to fence it");
    let id = agent.post(Command::ArmFuse { deadline_ns: from_now(Duration::from_secs(60)), term: 2 });
    signal(member.supervisor_pid(), libc::SIGCONT);
    assert_eq!(agent.reply(id).map_err(|refusal| refusal.code), Err(RefusalCode::FuseExpired));
    expect_fencing(&mut agent, postmaster, deadline_ns);
    assert!(member.processes().is_empty());
}

#[test]
fn an_extended_fuse_does_not_blow_at_its_first_deadline() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    let first_ns = agent.arm(SOON);
    agent.arm(Duration::from_secs(600));
    wait_until("the first deadline has passed", || boottime_ns() > first_ns);
    assert_eq!(member.sql("select 1").as_deref(), Some("1"));
    assert_eq!(agent.status().postmaster.map(|it| it.pid), Some(postmaster));
}

#[test]
fn a_standby_needs_no_fuse_and_outlives_one_that_lapses() {
    let member = Member::new();
    member.make_standby();
    let mut agent = member.agent();
    let postmaster = member.start(&mut agent, false);
    let deadline_ns = agent.arm(Duration::from_millis(50));
    wait_until("the deadline has passed", || boottime_ns() > deadline_ns);
    assert_eq!(member.sql("select pg_is_in_recovery()").as_deref(), Some("t"));
    let status = agent.status();
    assert!(status.fuse.is_some_and(|fuse| fuse.expired));
    assert_eq!(
        status.postmaster.map(|it| (it.pid, it.writable, it.stopping)),
        Some((postmaster, false, false))
    );
}

#[test]
fn a_writable_start_is_refused_without_a_live_fuse() {
    let member = Member::new();
    let mut agent = member.agent();
    assert_eq!(agent.refused(member.start_command(true)), RefusalCode::FuseNotArmed);
    let deadline_ns = agent.arm(Duration::from_millis(50));
    wait_until("the deadline has passed", || boottime_ns() > deadline_ns);
    assert_eq!(agent.refused(member.start_command(true)), RefusalCode::FuseExpired);
    assert!(member.processes().is_empty());
}

#[test]
fn standby_signal_must_agree_with_the_start() {
    let member = Member::new();
    let mut agent = member.agent();
    agent.arm(Duration::from_secs(600));
    assert_eq!(agent.refused(member.start_command(false)), RefusalCode::NoStandbySignal);
    member.make_standby();
    assert_eq!(agent.refused(member.start_command(true)), RefusalCode::StandbySignalPresent);
    assert!(member.processes().is_empty());
}

#[test]
fn a_standby_is_promoted_only_under_a_live_fuse_and_is_guarded_from_then_on() {
    let member = Member::new();
    member.make_standby();
    let mut agent = member.agent();
    let postmaster = member.start(&mut agent, false);
    assert_eq!(agent.refused(Command::Promote), RefusalCode::FuseNotArmed);
    let deadline_ns = agent.arm(Duration::from_millis(50));
    wait_until("the deadline has passed", || boottime_ns() > deadline_ns);
    assert_eq!(agent.refused(Command::Promote), RefusalCode::FuseExpired);
    assert!(!member.data_directory.join("promote").exists());
    assert_eq!(member.sql("select pg_is_in_recovery()").as_deref(), Some("t"));

    agent.arm(Duration::from_secs(600));
    assert_eq!(agent.ask(Command::Promote), Ok(Answer::Done));
    wait_until("it accepts writes", || member.sql("create table written (it int)").is_some());
    assert_eq!(agent.refused(Command::Promote), RefusalCode::AlreadyWritable);
    assert_eq!(agent.status().postmaster.map(|it| (it.pid, it.writable)), Some((postmaster, true)));
    let deadline_ns = agent.arm(SOON);
    expect_fencing(&mut agent, postmaster, deadline_ns);
    assert!(member.processes().is_empty());
}

#[test]
fn a_fuse_of_a_lower_term_or_a_past_deadline_is_refused() {
    let member = Member::new();
    let mut agent = member.agent();
    let later = from_now(Duration::from_secs(60));
    assert!(agent.ask(Command::ArmFuse { deadline_ns: later, term: 5 }).is_ok());
    assert_eq!(agent.refused(Command::ArmFuse { deadline_ns: later, term: 4 }), RefusalCode::TermWentBack);
    assert_eq!(agent.refused(Command::ArmFuse { deadline_ns: 1, term: 5 }), RefusalCode::DeadlinePast);
    let far = from_now(Duration::from_secs(1_000_000));
    assert_eq!(agent.refused(Command::ArmFuse { deadline_ns: far, term: 5 }), RefusalCode::DeadlineTooFar);
    assert_eq!(agent.status().fuse.map(|fuse| (fuse.deadline_ns, fuse.term)), Some((later, 5)));
}

#[test]
fn a_walsender_or_backend_can_be_cut_off_and_a_stranger_cannot() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    let _sessions = member.keep_busy();
    let sleeper = "select pid from pg_stat_activity where query ~ '^select pg_sleep'";
    let sleeper: i32 = member.sql(sleeper).unwrap().parse().unwrap();
    for stranger in [member.supervisor_pid(), std::process::id().cast_signed(), postmaster, -1] {
        assert_eq!(agent.refused(Command::TerminateProcess { pid: stranger }), RefusalCode::NotAChild);
    }
    assert_eq!(agent.ask(Command::TerminateProcess { pid: sleeper }), Ok(Answer::Done));
    wait_until("the session is gone", || state_and_parent(sleeper).is_none());
    assert_eq!(agent.status().postmaster.map(|it| it.pid), Some(postmaster));
}
