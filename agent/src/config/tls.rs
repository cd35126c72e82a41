//! `sslmode` and related keys, under each user of `postgresql.authentication`: how connections to other members are protected.

use std::path::{Path, PathBuf};

use outrider_postgres::{ChannelBinding, SslMode, Tls};
use serde_json::Value;

use super::error::Findings;
use super::section::Section;
use crate::log::causes;

const MODE_RULE: &str = "expected disable, allow, prefer, require, verify-ca or verify-full";
const BINDING_RULE: &str = "expected disable, prefer or require";
const GSS_RULE: &str = "expected disable or prefer: Outrider's own sessions do not speak GSSAPI, so it cannot be required; sslmode can";
const FILE_RULE: &str = "expected an absolute path (system is not taken: name the file of the authorities, such as \
    /etc/ssl/certs/ca-certificates.crt)";

/// The settings of one user. What cannot be obeyed is an error.
pub(super) fn read(section: &Section<'_>, findings: &mut Findings) -> Tls {
    let faults = findings.errors.0.len();
    let mut path = |key: &str| {
        section.parsed(key, FILE_RULE, findings, |text| {
            Path::new(text).is_absolute().then(|| PathBuf::from(text))
        })
    };
    let (authorities, certificate, key) = (path("sslrootcert"), path("sslcert"), path("sslkey"));
    let (revoked, revoked_directory) = (path("sslcrl"), path("sslcrldir"));
    if certificate.is_some() != key.is_some() {
        findings.missing(section.name("sslcert"), "goes with sslkey: give both or none");
    }
    let gss = section.parsed("gssencmode", GSS_RULE, findings, |text| match text {
        "disable" => Some(true),
        "prefer" => Some(false),
        _ => None,
    });
    let tls = Tls {
        mode: section.parsed("sslmode", MODE_RULE, findings, SslMode::parse),
        authorities,
        own: certificate.zip(key),
        revoked,
        revoked_directory,
        without_gss: gss == Some(true),
        channel_binding: section.parsed("channel_binding", BINDING_RULE, findings, ChannelBinding::parse),
    };
    fits_together(&tls, section, findings);
    if findings.errors.0.len() == faults
        && let Err(fault) = tls.check()
    {
        findings.missing(section.name("sslmode"), causes(&fault));
    }
    tls
}

fn fits_together(tls: &Tls, section: &Section<'_>, findings: &mut Findings) {
    let mode = tls.mode.unwrap_or_default();
    if mode.verifies() && tls.authorities.is_none() {
        let rule = "needs sslrootcert: a file with the certificates of the authorities that are trusted";
        findings.wrong(section.name("sslmode"), &Value::from(mode.word()), rule);
    }
    if tls.authorities.is_none() && (tls.revoked.is_some() || tls.revoked_directory.is_some()) {
        let rule =
            "goes with sslrootcert: without authorities no certificate is checked, and none is revoked";
        findings.missing(section.name("sslcrl"), rule);
    }
    if mode != SslMode::Disable {
        return;
    }
    if tls.channel_binding == Some(ChannelBinding::Require) {
        let rule = "needs an encrypted connection, and sslmode is disable";
        findings.wrong(section.name("channel_binding"), &Value::from("require"), rule);
    }
    let idle = ["sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir"];
    for key in idle.into_iter().filter(|key| section.get(key).is_some()) {
        findings.warnings.push(format!("{} has no effect while sslmode is disable", section.name(key)));
    }
}
