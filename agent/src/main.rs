//! Outrider: high availability for PostgreSQL as a sidecar. The program's start; the commands are in `cli`.

mod act;
mod backup;
mod cli;
mod clock;
mod config;
mod heap;
mod http;
mod jobs;
mod lag;
mod metrics;
mod observe;
mod report;
mod restore;
mod rollback;
mod round;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
