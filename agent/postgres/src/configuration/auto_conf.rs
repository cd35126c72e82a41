//! `postgresql.auto.conf`, which is read last: removes settings made by `ALTER SYSTEM` that are the agent's to set.

use tracing::warn;

use super::parameters::{is_fixed, is_ours};
use crate::error::Error;
use crate::file;
use crate::settings::Settings;

const FILE: &str = "postgresql.auto.conf";

/// Removes what would override the generated file.
pub(super) fn release(settings: &Settings) -> Result<(), Error> {
    let path = settings.data_directory.join(FILE);
    let Some(text) = file::read_if_there(&path)? else { return Ok(()) };
    let (overruling, kept): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| is_overruling(settings, line));
    if overruling.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> =
        overruling.iter().filter_map(|line| line.split('=').next()).map(str::trim).collect();
    warn!(path = %path.display(), ?names, "removed ALTER SYSTEM settings that the agent sets itself");
    file::replace(&path, &format!("{}\n", kept.join("\n")), 0o600)
}

fn is_overruling(settings: &Settings, line: &str) -> bool {
    let name = line.split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
    // A setting passed as an argument has no effect here, unless somebody starts Postgres without arguments.
    is_ours(settings, &name) || is_fixed(&name)
}
