//! `outrider wal-push` and `outrider wal-fetch`: ask the agent and turn its answer into the exit status that
//! PostgreSQL reads. Plain blocking calls, since PostgreSQL starts one process for each file. Where there is no agent,
//! a file can be fetched from the store itself.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outrider_wal::WalFileName;

use crate::fetch::{Fetched, Fetcher, Patience};
use crate::protocol::{CLIENT_EXTRA, LINE_MAX, PUSH_LIMIT, Reply, Request};
use outrider_store::causes;

/// Above 125 PostgreSQL takes the exit of a `restore_command` for a reason to stop rather than for "no such file",
/// and the archiver ends.
const FATAL: u8 = 254;

/// Who runs `wal-fetch`, which decides what a fault means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A server in standby mode (`standby.signal`). It takes any failure below 126 for "not in the archive now",
    /// streams from its primary and asks again later; above 125 it would shut down. So a fault is exit 1.
    Standby,
    /// A recovery without standby mode. It takes exit 1 for the end of all WAL, and opens for writing there. So
    /// exit 1 means that the store confirmed it, and a fault exits above 125, which stops the recovery instead.
    Recovery,
}

/// How a client process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit status.
    pub code: u8,
    /// For standard error, which PostgreSQL writes into its log.
    pub message: Option<String>,
}

impl Exit {
    const DONE: Exit = Exit { code: 0, message: None };

    /// The end of a fetch that nobody knows the truth about.
    #[must_use]
    pub fn trouble(reader: Reader, message: impl Into<String>) -> Self {
        Exit::failed(if reader == Reader::Standby { 1 } else { FATAL }, message)
    }

    fn failed(code: u8, message: impl Into<String>) -> Self {
        Exit { code, message: Some(message.into()) }
    }
}

/// Asks whether the archive has `path` (the `%p` of `archive_command`) for good, and waits half a minute for it.
///
/// Exit 0 only when the store confirmed it. A failure is 1, since above 125 PostgreSQL's archiver ends; only while
/// the agent stops PostgreSQL that is what is wanted, and it is 254. Told 1 in its last round, the archiver would try
/// three times with pauses, and the shutdown, a switchover's gap, would wait three seconds for it (measured with
/// PostgreSQL 15: fast stop in 3.1 s with exit 1, in 0.1 s with 254). The file stays marked as ready either way.
#[must_use]
pub fn push(socket: &Path, path: &Path) -> Exit {
    let request = Request::Push { path: absolute(path) };
    match ask(socket, &request, PUSH_LIMIT + CLIENT_EXTRA) {
        Ok(Reply::Durable) => Exit::DONE,
        Ok(Reply::NotDurable { message } | Reply::Bad { message }) => {
            Exit::failed(1, format!("{}: {message}", path.display()))
        }
        Ok(Reply::Stopping { message }) => Exit::failed(FATAL, format!("{}: {message}", path.display())),
        Ok(other @ (Reply::Fetched | Reply::Absent { .. } | Reply::Trouble { .. })) => Exit::failed(
            1,
            format!("{}: the agent's answer does not match the request: {other:?}", path.display()),
        ),
        Err(error) => Exit::failed(1, format!("{}: {}", path.display(), no_agent(socket, &error))),
    }
}

/// Brings the file `name` (the `%f` of `restore_command`) to `destination` (its `%p`).
///
/// Exit 0 when it is there whole; 1 when the store confirmed that there is none. Any other trouble is 1 for a
/// standby and 254 for a recovery; see [`Reader`].
#[must_use]
pub fn fetch(socket: &Path, name: &str, destination: &Path, reader: Reader) -> Exit {
    let standby = reader == Reader::Standby;
    let limit = if standby { Patience::Standby.limit() } else { Patience::Recovery.limit() };
    let request = Request::Fetch { name: name.to_owned(), destination: absolute(destination), standby };
    match ask(socket, &request, limit + CLIENT_EXTRA) {
        Ok(Reply::Fetched) => Exit::DONE,
        // Asked for again and again at the end of the archive: not worth a line in the log each time.
        Ok(Reply::Absent { .. }) => Exit { code: 1, message: None },
        Ok(Reply::Trouble { message } | Reply::Bad { message }) => {
            Exit::trouble(reader, format!("{name}: {message}"))
        }
        Ok(other @ (Reply::Durable | Reply::NotDurable { .. } | Reply::Stopping { .. })) => {
            Exit::trouble(reader, format!("{name}: the agent's answer does not match the request: {other:?}"))
        }
        Err(error) => Exit::trouble(reader, format!("{name}: {}", no_agent(socket, &error))),
    }
}

/// Whether an agent takes connections at this socket.
#[must_use]
pub fn is_served(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// As [`fetch`], from the store itself: for a server that is restored where no agent runs.
pub async fn fetch_without_agent(fetcher: &Fetcher, name: &str, destination: &Path, reader: Reader) -> Exit {
    let patience = match reader {
        Reader::Standby => Patience::Standby,
        Reader::Recovery => Patience::Recovery,
    };
    let file = match name.parse::<WalFileName>() {
        Ok(file) => file,
        Err(bad) => return Exit::trouble(reader, format!("{name}: {bad}")),
    };
    match fetcher.fetch(file, &absolute(destination), None, patience).await {
        Ok(Fetched::Written { .. }) => Exit::DONE,
        Ok(Fetched::Absent) => Exit { code: 1, message: None },
        Err(failure) => Exit::trouble(reader, format!("{name}: {}", causes(&failure))),
    }
}

/// PostgreSQL runs its commands in the data directory and gives paths relative to it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn no_agent(socket: &Path, error: &io::Error) -> String {
    format!("no answer from the agent at {}: {error}", socket.display())
}

fn ask(socket: &Path, request: &Request, limit: Duration) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(CLIENT_EXTRA))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    // The agent answers with one line and closes.
    let mut answer = Vec::new();
    match stream.take(LINE_MAX as u64).read_to_end(&mut answer) {
        Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("silent for {} s", limit.as_secs())));
        }
        Err(error) => return Err(error),
    }
    Ok(serde_json::from_slice(&answer)?)
}
