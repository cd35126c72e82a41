//! `wal-push` and `wal-fetch` against an agent of this process: the exit statuses that PostgreSQL acts on.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use outrider_archive::{Layout, Shipper};
use outrider_restore::client::{self, Exit, Reader};
use outrider_restore::{Fetcher, Server, ServerOptions};
use outrider_store::{Metadata, Store};
use tempfile::TempDir;
use tokio::time::timeout;

use super::PATIENCE;
use super::bench::{Bench, names};
use super::pg_wal::{PgWal, SERVER, SYSTEM_IDENTIFIER, leadership, segment};
use super::s3::{free_port, open, options};

super::on_every_store!(
    what_was_pushed_is_fetched_byte_for_byte,
    an_object_that_is_not_what_its_name_says_is_never_handed_out,
);

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";

/// An agent's socket, with what hangs on it.
struct Agent {
    pg_wal: PgWal,
    directory: TempDir,
    shipper: Shipper,
    server: Server,
}

impl Agent {
    async fn start(store: std::sync::Arc<dyn Store>) -> Self {
        let (pg_wal, directory) = (PgWal::new(), tempfile::tempdir().unwrap());
        let shipper = pg_wal.shipper(store.clone());
        let fetcher = Fetcher::new(store, Layout::new(SERVER).unwrap());
        fetcher.expect_system_identifier(SYSTEM_IDENTIFIER);
        let socket = directory.path().join("agent.sock");
        let options = ServerOptions { socket, pg_wal: pg_wal.path().to_owned() };
        let server = Server::start(options, shipper.clone(), fetcher).await.unwrap();
        Agent { pg_wal, directory, shipper, server }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    fn target(&self) -> PathBuf {
        self.pg_wal.file("RECOVERYXLOG")
    }

    async fn push(&self, path: &Path) -> Exit {
        let (socket, path) = (self.socket(), path.to_owned());
        timeout(PATIENCE, tokio::task::spawn_blocking(move || client::push(&socket, &path)))
            .await
            .unwrap()
            .unwrap()
    }

    async fn fetch(&self, name: &str, reader: Reader) -> Exit {
        let (socket, name, target) = (self.socket(), name.to_owned(), self.target());
        let fetch = tokio::task::spawn_blocking(move || client::fetch(&socket, &name, &target, reader));
        timeout(2 * PATIENCE, fetch).await.unwrap().unwrap()
    }

    /// Nothing half is left behind.
    fn assert_nothing_fetched(&self) {
        let left: Vec<String> =
            names(self.pg_wal.path()).into_iter().filter(|name| name.starts_with("RECOVERY")).collect();
        assert_eq!(left, Vec::<String>::new());
    }
}

async fn what_was_pushed_is_fetched_byte_for_byte(bench: &Bench) {
    let agent = Agent::start(bench.store()).await;
    agent.shipper.enable(leadership(1));
    let history = b"1\t0/300148\tno recovery target specified\n".to_vec();
    for (name, content) in [(FIRST, segment(FIRST, 1)), ("00000002.history", history)] {
        agent.pg_wal.add(name, &content);
        let pushed = agent.push(&agent.pg_wal.file(name)).await;
        assert_eq!(pushed, Exit { code: 0, message: None });
        for reader in [Reader::Standby, Reader::Recovery] {
            assert_eq!(agent.fetch(name, reader).await, Exit { code: 0, message: None });
            assert!(std::fs::read(agent.target()).unwrap() == content, "{name}");
            std::fs::remove_file(agent.target()).unwrap();
        }
    }
    for missing in [SECOND, "00000003.history"] {
        for reader in [Reader::Standby, Reader::Recovery] {
            assert_eq!(agent.fetch(missing, reader).await, Exit { code: 1, message: None }, "{missing}");
        }
    }
    agent.assert_nothing_fetched();
}

async fn an_object_that_is_not_what_its_name_says_is_never_handed_out(bench: &Bench) {
    let store = bench.store();
    let whole = segment(FIRST, 1);
    let mut foreign = segment(SECOND, 1);
    foreign[24] ^= 1;
    let objects = [
        ("000000010000000000000001.gz", Bytes::from_static(b"no gzip at all")),
        ("000000010000000000000002", Bytes::from(foreign)),
        ("000000010000000000000003", Bytes::from(whole.clone())),
        ("000000010000000000000004", Bytes::from(whole).slice(..1000)),
        ("000000010000000000000005", Bytes::new()),
    ];
    let agent = Agent::start(store.clone()).await;
    for (name, body) in objects {
        let key = format!("{SERVER}/wals/0000000100000000/{name}");
        store.put_if_absent(&key, body.into(), &Metadata::new()).await.unwrap();
        for (reader, code) in [(Reader::Standby, 1), (Reader::Recovery, 254)] {
            let exit = agent.fetch(&name[..24], reader).await;
            assert_eq!(exit.code, code, "{name}: {exit:?}");
            assert!(exit.message.unwrap().contains(&name[..24]));
        }
    }
    agent.assert_nothing_fetched();
}

#[tokio::test]
async fn a_store_that_is_down_is_no_end_of_wal_for_a_recovery_and_no_stop_for_a_standby() {
    let agent = Agent::start(open(&options(&format!("http://127.0.0.1:{}", free_port())))).await;
    let standby = agent.fetch(FIRST, Reader::Standby).await;
    assert_eq!(standby.code, 1);
    assert!(standby.message.unwrap().contains("Connection refused"));
    // The second time it is not even asked: the standby must not stand still for each file.
    let standby = agent.fetch(SECOND, Reader::Standby).await;
    assert!(standby.message.unwrap().contains("did not answer a moment ago"));
    let recovery = agent.fetch(FIRST, Reader::Recovery).await;
    assert_eq!(recovery.code, 254);
    assert!(recovery.message.unwrap().contains("Connection refused"));
    agent.assert_nothing_fetched();
}

#[tokio::test]
async fn a_push_is_answered_at_once_when_postgres_stops() {
    let agent = Agent::start(open(&options(&format!("http://127.0.0.1:{}", free_port())))).await;
    agent.shipper.enable(leadership(1));
    agent.pg_wal.add(FIRST, &segment(FIRST, 1));
    let (path, socket) = (agent.pg_wal.file(FIRST), agent.socket());
    let waiting = tokio::task::spawn_blocking(move || client::push(&socket, &path));
    agent.server.set_stopping(true);
    // The one that waits already and the one that comes now.
    let first = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    let second = agent.push(&agent.pg_wal.file(FIRST)).await;
    for exit in [first, second] {
        // Ends the archiver, which would try again for three seconds.
        assert_eq!(exit.code, 254);
        let message = exit.message.unwrap();
        assert!(message.contains("PostgreSQL is stopping"), "{message}");
    }
}

#[tokio::test]
async fn what_is_durable_is_said_so_even_when_postgres_stops() {
    let bench = Bench::directory();
    let agent = Agent::start(bench.store()).await;
    agent.shipper.enable(leadership(1));
    agent.pg_wal.add(FIRST, &segment(FIRST, 1));
    assert_eq!(agent.push(&agent.pg_wal.file(FIRST)).await.code, 0);
    agent.server.set_stopping(true);
    assert_eq!(agent.push(&agent.pg_wal.file(FIRST)).await.code, 0);
}

#[tokio::test]
async fn a_push_of_what_is_not_this_servers_wal_is_refused() {
    let bench = Bench::directory();
    let agent = Agent::start(bench.store()).await;
    agent.shipper.enable(leadership(1));
    std::fs::write(agent.directory.path().join(FIRST), segment(FIRST, 1)).unwrap();
    for (path, words) in [
        (agent.directory.path().join(FIRST), "not in this server's pg_wal"),
        (agent.pg_wal.file("postgresql.conf"), "is not the name of a WAL file"),
        (agent.pg_wal.file(SECOND), "is not there"),
    ] {
        let exit = agent.push(&path).await;
        assert_eq!(exit.code, 1);
        let message = exit.message.unwrap();
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn a_client_that_speaks_nonsense_does_no_harm() {
    use std::io::{Read as _, Write as _};
    let bench = Bench::directory();
    let agent = Agent::start(bench.store()).await;
    let lines: [&[u8]; 6] = [
        b"\n",
        b"GET / HTTP/1.1\n",
        b"{\"command\":\"drop\"}\n",
        b"{\"command\":\"push\",\"path\":\"\",\"more\":1}\n",
        b"\xff\xfe\n",
        &[b'x'; 20_000],
    ];
    for line in lines {
        let (socket, line) = (agent.socket(), line.to_vec());
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            // A line that is too long is not read to its end.
            let _ = stream.write_all(&line);
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        });
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert!(answer.is_empty() || answer.contains("\"bad\""), "{answer}");
    }
    assert_eq!(agent.fetch(FIRST, Reader::Recovery).await.code, 1);
}
