//! `outrider switchover` and `outrider failover`: asks the leader, waits for the outcome, and shows the write gap.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::confirm::confirm;
use super::exit::{self, Refusal};
use super::member::{Member, MemberOptions};

/// Interval between checks of the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Switch over to another member
#[derive(Args)]
pub(super) struct Switchover {
    #[command(flatten)]
    options: MemberOptions,
    /// The current leader; refused if it is another member
    #[arg(long, value_name = "MEMBER")]
    leader: Option<String>,
    /// The member that is to lead; the best standby by default
    #[arg(long, value_name = "MEMBER")]
    candidate: Option<String>,
    /// Not before this time, such as 2026-12-01T03:00:00+01:00
    #[arg(long, value_name = "TIME")]
    scheduled: Option<String>,
    /// Wait for a candidate that is not ready, such as one whose replay is held up by queries
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5min", value_parser = exit::duration)]
    wait: Option<Duration>,
    /// Cancel what is pending, for now or for later, instead
    #[arg(long, conflicts_with_all = ["leader", "candidate", "scheduled"])]
    cancel: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    force: bool,
}

/// Make a member the leader when there is no healthy leader
#[derive(Args)]
pub(super) struct Failover {
    #[command(flatten)]
    options: MemberOptions,
    /// The member that is to lead
    #[arg(long, value_name = "MEMBER", required_unless_present = "cancel")]
    candidate: Option<String>,
    /// Promote it even though it may lack commits, when the members that have them are lost for good
    #[arg(long)]
    accept_data_loss: bool,
    /// Cancel what is pending instead
    #[arg(long, conflicts_with_all = ["candidate", "accept_data_loss"])]
    cancel: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    force: bool,
}

pub(super) fn switchover(asked: Switchover) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    let member = Member::of(asked.options)?;
    if asked.cancel {
        return runtime.block_on(cancel(&member, "/switchover"));
    }
    let cluster = runtime.block_on(member.get("/cluster"))?;
    let Some(leader) = asked.leader.or_else(|| leader(&cluster)) else {
        let scope = cluster["scope"].as_str().unwrap_or_default();
        return Err(anyhow!(
            "cluster {scope} has no leader to switch over from; use failover with --candidate"
        )
        .into());
    };
    let to = asked.candidate.as_deref().unwrap_or("the best standby");
    let at = asked.scheduled.as_deref().map(|at| format!(" at {at}")).unwrap_or_default();
    sure(&cluster, &format!("switch over from {leader} to {to}{at}"), asked.force)?;
    let mut request =
        json!({"leader": leader, "candidate": asked.candidate, "scheduled_at": asked.scheduled});
    if let Some(wait) = asked.wait {
        request["wait"] = json!(wait.as_secs());
    }
    let wait = asked.wait.unwrap_or_default();
    runtime.block_on(ask(&member, &cluster, ("/switchover", &request), wait))
}

pub(super) fn failover(asked: Failover) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    let member = Member::of(asked.options)?;
    let Some(candidate) = asked.candidate.filter(|_| !asked.cancel) else {
        return runtime.block_on(cancel(&member, "/failover"));
    };
    let cluster = runtime.block_on(member.get("/cluster"))?;
    let mut request = json!({"candidate": candidate});
    let mut act = format!("fail over to {candidate}");
    if asked.accept_data_loss {
        request["accept_data_loss"] = json!(true);
        let mut plan = request.clone();
        plan["plan"] = json!(true);
        let missing = runtime.block_on(tell(&member, "/failover", &plan))?;
        exit::print(&format!("{missing}\n"))?;
        act += " and give up what it lacks";
    }
    sure(&cluster, &act, asked.force)?;
    runtime.block_on(ask(&member, &cluster, ("/failover", &request), Duration::ZERO))
}

/// What would be done, in words.
async fn tell(member: &Member, path: &str, plan: &Value) -> Result<String, Refusal> {
    let answer = member.post(path, plan).await?;
    let words = answer.body.trim();
    if answer.status.is_success() {
        return Ok(words.to_owned());
    }
    Err(anyhow!("{words} ({})", answer.status.as_u16()).into())
}

async fn cancel(member: &Member, path: &str) -> Result<ExitCode, Refusal> {
    let answer = member.delete(path).await?;
    let words = answer.body.trim();
    if answer.status.is_success() {
        return exit::print(&format!("{words}\n"));
    }
    Err(anyhow!("{words} ({})", answer.status.as_u16()).into())
}

async fn ask(
    member: &Member,
    cluster: &Value,
    (path, request): (&str, &Value),
    wait: Duration,
) -> Result<ExitCode, Refusal> {
    // The old leader measures the gap, so it is asked if it can be reached.
    let leader = leader_url(cluster).map(|url| member.other(&url)).transpose()?;
    let asked = async {
        match leader.as_ref().unwrap_or(member).post_within(path, request, wait).await {
            // This request never arrived. After any other failure it may be in progress, and asking again would confuse it.
            Err(fault) if leader.is_some() && never_arrived(&fault) => {
                member.post_within(path, request, wait).await
            }
            outcome => outcome,
        }
    };
    let answer = tokio::select! {
        answer = asked => answer?,
        never = show_progress(member) => never,
    };
    let words = answer.body.trim();
    if !answer.status.is_success() {
        return Err(anyhow!("{words} ({})", answer.status.as_u16()).into());
    }
    let gap = answer.write_gap.map(|gap| format!("; nobody could write for {gap} s")).unwrap_or_default();
    exit::print(&format!("{words}{gap}\n"))
}

/// Shows what the leader is doing for it, whenever that changes. Never ends by itself.
async fn show_progress<Never>(member: &Member) -> Never {
    let mut shown = String::new();
    loop {
        sleep(PROGRESS_INTERVAL).await;
        let Ok(cluster) = member.get("/cluster").await else { continue };
        let reason = leader_entry(&cluster).and_then(|leader| leader["outrider"]["reason"].as_str());
        if let Some(reason) = reason.filter(|reason| reason.starts_with("switchover") && **reason != shown) {
            eprintln!("{reason}");
            shown = reason.to_owned();
        }
    }
}

fn sure(cluster: &Value, act: &str, force: bool) -> Result<(), Refusal> {
    let scope = cluster["scope"].as_str().unwrap_or_default();
    let question = format!("Are you sure you want to {act} in cluster {scope}? [y/N]: ");
    confirm(cluster, &question, &format!("{act}: add --force"), force)
}

fn never_arrived(fault: &anyhow::Error) -> bool {
    fault.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect)
}

fn leader_entry(cluster: &Value) -> Option<&Value> {
    let is_leader = |member: &&Value| matches!(member["role"].as_str(), Some("leader" | "standby_leader"));
    cluster["members"].as_array()?.iter().find(is_leader)
}

fn leader(cluster: &Value) -> Option<String> {
    leader_entry(cluster)?["name"].as_str().map(str::to_owned)
}

fn leader_url(cluster: &Value) -> Option<String> {
    leader_entry(cluster)?["api_url"].as_str().filter(|url| !url.is_empty()).map(str::to_owned)
}
