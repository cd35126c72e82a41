//! One member for a test: a directory, a supervisor as its own process, and a data directory for it. All of it
//! is gone when the member is dropped, however the test ends.
#![expect(
    unsafe_code,
    reason = "signals, and the death of a child with its parent, have no safe name in std"
)]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

use outrider_bed::{PROGRAM_LIMIT, finish};
use outrider_supervisor::boottime_ns;
use outrider_supervisor::protocol::{Answer, Command as Ask};
use tempfile::TempDir;

use crate::SUPERVISE;
use crate::agent::{Agent, DEADLINE, from_now};

/// Debian's place for PostgreSQL 15.
pub(crate) const BIN_DIRECTORY: &str = "/usr/lib/postgresql/15/bin";

pub(crate) struct Member {
    pub(crate) directory: TempDir,
    pub(crate) data_directory: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) supervisor: Child,
}

/// What a supervisor is started with, where it matters.
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub(crate) as_root: bool,
    pub(crate) handover: Duration,
    pub(crate) grace: Duration,
}

impl Default for How {
    fn default() -> Self {
        Self { as_root: false, handover: Duration::from_secs(30), grace: Duration::from_secs(120) }
    }
}

impl Member {
    /// A member with a data directory that was never started.
    pub(crate) fn new() -> Self {
        Self::with(How::default())
    }

    pub(crate) fn with(how: How) -> Self {
        let directory = private_directory();
        let data_directory = directory.path().join("data");
        copy(template(), &data_directory);
        let socket = directory.path().join("run").join("supervisor");
        let supervisor = supervise(directory.path(), &data_directory, &socket, how);
        Self { directory, data_directory, socket, supervisor }
    }

    /// Another supervisor for the same data directory, on another socket.
    pub(crate) fn second_supervisor(&self) -> Child {
        let socket = self.directory.path().join("second");
        supervise(self.directory.path(), &self.data_directory, &socket, How::default())
    }

    /// A connected agent that said hello.
    pub(crate) fn agent(&self) -> Agent {
        let mut agent = self.silent_agent();
        agent.hello();
        agent
    }

    /// A connected agent.
    pub(crate) fn silent_agent(&self) -> Agent {
        let mut agent = None;
        wait_until("the supervisor listens", || {
            agent = Agent::silent(&self.socket);
            agent.is_some()
        });
        agent.expect("it was waited for")
    }

    /// Makes the data directory a standby's.
    pub(crate) fn make_standby(&self) {
        fs::write(self.data_directory.join("standby.signal"), "").unwrap();
    }

    /// What the postmaster is started with.
    pub(crate) fn start_command(&self, writable: bool) -> Ask {
        let sockets = format!("unix_socket_directories={}", self.directory.path().display());
        let settings = [
            "listen_addresses=",
            &sockets,
            "fsync=off",
            "shared_buffers=8MB",
            "log_min_messages=warning",
            "hot_standby=on",
        ];
        let arguments = settings.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]);
        Ask::Start { writable, arguments: arguments.collect() }
    }

    /// Starts Postgres and waits until it answers; its process.
    pub(crate) fn start(&self, agent: &mut Agent, writable: bool) -> i32 {
        let pid = match agent.ask(self.start_command(writable)).unwrap() {
            Answer::Started { pid } => pid,
            other => panic!("{other:?}"),
        };
        wait_until("Postgres answers", || self.sql("select 1").is_some());
        pid
    }

    /// Starts a writable Postgres under a fuse that the test does not reach.
    pub(crate) fn start_writable(&self, agent: &mut Agent) -> i32 {
        agent.arm(Duration::from_secs(600));
        self.start(agent, true)
    }

    fn psql(&self, statement: &str) -> Command {
        let mut psql = Command::new("psql");
        psql.args(["-XAtq", "-U", "postgres", "-d", "postgres", "-c", statement]);
        psql.arg("-h").arg(self.directory.path());
        die_with_us(&mut psql);
        psql.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
        psql
    }

    /// What the statement gives, unless it fails.
    pub(crate) fn sql(&self, statement: &str) -> Option<String> {
        let mut psql = self.psql(statement);
        psql.env("PGCONNECT_TIMEOUT", "20").env("PGOPTIONS", "-c statement_timeout=60s");
        let output = finish(&mut psql, PROGRAM_LIMIT).unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    /// Two sessions that would go on for ever, one of them computing.
    pub(crate) fn keep_busy(&self) -> Vec<Killed> {
        let statements = ["DO $$ BEGIN LOOP NULL; END LOOP; END $$", "select pg_sleep(100000)"];
        let sessions = statements.map(|statement| Killed(self.psql(statement).spawn().unwrap()));
        let busy =
            "select count(*) from pg_stat_activity where state = 'active' and query ~ 'END LOOP|sleep.100000'
            and pid <> pg_backend_pid()";
        wait_until("both sessions are at work", || self.sql(busy).as_deref() == Some("2"));
        sessions.into_iter().collect()
    }

    /// The processes of Postgres that work in the data directory.
    pub(crate) fn processes(&self) -> Vec<i32> {
        postgres_in(&self.data_directory)
    }

    pub(crate) fn supervisor_pid(&self) -> i32 {
        self.supervisor.id().cast_signed()
    }

    /// Waits for the supervisor's own end.
    pub(crate) fn supervisor_exit(&mut self) -> ExitStatus {
        let mut exit = None;
        let supervisor = &mut self.supervisor;
        wait_until("the supervisor ends", || {
            exit = supervisor.try_wait().unwrap();
            exit.is_some()
        });
        exit.expect("it was waited for")
    }

    /// A Postgres in this member's data directory that its supervisor knows nothing of.
    pub(crate) fn stranger(&self) -> Killed {
        let mut postgres = Command::new(Path::new(BIN_DIRECTORY).join("postgres"));
        postgres.arg("-D").arg(&self.data_directory).args(["-c", "listen_addresses=", "-c"]);
        postgres.arg(format!("unix_socket_directories={}", self.directory.path().display()));
        postgres.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if we_are_root() {
            postgres.uid(postgres_uid());
        }
        die_with_us(&mut postgres);
        Killed(postgres.spawn().unwrap())
    }

    /// What `pg_controldata` says of the state.
    pub(crate) fn control_state(&self) -> String {
        let program = Path::new(BIN_DIRECTORY).join("pg_controldata");
        let mut control_data = Command::new(program);
        let output = finish(control_data.arg("-D").arg(&self.data_directory), PROGRAM_LIMIT).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.starts_with("Database cluster state")).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    }

    /// What all supervisors of this member wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Its children first: what it has adopted would otherwise be nobody's.
        let ours = |pid: &i32| state_and_parent(*pid).is_some_and(|(_, it)| it == self.supervisor_pid());
        all_pids().into_iter().filter(ours).for_each(|pid| signal(pid, libc::SIGKILL));
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
        // One that a test stopped, or that is slow to notice. They are of this member's directory alone.
        wait_until("nothing of the member is left", || {
            let left = self.processes();
            left.iter().for_each(|&pid| signal(pid, libc::SIGKILL));
            left.is_empty()
        });
        if std::thread::panicking() {
            eprintln!("the supervisor's log:\n{}", self.log());
        }
    }
}

/// A child that is killed when dropped.
pub(crate) struct Killed(Child);

impl Killed {
    pub(crate) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a condition, and fails the test when it does not come about.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline_ns = from_now(DEADLINE);
    while !condition() {
        assert!(boottime_ns() < deadline_ns, "waited in vain until {what}");
        sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a process of the test's own.
pub(crate) fn signal(pid: i32, signal: i32) {
    assert!(pid > 1);
    // SAFETY: no pointers.
    unsafe { libc::kill(pid, signal) };
}

/// The state letter and the parent of a process; `None` when it is gone.
pub(crate) fn state_and_parent(pid: i32) -> Option<(String, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// Every process on the machine.
pub(crate) fn all_pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    entries.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

/// The user that a process runs as.
pub(crate) fn uid_of(pid: i32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    // Real, effective, saved, file system.
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

/// The user that Postgres runs as in these tests: ours, or `postgres` when we are root.
pub(crate) fn postgres_uid() -> u32 {
    if !we_are_root() {
        return fs::metadata("/proc/self").unwrap().uid();
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    line.split(':').nth(2).unwrap().parse().unwrap()
}

pub(crate) fn we_are_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn postgres_in(data_directory: &Path) -> Vec<i32> {
    let Ok(directory) = fs::metadata(data_directory) else { return Vec::new() };
    let works_there = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
            && fs::metadata(format!("/proc/{pid}/cwd"))
                .is_ok_and(|cwd| (cwd.dev(), cwd.ino()) == (directory.dev(), directory.ino()))
    };
    all_pids().into_iter().filter(works_there).collect()
}

fn private_directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("outrider-supervisor-").tempdir().unwrap();
    if we_are_root() {
        chown(directory.path(), Some(postgres_uid()), None).unwrap();
    }
    directory
}

/// A data directory to copy, made once and kept among the build's own files for the next run.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let name = format!("supervisor-template-{}", postgres_uid());
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if !kept.exists() {
            let directory = private_directory();
            let made = directory.path().join("data");
            initdb(&made);
            // Moved into place in one step, since another run may do the same; the second keeps the first's.
            let beside = kept.with_extension(std::process::id().to_string());
            copy(&made, &beside);
            if fs::rename(&beside, &kept).is_err() {
                fs::remove_dir_all(&beside).unwrap();
            }
        }
        kept
    })
}

fn initdb(data_directory: &Path) {
    let mut initdb = Command::new(Path::new(BIN_DIRECTORY).join("initdb"));
    initdb.args(["-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C", "-D"]);
    initdb.arg(data_directory).current_dir("/");
    if we_are_root() {
        initdb.uid(postgres_uid());
    }
    die_with_us(&mut initdb);
    let made = finish(&mut initdb, PROGRAM_LIMIT).unwrap();
    assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
}

pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(finish(Command::new("cp").arg("-a").arg(from).arg(to), PROGRAM_LIMIT).unwrap().status.success());
}

fn supervise(directory: &Path, data_directory: &Path, socket: &Path, how: How) -> Child {
    let paths = [data_directory, Path::new(BIN_DIRECTORY), socket].map(|path| path.display().to_string());
    let times = [how.handover, how.grace].map(|time| time.as_millis().to_string());
    let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
    // By this name the other user can run it wherever the build put it.
    let mut supervisor = Command::new("/proc/self/exe");
    supervisor.args(["--exact", "the_supervisor_when_a_test_starts_it", "--nocapture", "--test-threads=1"]);
    supervisor.env(SUPERVISE, [&paths[..], &times[..]].concat().join("\n")).current_dir("/");
    supervisor.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // What somebody has in the shell from which it is started must not matter to any test.
    supervisor.env("PGPASSWORD", "somebody's").env("PGHOST", "192.0.2.1").env("PGDATA", "/nowhere");
    if we_are_root() && !how.as_root {
        supervisor.uid(postgres_uid());
    }
    block_signals(&mut supervisor);
    die_with_us(&mut supervisor);
    supervisor.spawn().unwrap()
}

/// The test harness has threads of its own, which would take a signal that the supervisor's thread waits for.
fn block_signals(command: &mut Command) {
    let block = || {
        // SAFETY: `set` is initialised before use; both calls are allowed between fork and exec.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        }
        Ok(())
    };
    // SAFETY: the closure says above why it may run there.
    unsafe { command.pre_exec(block) };
}

fn die_with_us(command: &mut Command) {
    let die = || {
        // SAFETY: no pointers, and allowed between fork and exec.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure says above why it may run there.
    unsafe { command.pre_exec(die) };
}
