//! What the demonstration says, line by line with the time since its start. Colours on a terminal only.

use std::fmt::Display;
use std::io::{IsTerminal as _, stdout};
use std::time::Duration;

use tokio::time::Instant;

/// Standard output.
pub(crate) struct Screen {
    start: Instant,
    /// Somebody looks on, and can press Ctrl-C.
    pub(crate) is_terminal: bool,
}

impl Screen {
    /// Time runs from now.
    pub(crate) fn new() -> Self {
        Screen { start: Instant::now(), is_terminal: stdout().is_terminal() }
    }

    /// A heading between two empty lines.
    pub(crate) fn heading(&self, words: impl Display) {
        println!("\n{}\n", self.paint("1", words));
    }

    /// Something that happened, with its time.
    pub(crate) fn event(&self, words: impl Display) {
        let time = format!("{:6.1} s", self.start.elapsed().as_secs_f64());
        println!("{}  {words}", self.paint("2", time));
    }

    /// A result, so that it stands out.
    pub(crate) fn result(&self, good: bool, words: impl Display) {
        let mark = if good { self.paint("32", "ok") } else { self.paint("31;1", "FAILED") };
        self.event(format!("{mark}  {words}"));
    }

    /// As it is, indented.
    pub(crate) fn block(&self, text: impl Display) {
        for line in text.to_string().lines() {
            println!("          {line}");
        }
    }

    /// A word that a reader looks for, such as the name of a member.
    pub(crate) fn name(&self, words: impl Display) -> String {
        self.paint("36", words)
    }

    fn paint(&self, code: &str, words: impl Display) -> String {
        if self.is_terminal { format!("\x1b[{code}m{words}\x1b[0m") } else { words.to_string() }
    }
}

/// Milliseconds below one second, else seconds.
pub(crate) fn span(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
