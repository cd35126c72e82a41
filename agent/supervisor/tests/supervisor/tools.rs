//! PostgreSQL's own programs, run by the supervisor: their output, their end, and that cancelling reaches all.

use std::time::Duration;

use outrider_supervisor::protocol::{Answer, Command, Event, Exit, RefusalCode, StopMode, Tool};

use crate::member::{Member, all_pids, copy, state_and_parent, wait_until};

#[test]
fn a_tool_streams_its_output_and_tells_its_end() {
    let member = Member::new();
    let mut agent = member.agent();
    let fresh = member.directory.path().join("fresh").display().to_string();
    let pid = agent.run_tool(Tool::Initdb, &["-D", &fresh, "-A", "trust", "-N"]);
    assert_eq!(agent.refused(member.start_command(false)), RefusalCode::ToolRunning);
    let second = Command::RunTool { tool: Tool::PgControldata, arguments: vec![], environment: vec![] };
    assert_eq!(agent.refused(second), RefusalCode::ToolRunning);
    let (end, lines) = agent.event_after_output();
    match end {
        Event::ToolExited { pid: ended, exit: Exit::Code(0), tail } => {
            assert_eq!(ended, pid);
            assert!(lines.ends_with(&tail) && !tail.is_empty(), "{tail:?}\n{lines:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(lines.iter().any(|line| line.contains("creating configuration files")), "{lines:?}");
    assert_eq!(agent.status().tool, None);
    let _ = agent.run_tool(Tool::PgControldata, &["-D", &fresh]);
    let (_, lines) = agent.event_after_output();
    assert!(lines.iter().any(|line| line.starts_with("Database system identifier")), "{lines:?}");
}

#[test]
fn a_tool_that_fails_tells_its_status_and_last_words() {
    let member = Member::new();
    let mut agent = member.agent();
    agent.run_tool(Tool::PgControldata, &["-D", "/nowhere/at/all"]);
    let (end, _) = agent.event_after_output();
    match end {
        Event::ToolExited { exit: Exit::Code(1), tail, .. } => {
            assert!(tail.join("\n").contains("/nowhere/at/all"), "{tail:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_of_the_environment_decides_for_postgres() {
    let member = Member::new();
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    let environment = std::fs::read(format!("/proc/{postmaster}/environ")).unwrap();
    let names: Vec<&[u8]> =
        environment.split(|byte| *byte == 0).filter(|name| name.starts_with(b"PG")).collect();
    // What it sets itself is for its own children.
    let foreign: Vec<&&[u8]> = names.iter().filter(|name| !name.starts_with(b"PG_")).collect();
    assert!(foreign.is_empty(), "{:?}", String::from_utf8_lossy(&environment));
}

#[test]
fn a_cancelled_tool_is_killed_with_its_children_and_postgres_is_not() {
    let member = Member::new();
    let mut agent = member.agent();
    assert_eq!(agent.refused(Command::CancelTool), RefusalCode::NoTool);
    let postmaster = member.start_writable(&mut agent);
    let clone = member.directory.path().join("clone").display().to_string();
    let sockets = member.directory.path().display().to_string();
    // So slow that it does not end by itself; it forks a child that streams the WAL.
    let arguments =
        ["-D", &clone, "-h", &sockets, "-U", "postgres", "-X", "stream", "-c", "fast", "-r", "32k"];
    let tool = agent.run_tool(Tool::PgBasebackup, &arguments);
    let child_of_tool = || {
        all_pids().into_iter().find(|&pid| state_and_parent(pid).is_some_and(|(_, parent)| parent == tool))
    };
    wait_until("the tool has a child", || child_of_tool().is_some());
    let child = child_of_tool().unwrap();
    assert_eq!(agent.status().tool.map(|it| (it.pid, it.cancelled)), Some((tool, false)));
    assert_eq!(agent.ask(Command::CancelTool), Ok(Answer::Done));
    let (end, _) = agent.event_after_output();
    assert!(matches!(end, Event::ToolExited { pid, exit: Exit::Signal(libc::SIGKILL), .. } if pid == tool));
    assert_eq!((state_and_parent(tool), state_and_parent(child)), (None, None));
    assert_eq!(agent.status().postmaster.map(|it| (it.pid, it.stopping)), Some((postmaster, false)));
    assert_eq!(member.sql("select 1").as_deref(), Some("1"));
}

#[test]
fn a_fencing_spares_the_tool() {
    let member = Member::new();
    let mut agent = member.agent();
    member.start_writable(&mut agent);
    let _ = agent.arm(Duration::from_millis(200));
    let mut sparing = Vec::new();
    // Reads its own data directory at the time of the fencing: it is not Postgres and cannot write.
    agent.run_tool(Tool::PgWaldump, &["--follow", "-p", &wal_directory(&member), "-s", "0/1000028"]);
    loop {
        match agent.event() {
            Event::ToolOutput { .. } => {}
            event @ Event::Fenced { .. } => {
                sparing.push(event);
                break;
            }
            event => sparing.push(event),
        }
    }
    assert!(
        matches!(sparing[..], [Event::PostmasterDied { .. }, Event::PostmasterExited { .. }, _]),
        "{sparing:?}"
    );
    assert!(agent.status().tool.is_some());
    assert!(member.processes().is_empty());
    assert_eq!(agent.ask(Command::CancelTool), Ok(Answer::Done));
    assert!(matches!(agent.event_after_output().0, Event::ToolExited { .. }));
}

#[test]
fn a_single_user_postgres_recovers_what_a_crash_left() {
    let member = Member::new();
    let mut agent = member.agent();
    member.start_writable(&mut agent);
    let single = Command::RunTool { tool: Tool::PostgresSingleUser, arguments: vec![], environment: vec![] };
    assert_eq!(agent.refused(single), RefusalCode::AlreadyRunning);
    agent.stop(StopMode::Kill);
    assert!(matches!(agent.event(), Event::PostmasterDied { .. }));
    assert!(matches!(agent.event(), Event::PostmasterExited { .. }));
    agent.run_tool(Tool::PostgresSingleUser, &["postgres"]);
    let (end, lines) = agent.event_after_output();
    assert!(matches!(end, Event::ToolExited { exit: Exit::Code(0), .. }), "{end:?} {lines:?}");
    assert_eq!(member.control_state(), "shut down");
}

#[test]
fn a_recovery_beside_a_running_postgres_gives_way_to_the_next_tool() {
    let member = Member::new();
    let beside = outrider_supervisor::rollback_directory(&member.data_directory);
    copy(&member.data_directory, &beside);
    let mut agent = member.agent();
    let postmaster = member.start_writable(&mut agent);
    std::fs::write(beside.join("recovery.signal"), "").unwrap();
    // It asks for a history first, and never gets an answer.
    agent.run_tool(Tool::PostgresRecovery, &["-c", "restore_command=sleep 600", "template1"]);
    let asked = Command::RunTool { tool: Tool::PostgresRecovery, arguments: vec![], environment: vec![] };
    assert_eq!(agent.refused(asked), RefusalCode::ToolRunning, "not to another of its kind");
    assert_eq!(agent.status().tool.map(|it| it.cancelled), Some(false));
    let next = Command::RunTool { tool: Tool::PgControldata, arguments: vec![], environment: vec![] };
    assert_eq!(agent.refused(next), RefusalCode::ToolRunning);
    let (end, _) = agent.event_after_output();
    assert!(matches!(end, Event::ToolExited { exit: Exit::Signal(9), .. }), "{end:?}");
    agent.run_tool(Tool::PgControldata, &["-D", &member.data_directory.display().to_string()]);
    assert!(matches!(agent.event_after_output().0, Event::ToolExited { exit: Exit::Code(0), .. }));
    assert_eq!(agent.status().postmaster.map(|it| it.pid), Some(postmaster));
}

#[test]
fn the_environment_of_a_tool_is_what_was_given() {
    let member = Member::new();
    let mut agent = member.agent();
    member.start_writable(&mut agent);
    // pg_basebackup reads the host from it, and names it when nobody listens there.
    let run = |host: &str| Command::RunTool {
        tool: Tool::PgBasebackup,
        arguments: vec!["-D".to_owned(), "/nowhere/clone".to_owned()],
        environment: vec![("PGHOST".to_owned(), host.to_owned())],
    };
    assert!(agent.ask(run("/nowhere/given")).is_ok());
    let (end, lines) = agent.event_after_output();
    assert!(matches!(end, Event::ToolExited { exit: Exit::Code(1), .. }), "{end:?}");
    assert!(lines.iter().any(|line| line.contains("/nowhere/given")), "{lines:?}");
    let bad = Command::RunTool {
        tool: Tool::PgControldata,
        arguments: vec![],
        environment: vec![("a=b".to_owned(), String::new())],
    };
    assert_eq!(agent.refused(bad), RefusalCode::SpawnFailed);
}

fn wal_directory(member: &Member) -> String {
    member.data_directory.join("pg_wal").display().to_string()
}
