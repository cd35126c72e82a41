//! What outlives what: an agent's death is nothing to Postgres, the postmaster's and the supervisor's are its end.

use std::fs;
use std::process::Command as Process;
use std::time::Duration;

use outrider_bed::{PROGRAM_LIMIT, finish};
use outrider_supervisor::boottime_ns;
use outrider_supervisor::protocol::{Answer, Command, Event, Exit, RefusalCode, StopMode, Tool};

use crate::agent::Agent;
use crate::member::{
    How, Killed, Member, postgres_uid, signal, state_and_parent, uid_of, wait_until, we_are_root,
};

#[test]
fn an_agent_that_goes_and_comes_back_finds_the_same_postgres() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    let before = member.sql("select pg_postmaster_start_time()").unwrap();
    drop(agent);
    assert_eq!(member.sql("select pg_postmaster_start_time()"), Some(before.clone()));
    let status = member.agent().status();
    assert_eq!(status.postmaster.map(|it| (it.pid, it.writable)), Some((postmaster, true)));
    assert!(status.fuse.is_some_and(|fuse| !fuse.expired && fuse.term == 1));
    assert_eq!(member.sql("select pg_postmaster_start_time()"), Some(before));
}

#[test]
fn a_killed_postmaster_is_told_at_once_and_nothing_of_it_is_left() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    let _sessions = member.keep_busy();
    signal(postmaster, libc::SIGKILL);
    let exit = Exit::Signal(libc::SIGKILL);
    match agent.event() {
        Event::PostmasterDied { pid, exit: how, expected: false, .. } => {
            assert_eq!((pid, how), (postmaster, exit));
        }
        other => panic!("{other:?}"),
    }
    match agent.event() {
        Event::PostmasterExited { pid, exit: how, expected: false, .. } => {
            assert_eq!((pid, how), (postmaster, exit));
        }
        other => panic!("{other:?}"),
    }
    assert!(member.processes().is_empty());
    // Its fuse did not blow: it may be started again under the same lease.
    member.start(&mut agent, true);
}

#[test]
fn a_postmaster_that_a_signal_stopped_is_shown_so_until_it_goes_on() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    let frozen_ns = |agent: &mut Agent| agent.status().postmaster.and_then(|it| it.frozen_ns);
    assert_eq!(frozen_ns(&mut agent), None);
    let before = boottime_ns();
    signal(postmaster, libc::SIGSTOP);
    wait_until("it is seen to stand still", || frozen_ns(&mut agent).is_some());
    assert!(frozen_ns(&mut agent).is_some_and(|since| (before..boottime_ns()).contains(&since)));
    signal(postmaster, libc::SIGCONT);
    wait_until("it is seen to go on", || frozen_ns(&mut agent).is_none());
    assert_eq!(member.sql("select 1").as_deref(), Some("1"));
    // It is killed as well as any other.
    signal(postmaster, libc::SIGSTOP);
    agent.stop(StopMode::Kill);
    wait_until("nothing of it is left", || agent.status().postmaster.is_none());
    assert!(member.processes().is_empty());
}

#[test]
fn every_stop_mode_ends_postgres_and_the_control_file_tells_which() {
    let member = Member::new();
    let mut agent = member.agent();
    let modes = [
        (StopMode::Fast, Exit::Code(0), "shut down"),
        (StopMode::Immediate, Exit::Code(0), "in production"),
        (StopMode::Kill, Exit::Signal(libc::SIGKILL), "in production"),
    ];
    for (mode, expected_exit, state) in modes {
        let postmaster = member.start_writable(&mut agent);
        assert_eq!(agent.refused(member.start_command(true)), RefusalCode::AlreadyRunning);
        let _sessions = member.keep_busy();
        agent.stop(mode);
        let died = agent.event();
        let exited = agent.event();
        assert!(matches!(died, Event::PostmasterDied { expected: true, .. }), "{died:?}");
        match exited {
            Event::PostmasterExited { pid, exit, expected: true, .. } => {
                assert_eq!((pid, exit), (postmaster, expected_exit));
            }
            other => panic!("{other:?}"),
        }
        assert!(member.processes().is_empty());
        assert_eq!(member.control_state(), state);
        assert_eq!(agent.refused(Command::Stop { mode }), RefusalCode::NotRunning);
    }
}

#[test]
fn a_postgres_that_fails_to_start_shows_why() {
    let member = Member::new();
    let mut agent = member.agent();
    agent.arm(Duration::from_secs(600));
    let arguments = vec!["-c".to_owned(), "no_such_setting=on".to_owned()];
    assert!(agent.ask(Command::Start { writable: true, arguments }).is_ok());
    let died = agent.event();
    assert!(matches!(died, Event::PostmasterDied { expected: false, exit: Exit::Code(1), .. }), "{died:?}");
    assert!(matches!(agent.event(), Event::PostmasterExited { .. }));
    let tail = agent.status().log_tail.join("\n");
    assert!(tail.contains("no_such_setting"), "{tail}");
    assert!(member.log().contains("no_such_setting"));
}

#[test]
fn a_reload_makes_postgres_read_its_configuration() {
    let member = Member::new();
    let mut agent = member.agent();
    assert_eq!(agent.refused(Command::Reload), RefusalCode::NotRunning);
    member.start_writable(&mut agent);
    fs::write(member.data_directory.join("postgresql.conf"), "work_mem = '5MB'\n").unwrap();
    assert_eq!(agent.ask(Command::Reload), Ok(Answer::Done));
    wait_until("the setting is in force", || member.sql("show work_mem").as_deref() == Some("5MB"));
}

#[test]
fn a_terminated_supervisor_stops_postgres_cleanly() {
    let mut member = Member::new();
    let mut agent = member.agent();
    member.start_writable(&mut agent);
    let _sessions = member.keep_busy();
    drop(agent);
    signal(member.supervisor_pid(), libc::SIGTERM);
    assert_eq!(member.supervisor_exit().code(), Some(0));
    assert!(member.processes().is_empty());
    assert_eq!(member.control_state(), "shut down");
    assert!(!member.socket.exists());
}

#[test]
fn an_agent_has_time_to_hand_over_and_a_last_question_before_the_supervisor_ends() {
    let mut member = Member::new();
    let mut agent = member.agent();
    member.start_writable(&mut agent);
    signal(member.supervisor_pid(), libc::SIGTERM);
    let event = agent.event();
    assert_eq!(event, Event::Terminating { handover_ms: 30_000, grace_ms: 120_000 });
    assert!(agent.status().terminating);
    assert_eq!(member.sql("create table written (it int)").as_deref(), Some(""));
    agent.stop(StopMode::Fast);
    assert!(matches!(agent.event(), Event::PostmasterDied { expected: true, .. }));
    assert!(matches!(agent.event(), Event::PostmasterExited { .. }));
    let data_directory = member.data_directory.display().to_string();
    agent.run_tool(Tool::PgControldata, &["-D", &data_directory]);
    assert_eq!(agent.refused(member.start_command(true)), RefusalCode::Terminating);
    let (end, lines) = agent.event_after_output();
    assert!(matches!(end, Event::ToolExited { exit: Exit::Code(0), .. }), "{end:?}");
    assert!(lines.iter().any(|line| line.contains("Database cluster state:") && line.ends_with("shut down")));
    drop(agent);
    assert_eq!(member.supervisor_exit().code(), Some(0));
}

#[test]
fn an_agent_that_does_nothing_does_not_hold_up_the_end() {
    let times = How { handover: Duration::from_millis(200), grace: Duration::from_secs(60), as_root: false };
    let mut member = Member::with(times);
    let mut agent = member.agent();
    member.start_writable(&mut agent);
    signal(member.supervisor_pid(), libc::SIGTERM);
    assert_eq!(member.supervisor_exit().code(), Some(0));
    assert_eq!(member.control_state(), "shut down");
}

#[test]
fn a_postgres_that_does_not_stop_is_killed_within_the_grace_period() {
    let times = How { handover: Duration::from_millis(100), grace: Duration::from_secs(1), as_root: false };
    let mut member = Member::with(times);
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    signal(postmaster, libc::SIGSTOP);
    drop(agent);
    signal(member.supervisor_pid(), libc::SIGTERM);
    assert_eq!(member.supervisor_exit().code(), Some(0));
    assert!(member.processes().is_empty());
}

#[test]
fn a_killed_supervisor_takes_postgres_with_it() {
    let mut member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    let _sessions = member.keep_busy();
    signal(member.supervisor_pid(), libc::SIGKILL);
    member.supervisor_exit();
    wait_until("Postgres is gone", || member.processes().is_empty());
    assert_eq!(state_and_parent(postmaster).filter(|(state, _)| state != "Z"), None);
}

#[test]
fn a_second_supervisor_on_the_same_data_directory_is_refused() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    let mut second = member.second_supervisor();
    wait_until("the second ends", || second.try_wait().unwrap().is_some());
    assert_eq!(second.wait().unwrap().code(), Some(3));
    let log = member.log();
    assert!(log.contains("another supervisor guards"), "{log}");
    assert_eq!(agent.status().postmaster.map(|it| it.pid), Some(postmaster));
}

#[test]
fn a_postgres_that_somebody_else_started_is_left_alone_and_not_joined() {
    let member = Member::new();
    let mut agent = member.agent();
    agent.arm(Duration::from_secs(600));
    let elsewhere = member.stranger();
    let pid = elsewhere.pid();
    wait_until("the stranger works in the data directory", || member.processes().contains(&pid));
    assert_eq!(agent.refused(member.start_command(true)), RefusalCode::ForeignPostgres);
    assert!(member.processes().contains(&pid));
    drop::<Killed>(elsewhere);
    wait_until("the stranger is gone", || member.processes().is_empty());
    member.start(&mut agent, true);
}

#[test]
fn an_empty_lock_file_that_a_crash_left_keeps_no_postgres_from_starting() {
    let member = Member::new();
    let mut agent = member.agent();
    let path = member.data_directory.join("postmaster.pid");
    fs::write(&path, "").unwrap();
    member.start_writable(&mut agent);
    assert!(fs::metadata(&path).unwrap().len() > 0);
}

#[test]
fn a_supervisor_that_is_root_runs_postgres_as_the_owner_of_the_data_directory() {
    let member = Member::with(How { as_root: true, ..How::default() });
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    // Where the tests are not run as root, the same holds with one user for all three.
    let expected = if we_are_root() { 0 } else { postgres_uid() };
    assert_eq!(uid_of(member.supervisor_pid()), expected);
    assert_eq!(uid_of(postmaster), postgres_uid());
    let groups = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("Groups:")).unwrap();
        let mut groups: Vec<u32> =
            line.split_whitespace().skip(1).map(|group| group.parse().unwrap()).collect();
        groups.sort_unstable();
        groups
    };
    let mut id = Process::new("id");
    let known = finish(id.args(["-G", &postgres_uid().to_string()]), PROGRAM_LIMIT).unwrap();
    let known = String::from_utf8(known.stdout).unwrap();
    let mut known: Vec<u32> = known.split_whitespace().map(|group| group.parse().unwrap()).collect();
    known.sort_unstable();
    if we_are_root() {
        assert_eq!(groups(postmaster), known);
    }
    let deadline = agent.arm(Duration::from_millis(100));
    assert!(matches!(agent.event(), Event::PostmasterDied { .. }));
    assert!(matches!(agent.event(), Event::PostmasterExited { .. }));
    assert!(matches!(agent.event(), Event::Fenced { deadline_ns, .. } if deadline_ns == deadline));
    assert!(member.processes().is_empty());
}
