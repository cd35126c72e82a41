//! Which processes are below the supervisor: those of Postgres and of the running tool, found in `/proc`. Backends call
//! `setsid`, so neither process groups nor sessions find them. Sends no signal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Attempts when a process changed its parent while `/proc` was read.
const READS: usize = 4;

/// One process, according to `/proc/<pid>/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    session: i32,
    name: String,
}

/// The descendants of a process, grouped by what they belong to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Below {
    /// The tool and what it started.
    pub(crate) tool: Vec<i32>,
    /// All others: the postmaster, its descendants, and orphans of theirs.
    pub(crate) postgres: Vec<i32>,
}

/// How the processes of the running tool are recognised.
#[derive(Debug, Default)]
pub(crate) struct ToolMarks {
    /// The tool's process, which leads a session of its own.
    pub(crate) pid: Option<i32>,
    /// Processes seen below it.
    pub(crate) seen: BTreeSet<i32>,
}

/// Every visible process.
pub(crate) fn processes() -> io::Result<Vec<Process>> {
    let mut found = read_once()?;
    for _ in 1..READS {
        if !moved(&found) {
            break;
        }
        found = read_once()?;
    }
    Ok(found)
}

/// One process, unless it is gone.
pub(crate) fn process(pid: i32) -> Option<Process> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The descendants of `root` among `processes`.
pub(crate) fn below(processes: &[Process], root: i32, tool: &ToolMarks) -> Below {
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(process);
    }
    let mut below = Below::default();
    let mut to_visit = vec![(root, false)];
    while let Some((parent, parent_is_tool)) = to_visit.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            let is_tool = parent_is_tool
                || tool.pid.is_some_and(|pid| child.pid == pid || child.session == pid)
                || tool.seen.contains(&child.pid);
            if is_tool {
                below.tool.push(child.pid)
            } else {
                below.postgres.push(child.pid)
            }
            to_visit.push((child.pid, is_tool));
        }
    }
    below
}

/// A Postgres that works in this data directory and is not below `root`: every process of Postgres has the data directory
/// as its working directory. One of another user that we may not inspect is not found.
pub(crate) fn foreign_postgres(processes: &[Process], root: i32, data_directory: &Path) -> Option<i32> {
    let directory = fs::metadata(data_directory).ok()?;
    let ours = below(processes, root, &ToolMarks::default()).postgres;
    let works_there = |process: &&Process| {
        fs::metadata(format!("/proc/{}/cwd", process.pid))
            .is_ok_and(|cwd| (cwd.dev(), cwd.ino()) == (directory.dev(), directory.ino()))
    };
    processes
        .iter()
        .filter(|process| process.name == "postgres" && !ours.contains(&process.pid))
        .find(works_there)
        .map(|process| process.pid)
}

/// Names for a message: `pid (name)`.
pub(crate) fn describe(processes: &[Process], pids: &[i32]) -> String {
    let shown = processes.iter().filter(|process| pids.contains(&process.pid)).take(5);
    let shown: Vec<String> = shown.map(|Process { pid, name, .. }| format!("{pid} ({name})")).collect();
    let more = if pids.len() > shown.len() { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn read_once() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            // One that is gone by now cannot be read; that is not an error.
            found.extend(process(pid));
        }
    }
    Ok(found)
}

/// A process whose parent is not there was read before its parent died; its place in the tree is unknown.
/// Where `/proc` hides other users' processes this is always so, which is why the reads are counted.
fn moved(found: &[Process]) -> bool {
    let pids: BTreeSet<i32> = found.iter().map(|process| process.pid).collect();
    found.iter().any(|process| process.parent != 0 && !pids.contains(&process.parent))
}

/// `pid (name) state ppid pgrp session ...`; the name may hold anything, `)` and spaces too.
fn parse(stat: &[u8]) -> Option<Process> {
    let stat = String::from_utf8_lossy(stat);
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process { pid: pid.parse().ok()?, parent, session, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a(pid: i32, parent: i32, session: i32) -> Process {
        Process { pid, parent, session, name: "postgres".to_owned() }
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_confuse() {
        let stat = b"42 (a) b (c)) S 7 42 41 0 -1 4194560 1 2 3";
        let expected = Process { pid: 42, parent: 7, session: 41, name: "a) b (c)".to_owned() };
        assert_eq!(parse(stat), Some(expected));
    }

    #[test]
    fn we_find_ourselves_in_proc() {
        let us = i32::try_from(std::process::id()).unwrap();
        assert!(processes().unwrap().iter().any(|process| process.pid == us));
        assert_eq!(process(us).map(|process| process.pid), Some(us));
    }

    #[test]
    fn backends_in_sessions_of_their_own_and_orphans_are_found_and_strangers_are_not() {
        let all = [a(1, 0, 1), a(10, 1, 10), a(11, 10, 11), a(12, 11, 12), a(13, 10, 13), a(20, 1, 20)];
        let mut below = below(&all, 10, &ToolMarks::default());
        below.postgres.sort_unstable();
        assert_eq!(below, Below { tool: vec![], postgres: vec![11, 12, 13] });
    }

    #[test]
    fn the_tool_its_children_and_its_orphans_are_kept_apart_from_postgres() {
        let all = [a(10, 1, 10), a(11, 10, 11), a(30, 10, 30), a(31, 30, 31), a(32, 10, 30), a(33, 10, 33)];
        let marks = ToolMarks { pid: Some(30), seen: BTreeSet::from([33]) };
        let mut below = below(&all, 10, &marks);
        below.tool.sort_unstable();
        assert_eq!(below, Below { tool: vec![30, 31, 32, 33], postgres: vec![11] });
    }

    #[test]
    fn a_child_without_its_parent_means_that_the_tree_moved() {
        assert!(moved(&[a(1, 0, 1), a(12, 11, 12)]));
        assert!(!moved(&[a(1, 0, 1), a(12, 1, 12)]));
    }
}
