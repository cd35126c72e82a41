//! Who may log in to a member's Postgres: the superuser from where the members are, and from elsewhere as the operator says.

use outrider_bed::{Builder, Member, PASSWORD, wait_until};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio_postgres::{Config, NoTls};

use super::story::LIMIT;

/// What comes of a login as this user from this address of the machine; the words of the refusal otherwise.
async fn log_in(member: &Member, user: &str, from: &str) -> Result<(), String> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let stream = socket.connect(format!("127.0.0.1:{}", member.port()).parse().unwrap()).await.unwrap();
    let mut config = Config::new();
    config.user(user).password(PASSWORD).dbname("postgres");
    let connected = config.connect_raw(stream, NoTls).await;
    connected
        .map(drop)
        .map_err(|fault| fault.as_db_error().map_or(fault.to_string(), |said| said.message().to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_superuser_logs_in_from_the_members_only_and_the_operator_forbids_the_rest() {
    let lines = ["host all postgres 127.0.0.9/32 reject", "host all all 127.0.0.0/8 scram-sha-256"];
    let settings = json!({"postgresql": {"pg_hba": lines}});
    let cluster = Builder::new().members(2).settings(settings).start().await.unwrap();
    for member in &cluster.members {
        // A member's own address is learnt in its first rounds.
        wait_until("the superuser is let in from a member's address", LIMIT, async || {
            log_in(member, "postgres", "127.0.0.1").await.ok()
        })
        .await
        .unwrap();
        let refused = log_in(member, "postgres", "127.0.0.9").await.unwrap_err();
        assert!(refused.starts_with("pg_hba.conf rejects connection"), "{refused}");
        log_in(member, "postgres", "127.0.0.8").await.expect("the operator's lines let it in");
        let written = std::fs::read_to_string(member.data_directory().join("pg_hba.conf")).unwrap();
        let anywhere = |line: &str| line.contains("\"postgres\"") && line.contains(" all scram");
        let found = written.lines().find(|line| line.starts_with("host") && anywhere(line));
        assert_eq!(found, None, "{written}");
    }
}
