//! `outrider backup`: requests a base backup and shows progress. The cluster takes it, even if this command ends.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::cluster_job::ClusterJob;
use super::exit::{self, Refusal};
use super::member::{Member, MemberOptions};

/// Take a base backup of the cluster into its archive, and show progress
///
/// A standby takes it when one is healthy, else the leader. Interrupted (Ctrl-C), this command ends and the backup goes on;
/// `outrider backup --cancel` takes it back.
#[derive(Args)]
pub(super) struct Backup {
    #[command(flatten)]
    options: MemberOptions,
    /// Request it and do not wait
    #[arg(long, conflicts_with = "cancel")]
    detach: bool,
    /// Cancel the backup that is requested or running
    #[arg(long)]
    cancel: bool,
}

const JOB: ClusterJob = ClusterJob {
    path: "/backup",
    name: "backup",
    taken_back: "",
    goes_on: "the backup continues without this command; `outrider backup --cancel` takes it back",
    under_way: |member, phase| format!("a backup is being taken by {member} ({phase})"),
    ended,
};

pub(super) fn run(asked: Backup) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    let member = Member::of(asked.options)?;
    if asked.cancel {
        return runtime.block_on(JOB.cancel(&member));
    }
    runtime.block_on(JOB.ask(&member, &json!({}), asked.detach))
}

fn ended(last: &Value) -> Result<ExitCode, Refusal> {
    if let Some(error) = last["error"].as_str() {
        let member = last["member"].as_str().unwrap_or_default();
        return Err(anyhow!("the backup on {member} failed: {error}").into());
    }
    let size = |key: &str| HumanBytes(last[key].as_u64().unwrap_or_default());
    exit::print(&format!(
        "backup {} taken by {}: {} of data, {} in the archive\n",
        last["backup"].as_str().unwrap_or_default(),
        last["member"].as_str().unwrap_or_default(),
        size("bytes"),
        size("bytes_stored"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_while_one_runs_is_told_who_takes_it() {
        let running = r#"{"request": {"by": "schedule"}, "running": {"member": "p2", "phase": "copying"}, "last": null}"#;
        assert!(JOB.already(running).starts_with("a backup is being taken by p2 (copying)"));
        let asked = r#"{"request": {"by": "schedule"}, "running": null, "last": null}"#;
        assert!(JOB.already(asked).starts_with("a backup was requested by schedule"));
        assert_eq!(JOB.already("a line of text"), "a line of text");
    }
}
