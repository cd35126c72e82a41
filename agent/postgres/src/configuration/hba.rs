//! `pg_hba.conf`: first what the agents need, from their addresses; then the operator's lines; last how a member that is
//! not known yet may begin to replicate.

pub(super) mod line;

use super::Configuration;
use crate::error::Error;
use crate::file;
use crate::quote::quote_name;
use crate::settings::Settings;

pub(super) const FILE: &str = "pg_hba.conf";
pub(super) const BASE: &str = "pg_hba.base.conf";

/// The whole file. The member's lines override the cluster's, and those override what was in the file before.
pub(super) fn text(settings: &Settings, configuration: &Configuration) -> Result<String, Error> {
    let mut text = String::from(
        "# Written by Outrider; changes to this file are lost. Set `postgresql.pg_hba` in the member's file or \
            with `PATCH /config`.\n",
    );
    let superuser = quote_name(&settings.superuser.name);
    let replication = quote_name(&settings.replication.name);
    let mut add = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    add(
        "# This member's agent, and the other members from their addresses, to replicate, rewind and finish backups.",
    );
    add(&format!("local all {superuser} scram-sha-256"));
    for address in &configuration.members {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        add(&format!("host replication {replication} {address}/{bits} scram-sha-256"));
        let mut users = vec![&settings.superuser.name, &settings.rewind.name];
        users.dedup();
        for user in users {
            add(&format!("host postgres {} {address}/{bits} scram-sha-256", quote_name(user)));
        }
    }
    let lines = if settings.pg_hba.is_empty() { &configuration.pg_hba } else { &settings.pg_hba };
    if lines.is_empty() {
        add("# From pg_hba.base.conf:");
        add(file::read_if_there(&settings.data_directory.join(BASE))?.unwrap_or_default().trim_end());
    } else {
        lines.iter().for_each(|line| add(line));
    }
    // Never the superuser: what it may do from elsewhere is up to the operator.
    if settings.replication.name != settings.superuser.name {
        add(
            "# A member that is not known yet, or connects from another address than it publishes, unless a line above forbids it:",
        );
        add(&format!("host replication {replication} all scram-sha-256"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    fn lines(settings: &Settings, configuration: &Configuration) -> Vec<String> {
        let text = text(settings, configuration).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn the_superuser_comes_from_members_only_and_the_operators_lines_forbid_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let configuration = Configuration {
            members: vec!["10.0.0.1".parse().unwrap(), "fd00::2".parse().unwrap()],
            pg_hba: vec![
                "host all postgres all reject".to_owned(),
                "host all all all scram-sha-256".to_owned(),
            ],
            ..Configuration::default()
        };
        assert_eq!(
            lines(&settings, &configuration),
            [
                "local all \"postgres\" scram-sha-256",
                "host replication \"replicator\" 10.0.0.1/32 scram-sha-256",
                "host postgres \"postgres\" 10.0.0.1/32 scram-sha-256",
                "host postgres \"rewinder\" 10.0.0.1/32 scram-sha-256",
                "host replication \"replicator\" fd00::2/128 scram-sha-256",
                "host postgres \"postgres\" fd00::2/128 scram-sha-256",
                "host postgres \"rewinder\" fd00::2/128 scram-sha-256",
                "host all postgres all reject",
                "host all all all scram-sha-256",
                "host replication \"replicator\" all scram-sha-256",
            ]
        );
    }

    #[test]
    fn a_superuser_that_replicates_is_let_in_from_nowhere_else_either() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        settings.replication = settings.superuser.clone();
        settings.rewind = settings.superuser.clone();
        std::fs::create_dir_all(&settings.data_directory).unwrap();
        std::fs::write(settings.data_directory.join(BASE), "local all all peer\n").unwrap();
        let configuration =
            Configuration { members: vec!["10.0.0.1".parse().unwrap()], ..Configuration::default() };
        assert_eq!(
            lines(&settings, &configuration),
            [
                "local all \"postgres\" scram-sha-256",
                "host replication \"postgres\" 10.0.0.1/32 scram-sha-256",
                "host postgres \"postgres\" 10.0.0.1/32 scram-sha-256",
                "local all all peer",
            ]
        );
    }
}
