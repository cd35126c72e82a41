//! The supervisor as a program of its own, with a real PostgreSQL. The program that ships is `outrider`; here
//! this very test binary becomes the supervisor when [`member`] starts it again with [`SUPERVISE`] set and
//! asks for [`the_supervisor_when_a_test_starts_it`] alone.
#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]

mod agent;
mod member;

mod conversation;
mod ending;
mod fencing;
mod tools;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use outrider_supervisor::{Options, run};

/// The supervisor's options, one a line: data directory, programs, socket, handover and grace in milliseconds.
const SUPERVISE: &str = "OUTRIDER_TEST_SUPERVISE";

#[test]
fn the_supervisor_when_a_test_starts_it() {
    // In a plain run of all tests there is nothing to do here.
    let Ok(options) = env::var(SUPERVISE) else { return };
    let options: Vec<&str> = options.lines().collect();
    let [data_directory, bin_directory, socket, handover, grace] = options[..] else {
        panic!("five options are expected")
    };
    let milliseconds = |text: &str| Duration::from_millis(text.parse().unwrap());
    let options = Options {
        handover_timeout: milliseconds(handover),
        grace_period: milliseconds(grace),
        ..Options::new(PathBuf::from(data_directory), PathBuf::from(bin_directory), PathBuf::from(socket))
    };
    // Not a panic: it would be this binary's own status, and would say nothing of the supervisor's.
    let status = match run(options) {
        Ok(status) if status == ExitCode::SUCCESS => 0,
        Ok(_) => 1,
        Err(error) => {
            eprintln!("{error}");
            3
        }
    };
    std::process::exit(status);
}
