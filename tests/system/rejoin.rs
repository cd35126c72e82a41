//! A leader that is lost and comes back by a rewind, and sessions for a test that take over nothing that is set for the cluster.

use outrider_bed::process::Signal;
use outrider_bed::{Cluster, Connection, Member, wait_until};

use crate::story::{LIMIT, logged, logs};

/// What is set for the cluster, its databases and roles does not count.
const CALM: &str = "-c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c role=none -c search_path=public \
    -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off -c session_preload_libraries= \
    -c default_transaction_isolation=read\\ committed -c local_preload_libraries= -c synchronous_commit=local";

/// A session with the leader.
pub(crate) async fn calm(cluster: &Cluster) -> Connection {
    let connected = async || {
        let leader = cluster.leader().await?.name();
        let endpoint = cluster.endpoints().into_iter().find(|endpoint| endpoint.name == leader)?;
        let connection = endpoint.connect_with(CALM).await.ok()?;
        connection.is_primary().await.ok()?.then_some(connection)
    };
    wait_until("the leader lets us in", LIMIT, connected)
        .await
        .unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)))
}

/// Everybody streams, and one is synchronous.
pub(crate) async fn whole(cluster: &Cluster) {
    cluster.wait_until_whole().await.unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)));
    cluster.wait_until_synchronous().await.unwrap_or_else(|fault| panic!("{fault}; {}", logs(cluster)));
}

/// A leader that wrote what nobody else has comes back as a standby, without a clone.
pub(crate) async fn rejoins_by_rewind(cluster: &Cluster) {
    let lost = cluster.wait_for_leader().await.unwrap();
    let connection = calm(cluster).await;
    connection.run("CREATE TABLE given_up (row int)").await.unwrap();
    let standbys: Vec<&Member> = cluster.standbys().await.unwrap();
    // Without its agent it does not record that it is alone, and nothing is on the way to anybody when it writes.
    lost.kill_agent();
    standbys.iter().for_each(|standby| standby.signal_node(Signal::Stop));
    let alone = "DO $$ BEGIN PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_replication; END $$";
    connection.run(&format!("{alone}; INSERT INTO given_up VALUES (1)")).await.unwrap();
    lost.kill_node();
    standbys.iter().for_each(|standby| standby.signal_node(Signal::Continue));
    cluster.wait_for_another(lost.name()).await.unwrap();
    calm(cluster).await.run("INSERT INTO given_up VALUES (2)").await.unwrap();
    let before = lost.log().len();
    lost.start().unwrap();
    logged(lost, "rewinding to where the primary's timeline began").await;
    whole(cluster).await;
    let rows = calm(cluster).await.text("SELECT string_agg(row::text, ',') FROM given_up").await.unwrap();
    assert_eq!(rows, "2");
    let since = lost.log().split_off(before);
    assert!(!since.contains("copying the data of the primary"), "it was cloned: {since}");
}
