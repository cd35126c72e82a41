//! Runs one of Postgres' programs through the supervisor and waits for its end.

use outrider_supervisor::protocol::{Answer, Command, Event, Exit, Tool};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tracing::info;

use super::{News, Supervisor};
use crate::error::Error;

/// A program that succeeded.
#[derive(Debug, Default)]
pub(crate) struct FinishedTool {
    /// Its output lines, as far as they could be kept up with.
    pub(crate) output: Vec<String>,
}

/// Most lines kept.
const OUTPUT_MAX: usize = 1000;

impl Supervisor {
    /// Runs the program to its end. Its output is logged when `shown`.
    pub(crate) async fn run_tool(
        &self,
        tool: Tool,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        shown: bool,
    ) -> Result<FinishedTool, Error> {
        let name = tool.program();
        let mut news = self.news();
        let command = Command::RunTool { tool, arguments, environment };
        let Answer::Started { pid } = self.ask("run one of Postgres' programs", command).await? else {
            return Err(Error::ToolUnknown { tool: name });
        };
        let mut run = FinishedTool::default();
        let mut has_ended = false;
        loop {
            match next(&mut news, has_ended).await {
                Ok(News::Event(Event::ToolOutput { pid: of, line })) if of == pid => {
                    if shown {
                        info!(tool = name, "{line}");
                    }
                    if run.output.len() < OUTPUT_MAX {
                        run.output.push(line);
                    }
                }
                Ok(News::Event(Event::ToolExited { pid: of, exit, tail })) if of == pid => {
                    return if exit == Exit::Code(0) {
                        Ok(run)
                    } else {
                        Err(Error::Tool { tool: name, exit, tail })
                    };
                }
                Ok(News::ConnectionLost) | Err(RecvError::Closed) => {
                    return Err(Error::ToolUnknown { tool: name });
                }
                // Its end may be among the missed events. The supervisor reports the end before it says that nothing runs.
                Err(RecvError::Lagged(_)) => {
                    has_ended = self.status().await?.tool.is_none_or(|running| running.pid != pid);
                }
                Ok(News::Event(_)) => {}
            }
        }
    }
}

/// The next event; after the program has ended, only those already received.
async fn next(news: &mut broadcast::Receiver<News>, has_ended: bool) -> Result<News, RecvError> {
    if !has_ended {
        return news.recv().await;
    }
    news.try_recv().map_err(|nothing| match nothing {
        TryRecvError::Empty | TryRecvError::Closed => RecvError::Closed,
        TryRecvError::Lagged(missed) => RecvError::Lagged(missed),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use outrider_supervisor::protocol::{Message, Reply, Request, Status};
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::UnixListener;

    use super::*;

    const PID: i32 = 7;

    /// A supervisor that answers each request, sends these lines after it, and says that nothing runs.
    async fn supervise(socket: &Path, told: Vec<Event>) {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            while let Some(line) = lines.next_line().await.unwrap() {
                let Request { id, command } = serde_json::from_str(&line).unwrap();
                let (answer, events) = match command {
                    Command::Hello { version } => (Answer::Hello { version, supervisor_pid: 1 }, Vec::new()),
                    Command::RunTool { .. } => (Answer::Started { pid: PID }, told.clone()),
                    Command::Status => (Answer::Status(Box::new(idle())), Vec::new()),
                    other => panic!("nobody asks for {other:?}"),
                };
                let reply = Message::Reply(Reply { id, ok: Some(answer), error: None });
                // All at once, so that nobody reads a part of it.
                let mut text = serde_json::to_string(&reply).unwrap() + "\n";
                for event in events {
                    text += &(serde_json::to_string(&Message::Event(event)).unwrap() + "\n");
                }
                write.write_all(text.as_bytes()).await.unwrap();
            }
        });
    }

    fn idle() -> Status {
        Status {
            version: 1,
            supervisor_pid: 1,
            data_directory: String::new(),
            postmaster: None,
            fuse: None,
            last_exit: None,
            tool: None,
            terminating: false,
            now_ns: 0,
            log_tail: Vec::new(),
        }
    }

    async fn outcome(told: Vec<Event>) -> Result<FinishedTool, Error> {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("supervisor");
        supervise(&socket, told).await;
        let supervisor = Supervisor::new(socket);
        let running = supervisor.run_tool(Tool::PgControldata, Vec::new(), Vec::new(), false);
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, running).await.expect("it does not wait for ever")
    }

    fn line(number: usize) -> Event {
        Event::ToolOutput { pid: PID, line: number.to_string() }
    }

    fn exited() -> Event {
        Event::ToolExited { pid: PID, exit: Exit::Code(0), tail: Vec::new() }
    }

    #[tokio::test]
    async fn a_program_that_writes_faster_than_anybody_reads_still_ends() {
        let mut told: Vec<Event> = (0..2000).map(line).collect();
        told.push(exited());
        let run = outcome(told).await.unwrap();
        assert!(run.output.len() < 1000, "all of it was kept up with: {} lines", run.output.len());
    }

    #[tokio::test]
    async fn an_end_that_was_missed_is_unknown_and_not_waited_for() {
        let told = [exited()].into_iter().chain((0..2000).map(line)).collect();
        let fault = outcome(told).await.expect_err("nobody heard of the end");
        assert!(matches!(fault, Error::ToolUnknown { .. }), "{fault:?}");
    }
}
