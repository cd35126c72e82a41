//! `pg_hba.conf`: first the lines that the agent and the members need, then the operator's.

pub(super) mod line;

use super::Configuration;
use crate::error::Error;
use crate::file;
use crate::quote::quote_name;
use crate::settings::Settings;

pub(super) const FILE: &str = "pg_hba.conf";
pub(super) const BASE: &str = "pg_hba.base.conf";

/// The whole file. The member's lines win over the cluster's, and those over what was in the file before.
pub(super) fn text(settings: &Settings, configuration: &Configuration) -> Result<String, Error> {
    let mut text = String::from(
        "# Written by Outrider; changes in here are lost. Set `postgresql.pg_hba` in the member's file or with `PATCH /config`.\n",
    );
    let superuser = quote_name(&settings.superuser.name);
    let replication = quote_name(&settings.replication.name);
    let rewind = quote_name(&settings.rewind.name);
    for line in [
        format!("local all {superuser} scram-sha-256"),
        format!("host replication {replication} all scram-sha-256"),
        format!("host postgres {rewind} all scram-sha-256"),
    ] {
        text.push_str(&line);
        text.push('\n');
    }
    let lines = if settings.pg_hba.is_empty() { &configuration.pg_hba } else { &settings.pg_hba };
    if lines.is_empty() {
        let base = file::read_if_there(&settings.data_directory.join(BASE))?;
        text.push_str("# From pg_hba.base.conf:\n");
        text.push_str(&base.unwrap_or_default());
    } else {
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}
