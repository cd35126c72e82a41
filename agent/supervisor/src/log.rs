//! The supervisor's error output: its own messages, and Postgres' output, passed on unchanged. Never waits for the reader:
//! a log that nobody reads must not hold up the fuse. It drops lines instead, and says so.

use std::collections::VecDeque;
use std::fmt::Display;

use crate::system;

/// Most output buffered for a slow reader, in bytes.
const PENDING_MAX: usize = 256 * 1024;
/// A pipe that polls as writable takes this much without waiting (`PIPE_BUF`).
const WRITE_MAX: usize = 4096;

/// Pending bytes for the error output.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pending: VecDeque<u8>,
    lost: usize,
    mid_line: bool,
}

impl Log {
    /// Writes a line of the supervisor's own.
    pub(crate) fn say(&mut self, line: impl Display) {
        let begin = if self.mid_line { "\n" } else { "" };
        self.pass_on(format!("{begin}outrider supervise: {line}\n").as_bytes());
    }

    /// Passes on a child's output.
    pub(crate) fn pass_on(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        if self.pending.len() + bytes.len() > PENDING_MAX {
            self.lost += bytes.len();
            return;
        }
        if self.lost > 0 {
            let note = format!("\noutrider supervise: {} bytes lost: nobody reads this log\n", self.lost);
            self.pending.extend(note.as_bytes());
            self.lost = 0;
        }
        self.pending.extend(bytes);
        self.mid_line = *last != b'\n';
    }

    /// Whether there is something to write when the reader is ready.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes as much as the reader takes at once.
    pub(crate) fn flush(&mut self) {
        while !self.pending.is_empty() {
            let mut ready = [libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 }];
            if system::poll(&mut ready, false).is_err() || ready[0].revents == 0 {
                return;
            }
            let (front, _) = self.pending.as_slices();
            let chunk = &front[..front.len().min(WRITE_MAX)];
            match system::write_error_output(chunk) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // Closed: nobody will ever read it.
                Err(_) => self.pending.clear(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(log: &Log) -> String {
        String::from_utf8(log.pending.iter().copied().collect()).unwrap()
    }

    #[test]
    fn our_line_does_not_run_into_an_unfinished_line_of_postgres() {
        let mut log = Log::default();
        log.pass_on(b"half a li");
        log.say("fenced");
        log.say("again");
        assert_eq!(text(&log), "half a li\noutrider supervise: fenced\noutrider supervise: again\n");
    }

    #[test]
    fn a_log_that_nobody_reads_is_bounded_and_says_what_it_lost() {
        let mut log = Log::default();
        for _ in 0..PENDING_MAX {
            log.pass_on(b"0123456789\n");
        }
        assert!(log.pending.len() <= PENDING_MAX);
        assert!(log.lost > 0);
        log.pending.clear();
        log.pass_on(b"back\n");
        assert!(text(&log).contains("bytes lost: nobody reads this log\nback\n"));
    }
}
