//! The Postgres of a drill: starts it, waits until it has recovered, asks it by psql, stops it. Restores nothing.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::DrillOptions;
use crate::error::RestoreError;

/// No program takes longer that only looks or stops.
const PROGRAM_LIMIT: Duration = Duration::from_secs(120);
/// Reading every page takes its time.
const PAGES_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked whether Postgres has recovered.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Of the log, its end; a line is seldom longer than 200 bytes.
const LOG_TAIL: u64 = 64 * 1024;
/// Lines of the log in a message.
const LINES: usize = 12;
/// What is wanted when a log says it (postmaster.c).
const READY: &str = "database system is ready to accept connections";

/// PostgreSQL's programs, run as the owner of the directory.
pub(super) struct Programs {
    bin_dir: PathBuf,
    scratch: PathBuf,
    owner: Option<(u32, u32)>,
    user: String,
    session_options: String,
}

/// What `pg_controldata` prints.
pub(super) struct Control(String);

impl Control {
    pub(super) fn has_checksums(&self) -> bool {
        self.value("Data page checksum version").is_some_and(|version| version != "0")
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    }
}

impl Programs {
    pub(super) fn new(options: &DrillOptions, scratch: PathBuf, owner: Option<(u32, u32)>) -> Self {
        let (bin_dir, user) = (options.bin_dir.clone(), options.user.clone());
        Programs { bin_dir, scratch, owner, user, session_options: options.session_options.clone() }
    }

    pub(super) async fn control_data(&self, data: &Path) -> Result<Control, RestoreError> {
        let mut command = self.program("pg_controldata");
        command.arg("-D").arg(data);
        run("pg_controldata", command, PROGRAM_LIMIT).await.map(Control)
    }

    /// Those that take connections.
    pub(super) async fn databases(&self) -> Result<Vec<String>, RestoreError> {
        let names = self.ask("template1", "SELECT datname FROM pg_database WHERE datallowconn").await?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    pub(super) async fn relations(&self, database: &str) -> Result<u64, RestoreError> {
        let count = self.ask(database, "SELECT count(*) FROM pg_class").await?;
        let bad = |fault: std::num::ParseIntError| failed("psql", format!("{count:?}: {fault}"));
        count.trim().parse().map_err(bad)
    }

    /// Reads every page and checks it; Postgres must be stopped.
    pub(super) async fn check_pages(&self, data: &Path) -> Result<(), RestoreError> {
        let mut command = self.program("pg_checksums");
        command.arg("--check").arg("-D").arg(data);
        run("pg_checksums", command, PAGES_LIMIT).await.map(drop)
    }

    async fn ask(&self, database: &str, question: &str) -> Result<String, RestoreError> {
        let mut command = self.program("psql");
        command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--no-password"]);
        // A name could hold what psql takes for a connection string.
        command.args(["--port", "5432", "--username", &self.user, "--command", question]);
        command.arg("--host").arg(&self.scratch).env("PGDATABASE", database);
        command.env("PGOPTIONS", &self.session_options);
        run("psql", command, PROGRAM_LIMIT).await
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(name));
        command.current_dir(&self.scratch).stdin(Stdio::null()).kill_on_drop(true);
        // Nothing of our own surroundings shall lead it to another server.
        for (variable, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG"))
        {
            command.env_remove(variable);
        }
        command.env("LC_ALL", "C").env("TZ", "UTC");
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn log(&self) -> PathBuf {
        self.scratch.join("log")
    }
}

/// A Postgres that runs; killed when this goes away.
pub(super) struct Running<'a> {
    programs: &'a Programs,
    postmaster: Child,
}

impl<'a> Running<'a> {
    /// With the configuration that the restore has left, so that the drill shows that it starts; as arguments only where it is
    /// reached, who may, and where it writes its log.
    pub(super) fn start(programs: &'a Programs, data: &Path) -> Result<Self, RestoreError> {
        let write = |name: &str, text: &str| {
            let path = programs.scratch.join(name);
            let written = std::fs::write(&path, text).and_then(|()| match programs.owner {
                Some((user, group)) => std::os::unix::fs::chown(&path, Some(user), Some(group)),
                None => Ok(()),
            });
            written.map(|()| path.clone()).map_err(|source| RestoreError::File { act: "write", path, source })
        };
        // The directory of the socket is closed to all but the owner.
        let access = write("pg_hba.conf", "local all all trust\n")?;
        let identities = write("pg_ident.conf", "")?;
        let log = write("log", "")?;
        let open = || File::options().append(true).open(&log);
        let unwritable = |source| RestoreError::File { act: "write", path: log.clone(), source };
        let mut command = programs.program("postgres");
        command.arg("-D").arg(data);
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("hba_file", &access.display().to_string());
        set("ident_file", &identities.display().to_string());
        set("unix_socket_directories", &programs.scratch.display().to_string());
        for (name, value) in SETTINGS {
            set(name, value);
        }
        command.stdout(open().map_err(unwritable)?).stderr(open().map_err(unwritable)?);
        let postmaster = command.spawn().map_err(|source| RestoreError::File {
            act: "start",
            path: programs.bin_dir.join("postgres"),
            source,
        })?;
        Ok(Running { programs, postmaster })
    }

    /// Waits until it has recovered and takes connections.
    pub(super) async fn recovered(&mut self, limit: Duration) -> Result<(), RestoreError> {
        let begun = Instant::now();
        loop {
            let exit = self.postmaster.try_wait().map_err(|fault| failed("Postgres", fault.to_string()))?;
            let log = self.log_tail()?;
            if log.contains(READY) {
                return Ok(());
            }
            if let Some(exit) = exit {
                return Err(failed("recovery", format!("Postgres ended with {exit}: {}", last_lines(&log))));
            }
            if begun.elapsed() > limit {
                return Err(failed("recovery", format!("not within {limit:?}: {}", last_lines(&log))));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Where replay ended, and when the last transaction had.
    pub(super) fn reached(&self) -> Result<(Option<String>, Option<String>), RestoreError> {
        let log = self.log_tail()?;
        let after = |words: &str| {
            let rest = log.rsplit_once(words)?.1;
            rest.lines().next().map(|line| line.trim().to_owned())
        };
        let lsn = after("redo done at ").and_then(|rest| Some(rest.split_whitespace().next()?.to_owned()));
        Ok((lsn, after("last completed transaction was at log time ")))
    }

    pub(super) async fn stop(mut self, data: &Path) -> Result<(), RestoreError> {
        let mut command = self.programs.program("pg_ctl");
        command.args(["stop", "--mode", "fast", "--wait", "--silent", "-D"]).arg(data);
        run("pg_ctl stop", command, PROGRAM_LIMIT).await?;
        match timeout(PROGRAM_LIMIT, self.postmaster.wait()).await {
            Ok(Ok(exit)) if exit.success() => Ok(()),
            Ok(Ok(exit)) => Err(failed("Postgres", format!("{exit}: {}", last_lines(&self.log_tail()?)))),
            Ok(Err(fault)) => Err(failed("Postgres", fault.to_string())),
            Err(_) => Err(failed("Postgres", format!("it did not stop within {PROGRAM_LIMIT:?}"))),
        }
    }

    fn log_tail(&self) -> Result<String, RestoreError> {
        let path = self.programs.log();
        tail_of(&path).map_err(|source| RestoreError::File { act: "read", path, source })
    }
}

/// What makes it a Postgres that nobody reaches and whose log can be read. On an unclean end the directory is thrown away, so
/// nothing need be durable. Nothing here helps it to start.
const SETTINGS: [(&str, &str); 9] = [
    ("listen_addresses", ""),
    ("port", "5432"),
    ("fsync", "off"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_min_messages", "log"),
    ("log_line_prefix", ""),
    ("log_timezone", "UTC"),
    ("lc_messages", "C"),
];

/// Runs a program to its end and gives what it printed.
async fn run(what: &'static str, mut command: Command, limit: Duration) -> Result<String, RestoreError> {
    let output: io::Result<Output> = match timeout(limit, command.output()).await {
        Ok(output) => output,
        Err(_) => return Err(failed(what, format!("not within {limit:?}"))),
    };
    let output = output.map_err(|source| {
        let path = PathBuf::from(command.as_std().get_program());
        RestoreError::File { act: "start", path, source }
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(what, format!("{}: {}", output.status, last_lines(&said))))
}

fn tail_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join(" | ")
}

fn failed(what: &'static str, fault: String) -> RestoreError {
    RestoreError::Drill { what, fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_is_read_by_names() {
        let control = Control(
            "max_connections setting:              100\nData page checksum version:           1\n".into(),
        );
        assert_eq!(control.value("max_connections setting"), Some("100"));
        assert!(control.has_checksums());
        assert!(!Control("Data page checksum version:           0\n".into()).has_checksums());
        assert!(!Control(String::new()).has_checksums());
    }

    #[test]
    fn a_message_has_the_last_lines() {
        let text: String = (0..30).map(|number| format!("line {number}\n\n")).collect();
        let last = last_lines(&text);
        assert!(last.starts_with("line 18 | ") && last.ends_with("line 29"), "{last}");
        assert_eq!(last_lines(""), "");
    }
}
