//! Outrider: high availability for PostgreSQL as a sidecar. The program's start; the commands are in `cli`.

mod act;
mod apart;
mod backup;
mod cli;
mod clock;
mod config;
mod deadline;
mod from_archive;
mod heap;
mod http;
mod instruments;
mod jobs;
mod lag;
mod log;
mod member;
mod metrics;
mod observe;
mod report;
mod restore;
mod rollback;
mod round;
#[cfg(test)]
mod sample;
mod schedule;
mod state;
mod swap_offer;
mod wake;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
