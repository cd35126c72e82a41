//! `outrider check-config`: all errors at once, or the configuration in effect without its secrets. Parameters are checked with
//! PostgreSQL's own program.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::exit::{self, Refusal};
use crate::config;

pub(super) fn run(file: &Path) -> Result<ExitCode, Refusal> {
    let config = exit::load(file)?;
    let trial = exit::runtime()?.block_on(config::try_file(&config));
    exit::warn_all(&trial.warnings);
    let start = trial.start.map(|words| format!("a server would not start with these parameters: {words}"));
    let faults: Vec<String> = trial.faults.into_iter().chain(start).collect();
    if !faults.is_empty() {
        return Err(exit::faults(file, &faults));
    }
    let document = serde_saphyr::to_string(&config::effective(&config))
        .context("cannot write the configuration as YAML")?;
    if let Some(open) = config.rest.open_to() {
        exit::warn(&open);
    }
    exit::print(&document)
}
