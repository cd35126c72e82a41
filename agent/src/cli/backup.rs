//! `outrider backup`: asks the cluster for a base backup and shows how far it is. The cluster takes it, whoever watches.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::exit::{self, Refusal};
use super::member::{Member, Whom};
use crate::clock;

/// Between two questions how far it is.
const INTERVAL: Duration = Duration::from_millis(100);
/// Without a terminal a line says how far it is after so many of them.
const LINE_EVERY: u32 = 100;
/// A member that has not answered for so long is not asked any more.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Take a base backup of the cluster into its archive, and show how far it is
///
/// A standby takes it when one is healthy, else the leader. Interrupted (Ctrl-C), this command ends and the backup goes on;
/// `outrider backup --cancel` takes it back.
#[derive(Args)]
pub(super) struct Backup {
    #[command(flatten)]
    whom: Whom,
    /// Ask for it and do not wait
    #[arg(long, conflicts_with = "cancel")]
    detach: bool,
    /// Take back the backup that was asked for or is being taken
    #[arg(long)]
    cancel: bool,
}

pub(super) fn run(asked: Backup) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    let member = Member::of(asked.whom)?;
    if asked.cancel {
        return runtime.block_on(cancel(&member));
    }
    runtime.block_on(take(&member, asked.detach))
}

async fn cancel(member: &Member) -> Result<ExitCode, Refusal> {
    let answer = member.delete("/backup").await?;
    let words = answer.body.trim();
    if !answer.status.is_success() {
        return Err(anyhow!("{words} ({})", answer.status.as_u16()).into());
    }
    exit::print("the backup was taken back\n")
}

async fn take(member: &Member, detach: bool) -> Result<ExitCode, Refusal> {
    let answer = member.post("/backup", &json!({})).await?;
    let words = answer.body.trim();
    if answer.status.as_u16() == 409 {
        return Err(anyhow!("{}", already(words)).into());
    }
    if !answer.status.is_success() {
        return Err(anyhow!("{words} ({})", answer.status.as_u16()).into());
    }
    let document: Value = serde_json::from_str(words).context("the member does not answer with JSON")?;
    let id = document["id"].as_str().context("the member does not say how the request is called")?;
    if detach {
        return exit::print(&format!("asked for a backup: {id}\n"));
    }
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    tokio::select! {
        ended = follow(member, id) => ended,
        _ = interrupted.recv() => {
            say("the backup goes on without this command; `outrider backup --cancel` takes it back");
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
                "a backup is being taken by {member} ({phase}); wait for it, or take it back with --cancel"
            )
        }
        (None, Some(by)) => {
            format!("a backup was asked for by {by}; wait for it, or take it back with --cancel")
        }
        (None, None) => "another backup was asked for at this moment".to_owned(),
    }
}

/// Until it has ended.
async fn follow(member: &Member, id: &str) -> Result<ExitCode, Refusal> {
    let mut shown = Shown::new();
    let mut answered = clock::monotonic();
    loop {
        match member.get("/backup").await {
            Ok(document) => {
                answered = clock::monotonic();
                if document["last"]["request"] == id {
                    shown.clear();
                    return ended(&document["last"]);
                }
                if document["request"]["id"] != id && document["running"]["request"] != id {
                    shown.clear();
                    return Err(anyhow!("the backup was taken back before anybody began with it").into());
                }
                shown.show(&document["running"]);
            }
            Err(fault) => {
                if answered.elapsed() > SILENCE_MAX {
                    shown.clear();
                    let lost = "the member does not answer any more, and the backup may go on; ask another with --url";
                    return Err(fault.context(lost).into());
                }
            }
        }
        sleep(INTERVAL).await;
    }
}

fn ended(last: &Value) -> Result<ExitCode, Refusal> {
    if let Some(error) = last["error"].as_str() {
        let member = last["member"].as_str().unwrap_or_default();
        return Err(anyhow!("{member} took no backup: {error}").into());
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

/// A bar on a terminal, and now and then a line elsewhere.
pub(super) struct Shown {
    bar: Option<ProgressBar>,
    looks: u32,
    phase: String,
}

impl Shown {
    pub(super) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}% {msg}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Shown { bar, looks: 0, phase: String::new() }
    }

    /// `running`: what a member says of a backup or a rollback that is under way.
    pub(super) fn show(&mut self, running: &Value) {
        let number = |key: &str| running[key].as_u64().unwrap_or_default();
        let phase = running["phase"].as_str().unwrap_or("waiting for a member to take it");
        let member = running["member"].as_str().unwrap_or_default();
        let (done, total) = (number("bytes_done"), number("bytes_total"));
        let left =
            running["seconds_left"].as_u64().map(|seconds| HumanDuration(Duration::from_secs(seconds)));
        let left = left.map(|left| format!(", {left} left")).unwrap_or_default();
        let rate = HumanBytes(number("rate"));
        match &self.bar {
            Some(bar) => {
                bar.set_length(total.max(1));
                bar.set_position(done.min(total));
                bar.set_prefix(format!("{member} {phase}"));
                bar.set_message(format!("{rate}/s{left}"));
            }
            None => {
                if phase != self.phase || self.looks.is_multiple_of(LINE_EVERY) {
                    let percent = (done.min(total) * 100).checked_div(total).unwrap_or_default();
                    say(&format!(
                        "{member} {phase}: {percent} %, {} of {}, {rate}/s{left}",
                        HumanBytes(done),
                        HumanBytes(total)
                    ));
                }
                phase.clone_into(&mut self.phase);
                self.looks = self.looks.wrapping_add(1);
            }
        }
    }

    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// On standard error; without one there is still the exit status.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_while_one_runs_is_told_who_takes_it() {
        let running = r#"{"request": {"by": "schedule"}, "running": {"member": "p2", "phase": "copying"}, "last": null}"#;
        assert!(already(running).starts_with("a backup is being taken by p2 (copying)"));
        let asked = r#"{"request": {"by": "schedule"}, "running": null, "last": null}"#;
        assert!(already(asked).starts_with("a backup was asked for by schedule"));
        assert_eq!(already("a line of text"), "a line of text");
    }
}
