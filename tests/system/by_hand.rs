//! A Postgres that a person starts in a directory, without an agent: what a restore left, and whether anything starts on it.

use std::path::{Path, PathBuf};
use std::process::Output;

use outrider_bed::{Cluster, Connection, Endpoint, PROGRAM_LIMIT, Port, finish, wait_until};

use crate::kept::WORK_LIMIT;

/// What a restored directory that must not be started holds.
pub(crate) const MARK: &str = "outrider.restoring";
/// Without it Postgres does not start.
pub(crate) const CONTROL: &str = "global/pg_control";

/// Every file below a directory, relative to it; one that comes or goes meanwhile may be missing.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(_) => found.extend(entry.path().strip_prefix(directory).map(Path::to_owned)),
                Err(_) => {}
            }
        }
    }
    found
}

/// Runs a program of PostgreSQL's to its end.
pub(crate) fn run(cluster: &Cluster, program: &str, arguments: &[&str]) -> Output {
    let program = cluster.guard.programs().postgres.join(program);
    let mut command = cluster.guard.command(&program, cluster.guard.directory());
    finish(command.args(arguments), PROGRAM_LIMIT).unwrap()
}

/// Starts Postgres in a directory that must not be started; its last words. It has a configuration of its own, so that it is
/// the data that it refuses.
pub(crate) fn refused(cluster: &Cluster, data: &Path) -> String {
    let configuration = cluster.guard.directory().join("by_hand.conf");
    std::fs::write(&configuration, "listen_addresses = ''\n").unwrap();
    let file = format!("config_file={}", configuration.display());
    let output = run(cluster, "postgres", &["-D", data.to_str().unwrap(), "-c", &file]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "Postgres ran in {}: {said}", data.display());
    said
}

/// Starts Postgres in a restored directory and waits until it has recovered and is a primary. It dies with the bed.
pub(crate) async fn start(cluster: &Cluster, data: &Path) -> Connection {
    started(cluster, data, async |endpoint| endpoint.connect_to_primary().await.ok()).await
}

/// Starts Postgres in a restored directory and waits until it has recovered to its target, and waits there and answers queries.
pub(crate) async fn start_paused(cluster: &Cluster, data: &Path) -> Connection {
    let paused = async |endpoint: &Endpoint| {
        let connection = endpoint.connect().await.ok()?;
        let state = connection.text("SELECT pg_get_wal_replay_pause_state()").await.ok()?;
        let passed =
            "SELECT (pg_last_wal_replay_lsn() >= current_setting('recovery_target_lsn')::pg_lsn)::text";
        let passed = connection.text(passed).await.ok()?;
        (state == "paused" && passed == "true").then_some(connection)
    };
    started(cluster, data, paused).await
}

/// Promotes a standby without its agent, runs statements on it, and stops it in good order. `taken`: a history file that keeps it
/// from taking that number.
pub(crate) async fn promote_alone(cluster: &Cluster, data: &Path, taken: Option<&str>, statements: &str) {
    // It was killed, and the number of its process may not be free yet.
    std::fs::remove_file(data.join("postmaster.pid")).unwrap();
    let promoted = started(cluster, data, async |endpoint| {
        let connection = endpoint.connect().await.ok()?;
        if !connection.is_primary().await.ok()? {
            if let Some(taken) = taken {
                let path = data.join("pg_wal").join(taken);
                std::fs::write(&path, "# Somebody else's.\n").unwrap();
                cluster.guard.account().own(&path).unwrap();
            }
            connection.run("SELECT pg_promote(false)").await.ok()?;
            return None;
        }
        Some(connection)
    });
    let connection = promoted.await;
    connection.run(statements).await.unwrap();
    drop(connection);
    let output = run(cluster, "pg_ctl", &["-D", data.to_str().unwrap(), "-w", "-m", "fast", "stop"]);
    assert!(output.status.success(), "{output:?}");
}

async fn started(
    cluster: &Cluster,
    data: &Path,
    connect: impl AsyncFn(&Endpoint) -> Option<Connection>,
) -> Connection {
    let port = Port::free().unwrap();
    let number = port.number();
    let log_path = data.with_extension("log");
    let log = std::fs::File::create(&log_path).unwrap();
    let program = cluster.guard.programs().postgres.join("postgres");
    let mut command = cluster.guard.command(&program, cluster.guard.directory());
    command.arg("-D").arg(data).args(["-c", &format!("port={number}"), "-c", "listen_addresses=127.0.0.1"]);
    command.args(["-c", "fsync=off"]);
    command.arg("-c").arg(format!("unix_socket_directories={}", cluster.guard.directory().display()));
    command.stdout(log.try_clone().unwrap()).stderr(log);
    port.release();
    let mut child = command.spawn().unwrap();
    let endpoint = Endpoint { name: data.display().to_string(), port: number };
    let mut ended = None;
    let connected = async || {
        ended = child.try_wait().unwrap();
        if ended.is_some() { Some(None) } else { connect(&endpoint).await.map(Some) }
    };
    let connected = wait_until(format!("{} has recovered", data.display()), WORK_LIMIT, connected).await;
    let log = std::fs::read_to_string(log_path).unwrap_or_default();
    connected.unwrap_or_else(|fault| panic!("{fault}: {log}")).unwrap_or_else(|| panic!("it ended: {log}"))
}
