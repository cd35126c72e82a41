//! Asks the program `postgres` whether a server would start with given parameters: `postgres -C`, in a scratch directory. No
//! server is started, and the data directory is only read.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::process::Command;
use tokio::time::timeout;

use crate::configuration::Configuration;
use crate::server_log::last_fatal;
use crate::settings::Settings;

/// Time limit for one answer, which loads preloaded libraries.
const LIMIT: Duration = Duration::from_secs(5);
/// Computed after everything else was checked: libraries loaded, limits compared, memory added up.
const WHOLE: &str = "shared_memory_size";
/// Needs nothing but the parameters themselves.
const BARE: &str = "port";
/// Prefix of the names of scratch directories.
const SCRATCH: &str = "outrider-trial-";
/// What a server starts from, or leaves behind; anything else may be a file that a parameter names.
const SERVERS_OWN: &[&str] =
    &["base", "global", "current_logfiles", "backup_label", "standby.signal", "recovery.signal", "promote"];

/// Settings to try.
#[derive(Debug)]
pub struct Trial<'settings> {
    settings: &'settings Settings,
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialOutcome {
    /// The program does not object.
    Passed,
    /// A server would not start; in its own words.
    Refused(String),
    /// The program could not be asked, and why.
    NotTried(String),
}

impl<'settings> Trial<'settings> {
    /// For the Postgres of a member.
    #[must_use]
    pub fn of(settings: &'settings Settings) -> Self {
        Trial { settings }
    }

    /// Removes scratch directories left by killed processes of this user; those in use are locked.
    pub fn sweep() {
        Scratch::sweep(&std::env::temp_dir());
    }

    /// Whether a server would start with everything it would be given, besides the files of its data directory.
    pub async fn start(&self, wanted: &Configuration) -> TrialOutcome {
        let parameters = wanted.all_parameters(self.settings);
        let scratch = match Scratch::beside_data(&self.settings.data_directory) {
            Ok(scratch) => scratch,
            Err(fault) => return TrialOutcome::NotTried(format!("no scratch directory: {fault}")),
        };
        let asked = if scratch.has_data { WHOLE } else { BARE };
        match self.ask(asked, &scratch, &parameters).await {
            Ok(answer) if asked == WHOLE => fits_into_memory(answer.trim()),
            Ok(_) => TrialOutcome::Passed,
            Err(outcome) => outcome,
        }
    }

    /// Whether a server would accept one parameter, whatever the others are.
    pub async fn parameter(&self, name: &str, value: &str) -> TrialOutcome {
        let parameters = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        match Scratch::bare() {
            Ok(scratch) => match self.ask(BARE, &scratch, &parameters).await {
                Ok(_) => TrialOutcome::Passed,
                Err(outcome) => outcome,
            },
            Err(fault) => TrialOutcome::NotTried(format!("no scratch directory: {fault}")),
        }
    }

    async fn ask(
        &self,
        asked: &str,
        scratch: &Scratch,
        parameters: &BTreeMap<String, String>,
    ) -> Result<String, TrialOutcome> {
        let program = self.settings.bin_directory.join("postgres");
        let mut command = Command::new(&program);
        // Only as its first argument may root use it too.
        command.args(["-C", asked, "-D"]).arg(&scratch.path);
        for (name, value) in parameters {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.env_clear().env("LC_ALL", "C").env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let not_tried = |why: String| TrialOutcome::NotTried(format!("{}: {why}", program.display()));
        let output = timeout(LIMIT, command.output())
            .await
            .map_err(|_| not_tried(format!("it did not answer within {LIMIT:?}")))?
            .map_err(|fault| not_tried(fault.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<String> = said.lines().map(str::to_owned).collect();
        Err(TrialOutcome::Refused(last_fatal(&lines).unwrap_or_else(|| output.status.to_string())))
    }
}

/// A server that asks for more memory than there is does not start. `megabytes`: the value of `shared_memory_size`.
fn fits_into_memory(megabytes: &str) -> TrialOutcome {
    let Ok(wanted) = megabytes.parse::<u64>() else { return TrialOutcome::Passed };
    let there = fs::read_to_string("/proc/meminfo").map(|text| megabytes_there(&text)).unwrap_or(u64::MAX);
    if wanted <= there {
        return TrialOutcome::Passed;
    }
    TrialOutcome::Refused(format!(
        "the server would need {wanted} MB of shared memory; this machine has {there} MB"
    ))
}

fn megabytes_there(meminfo: &str) -> u64 {
    let kilobytes = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    kilobytes("MemTotal:").map_or(u64::MAX, |memory| (memory + kilobytes("SwapTotal:").unwrap_or(0)) >> 10)
}

/// A directory that is removed on drop.
struct Scratch {
    path: PathBuf,
    /// Locked as long as this lives; the kernel notices its end.
    _held: fs::File,
    /// With it the whole start can be tried.
    has_data: bool,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is empty files and links in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Scratch {
    /// Without any parameter.
    fn bare() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{SCRATCH}{}-{number}", std::process::id()));
        // One left by a killed process with this number.
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let held = fs::File::open(&path)?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)?;
        let scratch = Scratch { path, _held: held, has_data: false };
        fs::write(scratch.path.join("postgresql.conf"), "")?;
        Ok(scratch)
    }

    fn sweep(directory: &Path) {
        let us = rustix::process::geteuid().as_raw();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_scratch = entry.file_name().to_string_lossy().starts_with(SCRATCH);
            // Of the entry itself, not of a link's target.
            let ours = entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == us);
            let Some(held) = fs::File::open(entry.path()).ok().filter(|_| is_scratch && ours) else {
                continue;
            };
            if flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() {
                // What cannot be removed now may be at the next start.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// With what a start reads of this data directory before it looks at any data; bare if there is none, or none that we
    /// may read.
    fn beside_data(data: &Path) -> io::Result<Self> {
        let mut scratch = Self::bare()?;
        let Ok(control) = fs::read(data.join("global/pg_control")) else { return Ok(scratch) };
        let Ok(version) = fs::read(data.join("PG_VERSION")) else { return Ok(scratch) };
        let path = &scratch.path;
        fs::DirBuilder::new().mode(0o700).create(path.join("global"))?;
        fs::write(path.join("global/pg_control"), control)?;
        fs::write(path.join("PG_VERSION"), version)?;
        fs::write(
            path.join("postgresql.auto.conf"),
            fs::read(data.join("postgresql.auto.conf")).unwrap_or_default(),
        )?;
        let base = data.join("postgresql.base.conf");
        let base = if base.exists() { base } else { data.join("postgresql.conf") };
        let include = format!("include_if_exists '{}'\n", base.display().to_string().replace('\'', "''"));
        fs::write(path.join("postgresql.conf"), include)?;
        for entry in fs::read_dir(data)?.flatten() {
            let name = entry.file_name();
            let text = name.to_string_lossy();
            let own = ["pg_", "post", "PG_"].iter().any(|start| text.starts_with(start));
            if !own && !SERVERS_OWN.contains(&text.as_ref()) {
                std::os::unix::fs::symlink(entry.path(), path.join(&name))?;
            }
        }
        scratch.has_data = true;
        Ok(scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("postgresql.conf"), "").unwrap();
            path
        };
        let (left, held, other) =
            (make("outrider-trial-1-0"), make("outrider-trial-2-0"), make("outrider-drill-1"));
        let link = directory.path().join("outrider-trial-3-0");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let holder = fs::File::open(&held).unwrap();
        flock(&holder, FlockOperation::NonBlockingLockExclusive).unwrap();
        Scratch::sweep(directory.path());
        assert!(!left.exists() && held.exists() && other.join("postgresql.conf").exists() && link.exists());
        drop(holder);
        Scratch::sweep(directory.path());
        assert!(!held.exists());
    }

    #[test]
    fn memory_that_the_machine_does_not_have_is_refused() {
        assert_eq!(megabytes_there("MemTotal: 2048 kB\nMemFree: 1 kB\nSwapTotal: 1024 kB\n"), 3);
        assert_eq!(fits_into_memory("1"), TrialOutcome::Passed);
        assert!(matches!(fits_into_memory("999999999999"), TrialOutcome::Refused(_)));
    }
}
