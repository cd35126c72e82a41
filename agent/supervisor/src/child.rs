//! Starts a program of PostgreSQL next to the data: as which user, with what environment, and bound to the supervisor's
//! life. Does not decide which, or whether it may.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::output::Output;
use crate::protocol::{Refusal, RefusalCode};
use crate::system::{self, Identity};

/// A running child.
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) output: Output,
}

/// The user and group of the data directory, or of its parent while it does not exist.
pub(crate) fn owner(data_directory: &Path) -> io::Result<(u32, u32)> {
    let metadata = match fs::metadata(data_directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::metadata(data_directory.parent().unwrap_or(data_directory))
        }
        found => found,
    }?;
    Ok((metadata.uid(), metadata.gid()))
}

/// Which user to run as: the owner of the data directory when we are root, ourselves otherwise (`None`).
pub(crate) fn run_as(data_directory: &Path) -> Result<Option<Identity>, Refusal> {
    if system::effective_uid() != 0 {
        return Ok(None);
    }
    let shown = data_directory.display();
    match owner(data_directory) {
        Ok((0, _)) => Err(spawn_failed(format!(
            "Postgres does not run as root, and {shown} (or its parent, while it does not exist) is root's"
        ))),
        Ok((uid, gid)) => Ok(Some(system::identity(uid, gid))),
        Err(error) => Err(spawn_failed(format!("cannot find the owner of {shown}: {error}"))),
    }
}

/// Starts it with no input and its output piped to us.
pub(crate) fn spawn(
    program: &Path,
    arguments: &[String],
    environment: &[(String, String)],
    identity: Option<Identity>,
    death_signal: i32,
) -> Result<Child, Refusal> {
    let shown = program.display();
    let failed = |error: io::Error| spawn_failed(format!("cannot start {shown}: {error}"));
    if let Some((name, _)) =
        environment.iter().find(|(name, _)| name.is_empty() || name.contains(['=', '\0']))
    {
        return Err(spawn_failed(format!(
            "cannot start {shown}: no environment variable can be named {name:?}"
        )));
    }
    let (reader, writer) = io::pipe().map_err(failed)?;
    let output = Output::new(reader).map_err(failed)?;
    let mut command = Command::new(program);
    command.args(arguments);
    // A PGPASSWORD or PGHOST of somebody's would decide where a standby streams from, and as whom.
    std::env::vars_os().map(|(name, _)| name).filter(|name| is_libpqs(name)).for_each(|name| {
        command.env_remove(name);
    });
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    // Our working directory may be one that the other user cannot enter.
    command.current_dir("/").stdin(Stdio::null());
    command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
    system::prepare(&mut command, identity, death_signal);
    // Reaped with all others, so std's handle is not kept.
    let pid = command.spawn().map_err(failed)?.id().cast_signed();
    Ok(Child { pid, output })
}

/// Whether PostgreSQL or its client library takes a setting from this variable.
fn is_libpqs(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"PG") && !name.starts_with(b"PG_")
}

fn spawn_failed(message: String) -> Refusal {
    Refusal { code: RefusalCode::SpawnFailed, message }
}
