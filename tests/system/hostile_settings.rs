//! Settings of the cluster, its databases and its roles under which no session of the agent would work that took them over: it still
//! switches over, backs up, rewinds and clones.

use outrider_bed::{Archive, Builder, Cluster, wait_until};
use serde_json::json;

use crate::kept::back_up;
use crate::rejoin::{calm, rejoins_by_rewind, whole};
use crate::story::{LIMIT, logs};

fn builder() -> Builder {
    let settings = json!({"archive": {"schedule": "never"}});
    Builder::new().archive(Archive::Directory).settings(settings)
}

/// Everything for which the agent, or a program of its, logs in somewhere.
async fn everything_works(cluster: &Cluster) {
    whole(cluster).await;
    back_up(cluster).await;
    let before = cluster.wait_for_leader().await.unwrap();
    let answer = before.post("/switchover", &json!({"leader": before.name()})).await.unwrap();
    assert_eq!(answer.status, 200, "{}; {}", answer.text, logs(cluster));
    whole(cluster).await;
    rejoins_by_rewind(cluster).await;
    // A member whose disk is lost.
    let lost = cluster.standbys().await.unwrap()[0];
    lost.kill_node();
    wait_until("its processes are gone", LIMIT, async || lost.postmaster_pid().is_none().then_some(()))
        .await
        .unwrap();
    lost.lose_disk().unwrap();
    lost.start().unwrap();
    whole(cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_cluster_change_no_session_of_the_agent() {
    let parameters = json!({
        "statement_timeout": "1ms", "lock_timeout": "1ms", "idle_session_timeout": "1ms",
        "idle_in_transaction_session_timeout": "1ms", "default_transaction_read_only": "on",
        "default_transaction_isolation": "serializable", "default_transaction_deferrable": "on",
        "DateStyle": "German", "IntervalStyle": "sql_standard", "TimeZone": "Asia/Kolkata", "bytea_output": "escape",
        "standard_conforming_strings": "off", "search_path": "nowhere", "synchronous_commit": "remote_apply",
        "jit_above_cost": 0, "log_statement": "all", "extra_float_digits": -15, "array_nulls": "off",
    });
    let dcs = json!({"postgresql": {"parameters": parameters}});
    let cluster = builder().dcs(dcs).start().await.unwrap();
    everything_works(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_roles_and_databases_change_no_session_of_the_agent() {
    let cluster = builder().start().await.unwrap();
    whole(&cluster).await;
    let settings = [
        "statement_timeout = 1",
        "lock_timeout = 1",
        "idle_session_timeout = 1",
        "role = nobody_at_all",
        "idle_in_transaction_session_timeout = 1",
        "default_transaction_read_only = on",
        "default_transaction_isolation = 'serializable'",
        "search_path = hostile, pg_catalog",
        "DateStyle = 'German'",
        "bytea_output = 'escape'",
        "synchronous_commit = 'remote_apply'",
        "local_preload_libraries = 'no_such_library'",
    ];
    let mut statements = String::from(
        "CREATE ROLE nobody_at_all; GRANT nobody_at_all TO rewinder, replicator; CREATE SCHEMA hostile;
         GRANT USAGE ON SCHEMA hostile TO public;
         CREATE FUNCTION hostile.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT NULL::bool';
         CREATE FUNCTION hostile.pg_current_wal_flush_lsn() RETURNS pg_lsn LANGUAGE sql AS $$SELECT '0/0'::pg_lsn$$;
         ALTER ROLE postgres SET session_preload_libraries = 'no_such_library';",
    );
    for whose in ["ROLE postgres", "ROLE replicator", "ROLE rewinder", "DATABASE postgres"] {
        for setting in settings {
            statements += &format!("ALTER {whose} SET {setting};");
        }
    }
    calm(&cluster).await.run(&statements).await.unwrap();
    // Sessions that are open have not read them.
    for member in &cluster.members {
        member.kill_agent();
        member.start().unwrap();
    }
    everything_works(&cluster).await;
}
