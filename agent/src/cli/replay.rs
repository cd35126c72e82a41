//! `outrider replay`: decides every recorded round anew and shows where the plan differs. Changes nothing anywhere.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use outrider_ha::decide;

use super::exit::{self, Refusal};
use crate::report::recorder::Record;

/// Decide the rounds of a flight recorder anew, and show which plans differ
#[derive(Args)]
pub(super) struct Replay {
    /// The file rounds.jsonl from a member's state directory
    #[arg(value_name = "ROUNDS.jsonl")]
    file: PathBuf,
}

pub(super) fn run(replay: &Replay) -> Result<ExitCode, Refusal> {
    let cannot_read = || format!("cannot read the recorded rounds in {}", replay.file.display());
    let file = File::open(&replay.file).with_context(cannot_read)?;
    let (mut rounds, mut odd) = (0_u64, 0_u64);
    for (index, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = line.with_context(cannot_read)?;
        rounds += 1;
        if let Some(difference) = difference(&line) {
            odd += 1;
            exit::print(&format!("line {}: {difference}\n", index + 1))?;
        }
    }
    exit::print(&summary(&replay.file, rounds, odd))?;
    Ok(if odd == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(file: &Path, rounds: u64, odd: u64) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{}: {rounds} rounds, {odd} of them not decided as recorded (this is version {version})\n",
        file.display()
    )
}

/// What is odd about a recorded round; `None` when it is decided as it was.
fn difference(line: &[u8]) -> Option<String> {
    let record: Record = match serde_json::from_slice(line) {
        Ok(record) => record,
        Err(fault) => return Some(format!("not a recorded round: {fault}")),
    };
    let plan = decide(&record.view);
    (plan != record.plan).then(|| {
        format!("at {} version {} decided {:?}\n  and now {plan:?}", record.at, record.version, record.plan)
    })
}
