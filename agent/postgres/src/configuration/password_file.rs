//! The password file (`passfile`) that standbys, `pg_basebackup` and `pg_rewind` use to connect to other members.

use std::path::PathBuf;

use crate::error::Error;
use crate::file;
use crate::settings::Settings;

/// Writes it with mode 0600, as libpq ignores it otherwise, and returns its path.
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
