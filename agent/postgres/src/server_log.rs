//! What a server logged before it ended: from the lines that its supervisor has, or from the file of its logging collector.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use crate::settings::Settings;

/// Bytes read from the end of a log.
const TAIL_MAX: u64 = 64 << 10;

/// Why a member's server ended. `lines`: the last lines that the supervisor has. Once the logging collector has taken over, they
/// only say that.
#[must_use]
pub fn why_it_ended(settings: &Settings, lines: &[String]) -> Option<String> {
    last_fatal(lines).or_else(|| last_fatal(&collected(settings)?))
}

/// The end of the file last written by the logging collector.
fn collected(settings: &Settings) -> Option<Vec<String>> {
    let directory = &settings.data_directory;
    let files = std::fs::read_to_string(directory.join("current_logfiles")).ok()?;
    let name = files.lines().find_map(|line| line.strip_prefix("stderr "))?;
    let mut file = File::open(directory.join(name)).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_MAX))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}

/// Why a server ended, from the last lines it wrote: from `FATAL` on, with the detail. What it told a client that connected
/// too early does not count.
#[must_use]
pub(crate) fn last_fatal(lines: &[String]) -> Option<String> {
    const TOO_EARLY: &[&str] = &["the database system is", "terminating connection", "authentication failed"];
    let fatal = |line: &String| -> Option<String> {
        let at = line.find("FATAL:").or_else(|| line.find("PANIC:"))?;
        let words = line.get(at..)?;
        (!TOO_EARLY.iter().any(|early| words.contains(early))).then(|| words.to_owned())
    };
    let found = lines.iter().enumerate().rev().find_map(|(at, line)| Some((at, fatal(line)?)));
    let (at, mut words) = found.or_else(|| {
        // Some of the first checks have no severity.
        lines
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, line)| Some((at, line.strip_prefix("postgres: ")?.to_owned())))
    })?;
    for label in ["DETAIL:", "HINT:"] {
        let more = lines.iter().skip(at + 1).take(2).find_map(|line| line.get(line.find(label)?..));
        words.extend(more.map(|more| format!(" {more}")));
    }
    Some(words.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_line_that_ended_a_server_is_found_among_what_it_said_to_others() {
        let said = "x [1] LOG:  starting\nx [2] FATAL:  recovery aborted because of insufficient parameter settings\n\
                    x [2] DETAIL:  max_connections = 50 is a lower setting than on the primary server\n\
                    x [3] FATAL:  the database system is starting up\nx [1] LOG:  database system is shut down";
        assert_eq!(
            last_fatal(&lines(said)).as_deref(),
            Some(
                "FATAL: recovery aborted because of insufficient parameter settings DETAIL: max_connections = 50 is a \
                  lower setting than on the primary server"
            )
        );
        let said = "postgres: superuser_reserved_connections (3) must be less than max_connections (3)";
        assert!(last_fatal(&lines(said)).is_some_and(|words| words.starts_with("superuser_reserved")));
        assert_eq!(last_fatal(&lines("x LOG:  fine")), None);
        assert_eq!(last_fatal(&lines("x FATAL:  the database system is shutting down")), None);
    }
}
