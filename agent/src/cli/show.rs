//! `outrider history` and `outrider show-config`: the cluster's timelines, and its rules in the DCS.

use std::process::ExitCode;

use clap::Args;
use outrider_wal::Lsn;
use serde_json::{Value, json};

use super::exit::{self, Refusal};
use super::format::{self, Format, Rows};
use super::member::{Member, MemberOptions};

/// Show which member became the leader, and when
#[derive(Args)]
pub(super) struct History {
    #[command(flatten)]
    options: MemberOptions,
    /// The form of the list
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Show the rules of the cluster, which are in the DCS
#[derive(Args)]
pub(super) struct ShowConfig {
    #[command(flatten)]
    options: MemberOptions,
}

pub(super) fn history(history: History) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    let rows = runtime.block_on(Member::of(history.options)?.get("/history"))?;
    exit::print(&timelines(&rows).show(history.format, |_, _, cell| cell)?)
}

pub(super) fn config(show: ShowConfig) -> Result<ExitCode, Refusal> {
    let runtime = exit::runtime()?;
    let rules = runtime.block_on(Member::of(show.options)?.get("/config"))?;
    exit::print(&format::yaml(&rules)?)
}

/// Rows written by older versions of Patroni are shorter.
fn timelines(history: &Value) -> Rows {
    let rows = history.as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |row: &Value| {
        let lsn = row[1].as_u64().map_or(Value::Null, |lsn| json!(Lsn::new(lsn).to_string()));
        vec![row[0].clone(), lsn, row[2].clone(), row[3].clone(), row[4].clone()]
    };
    Rows {
        columns: vec!["TL", "LSN", "Reason", "Timestamp", "New Leader"],
        rows: rows.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_rows_are_shown_as_far_as_they_go() {
        let history = json!([
            [1, 67_108_960, "no recovery target specified"],
            [2, 67_109_000, "x", "2026-01-01T00:00:00Z", "p2"]
        ]);
        let rows: Value =
            serde_json::from_str(&timelines(&history).show(Format::Json, |_, _, cell| cell).unwrap())
                .unwrap();
        assert_eq!(rows[0], json!({"TL": 1, "LSN": "0/4000060", "Reason": "no recovery target specified"}));
        assert_eq!(rows[1]["New Leader"], "p2");
    }
}
