//! The flight recorder `rounds.jsonl`: view, plan and outcome of every round that changed something, for `outrider replay`.
//! Bounded, and never in the way: when the disk fails, the round continues and a counter goes up.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use outrider_ha::{Plan, Step, View};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// Size at which a file is renamed to `rounds.jsonl.1`, replacing the one before it.
const FILE_MAX: u64 = 8 << 20;
/// Interval at which a quiet round is recorded, to show that the agent is alive.
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

    /// Records the round, unless it was quiet like the one before.
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
                    warn!(path = %self.path.display(), %fault, "cannot write the flight recorder; continuing without it");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(failure: Option<String>) -> Record {
        let mut record: Record = serde_json::from_str(
            r#"{"at":"2026-11-24T11:18:19Z","version":"0.1.0","view":{"me":"p1","dcs":{"silent":{"since":100}},
            "local":{"postgres":"empty","system":null,"term":4},"members":[],"policy":{"ttl":5000,"loop_wait":1000,
            "maximum_lag_on_failover":0,"primary_start_timeout":300000,"switchover_timeout":5000,"step_down_margin":500,
            "synchronous_mode":"on","synchronous_node_count":1},"job":null},
            "plan":{"reason":"dcs_silent_waiting","steps":[],"look_again":null}}"#,
        )
        .unwrap();
        record.failure = failure;
        record
    }

    #[test]
    fn the_files_stay_bounded_and_keep_the_newest_rounds() {
        let directory = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(directory.path());
        let long = "x".repeat(1 << 20);
        for number in 0..40 {
            recorder.record(&record(Some(format!("{number} {long}"))));
        }
        let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 2, "{files:?}");
        for file in &files {
            assert!(file.metadata().unwrap().len() <= FILE_MAX, "{file:?}");
        }
        let newest = std::fs::read_to_string(directory.path().join("rounds.jsonl")).unwrap();
        let last: Record = serde_json::from_str(newest.lines().last().unwrap()).unwrap();
        assert!(last.failure.unwrap().starts_with("39 "));
        assert_eq!(recorder.failures, 0);
    }

    #[test]
    fn a_quiet_round_is_recorded_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(directory.path());
        for _ in 0..5 {
            recorder.record(&record(None));
        }
        let text = std::fs::read_to_string(directory.path().join("rounds.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 1);
    }
}
