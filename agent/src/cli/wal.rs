//! `outrider wal-push` and `outrider wal-fetch`, which Postgres starts for each WAL file. They only ask the agent.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use outrider_archive::client::{self, Exit, Reader};

pub(super) fn push(socket: &Path, path: &Path) -> ExitCode {
    end(client::push(socket, path))
}

pub(super) fn fetch(socket: &Path, name: &str, path: &Path) -> ExitCode {
    // Postgres starts its commands in the data directory, where this file tells a recovery to the end from a standby. A
    // standby that is promoted has neither file any more when it asks for the history of its old timeline, and must not
    // wait for a store that is down.
    let reader = if Path::new("recovery.signal").exists() { Reader::Recovery } else { Reader::Standby };
    end(client::fetch(socket, name, path, reader))
}

fn end(exit: Exit) -> ExitCode {
    if let Some(message) = exit.message {
        // Standard error is the log of Postgres. Without it there is still the exit status.
        let _ = writeln!(io::stderr(), "outrider: {message}");
    }
    ExitCode::from(exit.code)
}
