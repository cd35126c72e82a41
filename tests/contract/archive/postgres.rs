//! A real PostgreSQL in a directory of its own, run by another user when the tests are run by root. Dies with the
//! test.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use outrider_bed::process::{self, Signal};
use outrider_bed::{PROGRAM_LIMIT, finish, last_lines};
use outrider_postgres::{Password, Settings, Tls, User};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::PATIENCE;
use super::bench::{names, wait_until};

pub(crate) struct Postgres {
    directory: TempDir,
    child: Option<Child>,
}

impl Postgres {
    /// An empty directory of the right owner. Sockets lie in it too.
    pub(crate) fn nowhere() -> Self {
        // Ours by its name, for `tests/deadline.sh`.
        let prefix = format!("pg{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        if let Some((user, group)) = other_user() {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        Postgres { directory, child: None }
    }

    pub(crate) fn initdb(&self) {
        self.initdb_with(&[]);
    }

    pub(crate) fn initdb_with(&self, options: &[&str]) {
        let mut initdb = self.tool("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres"]).args(options);
        initdb.arg("--pgdata").arg(self.data());
        run(initdb, self);
    }

    /// Makes it a copy of a running server, without its WAL.
    pub(crate) fn clone_of(&self, other: &Postgres) {
        let mut backup = self.tool("pg_basebackup");
        backup.args(["--wal-method=none", "--checkpoint=fast", "--username=postgres", "--host"]);
        backup.arg(other.directory.path()).arg("--pgdata").arg(self.data());
        run(backup, other);
    }

    /// A base backup of a running server as tars, without WAL; gives the directory.
    pub(crate) fn base_backup(&self) -> PathBuf {
        let into = self.directory.path().join("tars");
        let mut backup = self.tool("pg_basebackup");
        backup.args([
            "--format=tar",
            "--wal-method=none",
            "--checkpoint=fast",
            "--username=postgres",
            "--host",
        ]);
        backup.arg(self.directory.path()).arg("--pgdata").arg(&into);
        run(backup, self);
        into
    }

    pub(crate) fn configure(&self, lines: &str) {
        use std::io::Write as _;
        let path = self.data().join("postgresql.conf");
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        writeln!(file, "fsync = off\nlisten_addresses = ''\nwal_keep_size = '2GB'\n{lines}").unwrap();
        writeln!(file, "unix_socket_directories = '{}'", self.directory.path().display()).unwrap();
    }

    pub(crate) fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut postgres = self.tool("postgres");
        postgres.arg("-D").arg(self.data());
        self.child =
            Some(postgres.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// A connection, as soon as it takes one.
    pub(crate) async fn connect(&self) -> Client {
        let mut client = None;
        let host = self.directory.path().to_str().unwrap();
        // Nothing waits for ever: a backup waits for its WAL as long as its statement may last.
        let limits =
            format!("connect_timeout=10 options='-c statement_timeout={}'", PROGRAM_LIMIT.as_millis());
        let configuration = format!("host={host} user=postgres dbname=postgres {limits}");
        let answers =
            fmt::from_fn(|f| write!(f, "PostgreSQL at {host} answers; it logged last:\n{}", self.log_tail()));
        wait_until(answers, async || {
            let Ok((connected, connection)) = tokio_postgres::connect(&configuration, NoTls).await else {
                return false;
            };
            tokio::spawn(connection);
            client = Some(connected);
            true
        })
        .await;
        client.unwrap()
    }

    /// Stops it as its operator would, and waits until it is gone.
    pub(crate) async fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        process::send(child.id().cast_signed(), Signal::Interrupt);
        wait_until("PostgreSQL stops", async || child.try_wait().unwrap().is_some()).await;
    }

    /// Kills the postmaster; its processes end when they notice.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until it ends by itself, and tells the end of its log.
    pub(crate) async fn ended(&mut self) -> String {
        let mut child = self.child.take().unwrap();
        wait_until("PostgreSQL ends", async || child.try_wait().unwrap().is_some()).await;
        self.log_tail()
    }

    /// An empty directory of its owner, beside the data.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir(&path).unwrap();
        if let Some((user, group)) = other_user() {
            chown(&path, Some(user), Some(group)).unwrap();
        }
        path
    }

    /// Runs a program of PostgreSQL as the owner of the directory, and expects it to succeed.
    pub(crate) fn run(&self, tool: &str, arguments: &[&str]) {
        let mut command = self.tool(tool);
        command.args(arguments);
        run(command, self);
    }

    /// What an agent beside it knows.
    pub(crate) fn settings(&self) -> Settings {
        let user =
            User { name: "postgres".to_owned(), password: Password::new(String::new()), tls: Tls::default() };
        let directory = self.directory.path().to_owned();
        Settings {
            name: "member1".to_owned(),
            scope: "homepage".to_owned(),
            data_directory: self.data(),
            bin_directory: binaries(),
            state_directory: directory.clone(),
            socket_directory: directory.clone(),
            listen_addresses: String::new(),
            port: 5432,
            supervisor_socket: directory.join("supervisor.sock"),
            superuser: user.clone(),
            replication: user.clone(),
            rewind: user,
            parameters: BTreeMap::new(),
            pg_hba: Vec::new(),
            initdb: Vec::new(),
            archive_command: None,
            restore_command: None,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn pg_wal(&self) -> PathBuf {
        self.data().join("pg_wal")
    }

    /// Where its own socket lies.
    pub(crate) fn host(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    /// Where an agent's socket can lie so that this server's clients reach it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    /// The files that it has marked so: `ready` or `done`.
    pub(crate) fn marked(&self, mark: &str) -> Vec<String> {
        let names = names(&self.pg_wal().join("archive_status"));
        names.iter().filter_map(|name| Some(name.strip_suffix(mark)?.strip_suffix('.')?.to_owned())).collect()
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        last_lines(&log)
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// A command of PostgreSQL as the owner of the directory. setpriv becomes the tool; the kernel ends it, as an
    /// immediate shutdown would, with the thread that started it.
    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if let Some((user, group)) = other_user() {
            let (user, group) = (user.to_string(), group.to_string());
            command.args(["--reuid", &user, "--regid", &group, "--clear-groups"]);
        }
        command.arg("--").arg(binaries().join(name)).current_dir(self.directory.path());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        process::send(child.id().cast_signed(), Signal::Quit);
        let deadline = std::time::Duration::from_millis(20);
        for _ in 0..PATIENCE.as_millis() / deadline.as_millis() {
            if child.try_wait().is_ok_and(|exit| exit.is_some()) {
                return;
            }
            std::thread::sleep(deadline);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The program must succeed; where it does not, the end of the log of the server that it worked with is shown.
fn run(mut command: Command, server: &Postgres) {
    let output = finish(&mut command, PROGRAM_LIMIT);
    let output =
        output.unwrap_or_else(|fault| panic!("{fault}\nthe server logged last:\n{}", server.log_tail()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}\nthe server logged last:\n{}", server.log_tail());
}

/// PostgreSQL refuses root: then the user and group `postgres` of Debian's package.
pub(crate) fn other_user() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    let fields: Vec<&str> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

/// Debian's newest.
pub(crate) fn binaries() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("Debian's package postgresql is installed");
    let newest = versions.map(|entry| entry.unwrap().path().join("bin")).max();
    newest.filter(|bin: &PathBuf| Path::new(bin).join("postgres").exists()).expect("PostgreSQL is installed")
}
