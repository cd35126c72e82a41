//! What each command of an agent does, or why it is refused. Waits for nothing: what takes time ends in an event.

use serde::Deserialize;

use super::Supervisor;
use crate::child;
use crate::descendants::{self, ToolMarks};
use crate::postmaster::{self, Postmaster};
use crate::protocol::{
    Answer, Command, Message, Refusal, RefusalCode, Reply, Request, Status, StopMode, Tool, VERSION,
};
use crate::system::{self, boottime_ns};
use crate::tool::{self, RunningTool};

/// Longest message of a refusal, in characters.
const MESSAGE_MAX: usize = 2000;

/// What can be said about a line that is not a request.
#[derive(Deserialize)]
struct Numbered {
    id: u64,
}

impl Supervisor {
    /// Answers one line of a connection.
    pub(super) fn answer(&mut self, index: usize, line: &[u8]) {
        let mut reply = match serde_json::from_slice::<Request>(line) {
            Ok(Request { id, command }) => Reply::new(id, self.obey(index, command)),
            Err(error) => {
                let id = serde_json::from_slice::<Numbered>(line).map_or(0, |numbered| numbered.id);
                Reply::new(id, refuse(RefusalCode::BadRequest, format!("not a request: {error}")))
            }
        };
        // It may quote the request, and must fit in a line.
        if let Some(refusal) = &mut reply.error
            && let Some((end, _)) = refusal.message.char_indices().nth(MESSAGE_MAX)
        {
            refusal.message.truncate(end);
        }
        self.connections[index].send(&Message::Reply(reply));
    }

    fn obey(&mut self, index: usize, command: Command) -> Result<Answer, Refusal> {
        if !self.connections[index].greeted && !matches!(command, Command::Hello { .. }) {
            return refuse(RefusalCode::HelloFirst, "the first command of a connection is hello");
        }
        match command {
            Command::Hello { version } => self.hello(index, version),
            Command::Status => Ok(Answer::Status(Box::new(self.status()))),
            Command::ArmFuse { deadline_ns, term } => self.arm_fuse(deadline_ns, term),
            Command::Start { writable, arguments } => self.start(writable, &arguments),
            Command::Stop { mode } => self.stop(mode),
            Command::Promote => self.promote(),
            Command::Reload => self.running("reload")?.signal(libc::SIGHUP, "reload").map(|()| Answer::Done),
            Command::TerminateProcess { pid } => self.terminate_process(pid),
            Command::RunTool { tool, arguments, environment } => {
                self.run_tool(tool, &arguments, &environment)
            }
            Command::CancelTool => self.cancel_tool(),
            Command::Unknown => refuse(
                RefusalCode::UnknownCommand,
                format!("this supervisor speaks version {VERSION} and does not know the command"),
            ),
        }
    }

    fn hello(&mut self, index: usize, version: u32) -> Result<Answer, Refusal> {
        let connection = &mut self.connections[index];
        if version != VERSION {
            connection.closing = true;
            return refuse(
                RefusalCode::Version,
                format!("the agent speaks version {version}, this supervisor {VERSION}"),
            );
        }
        connection.greeted = true;
        Ok(Answer::Hello { version: VERSION, supervisor_pid: own_pid() })
    }

    fn status(&self) -> Status {
        let now_ns = boottime_ns();
        Status {
            version: VERSION,
            supervisor_pid: own_pid(),
            data_directory: self.options.data_directory.display().to_string(),
            postmaster: self.postmaster.as_ref().map(Postmaster::status),
            fuse: self.fuse.status(now_ns),
            last_exit: self.last_exit.clone(),
            tool: self.tool.as_ref().map(RunningTool::status),
            terminating: self.termination.is_some(),
            now_ns,
            log_tail: if self.postmaster.is_none() { self.log_tail.lines() } else { Vec::new() },
        }
    }

    fn arm_fuse(&mut self, deadline_ns: u64, term: u64) -> Result<Answer, Refusal> {
        let armed = self.fuse.arm(boottime_ns(), deadline_ns, term)?;
        Ok(Answer::Armed { deadline_ns: armed.deadline_ns, term: armed.term })
    }

    fn start(&mut self, writable: bool, arguments: &[String]) -> Result<Answer, Refusal> {
        let data_directory = self.options.data_directory.clone();
        if self.termination.is_some() {
            return refuse(RefusalCode::Terminating, "start refused: the supervisor was told to stop");
        }
        if let Some(Postmaster { pid, stopping, death, .. }) = &self.postmaster {
            return match death {
                None if *stopping => {
                    refuse(RefusalCode::Stopping, format!("start refused: postmaster {pid} is stopping"))
                }
                None => refuse(RefusalCode::AlreadyRunning, format!("start refused: postmaster {pid} runs")),
                Some(_) => refuse(
                    RefusalCode::DescendantsRemain,
                    format!("start refused: remaining processes of postmaster {pid} are being killed"),
                ),
            };
        }
        if let Some(running) = self.tool.as_ref().filter(|it| tool::keeps_postgres_from_starting(it.tool)) {
            let name = running.tool.program();
            return refuse(RefusalCode::ToolRunning, format!("start refused: {name} ({}) runs", running.pid));
        }
        postmaster::check_arguments(arguments)?;
        self.check_nothing_remains()?;
        postmaster::check_standby_signal(&data_directory, writable)?;
        match postmaster::remove_empty_lock_file(&data_directory) {
            Ok(false) => {}
            Ok(true) => self.log.say(format_args!("removed an empty postmaster.pid, which a crash had left")),
            // Postgres reports the same in its own words.
            Err(error) => self.log.say(format_args!("cannot remove an empty postmaster.pid: {error}")),
        }
        // Last, because the checks before it take time.
        if writable {
            self.fuse.permit(boottime_ns(), "writable start")?;
        }
        let started = Postmaster::start(&self.options.bin_directory, &data_directory, arguments, writable)?;
        let pid = started.pid;
        let role = if writable { "writable" } else { "as standby" };
        self.log.say(format_args!("started postmaster {pid} {role}"));
        self.postmaster = Some(started);
        Ok(Answer::Started { pid })
    }

    fn check_nothing_remains(&self) -> Result<(), Refusal> {
        let none = ToolMarks::default();
        let marks = self.tool.as_ref().map_or(&none, |tool| &tool.marks);
        let processes = descendants::processes().map_err(|error| Refusal {
            code: RefusalCode::DescendantsRemain,
            message: format!("start refused: cannot read /proc to see that nothing remains: {error}"),
        })?;
        let remaining = descendants::below(&processes, own_pid(), marks).postgres;
        if !remaining.is_empty() {
            let shown = descendants::describe(&processes, &remaining);
            return refuse(RefusalCode::DescendantsRemain, format!("start refused: still there: {shown}"));
        }
        if let Some(pid) = descendants::foreign_postgres(&processes, own_pid(), &self.options.data_directory)
        {
            let directory = self.options.data_directory.display();
            return refuse(
                RefusalCode::ForeignPostgres,
                format!("start refused: process {pid}, not started here, is a Postgres in {directory}"),
            );
        }
        Ok(())
    }

    fn stop(&mut self, mode: StopMode) -> Result<Answer, Refusal> {
        self.running("stop")?;
        let now_ns = boottime_ns();
        let postmaster = self.postmaster.as_mut().expect("`running` has just found it");
        match mode {
            StopMode::Fast => postmaster.signal(libc::SIGINT, "fast stop")?,
            StopMode::Immediate => postmaster.signal(libc::SIGQUIT, "immediate stop")?,
            // The killing itself is done at the end of this pass of the loop.
            StopMode::Kill => postmaster.kill_at_ns = Some(now_ns),
        }
        postmaster.stopping = true;
        let pid = postmaster.pid;
        self.log.say(format_args!("stopping postmaster {pid}: {mode:?}"));
        Ok(Answer::Done)
    }

    fn promote(&mut self) -> Result<Answer, Refusal> {
        let Postmaster { pid, writable, stopping, .. } = *self.running("promotion")?;
        if self.termination.is_some() {
            return refuse(RefusalCode::Terminating, "promotion refused: the supervisor was told to stop");
        }
        if stopping {
            return refuse(RefusalCode::Stopping, format!("promotion refused: postmaster {pid} is stopping"));
        }
        if writable {
            let message = format!("promotion refused: postmaster {pid} is writable already");
            return refuse(RefusalCode::AlreadyWritable, message);
        }
        let data_directory = &self.options.data_directory;
        self.fuse.permit(boottime_ns(), "promotion")?;
        postmaster::write_promote_file(data_directory)?;
        // The disk may have delayed us.
        let permitted = self.fuse.permit(boottime_ns(), "promotion");
        let postmaster = self.postmaster.as_mut().expect("`running` has just found it");
        if let Err(refusal) = permitted.and_then(|()| postmaster.signal(libc::SIGUSR1, "promotion")) {
            postmaster::remove_promote_file(data_directory);
            return Err(refusal);
        }
        postmaster.writable = true;
        self.log.say(format_args!("promoting postmaster {pid}"));
        Ok(Answer::Done)
    }

    fn terminate_process(&self, pid: i32) -> Result<Answer, Refusal> {
        let postmaster = self.running("termination of a process")?.pid;
        if descendants::process(pid).is_none_or(|process| process.parent != postmaster) {
            let message = format!("termination refused: {pid} is not a child of postmaster {postmaster}");
            return refuse(RefusalCode::NotAChild, message);
        }
        system::kill(pid, libc::SIGTERM).map(|()| Answer::Done).map_err(|error| Refusal {
            code: RefusalCode::SignalFailed,
            message: format!("cannot send SIGTERM to {pid}: {error}"),
        })
    }

    fn run_tool(
        &mut self,
        tool: Tool,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<Answer, Refusal> {
        let name = tool.program();
        if let Some(running) = &mut self.tool {
            running.cancelled |= tool::gives_way(running.tool) && !tool::gives_way(tool);
            let (runs, pid) = (running.tool.program(), running.pid);
            return refuse(RefusalCode::ToolRunning, format!("{name} refused: {runs} ({pid}) runs"));
        }
        if self.termination.is_some() && tool::keeps_postgres_from_starting(tool) {
            return refuse(
                RefusalCode::Terminating,
                format!("{name} refused: the supervisor was told to stop"),
            );
        }
        let identity = match &self.postmaster {
            Some(Postmaster { pid, .. }) if tool::needs_postgres_stopped(tool) => {
                let message = format!("{name} refused: postmaster {pid} runs, or what it left does");
                return refuse(RefusalCode::AlreadyRunning, message);
            }
            Some(postmaster) => postmaster.identity.clone(),
            None => child::run_as(&self.options.data_directory)?,
        };
        let directories = (self.options.bin_directory.as_path(), self.options.data_directory.as_path());
        let started = RunningTool::start(tool, directories, arguments, environment, identity)?;
        let pid = started.pid;
        self.log.say(format_args!("started {name} ({pid})"));
        self.tool = Some(started);
        Ok(Answer::Started { pid })
    }

    fn cancel_tool(&mut self) -> Result<Answer, Refusal> {
        let Some(tool) = &mut self.tool else {
            return refuse(RefusalCode::NoTool, "cancel refused: no tool runs");
        };
        // The killing itself is done at the end of this pass of the loop.
        tool.cancelled = true;
        Ok(Answer::Done)
    }

    /// The running postmaster, for `act`.
    fn running(&self, act: &str) -> Result<&Postmaster, Refusal> {
        match &self.postmaster {
            Some(postmaster) if postmaster.death.is_none() => Ok(postmaster),
            _ => refuse(RefusalCode::NotRunning, format!("{act} refused: no postmaster runs")),
        }
    }
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn refuse<T>(code: RefusalCode, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}
