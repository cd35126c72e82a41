//! Runs a program to its end with a deadline, so that no test hangs: one that takes longer is killed with all that it
//! started, and what it said last is told.

use std::io::{Read as _, Seek as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::process;

/// For a program that has nothing to wait for but the machine.
pub const PROGRAM_LIMIT: Duration = Duration::from_secs(120);

/// Between two looks.
const POLL: Duration = Duration::from_millis(10);
/// Lines that are shown of what it said.
const LAST_LINES: usize = 20;

/// What the program said and how it ended. Its standard input is empty, and it leads a process group of its own.
///
/// # Errors
/// When it cannot be started, or has not ended after `limit`.
pub fn finish(command: &mut Command, limit: Duration) -> anyhow::Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    // Files and not pipes: what the program leaves behind may keep a pipe open for ever.
    let mut said = [tempfile::tempfile()?, tempfile::tempfile()?];
    let [out, err] = &said;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    let status = wait(&mut child, limit);
    let mut texts = Vec::new();
    for file in &mut said {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        texts.push(bytes);
    }
    let (stderr, stdout) = (texts.pop().unwrap_or_default(), texts.pop().unwrap_or_default());
    match status? {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => {
            let last = [stdout, stderr].map(|bytes| last_lines(&String::from_utf8_lossy(&bytes)));
            bail!("{command:?} did not end within {limit:?}; it said last:\n{}", last.join("\n").trim())
        }
    }
}

/// The end of a log, as a failure shows it.
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n")
}

/// `None` when it was killed at its deadline.
fn wait(child: &mut Child, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    for _ in 0..=limit.as_millis() / POLL.as_millis() {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(POLL);
    }
    process::kill_group(child.id().cast_signed());
    let status = child.wait()?;
    // It may have ended at this very moment.
    Ok(status.signal().is_none().then_some(status))
}
