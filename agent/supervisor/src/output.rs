//! A child's output: read without waiting, cut into lines, the last of them kept. Prints nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::system;

/// Longest line in bytes; longer ones are cut.
const LINE_MAX: usize = 1000;
/// Largest tail in bytes; beyond it the oldest lines are dropped, so that a status fits in a line of the protocol even if
/// every byte has to be escaped.
const TAIL_MAX: usize = 24 * 1024;

/// The reading end of a child's output.
pub(crate) struct Output {
    pipe: File,
    lines: Lines,
    ended: bool,
}

impl Output {
    pub(crate) fn new(pipe: PipeReader) -> io::Result<Self> {
        let pipe = File::from(OwnedFd::from(pipe));
        system::do_not_block(&pipe)?;
        Ok(Self { pipe, lines: Lines::default(), ended: false })
    }

    /// False once nobody can write any more: there is nothing to poll for.
    pub(crate) fn is_open(&self) -> bool {
        !self.ended
    }

    /// Reads up to one buffer: the raw bytes, and the lines that ended in them.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> (usize, Vec<String>) {
        let read = match self.pipe.read(buffer) {
            Ok(0) => {
                self.ended = true;
                return (0, self.lines.rest());
            }
            Ok(read) => read,
            Err(error) => {
                let passing = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
                self.ended = !passing.contains(&error.kind());
                return (0, Vec::new());
            }
        };
        (read, self.lines.push(&buffer[..read]))
    }

    /// The unfinished last line, once the child is gone.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        self.lines.rest()
    }
}

impl AsRawFd for Output {
    fn as_raw_fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }
}

/// Splits bytes into lines; a carriage return ends one too, as progress reports use it.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut ended = Vec::new();
        for &byte in bytes {
            if byte == b'\n' || byte == b'\r' {
                ended.extend(self.rest());
            } else if self.begun.len() < LINE_MAX {
                self.begun.push(byte);
            }
        }
        ended
    }

    fn rest(&mut self) -> Vec<String> {
        if self.begun.is_empty() {
            return Vec::new();
        }
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.begun))
            .chars()
            .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
            .collect();
        vec![line]
    }
}

/// The last lines of something.
#[derive(Debug)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
    most: usize,
}

impl Tail {
    /// Keeps at most this many.
    pub(crate) fn new(most: usize) -> Self {
        Self { lines: VecDeque::new(), bytes: 0, most }
    }

    pub(crate) fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > self.most || self.bytes > TAIL_MAX {
            let oldest = self.lines.pop_front().map_or(0, |line| line.len());
            self.bytes -= oldest;
        }
    }

    /// Oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_whatever_the_reads_were() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one\ntw"), ["one"]);
        assert_eq!(lines.push(b"o\r\n\nthree"), ["two"]);
        assert_eq!(lines.rest(), ["three"]);
        assert!(lines.rest().is_empty());
    }

    #[test]
    fn a_long_line_is_cut_and_control_characters_become_spaces() {
        let mut lines = Lines::default();
        let long = lines.push(&[vec![b'x'; 5000], b"\n".to_vec()].concat());
        assert_eq!(long[0].len(), LINE_MAX);
        assert_eq!(lines.push(b"a\0b\x1bc\td\xff\n"), ["a b c\td\u{fffd}"]);
    }

    #[test]
    fn a_tail_keeps_the_last_lines_within_both_limits() {
        let mut tail = Tail::new(2);
        for line in ["a", "b", "c"] {
            tail.push(line.to_owned());
        }
        assert_eq!(tail.lines(), ["b", "c"]);
        let mut tail = Tail::new(1000);
        for _ in 0..1000 {
            tail.push("x".repeat(LINE_MAX));
        }
        assert_eq!(tail.lines().len(), TAIL_MAX / LINE_MAX);
    }
}
