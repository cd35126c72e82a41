//! `etcd3`: how to reach the DCS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use outrider_dcs::{Credentials, Dcs, EtcdOptions, Identity, TlsFiles, base_path, open_etcd};

use super::error::Findings;
use super::section::Section;
use super::{Config, first_policy};
use crate::clock;

impl Config {
    /// The DCS for a reader that is not a member: without a session. `limit`: for one operation.
    ///
    /// # Errors
    /// Why it cannot be opened. Sends no request yet.
    pub(crate) fn open_dcs(&self, limit: Duration) -> anyhow::Result<Arc<dyn Dcs>> {
        let identity = Identity {
            name: self.name.clone(),
            base_path: base_path(&self.namespace, &self.scope),
            ttl: first_policy(self).ttl,
            session_file: None,
            boottime_ns: clock::boottime_ns,
        };
        let options = EtcdOptions { retry_timeout: limit, ..self.etcd.clone() };
        open_etcd(&identity, &options).context("cannot open etcd")
    }
}

pub(super) fn read(root: &Section<'_>, retry_timeout: Duration, findings: &mut Findings) -> EtcdOptions {
    let section = root.section("etcd3", findings);
    let hosts =
        section.list("hosts", findings).or_else(|| section.list("host", findings)).unwrap_or_default();
    if hosts.is_empty() {
        findings.missing(
            section.name("hosts"),
            "is missing: name the members of the etcd cluster, such as [\"10.0.0.1:2379\", \"10.0.0.2:2379\"]",
        );
    }
    let tls = tls(&section, &hosts, findings);
    let username = section.text("username", findings);
    let password = section.secret("password", findings);
    let has_password = section.get("password").or_else(|| section.get("password_file")).is_some();
    if username.is_some() != has_password {
        findings
            .missing(section.name("username"), "goes with a password (or password_file): give both or none");
    }
    let credentials = username
        .zip(password)
        .map(|(username, password)| Credentials { username, password: password.expose().to_owned() });
    EtcdOptions { endpoints: hosts, retry_timeout, request_timeout: None, credentials, tls }
}

fn tls(section: &Section<'_>, hosts: &[String], findings: &mut Findings) -> Option<TlsFiles> {
    let protocol = section.parsed("protocol", "expected http or https", findings, |text| match text {
        "http" => Some(false),
        "https" => Some(true),
        _ => None,
    });
    let ca = section.path("cacert", findings);
    let client = match (section.path("cert", findings), section.path("key", findings)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            findings.missing(section.name("cert"), "goes with key: give both or none");
            None
        }
    };
    let wanted =
        protocol == Some(true) || client.is_some() || hosts.iter().any(|host| host.starts_with("https://"));
    if wanted && ca.is_none() {
        findings.missing(
            section.name("cacert"),
            "is missing: TLS needs the authority that signed etcd's certificate",
        );
    }
    if protocol == Some(false) && ca.is_some() {
        findings.missing(section.name("protocol"), "is http, which does not go with cacert: write https");
    }
    for host in hosts {
        let scheme = host.split_once("://").map(|(scheme, _)| scheme);
        let fits = match scheme {
            None => true,
            Some("http") => ca.is_none(),
            Some("https") => true,
            Some(_) => false,
        };
        if !fits {
            findings.wrong(
                section.name("hosts"),
                &serde_json::Value::from(host.as_str()),
                "expected host:port, http:// (without cacert) or https:// (with it)",
            );
        }
    }
    ca.map(|ca| TlsFiles { ca, client })
}
