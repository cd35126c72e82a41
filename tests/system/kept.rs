//! Rows that must come back, in a cluster that has no writer but the test: written, read, and backed up.

use std::time::Duration;

use outrider_bed::{Cluster, Connection, wait_until};

use crate::story::logs;

/// For a backup, or a recovery, on a machine that does much else.
pub(crate) const WORK_LIMIT: Duration = Duration::from_secs(120);
/// All of them.
pub(crate) const ROWS: &str = "SELECT string_agg(row::text, ',' ORDER BY row) FROM kept";

pub(crate) async fn primary(cluster: &Cluster) -> Connection {
    let connected = async || {
        for endpoint in cluster.endpoints() {
            if let Ok(connection) = endpoint.connect_to_primary().await {
                return Some(connection);
            }
        }
        None
    };
    wait_until("a primary lets us in", WORK_LIMIT, connected)
        .await
        .unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)))
}

pub(crate) async fn insert(cluster: &Cluster, rows: &str) {
    let statement = format!("CREATE TABLE IF NOT EXISTS kept (row int); INSERT INTO kept VALUES {rows}");
    primary(cluster).await.run(&statement).await.unwrap();
}

pub(crate) async fn rows(cluster: &Cluster) -> String {
    primary(cluster).await.text(ROWS).await.unwrap()
}

pub(crate) async fn back_up(cluster: &Cluster) {
    let leader = cluster.wait_for_leader().await.unwrap();
    let answer = leader.request(reqwest::Method::POST, "/backup?wait=true", None).await.unwrap();
    assert_eq!(answer.status, 200, "{}; {}", answer.text, logs(cluster));
}
