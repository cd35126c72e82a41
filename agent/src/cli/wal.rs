//! `outrider wal-push` and `outrider wal-fetch`, which Postgres starts for each WAL file. They ask the agent. Only where
//! there is none, as when a server is restored by hand, may a fetch go to the archive itself.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use outrider_restore::Fetcher;
use outrider_restore::client::{self, Exit, Reader};

use super::WalFetch;
use super::exit::{USAGE, load, runtime};
use super::this_cluster::control_file;
use crate::config::{ARCHIVE_SOCKET, Archive, beside};

pub(super) fn push(socket: Option<&Path>, path: &Path) -> ExitCode {
    end(client::push(&socket.map_or_else(usual_socket, Path::to_owned), path))
}

/// Postgres starts its commands in the data directory.
fn usual_socket() -> PathBuf {
    // Without a current directory no agent answers either, and that is reported.
    let data_directory = std::env::current_dir().unwrap_or_default();
    beside(&data_directory).join(ARCHIVE_SOCKET)
}

/// Who asks. Postgres starts its commands in the data directory, where this file tells a recovery to the end from a standby.
/// A standby that is being promoted has neither file when it asks for its old timeline's history, and must not wait for a
/// store that is down.
fn reader() -> Reader {
    if Path::new("recovery.signal").exists() { Reader::Recovery } else { Reader::Standby }
}

/// The exit of a `wal-fetch` with invalid arguments: a recovery must not take it for "no such file".
pub(super) fn unusable() -> ExitCode {
    if reader() == Reader::Standby {
        return ExitCode::from(USAGE);
    }
    end(Exit::trouble(Reader::Recovery, "restore_command is not a valid wal-fetch command"))
}

pub(super) fn fetch(options: &WalFetch) -> ExitCode {
    let reader = reader();
    let (name, path) = (&options.name, &options.path);
    let socket = options.socket.as_deref();
    let Some(file) = &options.config else {
        return end(client::fetch(&socket.map_or_else(usual_socket, Path::to_owned), name, path, reader));
    };
    // A configuration error must not be taken for the end of all WAL either.
    let archive = match load(file).map(|config| config.archive) {
        Ok(Some(archive)) => archive,
        Ok(None) => return end(Exit::trouble(reader, format!("{} names no archive", file.display()))),
        Err(refusal) => {
            let _ = refusal.report();
            return end(Exit::trouble(reader, format!("{name}: not fetched")));
        }
    };
    let elsewhere = options.archive.is_some() || options.from_server.is_some();
    let archive = match archive.elsewhere(options.archive.as_ref(), options.from_server.as_deref()) {
        Ok(archive) => archive,
        Err(fault) => return end(Exit::trouble(reader, format!("{name}: {fault:#}"))),
    };
    let socket = socket.unwrap_or(&archive.socket);
    // The agent knows only its own archive.
    if !elsewhere && client::is_served(socket) {
        return end(client::fetch(socket, name, path, reader));
    }
    let fetched = fetch_without_agent(&archive, name, path, reader);
    end(fetched.unwrap_or_else(|fault| Exit::trouble(reader, format!("{name}: {fault:#}"))))
}

fn fetch_without_agent(archive: &Archive, name: &str, path: &Path, reader: Reader) -> anyhow::Result<Exit> {
    let runtime = runtime()?;
    let _inside = runtime.enter();
    let fetcher = Fetcher::new(archive.open_store()?, archive.layout.clone());
    // Postgres starts its commands in its data directory.
    if let Some(system_identifier) = control_file(Path::new(""))? {
        fetcher.expect_system_identifier(system_identifier);
    }
    Ok(runtime.block_on(client::fetch_without_agent(&fetcher, name, path, reader)))
}

fn end(exit: Exit) -> ExitCode {
    if let Some(message) = exit.message {
        // Standard error is Postgres' log. Without it there is still the exit status.
        let _ = writeln!(io::stderr(), "outrider: {message}");
    }
    ExitCode::from(exit.code)
}
