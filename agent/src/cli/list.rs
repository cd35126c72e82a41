//! `outrider list`: the members with role, state and lag as patronictl shows them, and what each of them is doing and why.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use comfy_table::{Cell, Color};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::exit::{self, Refusal};
use super::format::{Format, Rows};
use super::member::{Member, MemberOptions};

/// Clears the screen and moves the cursor to the top left.
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

/// Show the members of the cluster
#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    options: MemberOptions,
    /// Refresh every SECONDS, until interrupted
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = exit::duration)]
    watch: Option<Duration>,
    /// The form of the list
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(list: List) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    let member = Member::of(list.options)?;
    let Some(interval) = list.watch else {
        let cluster = runtime.block_on(member.get("/cluster"))?;
        return exit::print(&show(&cluster, list.format)?);
    };
    runtime.block_on(async {
        loop {
            // A watched cluster is often one under repair: no answer is shown too, and it is asked again.
            let shown = match member.get("/cluster").await {
                Ok(cluster) => show(&cluster, list.format)?,
                Err(fault) => format!("{fault:#}\n"),
            };
            let clear = if io::stdout().is_terminal() { CLEAR_SCREEN } else { "" };
            let written = write!(io::stdout(), "{clear}{shown}").and_then(|()| io::stdout().flush());
            if written.is_err() {
                // The reader has seen enough.
                return Ok(ExitCode::SUCCESS);
            }
            sleep(interval).await;
        }
    })
}

/// The answer to `GET /cluster` in this form.
pub(super) fn show(cluster: &Value, format: Format) -> anyhow::Result<String> {
    let shown = rows(cluster, format).show(format, paint)?;
    if format != Format::Table {
        return Ok(shown);
    }
    let scope = cluster["scope"].as_str().unwrap_or_default();
    Ok(format!("Cluster: {scope}\n{shown}{}{}{}", schedule(cluster), rollback(cluster), troubles(cluster)))
}

/// What is wrong: the key in a member's entry, and its meaning.
const TROUBLES: [(&str, &str); 4] = [
    (
        "archive_gaps",
        "the archive has a gap that the primary cannot fill, and recovery cannot cross it; take a base backup",
    ),
    ("start_failure", "Postgres does not start"),
    ("file_faults", "a configuration file has an error, and no switchover is possible"),
    ("not_honoured", "not honoured"),
];

/// Below the table, because a cell could not hold it; the same line of several members once.
fn troubles(cluster: &Value) -> String {
    let mut told: Vec<(String, Vec<&str>)> = Vec::new();
    for member in cluster["members"].as_array().into_iter().flatten() {
        let name = member["name"].as_str().unwrap_or_default();
        for line in of_member(member) {
            match told.iter_mut().find(|(known, _)| *known == line) {
                Some((_, names)) => names.push(name),
                None => told.push((line, vec![name])),
            }
        }
    }
    told.into_iter().map(|(line, names)| format!("{}: {line}\n", names.join(", "))).collect()
}

fn of_member(member: &Value) -> Vec<String> {
    let replay = why_replay_is_behind(member).map(|why| match member["replay_lag"].as_u64() {
        Some(bytes) => format!("{why}; {} to replay", in_units(bytes)),
        None => why.to_owned(),
    });
    let lines = |(key, meaning): (&str, &str)| -> Vec<String> {
        let lines = member["outrider"][key].as_array().into_iter().flatten().filter_map(Value::as_str);
        lines.map(|line| format!("{meaning}: {line}")).collect()
    };
    replay.into_iter().chain(TROUBLES.into_iter().flat_map(lines)).collect()
}

/// For a standby whose replay is stuck or late on purpose.
fn why_replay_is_behind(member: &Value) -> Option<&str> {
    member.pointer("/outrider/replay/why")?.as_str()
}

fn rollback(cluster: &Value) -> String {
    let running = &cluster["outrider"]["rollback"];
    let text = |key: &str| running[key].as_str().unwrap_or_default();
    if running.is_object() {
        format!("Rollback to {} by {}: {}\n", text("target"), text("member"), text("phase"))
    } else {
        String::new()
    }
}

fn schedule(cluster: &Value) -> String {
    let Some(at) = cluster.pointer("/scheduled_switchover/at").and_then(Value::as_str) else {
        return String::new();
    };
    let name = |key: &str| {
        cluster["scheduled_switchover"][key].as_str().map(|name| format!(" {key} {name}")).unwrap_or_default()
    };
    format!("Switchover scheduled at {at}{}{}\n", name("from"), name("to"))
}

fn rows(cluster: &Value, format: Format) -> Rows {
    let members = cluster["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Patroni's columns, then ours.
    let mut columns = vec!["Member", "Host", "Role", "State", "TL"];
    columns.extend(["Receive LSN", "Receive Lag", "Replay LSN", "Replay Lag"]);
    columns.extend(["Fuse in s", "Archive lag", "Reason"]);
    // As in patronictl, these appear only when there is something to show.
    let extra: Vec<&'static str> = [
        ("Pending restart", "pending_restart"),
        ("Scheduled restart", "scheduled_restart"),
        ("Tags", "tags"),
    ]
    .into_iter()
    .filter(|(_, key)| members.iter().any(|member| member.get(*key).is_some()))
    .map(|(column, _)| column)
    .collect();
    let mut rows: Vec<Vec<Value>> = members.iter().map(|member| row(member, &extra, format)).collect();
    columns.extend(extra);
    if format != Format::Table && members.iter().any(|member| !of_member(member).is_empty()) {
        columns.push("Trouble");
        for (row, member) in rows.iter_mut().zip(members) {
            let lines = of_member(member);
            row.push(if lines.is_empty() { Value::Null } else { json!(lines) });
        }
    }
    Rows { columns, rows }
}

fn row(member: &Value, extra: &[&str], format: Format) -> Vec<Value> {
    let host = match (member["host"].as_str(), member["port"].as_u64()) {
        (Some(host), Some(port)) if host.contains(':') => json!(format!("[{host}]:{port}")),
        (Some(host), Some(port)) => json!(format!("{host}:{port}")),
        (host, _) => json!(host),
    };
    let role = match member["role"].as_str() {
        Some("leader") => "Leader",
        Some("sync_standby") => "Sync Standby",
        Some("quorum_standby") => "Quorum Standby",
        Some("standby_leader") => "Standby Leader",
        Some(_) | None => "Replica",
    };
    let ours = &member["outrider"];
    let mut row = vec![
        member["name"].clone(),
        host,
        json!(role),
        state(member, format),
        member["timeline"].clone(),
        member["receive_lsn"].clone(),
        lag(&member["receive_lag"], format),
        member["replay_lsn"].clone(),
        lag(&member["replay_lag"], format),
        ours["fuse_seconds"].clone(),
        archive_lag(member),
        reason(ours),
    ];
    row.extend(extra.iter().map(|column| match *column {
        "Tags" => member["tags"].clone(),
        "Scheduled restart" => member["scheduled_restart"]["schedule"].clone(),
        _ => pending_restart(member),
    }));
    row
}

/// With the work that fails, how often and why.
fn reason(ours: &Value) -> Value {
    let failing = &ours["failing"];
    let (Some(reason), Some(job), Some(count)) =
        (ours["reason"].as_str(), failing["job"].as_str(), failing["count"].as_u64())
    else {
        return ours["reason"].clone();
    };
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    json!(format!("{reason} ({job} failed {times}: {})", failing["fault"].as_str().unwrap_or_default()))
}

/// Each parameter with its old and new value, as in patronictl; a star for a member that does not say which.
fn pending_restart(member: &Value) -> Value {
    let parameters = member["pending_restart_reason"].as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let changes: Vec<String> = parameters
        .map(|(name, change)| {
            format!("{name}: {}->{}", text(&change["old_value"]), text(&change["new_value"]))
        })
        .collect();
    match (member["pending_restart"] == json!(true), changes.is_empty()) {
        (false, _) => Value::Null,
        (true, true) => json!("*"),
        (true, false) => json!(changes.join("\n")),
    }
}

/// Patroni's word for programs; for people also whether WAL streams without being replayed.
fn state(member: &Value, format: Format) -> Value {
    let (Some(state), Some(_), Format::Table) =
        (member["state"].as_str(), why_replay_is_behind(member), format)
    else {
        return member["state"].clone();
    };
    let held = member.pointer("/outrider/replay/hold").is_some();
    json!(format!("{state}, replay {}", if held { "stands" } else { "delayed" }))
}

/// For programs whole megabytes, rounded as in patronictl; for people with a unit.
fn lag(lag: &Value, format: Format) -> Value {
    match (lag.as_u64(), format) {
        (Some(bytes), Format::Table) => json!(in_units(bytes)),
        (Some(bytes), _) => json!((bytes + (1 << 19)) >> 20),
        (None, _) => lag.clone(),
    }
}

fn in_units(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        bytes if bytes < 1 << 20 => format!("{} kB", bytes.div_ceil(1 << 10)),
        bytes => format!("{} MB", (bytes + (1 << 19)) >> 20),
    }
}

fn archive_lag(member: &Value) -> Value {
    let ours = &member["outrider"];
    // A member that does not archive does not count what waits either.
    if member["pending_restart_reason"]["archive_mode"]["old_value"] == "off" {
        return json!("off until a restart");
    }
    let failing = ours["archive_failing"] == json!(true);
    let Some(waiting) = ours["archive_waiting"].as_u64() else { return Value::Null };
    let segments = if waiting == 1 { "1 segment".to_owned() } else { format!("{waiting} segments") };
    let gaps = match ours["archive_gaps"].as_array().map_or(0, Vec::len) {
        0 => String::new(),
        1 => ", 1 gap".to_owned(),
        several => format!(", {several} gaps"),
    };
    json!(format!("{segments}{gaps}{}", if failing { ", failing" } else { "" }))
}

fn paint(column: &str, value: &Value, cell: Cell) -> Cell {
    let color = match (column, value.as_str()) {
        ("Role", Some("Leader")) => Color::Green,
        ("State", Some("running" | "streaming")) => Color::Green,
        ("State", Some("crashed" | "start failed" | "stopped" | "unknown")) => Color::Red,
        ("State", Some(_)) => Color::Yellow,
        ("Receive Lag" | "Replay Lag", Some("unknown")) => Color::Yellow,
        ("Archive lag", Some(text))
            if text.ends_with("failing") || text.starts_with("off") || text.contains(" gap") =>
        {
            Color::Red
        }
        _ => return cell,
    };
    cell.fg(color)
}

#[cfg(test)]
mod tests;
