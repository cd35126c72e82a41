//! The table of members, from the REST API of one of them.

use outrider_bed::Cluster;
use serde_json::Value;

/// Prints the members as `GET /cluster` of the first that answers shows them.
pub(crate) async fn print(cluster: &Cluster) {
    for member in &cluster.members {
        let Ok(answer) = member.get("/cluster").await else { continue };
        let Ok(shown) = serde_json::from_str::<Value>(&answer.text) else { continue };
        println!();
        println!(
            "  {:<10} {:<13} {:<10} {:>3} {:>9} {:>7} {:>8}",
            "member", "role", "state", "TL", "lag", "fuse", "archive"
        );
        for row in shown["members"].as_array().into_iter().flatten() {
            println!("  {}", line(row));
        }
        println!();
        return;
    }
    println!("  no member answers GET /cluster");
}

fn line(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let lag = row["lag"].as_u64().map_or_else(|| "-".to_owned(), |bytes| format!("{bytes} B"));
    let ours = &row["outrider"];
    let fuse = ours["fuse_seconds"].as_u64().map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"));
    let archive = match (ours["archive_failing"].as_bool(), ours["archive_waiting"].as_u64()) {
        (Some(true), _) => "failing".to_owned(),
        (_, Some(waiting)) => format!("{waiting} wait"),
        (_, None) => "-".to_owned(),
    };
    let timeline = &row["timeline"];
    format!(
        "{:<10} {:<13} {:<10} {timeline:>3} {lag:>9} {fuse:>7} {archive:>8}",
        text("name"),
        text("role"),
        text("state")
    )
}
