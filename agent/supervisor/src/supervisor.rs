//! The loop: waits, looks at the fuse first, then takes signals, output, connections and commands.
//! What a command means is in `commands`; how Postgres, a tool and the supervisor end is in `ending`.

mod commands;
mod ending;

use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::child;
use crate::connection::Connection;
use crate::error::Error;
use crate::fuse::Fuse;
use crate::listener::Listener;
use crate::lock::Lock;
use crate::log::Log;
use crate::options::Options;
use crate::output::{Output, Tail};
use crate::postmaster::{Fencing, Postmaster};
use crate::protocol::{Event, LastExit, Message};
use crate::system::{self, Signals, Timer, boottime_ns};
use crate::termination::Termination;
use crate::tool::RunningTool;

/// Maximum number of connections; more are refused.
const CONNECTIONS_MAX: usize = 8;
/// Lines of the postmaster's output in a status.
const LOG_TAIL_LINES: usize = 50;
/// Bytes read at a time; the loop checks the fuse after each.
const BUFFER_SIZE: usize = 64 * 1024;

/// Guards one data directory until SIGTERM, and then until Postgres is gone.
///
/// Call it from `main`, before any thread is started: it blocks the signals it waits for in the calling thread
/// alone, and the kernel ends Postgres when that thread ends. It sets the umask, and makes the process the
/// parent of all orphans below it.
///
/// # Errors
/// When it cannot start, nothing was started. Should the loop itself fail later, the caller ends the process
/// and the kernel then sends Postgres the signal to stop.
pub fn run(options: Options) -> Result<ExitCode, Error> {
    Supervisor::new(options)?.run()
}

struct Supervisor {
    options: Options,
    _lock: Lock,
    listener: Listener,
    signals: Signals,
    timer: Timer,
    connections: Vec<Connection>,
    /// The owner of the data directory, who may connect like the supervisor's user and root.
    owner: Option<u32>,
    fuse: Fuse,
    postmaster: Option<Postmaster>,
    tool: Option<RunningTool>,
    last_exit: Option<LastExit>,
    log: Log,
    log_tail: Tail,
    termination: Option<Termination>,
    /// When to look again for the descendants being killed.
    look_again_ns: Option<u64>,
    buffer: Vec<u8>,
}

/// Which descriptors were ready, in the order of the polled array. Before and between these are the signals, the timer and
/// the log: they only wake the loop, and are checked in every round.
struct Ready(Vec<libc::pollfd>);

impl Ready {
    const LISTENER: usize = 2;
    const POSTMASTER: usize = 4;
    const TOOL: usize = 5;
    const CONNECTIONS: usize = 6;

    fn at(&self, index: usize) -> i16 {
        self.0.get(index).map_or(0, |fd| fd.revents)
    }
}

impl Supervisor {
    fn new(options: Options) -> Result<Self, Error> {
        let kernel = |act| move |source| Error::Kernel { act, source };
        let options = Options {
            data_directory: absolute(&options.data_directory)?,
            bin_directory: absolute(&options.bin_directory)?,
            socket: absolute(&options.socket)?,
            ..options
        };
        system::keep_files_private();
        let owner = child::owner(&options.data_directory).ok().map(|(uid, _)| uid);
        let lock = Lock::take(&options.data_directory, owner)?;
        let signals = Signals::new().map_err(kernel("take signals as events"))?;
        let timer = Timer::new().map_err(kernel("create a timer of CLOCK_BOOTTIME"))?;
        system::become_subreaper().map_err(kernel("become the parent of orphaned descendants"))?;
        // Last, so that whoever can connect is answered.
        let listener = Listener::open(&options.socket, owner)?;
        let mut log = Log::default();
        log.say(format_args!(
            "guarding {}, listening on {}",
            options.data_directory.display(),
            options.socket.display()
        ));
        Ok(Self {
            options,
            _lock: lock,
            listener,
            signals,
            timer,
            connections: Vec::new(),
            owner,
            fuse: Fuse::default(),
            postmaster: None,
            tool: None,
            last_exit: None,
            log,
            log_tail: Tail::new(LOG_TAIL_LINES),
            termination: None,
            look_again_ns: None,
            buffer: vec![0; BUFFER_SIZE],
        })
    }

    fn run(mut self) -> Result<ExitCode, Error> {
        loop {
            let ready = self.wait()?;
            // Before anything else: this may be the first moment after the machine or we were frozen.
            self.check_fuse();
            self.take_signals();
            self.take_output(&ready);
            self.take_commands(&ready);
            self.accept_connections(&ready);
            let over = self.advance_endings();
            self.connections.retain(|connection| !connection.is_over());
            self.log.flush();
            if over {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    /// Sleeps until a descriptor is ready or a moment has come.
    fn wait(&mut self) -> Result<Ready, Error> {
        self.timer
            .set(self.wake_at_ns())
            .map_err(|source| Error::Kernel { act: "set the timer of the fuse", source })?;
        let postmaster = self.postmaster.as_ref().map(|postmaster| &postmaster.output);
        let tool = self.tool.as_ref().map(|tool| &tool.output);
        // `poll` skips negative descriptors.
        let log = if self.log.is_pending() { libc::STDERR_FILENO } else { -1 };
        let mut fds = vec![
            wanted(self.signals.as_raw_fd(), libc::POLLIN),
            wanted(self.timer.as_raw_fd(), libc::POLLIN),
            wanted(self.listener.as_raw_fd(), libc::POLLIN),
            wanted(log, libc::POLLOUT),
            wanted(open_fd(postmaster), libc::POLLIN),
            wanted(open_fd(tool), libc::POLLIN),
        ];
        let connections = self.connections.iter();
        fds.extend(connections.map(|connection| wanted(connection.as_raw_fd(), connection.interest())));
        system::poll(&mut fds, true)
            .map_err(|source| Error::Kernel { act: "wait for events with poll", source })?;
        Ok(Ready(fds))
    }

    /// The earliest moment at which something has to be done even if nothing happens.
    fn wake_at_ns(&self) -> Option<u64> {
        let guarded = self.postmaster.as_ref().filter(|postmaster| postmaster.writable);
        let fuse = guarded.and_then(|_| self.fuse.deadline_ns());
        // Once it has passed, `look_again_ns` replaces it.
        let kill = self.postmaster.as_ref().and_then(|postmaster| postmaster.kill_at_ns);
        let kill = kill.filter(|_| self.look_again_ns.is_none());
        let end = self.termination.as_ref().and_then(Termination::wake_at_ns);
        [fuse, kill, self.look_again_ns, end].into_iter().flatten().min()
    }

    /// Fences a writable Postgres whose deadline has passed.
    fn check_fuse(&mut self) {
        let Some(postmaster) = self.postmaster.as_mut().filter(|postmaster| postmaster.writable) else {
            return;
        };
        let now_ns = boottime_ns();
        let Some(armed) = self.fuse.blow(now_ns) else { return };
        postmaster.fencing = Some(Fencing { armed, since_ns: now_ns });
        postmaster.take_down(now_ns.saturating_add(nanoseconds(self.options.kill_after)));
        let late_ms = now_ns.saturating_sub(armed.deadline_ns) / 1_000_000;
        let (pid, term) = (postmaster.pid, armed.term);
        self.log.say(format_args!("fencing postmaster {pid}: fuse of term {term} expired {late_ms} ms ago"));
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            if signal != libc::SIGCHLD {
                self.begin_termination(signal);
            }
        }
        self.reap();
    }

    fn take_output(&mut self, ready: &Ready) {
        if ready.at(Ready::POSTMASTER) != 0 {
            self.read_postmaster_output();
        }
        if ready.at(Ready::TOOL) != 0 {
            self.read_tool_output();
        }
    }

    /// One buffer of the postmaster's output: passed on, and its lines kept.
    fn read_postmaster_output(&mut self) {
        let Some(postmaster) = &mut self.postmaster else { return };
        let (read, lines) = postmaster.output.read(&mut self.buffer);
        self.log.pass_on(&self.buffer[..read]);
        lines.into_iter().for_each(|line| self.log_tail.push(line));
    }

    /// One buffer of the tool's output, told line by line.
    fn read_tool_output(&mut self) {
        let Some(tool) = &mut self.tool else { return };
        let (_, lines) = tool.output.read(&mut self.buffer);
        let pid = tool.pid;
        for line in lines {
            if let Some(tool) = &mut self.tool {
                tool.tail.push(line.clone());
            }
            self.tell(Event::ToolOutput { pid, line });
        }
    }

    fn accept_connections(&mut self, ready: &Ready) {
        if ready.at(Ready::LISTENER) == 0 {
            return;
        }
        // It may have been created since. Not checked beside a running Postgres: its disk may hang, and the fuse with it.
        if self.postmaster.is_none() {
            self.owner = child::owner(&self.options.data_directory).ok().map(|(uid, _)| uid);
        }
        // One buffer of work at a time here too: the rest waits for the next pass of the loop.
        for _ in 0..CONNECTIONS_MAX {
            match self.listener.accept(self.owner) {
                None => return,
                Some(Err(why)) => self.log.say(why),
                Some(Ok(_)) if self.connections.len() >= CONNECTIONS_MAX => {
                    self.log.say(format_args!("connection refused: {CONNECTIONS_MAX} are open"));
                }
                Some(Ok(stream)) => self.connections.push(Connection::new(stream)),
            }
        }
    }

    fn take_commands(&mut self, ready: &Ready) {
        for index in 0..self.connections.len() {
            let events = ready.at(Ready::CONNECTIONS + index);
            let connection = &mut self.connections[index];
            if events & libc::POLLOUT != 0 {
                connection.flush();
            }
            if connection.closing && events & (libc::POLLHUP | libc::POLLERR) != 0 {
                connection.hang_up();
            }
            if events & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) == 0 {
                continue;
            }
            for line in connection.read(&mut self.buffer) {
                // An earlier line of this very read may have taken a while.
                self.check_fuse();
                self.answer(index, &line);
            }
        }
    }

    /// Tells every connection that sent hello.
    fn tell(&mut self, event: Event) {
        let message = Message::Event(event);
        for connection in self.connections.iter_mut().filter(|connection| connection.greeted) {
            connection.send(&message);
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::ResolvePath { path: path.to_owned(), source })
}

fn wanted(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

fn open_fd(output: Option<&Output>) -> RawFd {
    output.filter(|output| output.is_open()).map_or(-1, AsRawFd::as_raw_fd)
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
