//! `restapi`: where this member's REST API listens, how others reach it, and who may change things through it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use outrider_store::Secret;
use serde_json::Value;

use super::address::Address;
use super::error::Findings;
use super::section::Section;

const USUAL_LISTEN: &str = "127.0.0.1:8008";

/// The REST API of one member.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// `host:port` by which others reach it.
    pub(crate) connect_address: String,
    /// User name for requests that change something.
    pub(crate) username: Option<String>,
    /// Password for requests that change something.
    pub(crate) password: Option<Secret>,
    /// Whether anybody who reaches it may change things; set explicitly by the operator.
    pub(crate) allow_unauthenticated: bool,
}

impl Rest {
    /// Whether changing something requires a password.
    pub(crate) fn has_password(&self) -> bool {
        self.username.is_some() && self.password.is_some()
    }

    /// What anybody who reaches it may do when there is no password.
    pub(crate) fn open_to(&self) -> Option<String> {
        let who = if self.listen.ip().is_loopback() {
            "every process of this machine"
        } else {
            "everybody who reaches it"
        };
        (!self.has_password()).then(|| {
            format!(
                "the REST API on {} has no password: {who} may switch over, ask for backups and rollbacks, and change rules, but \
                 for those that load code, run commands, name files or say who may log in (restapi.authentication)",
                self.listen
            )
        })
    }

    /// The unix socket on which the same API serves the agent's own user and root, without a password.
    pub(crate) fn socket(state_directory: &Path) -> PathBuf {
        state_directory.join("restapi.sock")
    }

    /// At the default address.
    #[cfg(test)]
    pub(crate) fn of_test(username: Option<&str>, password: Option<&str>) -> Self {
        Rest {
            listen: ([127, 0, 0, 1], 8008).into(),
            connect_address: "127.0.0.1:8008".to_owned(),
            username: username.map(str::to_owned),
            password: password.map(Secret::new),
            allow_unauthenticated: false,
        }
    }
}

pub(super) fn read(root: &Section<'_>, findings: &mut Findings) -> Rest {
    const RULE: &str = "expected host:port, such as 127.0.0.1:8008";
    let section = root.section("restapi", findings);
    let parse = |text: &str| Address::parse(text, Some(8008));
    let usual = || Address { host: "127.0.0.1".to_owned(), port: 8008 };
    let listen = section.parsed("listen", RULE, findings, parse).unwrap_or_else(usual);
    let connect = section.parsed("connect_address", RULE, findings, parse);
    let shown = section.get("listen").cloned().unwrap_or_else(|| Value::from(USUAL_LISTEN));
    let resolved = listen.resolve().unwrap_or_else(|fault| {
        findings.wrong(section.name("listen"), &shown, format!("cannot find this address: {fault}"));
        SocketAddr::from(([127, 0, 0, 1], listen.port))
    });
    if connect.is_none() && !listen.is_reachable() {
        findings.missing(
            section.name("connect_address"),
            "is missing: listen names no single address, so say by which host:port the other members reach this one",
        );
    }
    if let Some(connect) = connect.as_ref().filter(|connect| !connect.is_reachable()) {
        let rule = "expected one address that the other members can reach";
        findings.wrong(section.name("connect_address"), &Value::from(connect.to_string()), rule);
    }
    let rest = Rest {
        listen: resolved,
        connect_address: connect.unwrap_or(listen).to_string(),
        allow_unauthenticated: section.boolean("allow_unauthenticated", findings).unwrap_or(false),
        ..credentials(&section, findings, resolved)
    };
    if rest.password.is_none() && !rest.allow_unauthenticated && !resolved.ip().is_loopback() {
        findings.wrong(
            section.name("listen"),
            &shown,
            "everybody who reaches this address could switch over the cluster: give restapi.authentication (username and \
             password), or listen on a loopback address, or write restapi.allow_unauthenticated: true",
        );
    }
    rest
}

fn credentials(section: &Section<'_>, findings: &mut Findings, listen: SocketAddr) -> Rest {
    let authentication = section.section("authentication", findings);
    let username = authentication.text("username", findings);
    let password = authentication.secret("password", findings);
    let given = authentication.get("password").or_else(|| authentication.get("password_file")).is_some();
    if authentication.is_present() && (username.is_none() || !given) {
        findings.missing(
            section.name("authentication"),
            "expected both username and password (or password_file)",
        );
    }
    Rest { listen, connect_address: String::new(), username, password, allow_unauthenticated: false }
}
