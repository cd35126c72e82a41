//! Rows that must come back, in a cluster that has no writer but the test: written, read, and backed up.

use std::time::Duration;

use outrider_bed::{Cluster, Connection, wait_until};

use crate::story::{LIMIT, logs};

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

/// Whether the store has this segment of the WAL, of the server `server`.
fn has(cluster: &Cluster, server: &str, segment: &str) -> bool {
    let wanted = format!("bed/{server}/wals/{}/{segment}.gz", &segment[..16]);
    cluster.store.as_ref().unwrap().keys().contains(&wanted)
}

/// Ends the segment, and waits until the archive has it.
pub(crate) async fn archived(cluster: &Cluster, server: &str) {
    let connection = primary(cluster).await;
    let segment = connection.text("SELECT pg_walfile_name(pg_switch_wal())").await.unwrap();
    let there = async || has(cluster, server, &segment).then_some(());
    wait_until(format!("{segment} is in the archive"), LIMIT, there)
        .await
        .unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)));
}

/// Rows 1 and 2 are in a backup of the server `bed`, and row 3 in the WAL behind it.
pub(crate) async fn three_rows_archived(cluster: &Cluster) {
    insert(cluster, "(1), (2)").await;
    back_up(cluster).await;
    insert(cluster, "(3)").await;
    archived(cluster, "bed").await;
}

/// Everybody streams, and has these rows.
pub(crate) async fn everybody_has(cluster: &Cluster, wanted: &str) {
    cluster.wait_until_whole().await.unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)));
    for endpoint in cluster.endpoints() {
        let has = async || {
            let connection = endpoint.connect().await.ok()?;
            (connection.text(ROWS).await.ok()? == wanted).then_some(())
        };
        wait_until(format!("{} has the rows {wanted}", endpoint.name), LIMIT, has)
            .await
            .unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)));
    }
}

/// Waits until everything that was written is in the archive, in segments that are not finished too.
pub(crate) async fn streamed(cluster: &Cluster) {
    let end = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint::text";
    let end: f64 = primary(cluster).await.text(end).await.unwrap().parse().unwrap();
    let leader = cluster.wait_for_leader().await.unwrap();
    let streamed = async || {
        let metrics = leader.get("/metrics").await.ok()?.text;
        let line = metrics.lines().find(|line| line.starts_with("outrider_archive_stream_lsn_bytes"))?;
        (line.rsplit(' ').next()?.parse::<f64>().ok()? >= end).then_some(())
    };
    wait_until("the last row is safe in the archive", LIMIT, streamed).await.unwrap();
}
