//! The one postmaster: what a start and a promotion need, and its signals. Does not watch the fuse.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::child::{self, Child};
use crate::fuse::Armed;
use crate::output::Output;
use crate::protocol::{Exit, PostmasterStatus, Refusal, RefusalCode};
use crate::system::{self, Identity};

/// A postmaster, from its start until its last descendant is gone.
pub(crate) struct Postmaster {
    pub(crate) pid: i32,
    pub(crate) writable: bool,
    pub(crate) started_ns: u64,
    /// It was told to stop, by anybody.
    pub(crate) stopping: bool,
    /// It was reaped: its number may be reused by now, and must get no signal.
    pub(crate) death: Option<Death>,
    pub(crate) fencing: Option<Fencing>,
    /// From this moment on every descendant gets SIGKILL.
    pub(crate) kill_at_ns: Option<u64>,
    /// Since when a signal has kept it stopped.
    pub(crate) frozen_ns: Option<u64>,
    pub(crate) output: Output,
    /// Kept, so that a tool beside a running Postgres does not have to access a disk that may hang.
    pub(crate) identity: Option<Identity>,
}

/// The postmaster's own end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    pub(crate) exit: Exit,
    pub(crate) at_ns: u64,
}

/// The fuse that blew over it, and when that was noticed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fencing {
    pub(crate) armed: Armed,
    pub(crate) since_ns: u64,
}

impl Postmaster {
    /// Starts it. The caller has checked the fuse, and that nothing else runs.
    pub(crate) fn start(
        bin_directory: &Path,
        data_directory: &Path,
        arguments: &[String],
        writable: bool,
    ) -> Result<Self, Refusal> {
        let identity = child::run_as(data_directory)?;
        let mut all = vec!["-D".to_owned(), data_directory.display().to_string()];
        all.extend_from_slice(arguments);
        let program = bin_directory.join("postgres");
        // An immediate shutdown: it must not outlive its supervisor, and can recover from it.
        let Child { pid, output } = child::spawn(&program, &all, &[], identity.clone(), libc::SIGQUIT)?;
        Ok(Self {
            pid,
            writable,
            started_ns: system::boottime_ns(),
            stopping: false,
            death: None,
            fencing: None,
            kill_at_ns: None,
            frozen_ns: None,
            output,
            identity,
        })
    }

    /// Sends it a signal, unless it is dead.
    pub(crate) fn signal(&self, signal: i32, act: &str) -> Result<(), Refusal> {
        let Self { pid, death, .. } = self;
        if death.is_some() {
            let message = format!(
                "{act} refused: postmaster {pid} is dead, and its remaining processes are being killed"
            );
            return Err(Refusal { code: RefusalCode::NotRunning, message });
        }
        system::kill(*pid, signal).map_err(|error| Refusal {
            code: RefusalCode::SignalFailed,
            message: format!("{act} failed: cannot send signal {signal} to postmaster {pid}: {error}"),
        })
    }

    /// Ends it without waiting for anybody: SIGQUIT now, SIGKILL to everything from `kill_at_ns` on.
    pub(crate) fn take_down(&mut self, kill_at_ns: u64) {
        self.stopping = true;
        let earlier = self.kill_at_ns.map_or(kill_at_ns, |at| at.min(kill_at_ns));
        self.kill_at_ns = Some(earlier);
        // Fails only when it is dead, and SIGKILL follows in any case.
        let _ = self.signal(libc::SIGQUIT, "immediate stop");
    }

    /// For the status.
    pub(crate) fn status(&self) -> PostmasterStatus {
        PostmasterStatus {
            pid: self.pid,
            writable: self.writable,
            started_ns: self.started_ns,
            stopping: self.stopping,
            died: self.death.is_some(),
            frozen_ns: self.frozen_ns.filter(|_| self.death.is_none()),
        }
    }
}

/// A standby's start needs `standby.signal`, a writable one must not have it.
pub(crate) fn check_standby_signal(data_directory: &Path, writable: bool) -> Result<(), Refusal> {
    let path = data_directory.join("standby.signal");
    let shown = path.display();
    let (code, message) = match (path.try_exists(), writable) {
        (Ok(true), false) | (Ok(false), true) => return Ok(()),
        (Ok(false), false) => {
            (RefusalCode::NoStandbySignal, format!("start as standby refused: there is no {shown}"))
        }
        (Ok(true), true) => {
            (RefusalCode::StandbySignalPresent, format!("writable start refused: there is {shown}"))
        }
        (Err(error), _) => {
            (RefusalCode::SpawnFailed, format!("start refused: cannot look for {shown}: {error}"))
        }
    };
    Err(Refusal { code, message })
}

/// Refuses arguments that would lead `postgres` to another data directory or mode, bypassing the checks on ours.
pub(crate) fn check_arguments(arguments: &[String]) -> Result<(), Refusal> {
    match arguments.iter().find(|argument| leads_away(argument)) {
        None => Ok(()),
        Some(argument) => Err(Refusal {
            code: RefusalCode::BadArgument,
            message: format!("start refused: argument {argument:?} is set by the supervisor"),
        }),
    }
}

fn leads_away(argument: &str) -> bool {
    let is_data_directory = |setting: &str| {
        let name = setting.split('=').next().unwrap_or_default().trim();
        name.to_ascii_lowercase().replace('-', "_") == "data_directory"
    };
    let Some(options) = argument.strip_prefix('-') else { return is_data_directory(argument) };
    if let Some(long) = options.strip_prefix('-') {
        return is_data_directory(long) || !long.contains('=');
    }
    for (at, option) in options.char_indices() {
        match option {
            'D' | 'C' => return true,
            'c' => return is_data_directory(&options[at + 1..]),
            // Options without a value; another one may follow in the same word.
            'b' | 'E' | 'e' | 'F' | 'i' | 'j' | 'l' | 'n' | 'O' | 'P' | 's' | 'T' => {}
            _ => return false,
        }
    }
    false
}

/// Creates the file that tells the startup process to promote; the postmaster then gets SIGUSR1.
pub(crate) fn write_promote_file(data_directory: &Path) -> Result<(), Refusal> {
    let path = data_directory.join("promote");
    // Only ever created anew, so that a symbolic link in its place is not followed.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Refusal {
            code: RefusalCode::SignalFailed,
            message: format!("promotion failed: cannot create {}: {error}", path.display()),
        }),
    }
}

/// Removes the file when the signal could not be sent, so that a later signal does not promote.
pub(crate) fn remove_promote_file(data_directory: &Path) {
    // A leftover one does nothing before the next SIGUSR1, and a start of Postgres removes it.
    let _ = fs::remove_file(data_directory.join("promote"));
}

/// A postmaster that dies between creating its lock file and writing it leaves it empty, and no other one starts until it is
/// gone. Only for when no Postgres works in the data directory. Returns whether one was removed.
pub(crate) fn remove_empty_lock_file(data_directory: &Path) -> io::Result<bool> {
    let path = data_directory.join("postmaster.pid");
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => fs::remove_file(&path).map(|()| true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_lead_to_another_data_directory_or_program_are_refused() {
        let refused = [
            "-D",
            "-D/other",
            "-iD/other",
            "-C",
            "--single",
            "--boot",
            "--describe-config",
            "--version",
            "data_directory=/other",
            "-cdata_directory=/other",
            "-c Data-Directory = /other",
            "--data-directory=/other",
            "-icdata_directory=/other",
        ];
        for argument in refused {
            assert!(check_arguments(&[argument.to_owned()]).is_err(), "{argument}");
        }
    }

    #[test]
    fn the_usual_arguments_are_taken() {
        let taken = [
            "-c",
            "port=5433",
            "-cport=5433",
            "--port=5433",
            "-p",
            "5433",
            "-k/run/data_directory",
            "-i",
            "--config-file=/etc/postgresql.conf",
            "-hD",
            "cluster_name=data_directory",
        ];
        for argument in taken {
            assert!(check_arguments(&[argument.to_owned()]).is_ok(), "{argument}");
        }
    }

    #[test]
    fn standby_signal_decides_which_start_is_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let code =
            |writable| check_standby_signal(directory.path(), writable).map_err(|refusal| refusal.code);
        assert_eq!(code(true), Ok(()));
        assert_eq!(code(false), Err(RefusalCode::NoStandbySignal));
        fs::write(directory.path().join("standby.signal"), "").unwrap();
        assert_eq!(code(true), Err(RefusalCode::StandbySignalPresent));
        assert_eq!(code(false), Ok(()));
    }

    #[test]
    fn a_promote_file_is_not_written_through_a_symbolic_link() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        std::os::unix::fs::symlink(&victim, directory.path().join("promote")).unwrap();
        write_promote_file(directory.path()).unwrap();
        assert!(!victim.exists());
    }
}
