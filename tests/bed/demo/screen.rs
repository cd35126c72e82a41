//! What the demonstration says on the terminal: lines with the time, titles, and announcements in colour where there is one.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// So that somebody who watches can read what is about to happen.
const ANNOUNCEMENT: Duration = Duration::from_secs(1);

/// The terminal, or a file.
pub(crate) struct Screen {
    begun: Instant,
    terminal: bool,
}

impl Screen {
    /// Standard output.
    pub(crate) fn new() -> Self {
        Screen { begun: Instant::now(), terminal: std::io::stdout().is_terminal() }
    }

    /// Whether somebody watches.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A line with the seconds since the start.
    pub(crate) fn say(&self, text: &str) {
        println!("{:>6.1} s  {text}", self.begun.elapsed().as_secs_f64());
        // Whoever reads the lines through a pipe sees them when they are said.
        let _ = std::io::stdout().flush();
    }

    /// A heading.
    pub(crate) fn title(&self, text: &str) {
        if self.terminal {
            println!("\n\x1b[1m{text}\x1b[0m");
        } else {
            println!("\n== {text}");
        }
    }

    /// Says what is about to be done, and gives people a moment.
    pub(crate) async fn announce(&self, text: &str) {
        println!();
        if self.terminal {
            self.say(&format!("\x1b[33m▶ {text}\x1b[0m"));
        } else {
            self.say(&format!("▶ {text}"));
        }
        sleep(ANNOUNCEMENT).await;
    }
}
