//! `outrider supervise`: the process that owns the postmaster. Runs before any thread exists.

use std::process::ExitCode;

use anyhow::Context;
use outrider_supervisor::Options;

use super::Supervise;
use super::exit::Refusal;
use crate::config::{SUPERVISOR_SOCKET, beside};

pub(super) fn run(asked: Supervise) -> Result<ExitCode, Refusal> {
    let socket = asked.socket.unwrap_or_else(|| beside(&asked.data_dir).join(SUPERVISOR_SOCKET));
    let mut options = Options::new(asked.data_dir, asked.bin_dir, socket);
    options.handover_timeout = asked.handover_timeout.unwrap_or(options.handover_timeout);
    options.grace_period = asked.grace_period.unwrap_or(options.grace_period);
    if options.handover_timeout >= options.grace_period {
        let text = "--handover-timeout must be shorter than --grace-period, in which Postgres also stops";
        return Err(Refusal::Usage(text.to_owned()));
    }
    Ok(outrider_supervisor::run(options).context("the supervisor ends")?)
}
