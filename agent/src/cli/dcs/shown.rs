//! What `outrider dcs rebuild` shows before it writes: who remembers and has what, and who would be taken.

use outrider_dcs::Snapshot;
use outrider_ha::{MemberName, NotRebuilt, Rebuilding, Role};
use serde_json::{Value, json};

use super::{Heard, Said};
use crate::cli::format::{Format, Rows};
use crate::config::Config;

pub(super) fn show(
    config: &Config,
    heard: &Heard,
    snapshot: &Snapshot,
    decided: &Result<Rebuilding, NotRebuilt>,
    format: Format,
) -> anyhow::Result<String> {
    let best = decided.as_ref().ok().map(|rebuilding| rebuilding.best.as_str());
    let columns = vec![
        "Member",
        "Answers",
        "Postgres",
        "TL",
        "LSN",
        "Term seen",
        "/sync seen",
        "Promotable then",
        "Leads",
    ];
    let rows = heard.iter().map(|(name, said)| row(name, said.as_ref(), best)).collect();
    let table = Rows { columns, rows }.show(format, |_, _, cell| cell)?;
    if format != Format::Table {
        return Ok(table);
    }
    let dcs = if snapshot.is_blank() {
        "the DCS has no keys of this cluster".to_owned()
    } else {
        format!("the DCS shows term {}, /sync of revision {}", snapshot.term, snapshot.sync_revision)
    };
    let mut text = format!("Cluster: {}; {dcs}\n{table}", config.scope);
    if let Ok(rebuilding) = decided {
        text += &format!("{} has every acknowledged commit that is known of", rebuilding.best);
        for (members, words) in [
            (&rebuilding.silent, "silent, and could not be promoted"),
            (&rebuilding.may_lose, "MISSING: what they alone have is lost"),
        ] {
            if !members.is_empty() {
                let names: Vec<&str> = members.iter().map(MemberName::as_str).collect();
                text += &format!("; {} {words}", names.join(", "));
            }
        }
        text += "\n";
    }
    Ok(text)
}

fn row(name: &str, said: Option<&Said>, best: Option<&str>) -> Vec<Value> {
    let leads = if best == Some(name) { json!("yes") } else { Value::Null };
    let Some(said) = said else {
        let mut row = vec![json!(name), json!("no")];
        row.resize(9, Value::Null);
        return row;
    };
    let sync = said.record.sync();
    let promotable: Vec<String> = sync.leader.into_iter().chain(sync.sync_standby).collect();
    let postgres = match (said.role, &said.system_identifier) {
        (Role::Primary, _) => "primary",
        (Role::Standby, _) => "standby",
        (Role::NotRunning, Some(_)) => "stopped",
        (Role::NotRunning, None) => "no data",
    };
    let seen = said.record.watermark;
    vec![
        json!(name),
        json!("yes"),
        json!(postgres),
        json!(said.timeline.get()),
        json!(said.position.to_string()),
        json!(seen.term.0),
        json!(seen.sync_revision),
        json!(promotable.join(", ")),
        leads,
    ]
}
