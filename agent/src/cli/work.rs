//! Work that the cluster does on request, a base backup or a rollback: requests it, shows progress, and cancels it. Each command
//! reports the outcome itself.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::exit::{self, Refusal};
use super::member::Member;
use crate::clock;

/// Interval between requests for progress.
const INTERVAL: Duration = Duration::from_millis(100);
/// Without a terminal, requests between two lines of progress.
const LINE_EVERY: u32 = 100;
/// A member that has not answered for this long is no longer asked.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// One kind of work.
pub(super) struct Work {
    /// Path of the REST API, such as `/backup`.
    pub(super) path: &'static str,
    /// Its name, such as `backup`.
    pub(super) name: &'static str,
    /// What cancelling it means.
    pub(super) taken_back: &'static str,
    /// What goes on when this command is interrupted, and what to do about it.
    pub(super) goes_on: &'static str,
    /// Says that it is already being done, by the member and the phase.
    pub(super) under_way: fn(&str, &str) -> String,
    /// Reports the outcome.
    pub(super) ended: fn(&Value) -> Result<ExitCode, Refusal>,
}

impl Work {
    /// Cancels what was requested or is in progress.
    pub(super) async fn cancel(&self, member: &Member) -> Result<ExitCode, Refusal> {
        let answer = member.delete(self.path).await?;
        let words = answer.body.trim();
        if !answer.status.is_success() {
            return Err(anyhow!("{words} ({})", answer.status.as_u16()).into());
        }
        exit::print(&format!("the {} was cancelled{}\n", self.name, self.taken_back))
    }

    /// Requests it, and follows it to its end unless `detach`.
    pub(super) async fn ask(
        &self,
        member: &Member,
        request: &Value,
        detach: bool,
    ) -> Result<ExitCode, Refusal> {
        let answer = member.post(self.path, request).await?;
        let words = answer.body.trim();
        if answer.status.as_u16() == 409 {
            return Err(anyhow!("{}", self.already(words)).into());
        }
        if !answer.status.is_success() {
            return Err(anyhow!("{words} ({})", answer.status.as_u16()).into());
        }
        let document: Value = serde_json::from_str(words).context("the member does not answer with JSON")?;
        let id = document["id"].as_str().context("the member's answer has no request id")?;
        if detach {
            return exit::print(&format!("requested a {}: {id}\n", self.name));
        }
        let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
        tokio::select! {
            ended = self.follow(member, id) => ended,
            _ = interrupted.recv() => {
                say(self.goes_on);
                Ok(ExitCode::from(1))
            }
        }
    }

    /// What a member says when there is one already.
    pub(super) fn already(&self, words: &str) -> String {
        let Ok(document) = serde_json::from_str::<Value>(words) else { return words.to_owned() };
        let (name, running) = (self.name, &document["running"]);
        let advice = "wait for it, or cancel it with --cancel";
        match (running["member"].as_str(), document["request"]["by"].as_str()) {
            (Some(member), _) => {
                let phase = running["phase"].as_str().unwrap_or_default();
                format!("{}; {advice}", (self.under_way)(member, phase))
            }
            (None, Some(by)) => format!("a {name} was requested by {by}; {advice}"),
            (None, None) => format!("another {name} was requested at the same time"),
        }
    }

    /// Until it has ended.
    async fn follow(&self, member: &Member, id: &str) -> Result<ExitCode, Refusal> {
        let name = self.name;
        let mut shown = Shown::new();
        let mut answered = clock::monotonic();
        loop {
            match member.get(self.path).await {
                Ok(document) => {
                    answered = clock::monotonic();
                    if document["last"]["request"] == id {
                        shown.clear();
                        return (self.ended)(&document["last"]);
                    }
                    if document["request"]["id"] != id && document["running"]["request"] != id {
                        shown.clear();
                        return Err(anyhow!("the {name} was cancelled before it started").into());
                    }
                    shown.show(&document["running"]);
                }
                Err(fault) => {
                    if answered.elapsed() > SILENCE_MAX {
                        shown.clear();
                        return Err(fault
                            .context(format!(
                                "the member no longer answers; the {name} may go on: ask another member with --url"
                            ))
                            .into());
                    }
                }
            }
            sleep(INTERVAL).await;
        }
    }
}

/// A progress bar on a terminal, and a line now and then elsewhere.
struct Shown {
    bar: Option<ProgressBar>,
    looks: u32,
    phase: String,
}

impl Shown {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}% {msg}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Shown { bar, looks: 0, phase: String::new() }
    }

    /// `running`: a member's answer about a backup or rollback in progress.
    fn show(&mut self, running: &Value) {
        let number = |key: &str| running[key].as_u64().unwrap_or_default();
        let phase = running["phase"].as_str().unwrap_or("waiting for a member to start it");
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

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// On standard error; without one there is still the exit status.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
