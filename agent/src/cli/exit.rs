//! How a command ends: exit status 0, 1 or 64, and its message.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::config::{self, Config, ConfigError, Environment};

/// Wrong usage or configuration: EX_USAGE of sysexits.h.
pub(super) const USAGE: u8 = 64;

/// Why a command failed.
pub(super) enum Refusal {
    /// An error in the configuration.
    Configuration(ConfigError),
    /// Contradictory or missing arguments.
    Usage(String),
    /// It was tried and failed.
    Failed(anyhow::Error),
}

impl Refusal {
    /// Prints it to standard error.
    pub(super) fn report(self) -> ExitCode {
        let (code, text) = match self {
            Refusal::Configuration(fault) => (USAGE, format!("{:#}", anyhow::Error::new(fault))),
            Refusal::Usage(text) => (USAGE, text),
            Refusal::Failed(fault) => (1, format!("{fault:#}")),
        };
        // Without a standard error there is still the exit status.
        let _ = writeln!(io::stderr(), "outrider: {text}");
        ExitCode::from(code)
    }
}

impl From<ConfigError> for Refusal {
    fn from(fault: ConfigError) -> Self {
        Refusal::Configuration(fault)
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(fault: anyhow::Error) -> Self {
        Refusal::Failed(fault)
    }
}

/// Reads a configuration file, and warns on standard error about keys without effect.
pub(super) fn load(path: &Path) -> Result<Config, Refusal> {
    let loaded = config::load(path, &environment())?;
    warn_all(&loaded.warnings);
    Ok(loaded.config)
}

/// Warns about keys without effect and about what could not be checked.
pub(super) fn warn_all(warnings: &[String]) {
    warnings.iter().for_each(|warning| warn(warning));
}

/// A configuration file with errors that only PostgreSQL found.
pub(super) fn faults(file: &Path, faults: &[String]) -> Refusal {
    let count = match faults.len() {
        1 => "1 error".to_owned(),
        many => format!("{many} errors"),
    };
    Refusal::Usage(format!("{count} in the configuration {}:\n  {}", file.display(), faults.join("\n  ")))
}

/// Prints a warning to standard error.
pub(super) fn warn(warning: &str) {
    // Without a standard error nobody reads warnings.
    let _ = writeln!(io::stderr(), "outrider: warning: {warning}");
}

/// The variables of this process; those that are not text are not ours.
fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Prints the result of a command. A reader that closed its end has seen enough.
pub(super) fn print(text: &str) -> Result<ExitCode, Refusal> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(fault) => Err(anyhow::Error::new(fault).context("cannot write to standard output").into()),
    }
}

/// For commands that wait for others. One thread is enough: none of them computes.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // A second installation reports an error and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the event loop")
}

/// Parses a duration on the command line.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).ok_or_else(|| config::DURATION_RULE.to_owned())
}
