//! `outrider restart`: requests a restart of members, one after the other, and shows each step with its result. The members
//! carry it out, even if this command ends.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::confirm::confirm;
use super::exit::{self, Refusal};
use super::member::{Member, MemberOptions};
use crate::clock;

/// Interval between requests for progress.
const INTERVAL: Duration = Duration::from_millis(200);
/// A member that has not answered for this long is no longer asked.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Restart Postgres on the members, one after the other: standbys first, and a switchover instead of a restart of the primary
///
/// Nobody is restarted while another member is down, and when one does not come back in time nobody else is.
#[derive(Args)]
pub(super) struct Restart {
    #[command(flatten)]
    options: MemberOptions,
    /// Only these members; all of them unless given
    #[arg(value_name = "MEMBER")]
    members: Vec<String>,
    /// Only where a parameter waits for a restart
    #[arg(long)]
    pending: bool,
    /// Not before this time, such as 2026-12-01T03:00:00+01:00
    #[arg(long, value_name = "TIME")]
    scheduled: Option<String>,
    /// How long one member may take, such as 5min [default: primary_start_timeout of the cluster]
    #[arg(long, value_name = "TIME", value_parser = exit::duration)]
    timeout: Option<Duration>,
    /// Cancel what has not begun
    #[arg(long, conflicts_with_all = ["members", "pending", "scheduled", "timeout"])]
    cancel: bool,
    /// Request it and do not wait
    #[arg(long)]
    no_wait: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    force: bool,
}

pub(super) fn run(asked: Restart) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    let member = Member::of(asked.options)?;
    if asked.cancel {
        return runtime.block_on(cancel(&member));
    }
    let cluster = runtime.block_on(member.get("/cluster"))?;
    let scope = cluster["scope"].as_str().unwrap_or_default();
    let whom = if asked.members.is_empty() { "all members".to_owned() } else { asked.members.join(", ") };
    let only = if asked.pending { " where a parameter waits for it" } else { "" };
    let at = asked.scheduled.as_deref().map(|at| format!(" at {at}")).unwrap_or_default();
    let act = format!("restart {whom}{only}{at}");
    let question = format!("Are you sure you want to {act} in cluster {scope}? [y/N]: ");
    confirm(&cluster, &question, &format!("{act}: add --force"), asked.force)?;
    let mut request = json!({
        "restart_pending": asked.pending, "schedule": asked.scheduled, "wait": false,
        "timeout": asked.timeout.map(|timeout| timeout.as_secs_f64()),
    });
    if asked.members.is_empty() {
        request["cluster"] = json!(true);
    } else {
        request["members"] = json!(asked.members);
    }
    runtime.block_on(ask(&member, &request, asked.no_wait || asked.scheduled.is_some()))
}

async fn cancel(member: &Member) -> Result<ExitCode, Refusal> {
    let answer = member.delete("/restart").await?;
    let words = answer.body.trim();
    if !answer.status.is_success() {
        return Err(anyhow!("{words} ({})", answer.status.as_u16()).into());
    }
    exit::print(&format!("{words}\n"))
}

async fn ask(member: &Member, request: &Value, detach: bool) -> Result<ExitCode, Refusal> {
    let answer = member.post("/restart", request).await?;
    let words = answer.body.trim();
    if !answer.status.is_success() {
        return Err(anyhow!("{words} ({})", answer.status.as_u16()).into());
    }
    let answer: Value = serde_json::from_str(words).context("the member does not answer with JSON")?;
    let id = answer["id"].as_str().context("the member's answer has no request id")?;
    if detach {
        let at = request["schedule"].as_str().map(|at| format!(" at {at}")).unwrap_or_default();
        return exit::print(&format!("requested a restart{at}: {id}\n"));
    }
    follow(member, id).await
}

/// Until it has ended.
async fn follow(member: &Member, id: &str) -> Result<ExitCode, Refusal> {
    let mut told = BTreeMap::new();
    let mut answered = clock::monotonic();
    loop {
        match member.get("/restart").await {
            Ok(document) => {
                answered = clock::monotonic();
                let of_ours = |key: &str| Some(&document[key]).filter(|one| one["id"] == id);
                let Some(now) = of_ours("request").or_else(|| of_ours("last")) else {
                    return Err(
                        anyhow!("another restart took the place of this one; see GET /restart").into()
                    );
                };
                say(&news(now, &mut told));
                if now["finished"].is_string() {
                    return ended(now);
                }
            }
            Err(fault) if answered.elapsed() > SILENCE_MAX => {
                return Err(fault
                    .context(
                        "the member no longer answers; the restart goes on: ask another member with --url",
                    )
                    .into());
            }
            Err(_) => {}
        }
        sleep(INTERVAL).await;
    }
}

/// A line for each member with news.
fn news(now: &Value, told: &mut BTreeMap<String, String>) -> String {
    let mut lines = String::new();
    for member in now["members"].as_array().into_iter().flatten() {
        let text = |key: &str| member[key].as_str().unwrap_or_default();
        let words = match text("state") {
            "waiting" => continue,
            "switching_over" => "switching over to another member first".to_owned(),
            state => member["result"].as_str().unwrap_or(state).to_owned(),
        };
        if told.insert(text("name").to_owned(), words.clone()).as_ref() != Some(&words) {
            lines.push_str(&format!("{}: {words}\n", text("name")));
        }
    }
    lines
}

fn say(lines: &str) {
    // The reader closed its end: it has seen enough, and the exit status still tells.
    let _ = io::stdout().write_all(lines.as_bytes()).and_then(|()| io::stdout().flush());
}

fn ended(now: &Value) -> Result<ExitCode, Refusal> {
    if let Some(error) = now["error"].as_str() {
        return Err(anyhow!("the restart failed: {error}").into());
    }
    if now["cancelled"] == json!(true) {
        return Err(anyhow!("the restart was cancelled").into());
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_told_once_with_its_result() {
        let mut told = BTreeMap::new();
        let now = |state: &str, result: Value| json!({"members": [{"name": "a", "state": state, "result": result}, {"name": "b", "state": "waiting"}]});
        assert_eq!(news(&now("restarting", Value::Null), &mut told), "a: restarting\n");
        assert_eq!(news(&now("restarting", Value::Null), &mut told), "");
        assert_eq!(
            news(&now("done", json!("restarted as a standby")), &mut told),
            "a: restarted as a standby\n"
        );
    }
}
