//! One agent's connection: bytes in, lines out of them; messages out, without waiting for a slow reader. Does not know what
//! the lines mean.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use crate::protocol::{LINE_LIMIT, Message};

/// Most output pending for a slow reader, in bytes; beyond it the connection is dropped.
const OUTPUT_MAX: usize = 1024 * 1024;

/// A connection and its buffers.
pub(crate) struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// True once it sent hello: it gets events.
    pub(crate) greeted: bool,
    /// True when nothing more is read; it is closed once its output is written.
    pub(crate) closing: bool,
    broken: bool,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (input, output) = (Vec::new(), VecDeque::new());
        Self { stream, input, output, greeted: false, closing: false, broken: false }
    }

    /// What to poll for.
    pub(crate) fn interest(&self) -> i16 {
        let read = if self.closing { 0 } else { libc::POLLIN };
        let write = if self.output.is_empty() { 0 } else { libc::POLLOUT };
        read | write
    }

    /// True when it can be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        self.broken || (self.closing && self.output.is_empty())
    }

    /// Reads up to one buffer and returns the lines that ended in it. A line over the limit closes the connection, because
    /// what follows cannot be told from it.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Vec<Vec<u8>> {
        if self.closing || self.broken {
            return Vec::new();
        }
        match self.stream.read(buffer) {
            // The peer may have shut down only its writing side: its requests are still answered.
            Ok(0) => self.closing = true,
            Ok(read) => self.input.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.broken = true,
        }
        let mut lines: Vec<Vec<u8>> = self.input.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        self.input = lines.pop().unwrap_or_default();
        if let Some(long) = lines.iter().position(|line| line.len() >= LINE_LIMIT) {
            lines.truncate(long);
            self.closing = true;
        }
        if self.input.len() >= LINE_LIMIT {
            self.closing = true;
        }
        lines
    }

    /// Queues a message, and writes as much as possible at once.
    pub(crate) fn send(&mut self, message: &Message) {
        let Ok(mut line) = serde_json::to_vec(message) else {
            self.broken = true;
            return;
        };
        line.push(b'\n');
        if self.output.len() + line.len() > OUTPUT_MAX {
            self.broken = true;
            return;
        }
        self.output.extend(line);
        self.flush();
    }

    /// Writes as much as the peer takes at once.
    pub(crate) fn flush(&mut self) {
        while !self.output.is_empty() && !self.broken {
            let (front, _) = self.output.as_slices();
            match self.stream.write(front) {
                Ok(0) => self.broken = true,
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.broken = true,
            }
        }
    }

    /// The peer hung up, or the connection failed.
    pub(crate) fn hang_up(&mut self) {
        self.broken = true;
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Answer, Reply};

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Connection::new(ours), theirs)
    }

    #[test]
    fn lines_come_whole_and_a_closed_writing_side_is_still_answered() {
        let (mut connection, mut peer) = pair();
        let mut buffer = vec![0; 1024];
        peer.write_all(b"one\ntw").unwrap();
        assert_eq!(connection.read(&mut buffer), [b"one"]);
        peer.write_all(b"o\n").unwrap();
        assert_eq!(connection.read(&mut buffer), [b"two"]);
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(connection.read(&mut buffer).is_empty());
        assert!(connection.is_over());
    }

    #[test]
    fn a_line_over_the_limit_closes_the_connection() {
        let (mut connection, mut peer) = pair();
        let writer = std::thread::spawn(move || peer.write_all(&vec![b'x'; LINE_LIMIT]));
        let mut buffer = vec![0; 1024];
        while !connection.closing {
            assert!(connection.read(&mut buffer).is_empty());
        }
        writer.join().unwrap().unwrap();
        assert!(connection.is_over());
    }

    #[test]
    fn a_reader_that_does_not_read_is_dropped_and_not_waited_for() {
        let (mut connection, _peer) = pair();
        let message = Message::Reply(Reply::new(1, Ok(Answer::Done)));
        while !connection.is_over() {
            connection.send(&message);
            assert!(connection.output.len() <= OUTPUT_MAX);
        }
    }
}
