//! `outrider rollback`: asks the cluster to roll itself back, shows how far it is, and says in the end where the old data lies.
//! The leader does it, whoever watches.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use outrider_archive::BackupId;
use outrider_archive::restore::{Goal, RestoreOptions, Restorer, Target, TargetTimeline};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::backup::{Shown, say};
use super::exit::{self, Refusal};
use super::format::Format;
use super::list;
use super::member::{Member, Whom};
use super::restore;
use super::target::TargetOptions;

/// Between two questions how far it is.
const INTERVAL: Duration = Duration::from_millis(500);
/// A member that does not answer so often is not asked any more.
const SILENCES_MAX: u32 = 60;

/// Roll the running cluster back to a point in time, in its place
///
/// The leader restores and recovers the data beside its own while it goes on serving. When all is ready it stops for a moment,
/// swaps the two directories and goes on with a new timeline; the standbys follow by themselves. Everything after the target is
/// gone from the cluster then; the old data directory is kept beside the new one. A target that cannot be reached is refused
/// before anything is touched.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Rollback {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    target: TargetOptions,
    /// From this backup; the newest that ended before the target unless given
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
    /// Show what would be done, and ask for nothing; reads the archive that FILE names
    #[arg(long)]
    plan: bool,
    /// Take back the rollback that was asked for, until the swap begins
    #[arg(long, conflicts_with_all = ["target", "plan", "backup"])]
    cancel: bool,
    /// Ask for it and do not wait
    #[arg(long)]
    no_wait: bool,
    /// Do not ask whether it is meant
    #[arg(short, long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  outrider rollback -c member.yml --to \"10 minutes ago\" --plan    can it be had, and from what?
  outrider rollback -c member.yml --to 2026-11-24T15:04:05+01:00
  outrider rollback -c member.yml --name before_migration --yes --no-wait
  outrider rollback -c member.yml --cancel";

pub(super) fn run(asked: Rollback) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    if asked.cancel {
        let member = Member::of(asked.whom)?;
        return runtime.block_on(cancel(&member));
    }
    if asked.target.point.target()?.is_none() {
        return Err(Refusal::Usage(
            "up to where? Give one of --to, --lsn, --xid, --name, --immediate or --latest".to_owned(),
        ));
    }
    let goal = asked.target.goal()?;
    if asked.plan {
        let Some(file) = &asked.whom.config else {
            return Err(Refusal::Usage(
                "--plan reads the archive itself: give a member's file with -c".to_owned(),
            ));
        };
        let _inside = runtime.enter();
        return runtime.block_on(plan(file, &goal, asked.backup.as_ref()));
    }
    let member = Member::of(asked.whom)?;
    let cluster = runtime.block_on(member.get("/cluster"))?;
    confirm(&cluster, &goal, asked.yes)?;
    runtime.block_on(ask(&member, &request(&goal, asked.backup.as_ref()), asked.no_wait))
}

async fn plan(file: &Path, goal: &Goal, backup: Option<&BackupId>) -> Result<ExitCode, Refusal> {
    let config = exit::load(file)?;
    let Some(archive) = &config.archive else {
        return Err(Refusal::Usage(format!("{} names no archive", file.display())));
    };
    let restorer = Restorer::new(archive.open_store()?, archive.layout.clone(), RestoreOptions::default());
    let planned = restorer.plan(goal, backup).await.map_err(anyhow::Error::new)?;
    exit::print(&restore::show_plan(&planned, Format::Table)?)
}

async fn cancel(member: &Member) -> Result<ExitCode, Refusal> {
    let answer = member.delete("/rollback").await?;
    let words = answer.body.trim();
    if !answer.status.is_success() {
        return Err(anyhow!("{words} ({})", answer.status.as_u16()).into());
    }
    exit::print("the rollback was taken back; nothing was changed\n")
}

fn confirm(cluster: &Value, goal: &Goal, yes: bool) -> Result<(), Refusal> {
    if yes {
        return Ok(());
    }
    let scope = cluster["scope"].as_str().unwrap_or_default();
    let act = format!("roll cluster {scope} back to {}", goal.target);
    if !io::stdin().is_terminal() {
        return Err(Refusal::Usage(format!(
            "nobody is at a terminal to confirm to {act}, which throws away all that came after: add --yes"
        )));
    }
    exit::print(&list::show(cluster, Format::Table)?)?;
    exit::print(&format!(
        "Everything that was written after that is gone then. Are you sure you want to {act}? [y/N]: "
    ))?;
    io::stdout().flush().map_err(anyhow::Error::new)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(anyhow::Error::new)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(anyhow!("nothing was changed").into())
}

/// A time that counts from now is one on the wall by now.
fn request(goal: &Goal, backup: Option<&BackupId>) -> Value {
    let mut request = Map::new();
    let (key, value) = match &goal.target {
        Target::Latest => ("latest", json!(true)),
        Target::Immediate => ("immediate", json!(true)),
        Target::Time(time) => ("target_time", json!(time.to_string())),
        Target::Lsn(lsn) => ("target_lsn", json!(lsn.to_string())),
        Target::Xid(xid) => ("target_xid", json!(xid)),
        Target::Name(name) => ("target_name", json!(name)),
    };
    request.insert(key.to_owned(), value);
    if !goal.inclusive {
        request.insert("exclusive".to_owned(), json!(true));
    }
    match goal.timeline {
        TargetTimeline::Latest => {}
        TargetTimeline::Current => drop(request.insert("timeline".to_owned(), json!("current"))),
        TargetTimeline::Number(number) => {
            request.insert("timeline".to_owned(), json!(number.to_string()));
        }
    }
    if let Some(backup) = backup {
        request.insert("backup".to_owned(), json!(backup.to_string()));
    }
    Value::Object(request)
}

async fn ask(member: &Member, request: &Value, no_wait: bool) -> Result<ExitCode, Refusal> {
    let answer = member.post("/rollback", request).await?;
    let words = answer.body.trim();
    if answer.status.as_u16() == 409 {
        return Err(anyhow!("{}", already(words)).into());
    }
    if !answer.status.is_success() {
        return Err(anyhow!("{words} ({})", answer.status.as_u16()).into());
    }
    let document: Value = serde_json::from_str(words).context("the member does not answer with JSON")?;
    let id = document["id"].as_str().context("the member does not say how the request is called")?;
    if no_wait {
        return exit::print(&format!("asked for a rollback: {id}\n"));
    }
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    tokio::select! {
        ended = follow(member, id) => ended,
        _ = interrupted.recv() => {
            say("the rollback goes on without this command; `outrider rollback --cancel` takes it back until the swap begins");
            Ok(ExitCode::from(1))
        }
    }
}

/// What a member says that has one already.
fn already(words: &str) -> String {
    let Ok(document) = serde_json::from_str::<Value>(words) else { return words.to_owned() };
    let running = &document["running"];
    match (running["member"].as_str(), document["request"]["by"].as_str()) {
        (Some(member), _) => {
            let phase = running["phase"].as_str().unwrap_or_default();
            format!(
                "{member} rolls the cluster back already ({phase}); wait for it, or take it back with --cancel"
            )
        }
        (None, Some(by)) => {
            format!("a rollback was asked for by {by}; wait for it, or take it back with --cancel")
        }
        (None, None) => "another rollback was asked for at this moment".to_owned(),
    }
}

/// Until it has ended.
async fn follow(member: &Member, id: &str) -> Result<ExitCode, Refusal> {
    let mut shown = Shown::new();
    let mut silences = 0;
    loop {
        match member.get("/rollback").await {
            Ok(document) => {
                silences = 0;
                if document["last"]["request"] == id {
                    shown.clear();
                    return ended(&document["last"]);
                }
                if document["request"]["id"] != id && document["running"]["request"] != id {
                    shown.clear();
                    return Err(anyhow!("the rollback was taken back before anybody began with it").into());
                }
                shown.show(&document["running"]);
            }
            Err(fault) => {
                silences += 1;
                if silences == SILENCES_MAX {
                    shown.clear();
                    let lost = "the member does not answer any more, and the rollback may go on; ask another with --url";
                    return Err(fault.context(lost).into());
                }
            }
        }
        sleep(INTERVAL).await;
    }
}

fn ended(last: &Value) -> Result<ExitCode, Refusal> {
    let text = |key: &str| last[key].as_str().unwrap_or_default();
    if let Some(error) = last["error"].as_str() {
        let kept = last["old_data"].as_str().map(|path| format!("; the old data lies in {path}"));
        return Err(anyhow!("the cluster was not rolled back: {error}{}", kept.unwrap_or_default()).into());
    }
    let gap = last["write_gap_seconds"].as_f64();
    let gap = gap.map(|gap| format!("; nobody could write for {gap:.2} s")).unwrap_or_default();
    exit::print(&format!(
        "rolled back to {} from the backup {}{gap}\n\
         timeline {} began at {}; timeline {} was left at {}\n\
         the old data lies on {} in {}: remove it when it is not needed\n",
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
        assert!(already(running).starts_with("p2 rolls the cluster back already (recovering)"));
        assert_eq!(already("a line of text"), "a line of text");
    }
}
