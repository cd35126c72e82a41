//! The members as `GET /cluster` and each member's own `GET /patroni` show them.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use outrider_bed::Cluster;
use serde_json::Value;

const COLUMNS: [&str; 8] = ["Member", "Port", "Role", "State", "TL", "Replay lag", "Fuse", "WAL waiting"];

/// One row for each member; a member that does not answer is shown as it published itself last.
pub(crate) async fn draw(cluster: &Cluster) -> Option<String> {
    // What the others know is a moment older.
    let answer = cluster.leader().await?.get("/cluster").await.ok()?;
    let answer: Value = serde_json::from_str(&answer.text).ok()?;
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(COLUMNS);
    for row in answer["members"].as_array()? {
        let name = row["name"].as_str()?;
        let own = cluster.members.iter().find(|member| member.name() == name)?.patroni().await;
        let ours = own.unwrap_or_default()["outrider"].take();
        table.add_row([
            name.to_owned(),
            plain(&row["port"]),
            plain(&row["role"]),
            plain(&row["state"]),
            plain(&row["timeline"]),
            bytes(&row["replay_lag"]),
            ours["fuse_seconds"].as_f64().map_or_else(String::new, |left| format!("{left:.1} s")),
            plain(&ours["archive_waiting"]),
        ]);
    }
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Some(table.to_string())
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn bytes(value: &Value) -> String {
    match value.as_u64() {
        Some(0) => "0".to_owned(),
        Some(lag) if lag < 1 << 20 => format!("{} kB", lag.div_ceil(1024)),
        Some(lag) => format!("{} MB", lag >> 20),
        None => plain(value),
    }
}
