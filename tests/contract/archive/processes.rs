//! The processes that PostgreSQL starts, and an agent that can be killed: this test binary, started again with what
//! to be in its environment. Each is a test of its own when started as one.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use outrider_archive::{Compression, Layout, Leadership, ShipOptions, Shipper};
use outrider_bed::Account;
use outrider_restore::client::{self, Exit, Reader};
use outrider_restore::{Fetcher, Server, ServerError, ServerOptions};
use outrider_wal::{SegmentSize, TimelineId};

use super::bench::Bench;
use super::pg_wal::{PgWal, SERVER};
use super::s3::{open, options};

const CLIENT: &str = "OUTRIDER_TEST_CLIENT";
const SOCKET: &str = "OUTRIDER_TEST_SOCKET";
const FILE: &str = "OUTRIDER_TEST_FILE";
const TARGET: &str = "OUTRIDER_TEST_TARGET";
const PG_WAL: &str = "OUTRIDER_TEST_PG_WAL";
const ENDPOINT: &str = "OUTRIDER_TEST_ENDPOINT";
const IDENTIFIER: &str = "OUTRIDER_TEST_IDENTIFIER";
const SEGMENT_SIZE: &str = "OUTRIDER_TEST_SEGMENT_SIZE";
const TERM: &str = "OUTRIDER_TEST_TERM";
const TIMELINE: &str = "OUTRIDER_TEST_TIMELINE";

fn me() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}

/// A command of Postgres' user that starts one of these tests. The build may lie where only root comes: then it starts a
/// copy beside the socket.
fn start_as(test: &str, socket: &Path) -> String {
    let beside = socket.parent().expect("a socket lies in a directory");
    let program = Account::find().and_then(|account| account.reachable(me().as_ref(), beside)).unwrap();
    format!("{} --exact archive::processes::{test} --nocapture", program.display())
}

/// What stands in for `outrider wal-push %p`.
pub(crate) fn archive_command(socket: &Path) -> String {
    let start = start_as("without_an_agent_nothing_is_taken_for_done", socket);
    format!("{CLIENT}=push {SOCKET}={} {FILE}=%p {start} >&2", socket.display())
}

/// What stands in for `outrider wal-fetch --standby %f %p`.
pub(crate) fn restore_command(socket: &Path) -> String {
    let start = start_as("without_an_agent_nothing_is_taken_for_done", socket);
    format!("{CLIENT}=standby {SOCKET}={} {FILE}=%f {TARGET}=%p {start} >&2", socket.display())
}

/// What stands in for `outrider wal-fetch %f %p` in a recovery that is no standby's.
pub(crate) fn recovery_command(socket: &Path) -> String {
    let start = start_as("without_an_agent_nothing_is_taken_for_done", socket);
    format!("{CLIENT}=recovery {SOCKET}={} {FILE}=%f {TARGET}=%p {start} >&2", socket.display())
}

/// Exit 1 says "no such file" to a recovery, which would end there: it must hear something else.
#[test]
fn without_an_agent_nothing_is_taken_for_done() {
    let variable = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_default());
    let (socket, file, target) = (variable(SOCKET), variable(FILE), variable(TARGET));
    let name = file.to_string_lossy().into_owned();
    if let Ok(role) = std::env::var(CLIENT) {
        let exit = match role.as_str() {
            "push" => client::push(&socket, &file),
            "standby" => client::fetch(&socket, &name, &target, Reader::Standby),
            "recovery" => client::fetch(&socket, &name, &target, Reader::Recovery),
            other => panic!("{other}"),
        };
        if let Some(message) = exit.message {
            eprintln!("{message}");
        }
        std::process::exit(i32::from(exit.code));
    }
    let directory = tempfile::tempdir().unwrap();
    let (socket, target) = (directory.path().join("agent.sock"), directory.path().join("target"));
    let name = "000000010000000000000001";
    let expect = |exit: Exit, code: u8| {
        assert_eq!(exit.code, code);
        assert!(exit.message.unwrap().contains("no answer from the agent"));
    };
    expect(client::push(&socket, &Path::new("pg_wal").join(name)), 1);
    expect(client::fetch(&socket, name, &target, Reader::Standby), 1);
    expect(client::fetch(&socket, name, &target, Reader::Recovery), 254);
    assert!(!target.exists());
}

/// An agent in a process of its own, to be killed without warning.
pub(crate) struct AgentProcess(Child);

impl AgentProcess {
    pub(crate) fn start(
        endpoint: &str,
        pg_wal: &Path,
        socket: &Path,
        identifier: u64,
        size: SegmentSize,
    ) -> Self {
        let timeline = TimelineId::FIRST;
        let leadership = Leadership { term: 1, system_identifier: identifier, segment_size: size, timeline };
        Self::leading(endpoint, pg_wal, socket, leadership)
    }

    pub(crate) fn leading(endpoint: &str, pg_wal: &Path, socket: &Path, leadership: Leadership) -> Self {
        let Leadership { term, system_identifier, segment_size, timeline } = leadership;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(me());
        command.args([
            "--exact",
            "archive::processes::a_second_agent_at_one_socket_is_refused",
            "--nocapture",
        ]);
        command.env(PG_WAL, pg_wal).env(SOCKET, socket).env(ENDPOINT, endpoint);
        command.env(IDENTIFIER, system_identifier.to_string());
        command.env(SEGMENT_SIZE, segment_size.bytes().to_string());
        command.env(TERM, term.to_string()).env(TIMELINE, timeline.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        AgentProcess(command.spawn().expect("setpriv is part of util-linux"))
    }
}

impl Drop for AgentProcess {
    /// SIGKILL, and until it is gone.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_second_agent_at_one_socket_is_refused() {
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        be_an_agent(&endpoint).await;
    }
    let (pg_wal, bench, directory) = (PgWal::new(), Bench::directory(), tempfile::tempdir().unwrap());
    let server_options =
        || ServerOptions { socket: directory.path().join("a.sock"), pg_wal: pg_wal.path().to_owned() };
    let start = async || {
        let fetcher = Fetcher::new(bench.store(), Layout::new(SERVER).unwrap());
        Server::start(server_options(), pg_wal.shipper(bench.store()), fetcher).await
    };
    // A socket that a killed agent left behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(server_options().socket).unwrap());
    let first = start().await.unwrap();
    assert!(matches!(start().await, Err(ServerError::Taken { .. })));
    drop(first);
    super::bench::wait_until("the first is gone", async || start().await.is_ok()).await;
}

async fn be_an_agent(endpoint: &str) {
    let variable = |name: &str| std::env::var(name).unwrap();
    let (store, layout) = (open(&options(endpoint)), Layout::new(SERVER).unwrap());
    let pg_wal = PathBuf::from(variable(PG_WAL));
    let ship = ShipOptions {
        pg_wal: pg_wal.clone(),
        // The member keeps its name, and with each term there is another leader.
        member: format!("leader-{}", variable(TERM)),
        layout: layout.clone(),
        compression: Compression::GZIP,
        parallelism: NonZeroUsize::new(2).unwrap(),
    };
    let shipper = Shipper::start(ship, store.clone());
    let system_identifier = variable(IDENTIFIER).parse().unwrap();
    let segment_size = SegmentSize::new(variable(SEGMENT_SIZE).parse().unwrap()).unwrap();
    let (term, timeline) = (variable(TERM).parse().unwrap(), variable(TIMELINE).parse().unwrap());
    let timeline = TimelineId::new(timeline);
    shipper.enable(Leadership { term, system_identifier, segment_size, timeline });
    let fetcher = Fetcher::new(store, layout);
    fetcher.expect_system_identifier(system_identifier);
    let socket = PathBuf::from(variable(SOCKET));
    let _server = Server::start(ServerOptions { socket, pg_wal }, shipper, fetcher).await.unwrap();
    std::future::pending::<()>().await;
}
