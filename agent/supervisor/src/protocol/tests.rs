//! Units of `protocol.rs`.

use super::*;

#[track_caller]
fn check<T>(value: &T, line: &str)
where
    T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(serde_json::to_string(value).unwrap(), line);
    assert_eq!(&serde_json::from_str::<T>(line).unwrap(), value);
}

#[test]
fn requests_look_like_this_on_the_wire() {
    let request = |command| Request { id: 7, command };
    check(&request(Command::Status), r#"{"id":7,"command":"status"}"#);
    check(
        &request(Command::ArmFuse { deadline_ns: u64::MAX, term: 3 }),
        r#"{"id":7,"command":"arm_fuse","deadline_ns":18446744073709551615,"term":3}"#,
    );
    check(
        &request(Command::Start { writable: true, arguments: vec!["-i".to_owned()] }),
        r#"{"id":7,"command":"start","writable":true,"arguments":["-i"]}"#,
    );
    check(&request(Command::Stop { mode: StopMode::Fast }), r#"{"id":7,"command":"stop","mode":"fast"}"#);
    let environment = vec![("PGHOST".to_owned(), "a".to_owned())];
    check(
        &request(Command::RunTool { tool: Tool::PgBasebackup, arguments: Vec::new(), environment }),
        r#"{"id":7,"command":"run_tool","tool":"pg_basebackup","arguments":[],"environment":[["PGHOST","a"]]}"#,
    );
}

#[test]
fn replies_and_events_look_like_this_and_are_told_apart() {
    let done = Reply::new(7, Ok(Answer::Started { pid: 42 }));
    check(&Message::Reply(done), r#"{"id":7,"ok":{"answer":"started","pid":42}}"#);
    let refusal = Refusal { code: RefusalCode::FuseNotArmed, message: "no".to_owned() };
    check(
        &Message::Reply(Reply::new(7, Err(refusal))),
        r#"{"id":7,"error":{"code":"fuse_not_armed","message":"no"}}"#,
    );
    let exit = Exit::Signal(9);
    check(
        &Message::Event(Event::PostmasterDied { pid: 42, exit, expected: false, at_ns: 1 }),
        r#"{"event":"postmaster_died","pid":42,"exit":{"signal":9},"expected":false,"at_ns":1}"#,
    );
}

#[test]
fn fields_and_commands_of_a_newer_version_do_not_break_a_reader() {
    let newer = r#"{"id":7,"command":"reload","gently":true}"#;
    assert_eq!(serde_json::from_str::<Request>(newer).unwrap().command, Command::Reload);
    let unknown = r#"{"id":7,"command":"dance","with":[1]}"#;
    assert_eq!(serde_json::from_str::<Request>(unknown).unwrap().command, Command::Unknown);
}
