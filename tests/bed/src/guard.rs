//! The bed's directory, and the promise that nothing of the bed outlives it: on drop, and by a watchdog process when we are
//! killed. Supervisors are daemons, so the death of their parent tells them nothing.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::process::{self, MARK, Signal};
use crate::{Account, Programs};

/// For the last process to be gone after SIGKILL.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// Waits until its input closes, which our death does, then kills what carries the bed's mark, and removes the directory.
const WATCHDOG: &str = r#"
trap '' INT HUP TERM
cat >/dev/null
for round in 1 2 3 4 5 6 7 8 9 10; do
    found=
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        if ! grep -qzxF "$1=$2" "$process/environ" 2>/dev/null; then
            [ "$(cat "$process/comm" 2>/dev/null)" = postgres ] || continue
            case "$(readlink "$process/cwd" 2>/dev/null)" in "$2"/*) ;; *) continue ;; esac
        fi
        kill -KILL "$pid" 2>/dev/null && found=yes
    done
    [ -n "$found" ] || break
    sleep 0.1
done
rm -rf "$2"
"#;

/// A directory for one bed; all processes of the bed are killed when this is dropped.
#[derive(Debug)]
pub struct Guard {
    account: Account,
    programs: Programs,
    directory: PathBuf,
    watchdog: Child,
}

impl Guard {
    /// Makes the directory, short enough for unix sockets below it.
    ///
    /// # Errors
    /// When a program is missing or the system refuses.
    pub fn new() -> anyhow::Result<Self> {
        let account = Account::find()?;
        let mut programs = Programs::find()?;
        // Ours by its name, for `tests/deadline.sh`.
        let prefix = format!("outrider-{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir();
        let directory = directory.context("cannot make a directory for the bed")?.keep();
        account.own(&directory)?;
        let mut watchdog = Command::new("sh");
        watchdog.args(["-c", WATCHDOG, "outrider-watchdog", MARK]).arg(&directory);
        watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watchdog = watchdog.process_group(0).current_dir("/").spawn().context("cannot start sh")?;
        programs.outrider = account.reachable(&programs.outrider, &directory)?;
        Ok(Guard { account, programs, directory, watchdog })
    }

    /// The directory of the bed.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// As whom the bed's programs run.
    pub fn account(&self) -> Account {
        self.account
    }

    /// What is started.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A command that runs as the bed's user in `directory` and carries the bed's mark.
    pub fn command(&self, program: &Path, directory: &Path) -> Command {
        let mut command = self.account.command(program);
        command.env(MARK, &self.directory).current_dir(directory);
        command
    }

    /// The same for a program that finds the first directory of each pair in the place of the second; nobody else does.
    ///
    /// # Errors
    /// Without the right to mount, which only root has.
    pub fn command_with_mounts(
        &self,
        program: &Path,
        directory: &Path,
        mounts: &[(PathBuf, PathBuf)],
    ) -> anyhow::Result<Command> {
        const SCRIPT: &str =
            r#"while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 1; shift 2; done; shift; exec "$@""#;
        anyhow::ensure!(self.account.we_are_root(), "only root can mount");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT, "sh"]);
        for (from, to) in mounts {
            command.arg(from).arg(to);
        }
        command.args(["--", "setpriv", "--clear-groups"]);
        let (uid, gid) = (self.account.uid(), self.account.gid());
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg(program);
        command.stdin(Stdio::null()).process_group(0).env("HOME", "/").env("USER", "postgres");
        command.env(MARK, &self.directory).current_dir(directory);
        Ok(command)
    }

    /// Makes a directory of the bed's user.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn make_directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory.join(name);
        self.account.make_directory(&path)?;
        Ok(path)
    }

    /// Every living process of the bed.
    pub fn processes(&self) -> Vec<i32> {
        process::of_bed(&self.directory)
    }

    /// Kills them all, and waits until they are gone.
    pub fn sweep(&self) {
        let rounds = GONE_LIMIT.as_millis() / 20;
        for _ in 0..rounds {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(|pid| process::send(pid, Signal::Kill));
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("these processes do not die: {:?}", self.processes());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.sweep();
        // Before its input closes, as it would remove the logs of a failed test.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        if std::thread::panicking() {
            eprintln!("logs are in {}", self.directory.display());
        } else if let Err(fault) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("cannot remove {}: {fault}", self.directory.display());
        }
    }
}
