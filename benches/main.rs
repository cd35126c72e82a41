//! The figures of benches/README.md, measured on real members of this machine: how long clients cannot write, what an idle
//! agent costs, and how fast `archive_command` answers. Asserts nothing but that no commit is lost and no two primaries write.

mod cases;
mod depot;
mod figures;
mod machine;
mod others;
mod scene;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;

use crate::cases::Case;
use crate::figures::Outcome;
use crate::machine::Machine;

/// Measures write gaps, the cost of an idle agent, and wal-push, on this machine.
///
/// Exit status: 1 when a run failed, a promised commit was lost, or two primaries were writable at once.
#[derive(Parser)]
struct Asked {
    /// How often each fault is caused
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Only this case
    #[arg(long, value_name = "NAME")]
    only: Option<Case>,
    /// Write every single figure to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let asked = Asked::parse();
    tokio::select! {
        outcome = measure(&asked) => match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(fault) => {
                eprintln!("{fault:#}");
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => {
            eprintln!("interrupted: stopping everything that was started");
            ExitCode::from(130)
        }
    }
}

/// Whether every case ran to its end and every promise was kept.
async fn measure(asked: &Asked) -> anyhow::Result<bool> {
    let machine = Machine::look()?;
    println!("{machine}");
    let cases = asked.only.map_or_else(|| Case::ALL.to_vec(), |only| vec![only]);
    let mut outcomes = Vec::new();
    for case in cases {
        println!("{}", case.name());
        let outcome = case.run(asked.runs).await;
        outcomes.push(outcome.unwrap_or_else(|fault| Outcome::broken(case.name(), &fault)));
    }
    println!("\n{}", table::markdown(&outcomes));
    println!("{machine}; load average {} before, {} after", machine.load, machine::load()?);
    if let Some(file) = &asked.json {
        write_json(file, &machine, &outcomes)?;
    }
    Ok(outcomes.iter().all(Outcome::is_good))
}

fn write_json(file: &Path, machine: &Machine, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let cases: Vec<_> = outcomes.iter().map(Outcome::to_json).collect();
    let all = json!({"machine": machine.to_string(), "load_before": machine.load, "cases": cases});
    std::fs::write(file, format!("{all:#}\n")).with_context(|| format!("cannot write {}", file.display()))
}
