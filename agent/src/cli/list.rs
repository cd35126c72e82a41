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
use super::member::{Member, Whom};

/// Puts the cursor into the upper left corner of an empty screen.
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

/// Show the members of the cluster
#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    whom: Whom,
    /// Show it again every so many seconds, until interrupted
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = exit::duration)]
    watch: Option<Duration>,
    /// The form of the list
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(list: List) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    let member = Member::of(list.whom)?;
    let Some(interval) = list.watch else {
        let cluster = runtime.block_on(member.get("/cluster"))?;
        return exit::print(&show(&cluster, list.format)?);
    };
    runtime.block_on(async {
        loop {
            // A cluster that is watched is often one that is being repaired: silence is shown, too, and asked again.
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
    let shown = rows(cluster).show(format, paint)?;
    if format != Format::Table {
        return Ok(shown);
    }
    let scope = cluster["scope"].as_str().unwrap_or_default();
    Ok(format!("Cluster: {scope}\n{shown}{}{}", schedule(cluster), rollback(cluster)))
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

fn rows(cluster: &Value) -> Rows {
    let members = cluster["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut columns =
        vec!["Member", "Host", "Role", "State", "TL", "Lag in MB", "Fuse in s", "Archive lag", "Reason"];
    // As in patronictl these stand there only when there is something to say.
    let extra: Vec<&'static str> = [
        ("Pending restart", "pending_restart"),
        ("Scheduled restart", "scheduled_restart"),
        ("Tags", "tags"),
    ]
    .into_iter()
    .filter(|(_, key)| members.iter().any(|member| member.get(*key).is_some()))
    .map(|(column, _)| column)
    .collect();
    let rows = members.iter().map(|member| row(member, &extra)).collect();
    columns.extend(extra);
    Rows { columns, rows }
}

fn row(member: &Value, extra: &[&str]) -> Vec<Value> {
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
        member["state"].clone(),
        member["timeline"].clone(),
        lag(&member["lag"]),
        ours["fuse_seconds"].clone(),
        archive_lag(ours),
        reason(ours),
    ];
    row.extend(extra.iter().map(|column| match *column {
        "Tags" => member["tags"].clone(),
        "Scheduled restart" => member["scheduled_restart"]["schedule"].clone(),
        _ if member["pending_restart"] == json!(true) => json!("*"),
        _ => Value::Null,
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

/// Whole megabytes, rounded, as patronictl has it.
fn lag(lag: &Value) -> Value {
    match lag.as_u64() {
        Some(bytes) => json!((bytes + (1 << 19)) >> 20),
        None => lag.clone(),
    }
}

fn archive_lag(ours: &Value) -> Value {
    let failing = ours["archive_failing"] == json!(true);
    match ours["archive_waiting"].as_u64() {
        None => Value::Null,
        Some(waiting) if failing => json!(format!("{waiting} segments, failing")),
        Some(1) => json!("1 segment"),
        Some(waiting) => json!(format!("{waiting} segments")),
    }
}

fn paint(column: &str, value: &Value, cell: Cell) -> Cell {
    let color = match (column, value.as_str()) {
        ("Role", Some("Leader")) => Color::Green,
        ("State", Some("running" | "streaming")) => Color::Green,
        ("State", Some("crashed" | "start failed" | "stopped" | "unknown")) => Color::Red,
        ("State", Some(_)) => Color::Yellow,
        ("Lag in MB", Some("unknown")) => Color::Yellow,
        ("Archive lag", Some(text)) if text.ends_with("failing") => Color::Red,
        _ => return cell,
    };
    cell.fg(color)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Value {
        json!({
            "scope": "demo",
            "members": [
                {"name": "p1", "role": "leader", "state": "running", "host": "10.0.0.1", "port": 5432, "timeline": 5,
                 "outrider": {"reason": "the leader with the lease", "fuse_seconds": 3, "archive_waiting": 2, "archive_failing": true}},
                {"name": "p2", "role": "sync_standby", "state": "streaming", "host": "::1", "port": 5433, "timeline": 5,
                 "lag": 1_600_000, "tags": {"nofailover": true}, "pending_restart": true, "outrider": {"archive_waiting": 0}},
                {"name": "p3", "role": "replica", "state": "creating replica", "lag": "unknown", "timeline": 0},
            ],
            "scheduled_switchover": {"at": "2026-12-01T00:00:00Z", "from": "p1"},
        })
    }

    #[test]
    fn the_table_has_patronictls_columns_and_ours() {
        let shown = show(&cluster(), Format::Table).unwrap();
        let cells = |line: &str| -> Vec<String> {
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let lines: Vec<Vec<String>> = shown.lines().filter(|line| line.starts_with('|')).map(cells).collect();
        assert_eq!(
            lines[0],
            [
                "Member",
                "Host",
                "Role",
                "State",
                "TL",
                "Lag in MB",
                "Fuse in s",
                "Archive lag",
                "Reason",
                "Pending restart",
                "Tags"
            ]
        );
        let leader = [
            "p1",
            "10.0.0.1:5432",
            "Leader",
            "running",
            "5",
            "",
            "3",
            "2 segments, failing",
            "the leader with the lease",
            "",
            "",
        ];
        assert_eq!(lines[1], leader);
        assert_eq!(
            lines[2],
            [
                "p2",
                "[::1]:5433",
                "Sync Standby",
                "streaming",
                "5",
                "2",
                "",
                "0 segments",
                "",
                "*",
                "nofailover: true"
            ]
        );
        assert_eq!(lines[3][5], "unknown");
        assert!(shown.starts_with("Cluster: demo\n"), "{shown}");
        assert!(shown.ends_with("Switchover scheduled at 2026-12-01T00:00:00Z from p1\n"), "{shown}");
    }

    #[test]
    fn json_keeps_numbers_and_leaves_out_what_is_absent() {
        let rows: Value = serde_json::from_str(&show(&cluster(), Format::Json).unwrap()).unwrap();
        assert_eq!(rows[1]["Lag in MB"], 2);
        assert_eq!(rows[0].get("Lag in MB"), None);
    }

    #[test]
    fn work_that_fails_is_shown_with_its_count() {
        let reason = |failing| reason(&json!({"reason": "cloning", "failing": failing}));
        assert_eq!(reason(Value::Null), "cloning");
        let failing = json!({"job": "clone", "count": 7, "fault": "no route"});
        assert_eq!(reason(failing), "cloning (clone failed 7 times: no route)");
    }

    #[test]
    fn yaml_is_a_list_of_members() {
        let shown = show(&cluster(), Format::Yaml).unwrap();
        assert!(shown.starts_with("- Member: p1\n"), "{shown}");
    }
}
