//! The flight recorder `rounds.jsonl`: view, plan and outcome of every round that changed something, for `outrider replay`.
//! Bounded, and never in the way: when the disk refuses, the round goes on and a counter tells.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use outrider_ha::{Plan, Step, View};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// A file is put aside as `rounds.jsonl.1` when it is this large, and what was there before is dropped.
const FILE_MAX: u64 = 8 << 20;
/// A quiet round is recorded this often, so that the file shows the agent alive.
const QUIET_INTERVAL: Duration = Duration::from_secs(60);

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// When the round ended.
    pub(crate) at: Timestamp,
    /// The version of the agent that decided.
    pub(crate) version: String,
    /// What it saw.
    pub(crate) view: View,
    /// What it decided.
    pub(crate) plan: Plan,
    /// The error of the step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

/// Writes the records of one member.
pub(crate) struct Recorder {
    path: PathBuf,
    file: Option<File>,
    last: Option<(Timestamp, Plan)>,
    failing: bool,
    /// Records that could not be written.
    pub(crate) failures: u64,
}

impl Recorder {
    /// A recorder that writes `rounds.jsonl` in `state_directory`.
    pub(crate) fn new(state_directory: &Path) -> Self {
        let path = state_directory.join("rounds.jsonl");
        Recorder { path, file: None, last: None, failing: false, failures: 0 }
    }

    /// Records the round unless it was as quiet as the one before.
    pub(crate) fn record(&mut self, record: &Record) {
        let quiet = record.failure.is_none()
            && record.plan.steps.iter().all(|step| *step == Step::RenewLease)
            && self.last.as_ref().is_some_and(|(at, plan)| {
                plan.reason == record.plan.reason
                    && record.at.duration_since(*at).unsigned_abs() < QUIET_INTERVAL
            });
        if quiet {
            return;
        }
        self.last = Some((record.at, record.plan.clone()));
        match self.write(record) {
            Ok(()) => self.failing = false,
            Err(fault) => {
                self.failures += 1;
                self.file = None;
                if !self.failing {
                    warn!(path = %self.path.display(), %fault, "cannot write the flight recorder; rounds go on without it");
                }
                self.failing = true;
            }
        }
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let file = match &mut self.file {
            Some(file) => file,
            empty => empty.insert(OpenOptions::new().create(true).append(true).open(&self.path)?),
        };
        if file.metadata()?.len() + line.len() as u64 > FILE_MAX {
            rename(&self.path, self.path.with_extension("jsonl.1"))?;
            *file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        }
        file.write_all(&line)
    }
}
