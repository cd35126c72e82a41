//! One connection to the supervisor: requests out, answers in the same order back, events to whoever listens.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use outrider_supervisor::protocol::{Answer, Command, Message, Refusal, Request, VERSION};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::warn;

use super::News;
use crate::error::Error;

/// Most requests waiting to be sent.
const REQUESTS_MAX: usize = 16;

/// A request, and where its answer goes.
pub(super) struct Asked {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Result<Answer, Refusal>>,
}

/// The connection; closed on drop.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) requests: mpsc::Sender<Asked>,
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    /// Connects and sends hello.
    pub(super) async fn connect(socket: &Path, news: broadcast::Sender<News>) -> Result<Self, Error> {
        let unreachable = |source| Error::NoSupervisor { socket: socket.to_owned(), source };
        let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
        let (read, write) = stream.into_split();
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let mut talk = Talk {
            lines: BufReader::new(read).lines(),
            write,
            next_id: 1,
            greeted: false,
            waiting: VecDeque::new(),
        };
        let (answer, greeted) = oneshot::channel();
        let hello = Asked { command: Command::Hello { version: VERSION }, answer };
        let task = tokio::spawn(async move {
            if let Err(fault) = talk.go_on(hello, asked, &news).await {
                warn!(%fault, "the connection to the supervisor broke");
            }
            // A connection that was never established has nothing to report. That nobody listens is not an error.
            if talk.greeted {
                let _ = news.send(News::LineBroke);
            }
        });
        let line = Line { requests, task };
        match greeted.await {
            Ok(Ok(_)) => Ok(line),
            Ok(Err(refusal)) => Err(Error::SupervisorRefused { act: "talk", refusal }),
            Err(_) => Err(Error::SupervisorSilent { socket: socket.to_owned(), act: "say hello" }),
        }
    }
}

struct Talk {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
    next_id: u64,
    greeted: bool,
    waiting: VecDeque<(u64, oneshot::Sender<Result<Answer, Refusal>>)>,
}

impl Talk {
    /// Until either side hangs up.
    async fn go_on(
        &mut self,
        hello: Asked,
        mut asked: mpsc::Receiver<Asked>,
        news: &broadcast::Sender<News>,
    ) -> io::Result<()> {
        self.send(hello).await?;
        loop {
            tokio::select! {
                line = self.lines.next_line() => match line? {
                    None => return Ok(()),
                    Some(line) => self.receive(&line, news)?,
                },
                request = asked.recv() => match request {
                    None => return Ok(()),
                    Some(request) => self.send(request).await?,
                },
            }
        }
    }

    async fn send(&mut self, asked: Asked) -> io::Result<()> {
        let request = Request { id: self.next_id, command: asked.command };
        self.waiting.push_back((self.next_id, asked.answer));
        self.next_id += 1;
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        self.write.write_all(&line).await
    }

    fn receive(&mut self, line: &str, news: &broadcast::Sender<News>) -> io::Result<()> {
        match serde_json::from_str(line)? {
            Message::Event(event) => {
                let _ = news.send(News::Event(event));
                Ok(())
            }
            Message::Reply(reply) => {
                let Some((id, answer)) = self.waiting.pop_front() else {
                    return Err(io::Error::other("an answer to nothing"));
                };
                if reply.id != id {
                    return Err(io::Error::other("an answer to something else"));
                }
                if let Some(outcome) = reply.outcome() {
                    self.greeted |= outcome.is_ok();
                    // The sender may have stopped waiting.
                    let _ = answer.send(outcome);
                }
                Ok(())
            }
        }
    }
}
