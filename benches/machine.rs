//! What the figures were measured on: processor, kernel, PostgreSQL, commit, load. Measures nothing.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::Context as _;
use outrider_bed::{PROGRAM_LIMIT, Programs, finish};

/// One machine with what is installed on it.
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    kernel: String,
    postgres: String,
    commit: Option<String>,
    /// The load average of the last minute, before anything was started.
    pub(crate) load: String,
}

impl Machine {
    /// Looks at this machine.
    ///
    /// # Errors
    /// When a program is missing or /proc cannot be read.
    pub(crate) fn look() -> anyhow::Result<Self> {
        let postgres = Programs::find()?.postgres.join("postgres");
        let version = finish(Command::new(&postgres).arg("--version"), PROGRAM_LIMIT)?;
        let version = String::from_utf8_lossy(&version.stdout);
        Ok(Machine {
            cores: std::thread::available_parallelism().context("cannot count the cores")?.get(),
            processor: processor(&read("/proc/cpuinfo")?).unwrap_or("unknown processor").to_owned(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            postgres: version.trim().trim_start_matches("postgres (PostgreSQL) ").to_owned(),
            commit: commit(),
            load: load()?,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, line: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cores, processor, kernel, postgres, .. } = self;
        write!(line, "{cores} cores ({processor}), Linux {kernel}, PostgreSQL {postgres}")?;
        match &self.commit {
            Some(commit) => write!(line, ", commit {commit}"),
            None => Ok(()),
        }
    }
}

/// The load average of the last minute.
///
/// # Errors
/// When /proc cannot be read.
pub(crate) fn load() -> anyhow::Result<String> {
    Ok(read("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned())
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn processor(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// `None` outside of a repository, or without git. Says when the sources are no longer those of the commit.
fn commit() -> Option<String> {
    let commit = git(&["rev-parse", "--short", "HEAD"]).filter(|commit| !commit.is_empty())?;
    let changes = git(&["status", "--porcelain", "--", "agent", "Cargo.lock"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit} with changes") })
}

fn git(arguments: &[&str]) -> Option<String> {
    // In the repository, from wherever we were started.
    let mut git = Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR")]).args(["-C", ".."]).args(arguments);
    let output = finish(&mut git, PROGRAM_LIMIT).ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
