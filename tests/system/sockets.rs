//! A socket directory in the data directory, and sockets that an earlier Postgres left there: a lost leader comes back by a rewind all
//! the same.

use std::os::unix::net::UnixListener;

use outrider_bed::{Builder, Member, wait_until};
use serde_json::json;

use crate::rejoin::{rejoins_by_rewind, whole};
use crate::story::{LIMIT, logged};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_in_the_data_directory_cost_no_clone() {
    let cluster = Builder::new().members(2).prepare().await.unwrap();
    for member in &cluster.members {
        let directory = member.data_directory();
        let settings = json!({"postgresql": {"parameters": {"unix_socket_directories": directory}}});
        member.change_configuration(&settings).unwrap();
        member.start().unwrap();
        logged(
            member,
            "lies in the data directory, where a socket makes every pg_rewind from this member fail",
        )
        .await;
    }
    whole(&cluster).await;
    cluster.members.iter().for_each(Member::kill_node);
    for member in &cluster.members {
        let gone = async || member.postmaster_pid().is_none().then_some(());
        wait_until("its processes are gone", LIMIT, gone).await.unwrap();
        let stale = member.data_directory().join(".s.PGSQL.5432");
        drop(UnixListener::bind(&stale).unwrap());
        cluster.guard.account().own(&stale).unwrap();
        member.start().unwrap();
    }
    whole(&cluster).await;
    rejoins_by_rewind(&cluster).await;
    for member in &cluster.members {
        assert!(!member.data_directory().join(".s.PGSQL.5432").exists());
    }
}
