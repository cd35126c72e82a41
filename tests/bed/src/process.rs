//! Processes of this machine as the kernel shows them, and signals to those that the bed started. Starts none.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// The variable that every process of a bed inherits; its value is the bed's directory.
pub(crate) const MARK: &str = "OUTRIDER_BED";

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGQUIT.
    Quit,
}

impl Signal {
    fn number(self) -> i32 {
        match self {
            Signal::Stop => libc::SIGSTOP,
            Signal::Continue => libc::SIGCONT,
            Signal::Kill => libc::SIGKILL,
            Signal::Terminate => libc::SIGTERM,
            Signal::Interrupt => libc::SIGINT,
            Signal::Quit => libc::SIGQUIT,
        }
    }
}

/// Sends a signal to one process. One that is gone already is no error.
///
/// # Panics
/// On the pids that mean more than one process.
#[expect(unsafe_code, reason = "kill(2) has no safe wrapper in std")]
pub fn send(pid: i32, signal: Signal) {
    assert!(pid > 1, "{pid} is not one process");
    // SAFETY: no pointers.
    unsafe { libc::kill(pid, signal.number()) };
}

/// SIGKILL to a process group that the bed made.
///
/// # Panics
/// On the numbers that mean more than one group.
#[expect(unsafe_code, reason = "kill(2) has no safe wrapper in std")]
pub(crate) fn kill_group(leader: i32) {
    assert!(leader > 1, "{leader} is not one group");
    // SAFETY: no pointers.
    unsafe { libc::kill(-leader, libc::SIGKILL) };
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// `R`, `S`, `D`, `T` (stopped), `Z` (zombie), ...
    pub state: char,
    /// The parent.
    pub parent: i32,
    /// The processor time used so far.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
}

/// One process; `None` when it is gone.
pub fn stat(pid: i32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let pages: u64 = fields.get(21)?.parse().ok()?;
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        // USER_HZ is 100 on every Linux that PostgreSQL runs on, and pages are 4 KiB on those that we measure on.
        cpu: Duration::from_millis(ticks * 10),
        resident: pages * 4096,
    })
}

/// Whether it runs; a zombie does not.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z' && stat.state != 'X')
}

/// Every process of the machine.
pub fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// `root` and everything below it, parents first.
pub fn tree(root: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> =
        all().into_iter().filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// The command line.
pub fn arguments(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let parts = line.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// The processes of PostgreSQL that work in this data directory.
pub fn postgres_in(data_directory: &Path) -> Vec<i32> {
    all().into_iter().filter(|pid| is_postgres_below(*pid, data_directory)).collect()
}

/// All living processes of the bed in `directory`: they inherited its mark. PostgreSQL writes its title over its
/// environment, but it works in its data directory.
pub fn of_bed(directory: &Path) -> Vec<i32> {
    let mark = format!("{MARK}={}", directory.display()).into_bytes();
    let marked = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark)
    };
    let us = std::process::id().cast_signed();
    let ours =
        |pid: &i32| *pid != us && (marked(*pid) || is_postgres_below(*pid, directory)) && is_alive(*pid);
    all().into_iter().filter(ours).collect()
}

fn is_postgres_below(pid: i32, directory: &Path) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let works_in = fs::read_link(format!("/proc/{pid}/cwd"));
    name.trim() == "postgres" && works_in.is_ok_and(|place| place.starts_with(directory))
}
