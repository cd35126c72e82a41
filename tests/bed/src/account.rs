//! As whom programs run: as ourselves, or as the user `postgres` when we are root, since PostgreSQL refuses root.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::{PROGRAM_LIMIT, finish};

/// The user that every program of the bed runs as.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    uid: u32,
    gid: u32,
    /// We are root and become that user.
    changes: bool,
}

impl Account {
    /// Ourselves, or `postgres` when we are root.
    ///
    /// # Errors
    /// When we are root and there is no user `postgres`.
    pub fn find() -> anyhow::Result<Self> {
        let us = std::fs::metadata("/proc/self").context("cannot look at /proc/self")?;
        if us.uid() != 0 {
            return Ok(Account { uid: us.uid(), gid: us.gid(), changes: false });
        }
        let users = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        let line = users.lines().find(|line| line.starts_with("postgres:"));
        let line =
            line.context("running as root, and there is no user postgres (Debian package postgresql)")?;
        let number = |index: usize| line.split(':').nth(index).and_then(|field| field.parse().ok());
        let (uid, gid) =
            number(2).zip(number(3)).context("the line of postgres in /etc/passwd is damaged")?;
        Ok(Account { uid, gid, changes: true })
    }

    /// Whether we are root.
    pub fn we_are_root(&self) -> bool {
        self.changes
    }

    /// The user's number.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The number of the user's group.
    pub(crate) fn gid(&self) -> u32 {
        self.gid
    }

    /// A command that runs as this user, away from the terminal.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).process_group(0);
        if self.changes {
            command.uid(self.uid).gid(self.gid).env("HOME", "/").env("USER", "postgres");
        }
        command
    }

    /// Gives a file or directory to this user.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn own(&self, path: &Path) -> anyhow::Result<()> {
        if !self.changes {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} away", path.display()))
    }

    /// Makes a directory of this user's.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn make_directory(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
        self.own(path)
    }

    /// The program where this user can run it: where it is, or else a copy in `directory`. A clone in root's home lies where
    /// only root comes.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn reachable(&self, program: &Path, directory: &Path) -> anyhow::Result<PathBuf> {
        if self.can_run(program) {
            return Ok(program.to_owned());
        }
        let copy = directory.join(program.file_name().context("a program has a name")?);
        if !copy.exists() {
            // Under another name until it is whole: another test may look for it at this moment.
            let (process, thread) = (std::process::id(), std::thread::current().id());
            let part = directory.join(format!(".copy-{process}-{thread:?}"));
            let cannot = || format!("cannot copy {} to {}", program.display(), directory.display());
            // By another process: while this one had the copy open for writing, a child that another test begins at this moment
            // would have it, too, and nobody could run it ("text file busy").
            let mut copying = Command::new("install");
            copying.args(["-m", "755"]).arg(program).arg(&part);
            let copied = finish(&mut copying, PROGRAM_LIMIT).with_context(cannot)?;
            anyhow::ensure!(copied.status.success(), "{}: {copied:?}", cannot());
            std::fs::rename(&part, &copy).with_context(cannot)?;
        }
        Ok(copy)
    }

    /// Whether this user may run the program: every directory above it lets everybody through.
    fn can_run(&self, program: &Path) -> bool {
        let lets_through = |path: &Path| std::fs::metadata(path).is_ok_and(|it| it.mode() & 0o001 != 0);
        !self.changes || program.ancestors().filter(|path| path.is_absolute()).all(lets_through)
    }
}
