//! The connection to the supervisor: sends requests and passes on events. Reconnects when the connection breaks.

mod line;
mod tool;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::time::Duration;

use outrider_supervisor::protocol::{Answer, Command, Event, Status, StopMode};
use tokio::sync::{Mutex, broadcast, mpsc, oneshot};
use tokio::time::timeout;

use crate::error::Error;
use line::{Asked, Line};

/// Time limit for an answer; the supervisor answers from memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Events that a slow listener may have pending; beyond that the oldest are dropped.
const NEWS_MAX: usize = 256;

/// What the supervisor sends unasked.
#[derive(Clone, Debug)]
pub enum News {
    /// An event.
    Event(Event),
    /// The connection broke: events may have been missed.
    LineBroke,
}

/// The connection to one supervisor. Clones share it.
#[derive(Clone, Debug)]
pub struct Supervisor {
    socket: PathBuf,
    news: broadcast::Sender<News>,
    line: Arc<Mutex<Option<Line>>>,
}

/// Proof that the supervisor holds a live fuse, required by everything that makes Postgres writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmedFuse {
    deadline_ns: u64,
    term: u64,
}

impl ArmedFuse {
    /// When it blows, in nanoseconds since boot.
    #[must_use]
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// The term of the leader lease that it is for.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }
}

impl Supervisor {
    /// The supervisor that listens on `socket`. Connects with the first request.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        let (news, _) = broadcast::channel(NEWS_MAX);
        Supervisor { socket, news, line: Arc::default() }
    }

    /// All events from now on.
    #[must_use]
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Starts a supervisor that outlives this process: `program` with `arguments`, its output appended to `log`.
    ///
    /// # Errors
    /// When the program cannot be started or the log cannot be opened.
    pub fn spawn_detached(
        program: &std::path::Path,
        arguments: &[String],
        log: &std::path::Path,
    ) -> Result<(), Error> {
        let failed = |source| Error::SpawnSupervisor { program: program.to_owned(), source };
        let output = std::fs::File::options().create(true).append(true).open(log);
        let output = output.map_err(|source| Error::Write { path: log.to_owned(), source })?;
        let again = output.try_clone().map_err(failed)?;
        // A process group of its own, so that Ctrl-C on the agent's terminal does not reach it.
        let child = Program::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(again)
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        // No longer ours: we reap it if it ends while we live, and init does otherwise.
        std::thread::Builder::new()
            .name("supervisor-exit".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || {
                let mut child = child;
                child.wait()
            })
            .map_err(failed)?;
        Ok(())
    }

    /// The supervisor's status.
    ///
    /// # Errors
    /// Like every request: no supervisor, no answer, or a refusal.
    pub async fn status(&self) -> Result<Status, Error> {
        match self.ask("report its status", Command::Status).await? {
            Answer::Status(status) => Ok(*status),
            Answer::Hello { .. } | Answer::Armed { .. } | Answer::Started { .. } | Answer::Done => {
                Err(self.silent("report its status"))
            }
        }
    }

    /// Sets the moment at which a writable Postgres is killed.
    ///
    /// # Errors
    /// As every request.
    pub async fn arm_fuse(&self, deadline_ns: u64, term: u64) -> Result<ArmedFuse, Error> {
        self.ask("arm the fuse", Command::ArmFuse { deadline_ns, term }).await?;
        Ok(ArmedFuse { deadline_ns, term })
    }

    /// Ends recovery. Returns when the signal is sent.
    ///
    /// # Errors
    /// As every request.
    pub async fn promote(&self, _fuse: &ArmedFuse) -> Result<(), Error> {
        self.ask("promote Postgres", Command::Promote).await.map(drop)
    }

    pub(crate) async fn start(&self, writable: bool, arguments: Vec<String>) -> Result<(), Error> {
        self.ask("start Postgres", Command::Start { writable, arguments }).await.map(drop)
    }

    pub(crate) async fn stop(&self, mode: StopMode) -> Result<(), Error> {
        self.ask("stop Postgres", Command::Stop { mode }).await.map(drop)
    }

    pub(crate) async fn cancel_tool(&self) -> Result<(), Error> {
        self.ask("end one of Postgres' programs", Command::CancelTool).await.map(drop)
    }

    pub(crate) async fn reload(&self) -> Result<(), Error> {
        self.ask("reload Postgres' configuration", Command::Reload).await.map(drop)
    }

    pub(crate) async fn terminate_process(&self, pid: i32) -> Result<(), Error> {
        self.ask("end a walsender", Command::TerminateProcess { pid }).await.map(drop)
    }

    /// Sends a request, over a new connection when there is none or it has broken.
    async fn ask(&self, act: &'static str, command: Command) -> Result<Answer, Error> {
        let asking = async {
            let requests = self.line().await?;
            let (answer, answered) = oneshot::channel();
            // A connection that ends at this moment drops the answer.
            let _ = requests.send(Asked { command, answer }).await;
            match answered.await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(refusal)) => Err(Error::SupervisorRefused { act, refusal }),
                Err(_) => Err(self.silent(act)),
            }
        };
        timeout(ANSWER_LIMIT, asking).await.unwrap_or_else(|_| Err(self.silent(act)))
    }

    async fn line(&self) -> Result<mpsc::Sender<Asked>, Error> {
        let mut line = self.line.lock().await;
        if let Some(line) = line.as_ref()
            && !line.requests.is_closed()
        {
            return Ok(line.requests.clone());
        }
        let fresh = Line::connect(&self.socket, self.news.clone()).await?;
        let requests = fresh.requests.clone();
        *line = Some(fresh);
        Ok(requests)
    }

    fn silent(&self, act: &'static str) -> Error {
        Error::SupervisorSilent { socket: self.socket.clone(), act }
    }
}
