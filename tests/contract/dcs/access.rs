//! Who may speak to etcd: users, passwords, tokens, certificates.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use outrider_bed::{PROGRAM_LIMIT, finish};
use outrider_dcs::{Credentials, Error, EtcdOptions, TlsFiles, open_etcd};
use serde_json::json;
use tokio::time::timeout;

use super::PATIENCE;
use super::bench::{base, identity, options};
use super::etcd_process::EtcdCluster;

/// An etcd that knows `root` and, with rights on the cluster's keys only, `agent`.
async fn etcd_with_users() -> EtcdCluster {
    let etcd = EtcdCluster::start(1, &[]).await;
    let mut client = etcd.client().await;
    client.user_add("root", "root", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.user_add("agent", "secret", None).await.unwrap();
    client.role_add("member").await.unwrap();
    let rights = etcd_client::Permission::read_write(base()).with_prefix();
    client.role_grant_permission("member", rights).await.unwrap();
    client.user_grant_role("agent", "member").await.unwrap();
    client.auth_enable().await.unwrap();
    etcd
}

fn as_user(etcd: &EtcdCluster, username: &str, password: &str) -> EtcdOptions {
    let credentials = Credentials { username: username.to_owned(), password: password.to_owned() };
    EtcdOptions { credentials: Some(credentials), ..options(etcd.urls()) }
}

#[tokio::test]
async fn a_user_with_rights_on_the_clusters_keys_leads() {
    let etcd = etcd_with_users().await;
    let p1 = open_etcd(&identity("p1"), &as_user(&etcd, "agent", "secret")).unwrap();
    p1.touch_member(&json!({})).await.unwrap();
    p1.acquire_leader(Some(0)).await.unwrap();
    p1.renew_leader().await.unwrap();
    assert!(p1.read().await.unwrap().leader.unwrap().mine);
    let mut changes = p1.watch();
    timeout(PATIENCE, changes.wait_for(|changes| changes.all > 0)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wrong_password_no_password_and_a_missing_right_are_refused() {
    let etcd = etcd_with_users().await;
    let elsewhere = outrider_dcs::Identity { base_path: "/service/other/".to_owned(), ..identity("p1") };
    let refused = [
        open_etcd(&identity("p1"), &as_user(&etcd, "agent", "wrong")).unwrap(),
        open_etcd(&identity("p1"), &as_user(&etcd, "nobody", "secret")).unwrap(),
        open_etcd(&identity("p1"), &options(etcd.urls())).unwrap(),
        open_etcd(&elsewhere, &as_user(&etcd, "agent", "secret")).unwrap(),
    ];
    for dcs in refused {
        let error = dcs.read().await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        let error = dcs.create_config(&json!({})).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn authentication_may_be_turned_on_under_a_running_agent() {
    let etcd = EtcdCluster::start(1, &[]).await;
    let p1 = open_etcd(&identity("p1"), &as_user(&etcd, "root", "root")).unwrap();
    p1.touch_member(&json!({})).await.unwrap();
    p1.acquire_leader(None).await.unwrap();
    let mut client = etcd.client().await;
    client.user_add("root", "root", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
    p1.renew_leader().await.unwrap();
    p1.create_config(&json!({})).await.unwrap();
}

#[tokio::test]
async fn a_token_that_etcd_has_forgotten_is_replaced() {
    let mut etcd = etcd_with_users().await;
    let p1 = open_etcd(&identity("p1"), &as_user(&etcd, "agent", "secret")).unwrap();
    p1.touch_member(&json!({})).await.unwrap();
    p1.acquire_leader(None).await.unwrap();
    // A restarted etcd knows no token of its former life.
    etcd.kill(0);
    etcd.respawn(0);
    let renewed = async { while p1.renew_leader().await.is_err() {} };
    timeout(PATIENCE, renewed).await.unwrap();
    // Another revision of the users makes every token given before it out of date.
    let root = ConnectOptions::new().with_user("root", "root").with_timeout(Duration::from_secs(10));
    let mut client = Client::connect(etcd.urls(), Some(root)).await.unwrap();
    client.user_add("another", "x", None).await.unwrap();
    p1.renew_leader().await.unwrap();
    p1.read().await.unwrap();
}

fn openssl(directory: &Path, arguments: &str) {
    let mut openssl = Command::new("openssl");
    let outcome = finish(openssl.args(arguments.split(' ')).current_dir(directory), PROGRAM_LIMIT).unwrap();
    assert!(outcome.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&outcome.stderr));
}

/// An authority `<name>.pem`, and a certificate for this machine signed by it, `<name>-leaf.pem` with its key.
fn authority(directory: &Path, name: &str) {
    std::fs::write(
        directory.join("leaf.cnf"),
        "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
    )
    .unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        directory,
        &format!("req -x509 {key} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"),
    );
    openssl(
        directory,
        &format!("req -new {key} -keyout {name}-leaf.key -out {name}.csr -subj /CN=127.0.0.1"),
    );
    let signer = format!("-CA {name}.pem -CAkey {name}.key -CAcreateserial -extfile leaf.cnf -days 2");
    openssl(directory, &format!("x509 -req -in {name}.csr {signer} -out {name}-leaf.pem"));
}

fn tls(etcd: &EtcdCluster, directory: &Path, ca: &str, client: Option<&str>) -> EtcdOptions {
    let file = |name: String| directory.join(name);
    let pair = |name: &str| (file(format!("{name}-leaf.pem")), file(format!("{name}-leaf.key")));
    let files = TlsFiles { ca: file(format!("{ca}.pem")), client: client.map(pair) };
    EtcdOptions { tls: Some(files), ..options(etcd.urls()) }
}

#[tokio::test]
async fn tls_with_an_own_authority_and_a_client_certificate() {
    let files = tempfile::tempdir().unwrap();
    let directory = files.path();
    authority(directory, "ours");
    authority(directory, "theirs");
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (certificate, key, ca) = (path("ours-leaf.pem"), path("ours-leaf.key"), path("ours.pem"));
    let server =
        ["--cert-file", &certificate, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
    let etcd = EtcdCluster::launch_with_tls(&server);

    let p1 = open_etcd(&identity("p1"), &tls(&etcd, directory, "ours", Some("ours"))).unwrap();
    let up = async { while p1.touch_member(&json!({})).await.is_err() {} };
    timeout(PATIENCE, up).await.unwrap();
    p1.acquire_leader(None).await.unwrap();
    p1.renew_leader().await.unwrap();

    let distrusted = open_etcd(&identity("p1"), &tls(&etcd, directory, "theirs", Some("ours"))).unwrap();
    let error = distrusted.read().await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    for client in [None, Some("theirs")] {
        let unwelcome = open_etcd(&identity("p1"), &tls(&etcd, directory, "ours", client)).unwrap();
        assert!(unwelcome.read().await.is_err(), "{client:?}");
    }
}

#[tokio::test]
async fn endpoints_that_do_not_go_with_the_options_are_named_at_once() {
    let refuses = |endpoints: &[&str], tls: Option<TlsFiles>| {
        let endpoints = endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
        let outcome = open_etcd(&identity("p1"), &EtcdOptions { tls, ..options(endpoints) });
        outcome.err().expect("it must not open").to_string()
    };
    let ca = || Some(TlsFiles { ca: "/nonexistent/ca.pem".into(), client: None });
    assert!(refuses(&[], None).contains("no etcd endpoint"));
    assert!(refuses(&["ftp://a:1"], None).contains("ftp://a:1"));
    assert!(refuses(&["https://a:1"], None).contains("CA file"));
    assert!(refuses(&["http://a:1"], ca()).contains("http://a:1"));
    assert!(refuses(&["a:1"], ca()).contains("/nonexistent/ca.pem"));
    let credentials = Credentials { username: "agent".into(), password: "hidden".into() };
    assert!(!format!("{credentials:?}").contains("hidden"));
}
