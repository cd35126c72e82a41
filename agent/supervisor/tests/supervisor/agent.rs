//! A plain agent for the tests: speaks the protocol over the socket, waits with a deadline, decides nothing.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use outrider_supervisor::boottime_ns;
use outrider_supervisor::protocol::{
    Answer, Command, Event, Message, Refusal, RefusalCode, Reply, Request, Status, StopMode, Tool, VERSION,
};

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Agent {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    last_id: u64,
    events: VecDeque<Event>,
}

impl Agent {
    /// Connects, and says nothing yet.
    pub(crate) fn silent(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Some(Self { stream, reader, last_id: 0, events: VecDeque::new() })
    }

    pub(crate) fn hello(&mut self) {
        let answer = self.ask(Command::Hello { version: VERSION }).unwrap();
        assert!(matches!(answer, Answer::Hello { version: VERSION, .. }), "{answer:?}");
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request and does not wait for its reply.
    pub(crate) fn post(&mut self, command: Command) -> u64 {
        self.last_id += 1;
        let mut line = serde_json::to_vec(&Request { id: self.last_id, command }).unwrap();
        line.push(b'\n');
        self.write(&line).unwrap();
        self.last_id
    }

    /// The next line; `None` when the supervisor hung up.
    pub(crate) fn read(&mut self) -> Option<Message> {
        let mut line = String::new();
        // A reset is a hang-up as well: it is what a peer gets whose last bytes were not read.
        let read = match self.reader.read_line(&mut line) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            read => read.expect("the supervisor said nothing within the deadline"),
        };
        (read > 0).then(|| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// The reply to this request; events before it are kept.
    pub(crate) fn reply(&mut self, id: u64) -> Result<Answer, Refusal> {
        loop {
            match self.read().expect("the supervisor hung up") {
                Message::Event(event) => self.events.push_back(event),
                Message::Reply(reply) => {
                    assert_eq!(reply.id, id);
                    return Reply::outcome(reply).expect("a reply has an answer or a refusal");
                }
            }
        }
    }

    pub(crate) fn ask(&mut self, command: Command) -> Result<Answer, Refusal> {
        let id = self.post(command);
        self.reply(id)
    }

    pub(crate) fn refused(&mut self, command: Command) -> RefusalCode {
        let refusal = self.ask(command.clone()).expect_err(&format!("{command:?} should be refused"));
        assert!(!refusal.message.is_empty());
        refusal.code
    }

    /// The next event.
    pub(crate) fn event(&mut self) -> Event {
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        match self.read().expect("the supervisor hung up") {
            Message::Event(event) => event,
            Message::Reply(reply) => panic!("a reply that nobody asked for: {reply:?}"),
        }
    }

    /// The next event that is not output of a tool; the output that came before it.
    pub(crate) fn event_after_output(&mut self) -> (Event, Vec<String>) {
        let mut lines = Vec::new();
        loop {
            match self.event() {
                Event::ToolOutput { line, .. } => lines.push(line),
                event => return (event, lines),
            }
        }
    }

    pub(crate) fn status(&mut self) -> Status {
        match self.ask(Command::Status).unwrap() {
            Answer::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Arms the fuse so far from now; the deadline.
    pub(crate) fn arm(&mut self, time: Duration) -> u64 {
        let deadline_ns = from_now(time);
        let answer = self.ask(Command::ArmFuse { deadline_ns, term: 1 }).unwrap();
        assert_eq!(answer, Answer::Armed { deadline_ns, term: 1 });
        deadline_ns
    }

    pub(crate) fn stop(&mut self, mode: StopMode) {
        assert_eq!(self.ask(Command::Stop { mode }), Ok(Answer::Done));
    }

    pub(crate) fn run_tool(&mut self, tool: Tool, arguments: &[&str]) -> i32 {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        match self.ask(Command::RunTool { tool, arguments, environment: Vec::new() }).unwrap() {
            Answer::Started { pid } => pid,
            other => panic!("{other:?}"),
        }
    }
}

/// A moment of the supervisor's clock.
pub(crate) fn from_now(time: Duration) -> u64 {
    boottime_ns() + u64::try_from(time.as_nanos()).unwrap()
}
