//! Starts the program with an environment of its own and keeps what it said.

use std::path::Path;
use std::process::Command;

use outrider_bed::{PROGRAM_LIMIT, finish};

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the program in `directory`. Nothing of this process's environment but the search path is there.
pub(crate) fn run_in(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
    command.args(arguments).env_clear().env("PATH", "/nonexistent").envs(environment.iter().copied());
    let output = finish(command.current_dir(directory), PROGRAM_LIMIT).expect("it runs and ends");
    Run {
        code: output.status.code().expect("no signal ends it"),
        out: String::from_utf8(output.stdout).expect("it writes text"),
        err: String::from_utf8(output.stderr).expect("it writes text"),
    }
}

/// Runs the program where it does not matter.
pub(crate) fn run(arguments: &[&str]) -> Run {
    run_in(Path::new("/"), arguments, &[])
}
