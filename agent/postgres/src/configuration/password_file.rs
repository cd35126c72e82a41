//! The password file (`passfile`) with which standbys, `pg_basebackup` and `pg_rewind` connect to other members.

use std::path::PathBuf;

use crate::error::Error;
use crate::file;
use crate::settings::Settings;

/// Writes it with mode 0600, as libpq ignores it otherwise, and returns where it is.
pub(crate) fn write(settings: &Settings) -> Result<PathBuf, Error> {
    let mut users = vec![&settings.replication, &settings.rewind];
    users.dedup_by(|one, other| one.name == other.name);
    let text: String = users
        .iter()
        .map(|user| format!("*:*:*:{}:{}\n", escape(&user.name), escape(user.password.reveal())))
        .collect();
    let path = settings.state_directory.join("pgpass");
    file::replace(&path, &text, 0o600)?;
    Ok(path)
}

fn escape(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}
