//! `outrider rollback`: requests a rollback of the running cluster, shows progress, and reports at the end where the old data
//! is. The leader carries it out, even if this command ends.

use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use outrider_archive::BackupId;
use outrider_restore::{Goal, Restorer};
use serde_json::{Value, json};

use super::cluster_job::ClusterJob;
use super::confirm::confirm;
use super::exit::{self, Refusal};
use super::format::Format;
use super::member::{Member, MemberOptions};
use super::restore;
use super::target::TargetOptions;
use crate::rollback;

/// Roll the running cluster back to a point in time, in place
///
/// The leader restores and recovers the data beside its own while it keeps serving. When it is ready, it stops for a moment,
/// swaps the two directories and continues on a new timeline; the standbys follow by themselves. Everything after the target is
/// gone from the cluster then; the old data directory is kept beside the new one. A target that cannot be reached is refused
/// before anything is touched.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Rollback {
    #[command(flatten)]
    options: MemberOptions,
    #[command(flatten)]
    target: TargetOptions,
    /// From this backup; the newest that ended before the target unless given
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
    /// Show what would be done, and ask for nothing; reads the archive that FILE names
    #[arg(long)]
    plan: bool,
    /// Cancel the rollback, until the swap begins
    #[arg(long, conflicts_with_all = ["target", "plan", "backup"])]
    cancel: bool,
    /// Request it and do not wait
    #[arg(long)]
    no_wait: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  outrider rollback -c member.yml --to \"10 minutes ago\" --plan    can it be had, and from what?
  outrider rollback -c member.yml --to 2026-11-24T15:04:05+01:00
  outrider rollback -c member.yml --name before_migration --yes --no-wait
  outrider rollback -c member.yml --cancel";

const JOB: ClusterJob = ClusterJob {
    path: "/rollback",
    name: "rollback",
    taken_back: "; nothing was changed",
    goes_on: "the rollback continues without this command; `outrider rollback --cancel` takes it back until the swap begins",
    under_way: |member, phase| format!("{member} is already rolling the cluster back ({phase})"),
    ended,
};

pub(super) fn run(asked: Rollback) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    if asked.cancel {
        let member = Member::of(asked.options)?;
        return runtime.block_on(JOB.cancel(&member));
    }
    if asked.target.point.target()?.is_none() {
        return Err(Refusal::Usage(
            "recover recover up to where? Give one of --to, --lsn, --xid, --name, --immediate or --latest"
                .to_owned(),
        ));
    }
    let goal = asked.target.goal()?;
    if asked.plan {
        let Some(file) = &asked.options.config else {
            return Err(Refusal::Usage(
                "--plan reads the archive itself: give a member's file with -c".to_owned(),
            ));
        };
        let _inside = runtime.enter();
        return runtime.block_on(plan(file, &goal, asked.backup.as_ref()));
    }
    let member = Member::of(asked.options)?;
    let cluster = runtime.block_on(member.get("/cluster"))?;
    sure(&cluster, &goal, asked.yes)?;
    runtime.block_on(JOB.ask(&member, &request(&goal, asked.backup.as_ref()), asked.no_wait))
}

async fn plan(file: &Path, goal: &Goal, backup: Option<&BackupId>) -> Result<ExitCode, Refusal> {
    let config = exit::load(file)?;
    let Some(archive) = &config.archive else {
        return Err(Refusal::Usage(format!("{} names no archive", file.display())));
    };
    let restorer = Restorer::new(archive.open_store()?, archive.layout.clone());
    let planned = restorer.plan(goal, backup).await.map_err(anyhow::Error::new)?;
    exit::print(&restore::show_plan(&planned, Format::Table)?)
}

fn sure(cluster: &Value, goal: &Goal, yes: bool) -> Result<(), Refusal> {
    let scope = cluster["scope"].as_str().unwrap_or_default();
    let act = format!("roll cluster {scope} back to {}", goal.target);
    let question =
        format!("Everything written after that will be gone. Are you sure you want to {act}? [y/N]: ");
    let alone = format!("{act}, which discards everything after that: add --yes");
    confirm(cluster, &question, &alone, yes)
}

fn request(goal: &Goal, backup: Option<&BackupId>) -> Value {
    let mut request = json!(rollback::target(goal));
    if let Some(backup) = backup {
        request["backup"] = json!(backup.to_string());
    }
    request
}

fn ended(last: &Value) -> Result<ExitCode, Refusal> {
    let text = |key: &str| last[key].as_str().unwrap_or_default();
    if let Some(error) = last["error"].as_str() {
        let kept = last["old_data"].as_str().map(|path| format!("; the old data is in {path}"));
        return Err(anyhow!("the cluster was not rolled back: {error}{}", kept.unwrap_or_default()).into());
    }
    let gap = last["write_gap_seconds"].as_f64();
    let gap = gap.map(|gap| format!("; nobody could write for {gap:.2} s")).unwrap_or_default();
    exit::print(&format!(
        "rolled back to {} from the backup {}{gap}\n\
         timeline {} began at {}; timeline {} was left at {}\n\
         the old data is on {} in {}: remove it when it is no longer needed\n",
        text("target"),
        text("backup"),
        last["new_timeline"],
        text("new_lsn"),
        last["old_timeline"],
        text("old_lsn"),
        text("member"),
        text("old_data"),
    ))
}

#[cfg(test)]
mod tests {
    use outrider_restore::Target;

    use super::*;

    #[test]
    fn a_request_says_what_was_asked_for() {
        let mut goal = Goal::to(Target::Xid(7));
        assert_eq!(request(&goal, None), json!({"target_xid": 7}));
        goal.inclusive = false;
        goal.timeline = "2".parse().unwrap();
        let backup = "20261124T150405".parse().unwrap();
        let expected =
            json!({"target_xid": 7, "exclusive": true, "timeline": "2", "backup": "20261124T150405"});
        assert_eq!(request(&goal, Some(&backup)), expected);
    }

    #[test]
    fn who_asks_while_one_runs_is_told_who_does_it() {
        let running =
            r#"{"request": {"by": "p1"}, "running": {"member": "p2", "phase": "recovering"}, "last": null}"#;
        assert!(JOB.already(running).starts_with("p2 is already rolling the cluster back (recovering)"));
        assert_eq!(JOB.already("a line of text"), "a line of text");
    }
}
