//! `sslmode` and what goes with it: members that verify each other replicate, clone, rewind and back up, and whoever is not whom it
//! has to be is refused with the reason.

use std::path::{Path, PathBuf};

use outrider_bed::{Archive, Builder, Cluster, Endpoint, Member, PROGRAM_LIMIT, finish, wait_until};
use serde_json::{Value, json};

use crate::kept::back_up;
use crate::rejoin::{calm, rejoins_by_rewind, whole};
use crate::story::{LIMIT, logged};

/// An authority, what it has revoked, which is nothing, and a certificate of it for whoever `NAMES` says.
const AUTHORITY: &str = "
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bed -keyout ca.key -out ca.crt -addext basicConstraints=critical,CA:TRUE
openssl req -newkey rsa:2048 -nodes -subj /CN=postgres -keyout own.key -out own.csr
echo \"subjectAltName=$NAMES\" >ext
openssl x509 -req -in own.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out own.crt
printf '[ca]\\ndefault_ca=a\\n[a]\\ndatabase=index\\ncrlnumber=number\\ndefault_md=sha256\\ndefault_crl_days=2\\n' >ca.cnf
: >index; echo 01 >number
openssl ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.crt -out ca.crl
chmod 600 own.key";

/// The authority takes the certificate back.
const REVOKED: &str = "
openssl ca -config ca.cnf -keyfile ca.key -cert ca.crt -revoke own.crt
openssl ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.crt -out revoked.crl";

/// An authority in a directory of this name, and a certificate of it for these names.
fn authority(cluster: &Cluster, directory: &str, names: &str) -> PathBuf {
    let directory = cluster.guard.make_directory(directory).unwrap();
    openssl(cluster, &directory, AUTHORITY, names);
    directory
}

fn openssl(cluster: &Cluster, directory: &Path, script: &str, names: &str) {
    let mut shell = cluster.guard.command(Path::new("/bin/sh"), directory);
    let output = finish(shell.args(["-ec", script]).env("NAMES", names), PROGRAM_LIMIT).unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// With a server that has the certificate, whoever connects.
fn server(authority: &Path) -> Value {
    json!({"postgresql": {"parameters": {
        "log_connections": "on", "ssl": "on", "ssl_cert_file": authority.join("own.crt"), "ssl_key_file": authority.join("own.key"),
    }}})
}

/// What all users of a member demand of the others.
fn demands(mut of_each: Value, authority: &Path) -> Value {
    of_each["sslrootcert"] = json!(authority.join("ca.crt"));
    json!({"postgresql": {"authentication": {"superuser": of_each, "replication": of_each, "rewind": of_each}}})
}

/// One more member that demands this.
fn newcomer(cluster: &Cluster, server: &Value, demands: &Value) -> Member {
    let member = Member::prepare(&cluster.guard, "newcomer", &cluster.etcd.hosts(), server).unwrap();
    member.change_configuration(demands).unwrap();
    member
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_verify_each_other_replicate_back_up_clone_and_rewind() {
    let settings = json!({"archive": {"schedule": "never"}});
    let cluster = Builder::new().archive(Archive::Directory).settings(settings).prepare().await.unwrap();
    let authority = authority(&cluster, "authority", "IP:127.0.0.1");
    let of_each = json!({
        "sslmode": "verify-full", "channel_binding": "require", "gssencmode": "disable",
        "sslcert": authority.join("own.crt"), "sslkey": authority.join("own.key"), "sslcrl": authority.join("ca.crl"),
    });
    for member in &cluster.members {
        member.change_configuration(&server(&authority)).unwrap();
        member.change_configuration(&demands(of_each.clone(), &authority)).unwrap();
        member.start().unwrap();
    }
    whole(&cluster).await;
    back_up(&cluster).await;
    rejoins_by_rewind(&cluster).await;
    const ENCRYPTED: &str =
        "SELECT (count(*) = 2 AND bool_and(ssl))::text FROM pg_stat_replication JOIN pg_stat_ssl USING (pid)";
    assert_eq!(calm(&cluster).await.text(ENCRYPTED).await.unwrap(), "true");
    every_member_came_encrypted(&cluster);
    for standby in cluster.standbys().await.unwrap() {
        let endpoint = Endpoint { name: standby.name().to_owned(), port: standby.port() };
        let shown = endpoint.connect().await.unwrap();
        let conninfo = shown.text("SELECT conninfo FROM pg_stat_wal_receiver").await.unwrap();
        for word in [
            "sslmode=verify-full",
            "channel_binding=require",
            "sslrootcert=",
            "sslcrl=",
            "gssencmode=disable",
        ] {
            assert!(conninfo.contains(word), "{word}: {conninfo}");
        }
    }
}

/// The logs of the servers have the users for streaming and rewinding, and never without TLS.
fn every_member_came_encrypted(cluster: &Cluster) {
    let logs = cluster.members.iter().map(|member| {
        std::fs::read_to_string(member.state_directory().join("postgres.log")).unwrap_or_default()
    });
    let logs = logs.collect::<String>();
    for user in ["replicator", "rewinder"] {
        let let_in = format!("connection authorized: user={user} ");
        let lines: Vec<&str> = logs.lines().filter(|line| line.contains(&let_in)).collect();
        assert!(!lines.is_empty(), "{user} never came: {logs}");
        let plain: Vec<_> = lines.iter().filter(|line| !line.contains("SSL enabled")).collect();
        assert!(plain.is_empty(), "{plain:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_not_whom_it_has_to_be_is_refused_and_nothing_is_touched() {
    let cluster = Builder::new().members(1).prepare().await.unwrap();
    let good = authority(&cluster, "authority", "DNS:elsewhere");
    let other = authority(&cluster, "another", "IP:127.0.0.1");
    cluster.members[0].change_configuration(&server(&good)).unwrap();
    cluster.members[0].start().unwrap();
    cluster.wait_for_leader().await.unwrap();
    let newcomer = newcomer(&cluster, &server(&good), &demands(json!({"sslmode": "verify-ca"}), &other));
    newcomer.start().unwrap();
    logged(&newcomer, "with sslmode verify-ca: invalid peer certificate").await;
    assert!(!newcomer.data_directory().exists());

    newcomer.kill_agent();
    newcomer.change_configuration(&demands(json!({"sslmode": "verify-full"}), &good)).unwrap();
    newcomer.start().unwrap();
    logged(&newcomer, "with sslmode verify-full: invalid peer certificate: certificate not valid for name")
        .await;
    assert!(!newcomer.data_directory().exists());

    openssl(&cluster, &good, REVOKED, "");
    newcomer.kill_agent();
    let of_each = json!({"sslmode": "verify-ca", "sslcrl": good.join("revoked.crl")});
    newcomer.change_configuration(&demands(of_each, &good)).unwrap();
    newcomer.start().unwrap();
    logged(&newcomer, "with sslmode verify-ca: invalid peer certificate: Revoked").await;
    assert!(!newcomer.data_directory().exists());

    newcomer.kill_agent();
    let of_each = json!({"sslmode": "verify-ca", "sslcrl": good.join("ca.crl")});
    newcomer.change_configuration(&demands(of_each, &good)).unwrap();
    newcomer.start().unwrap();
    let streams = async || (newcomer.patroni().await?["replication_state"] == "streaming").then_some(());
    wait_until("a member with the authority streams", LIMIT, streams).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_does_not_encrypt_is_refused_where_that_is_demanded() {
    let cluster = Builder::new().members(1).start().await.unwrap();
    let demand = json!({"postgresql": {"authentication": {"replication": {"sslmode": "require"}}}});
    let newcomer = newcomer(&cluster, &json!({}), &demand);
    newcomer.start().unwrap();
    logged(&newcomer, "it does not encrypt (ssl = off), and sslmode is require").await;
    assert!(!newcomer.data_directory().exists());
}
