//! The settings that need a restart, as the Postgres of a data directory has them: given as arguments, which are in
//! `postmaster.opts`. Changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use super::parameters::{is_fixed, quote, unquote};
use crate::error::Error;
use crate::file;

/// Written by each postmaster when it starts, and left when it ends (PostgreSQL, CreateOptsFile).
const FILE: &str = "postmaster.opts";

/// The arguments of the last start; empty if there was none.
pub(super) fn read(data_directory: &Path) -> Result<BTreeMap<String, String>, Error> {
    let text = file::read_if_there(&data_directory.join(FILE))?;
    Ok(text.map(|text| parse(&text)).unwrap_or_default())
}

/// Prefix of a line with a setting that waits for a restart. PostgreSQL compares the running values with the file, which
/// has them.
const WAITING: &str = "# At the next start: ";

/// Lines for the generated file that name settings waiting for a restart.
pub(super) fn note<'a>(waiting: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    waiting.map(|(name, value)| format!("{WAITING}{name} = {}\n", quote(value))).collect()
}

/// The settings waiting for a restart, from the generated file; none when there is no file.
pub(crate) fn waiting(data_directory: &Path) -> Result<Vec<(String, String)>, Error> {
    let text = file::read_if_there(&data_directory.join(super::MAIN))?.unwrap_or_default();
    let settings = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix(WAITING)?.split_once(" = ")?;
        Some((name.to_owned(), unquote(value)))
    });
    Ok(settings.collect())
}

/// The program and its arguments, each after a space and in quotes.
fn parse(text: &str) -> BTreeMap<String, String> {
    let arguments = text.trim_end().split(" \"").skip(1).map(|argument| argument.trim_end_matches('"'));
    let settings = arguments.filter_map(|argument| {
        let (name, value) = argument.split_once('=')?;
        // `-c name=value` as one or two arguments, or `--name=value`.
        let name = name.strip_prefix("-c").or_else(|| name.strip_prefix("--")).unwrap_or(name);
        Some((name.trim().replace('-', "_").to_ascii_lowercase(), value.to_owned()))
    });
    settings.filter(|(name, _)| is_fixed(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_restart_is_named_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(waiting(directory.path()).unwrap(), []);
        let settings =
            [("max_connections".to_owned(), "50".to_owned()), ("wal_level".to_owned(), "logical".to_owned())];
        let text =
            format!("max_connections = '100'\n{}", note(settings.iter().map(|(name, value)| (name, value))));
        std::fs::write(directory.path().join("postgresql.conf"), text).unwrap();
        assert_eq!(waiting(directory.path()).unwrap(), settings);
    }

    #[test]
    fn arguments_of_every_form_are_read() {
        let text = "/usr/lib/postgresql/15/bin/postgres \"-D\" \"/srv/pg=x/data\" \"-c\" \"max_connections=150\" \
                    \"--max-wal-senders=12\" \"-cmax_worker_processes=9\" \"-c\" \"cluster_name=a \"b\" c\"\n";
        let expected = [("max_connections", "150"), ("max_wal_senders", "12"), ("max_worker_processes", "9")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text), BTreeMap::from(expected));
        assert_eq!(parse(""), BTreeMap::new());
    }
}
