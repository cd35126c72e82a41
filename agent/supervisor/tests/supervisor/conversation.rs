//! The protocol under bad input: an error reply or a closed connection, never a crash, and others are not harmed.

use std::time::Duration;

use outrider_supervisor::protocol::{Command, LINE_LIMIT, Message, RefusalCode, VERSION};

use crate::agent::Agent;
use crate::member::{Member, wait_until};

fn refusal(agent: &mut Agent) -> (u64, RefusalCode) {
    match agent.read() {
        Some(Message::Reply(reply)) => (reply.id, reply.error.expect("a refusal").code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_malformed_line_is_refused_and_the_connection_goes_on() {
    let member = Member::new();
    let mut agent = member.agent();
    let nested = format!("{}{}\n", "[".repeat(20_000), "]".repeat(20_000));
    let lines: [(&[u8], u64, RefusalCode); 11] = [
        (b"\n", 0, RefusalCode::BadRequest),
        (b"hello\n", 0, RefusalCode::BadRequest),
        (b"{\"id\":1\n", 0, RefusalCode::BadRequest),
        (b"\xff\xfe\x00\n", 0, RefusalCode::BadRequest),
        (b"[]\n", 0, RefusalCode::BadRequest),
        (nested.as_bytes(), 0, RefusalCode::BadRequest),
        (b"{\"command\":\"status\"}\n", 0, RefusalCode::BadRequest),
        (b"{\"id\":3}\n", 3, RefusalCode::BadRequest),
        (b"{\"id\":4,\"command\":\"arm_fuse\",\"term\":-1}\n", 4, RefusalCode::BadRequest),
        (b"{\"id\":5,\"command\":\"stop\",\"mode\":\"gently\"}\n", 5, RefusalCode::BadRequest),
        (b"{\"id\":6,\"command\":\"dance\",\"with\":[]}\n", 6, RefusalCode::UnknownCommand),
    ];
    for (line, id, code) in lines {
        agent.write(line).unwrap();
        assert_eq!(refusal(&mut agent), (id, code), "{}", String::from_utf8_lossy(line));
    }
    assert_eq!(agent.status().postmaster, None);
}

#[test]
fn a_refusal_that_quotes_a_long_request_still_fits_in_a_line() {
    let member = Member::new();
    let mut agent = member.agent();
    agent.arm(Duration::from_secs(600));
    let arguments = vec![format!("-D{}", "\u{1}".repeat(9_000))];
    assert_eq!(agent.refused(Command::Start { writable: true, arguments }), RefusalCode::BadArgument);
}

#[test]
fn a_line_over_the_limit_closes_the_connection_and_no_other() {
    let member = Member::new();
    let mut bystander = member.agent();
    let mut agent = member.agent();
    // Whether all of it could still be written when the supervisor hung up does not matter.
    let _ = agent.write(&vec![b' '; LINE_LIMIT + 1]);
    assert_eq!(agent.read(), None);
    assert_eq!(bystander.status().postmaster, None);
}

#[test]
fn a_line_up_to_the_limit_is_read() {
    let member = Member::new();
    let mut agent = member.agent();
    let mut line = b"{\"id\":9,\"command\":\"dance\"}".to_vec();
    line.resize(LINE_LIMIT - 1, b' ');
    line.push(b'\n');
    agent.write(&line).unwrap();
    assert_eq!(refusal(&mut agent), (9, RefusalCode::UnknownCommand));
}

#[test]
fn hello_comes_first_and_in_the_right_version() {
    let member = Member::new();
    let mut agent = member.silent_agent();
    assert_eq!(agent.refused(Command::Status), RefusalCode::HelloFirst);
    assert_eq!(agent.refused(Command::Hello { version: VERSION + 1 }), RefusalCode::Version);
    assert_eq!(agent.read(), None);
    member.agent();
}

#[test]
fn more_connections_than_there_may_be_are_refused_until_one_goes() {
    let member = Member::new();
    let mut first = member.agent();
    let mut others: Vec<Agent> = (0..7).map(|_| member.agent()).collect();
    let mut refused = member.silent_agent();
    // It may already be closed when this is written.
    let _ = refused.write(b"{\"id\":1,\"command\":\"status\"}\n");
    assert_eq!(refused.read(), None);
    others.pop();
    wait_until("there is room again", || {
        let mut agent = member.silent_agent();
        agent.write(b"{\"id\":1,\"command\":\"hello\",\"version\":1}\n").is_ok() && agent.read().is_some()
    });
    assert_eq!(first.status().postmaster, None);
}

#[test]
fn an_agent_that_never_reads_is_dropped_and_the_others_are_served() {
    let member = Member::new();
    let mut bystander = member.agent();
    let mut deaf = member.agent();
    // Ends when the supervisor has dropped it: what it writes is then refused.
    while deaf.write(b"{\"id\":1,\"command\":\"status\"}\n").is_ok() {}
    assert_eq!(bystander.status().postmaster, None);
}

#[test]
fn requests_sent_together_are_answered_in_order() {
    let member = Member::new();
    let mut agent = member.agent();
    let ids: Vec<u64> = (0..200).map(|_| agent.post(Command::Status)).collect();
    for id in ids {
        assert!(agent.reply(id).is_ok());
    }
}
