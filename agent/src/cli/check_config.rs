//! `outrider check-config`: all faults at once, or the configuration in effect without its secrets.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::exit::{self, Refusal};
use crate::config;

pub(super) fn run(file: &Path) -> Result<ExitCode, Refusal> {
    let config = exit::load(file)?;
    let document = serde_saphyr::to_string(&config::effective(&config))
        .context("cannot write the configuration as YAML")?;
    if let Some(open) = config.rest.open_to() {
        exit::warn(&open);
    }
    exit::print(&document)
}
