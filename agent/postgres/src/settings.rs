//! A member's settings for its Postgres. Reads no file; already validated.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::tls::Tls;

/// The static settings of one Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The member's name: its `application_name` and, in lower case, its replication slot.
    pub name: String,
    /// The cluster's name, for `cluster_name`.
    pub scope: String,
    /// The data directory. Its parent must exist.
    pub data_directory: PathBuf,
    /// Where `postgres`, `initdb` and the other programs are.
    pub bin_directory: PathBuf,
    /// What the agent keeps across restarts: the password file, marks of unfinished work.
    pub state_directory: PathBuf,
    /// The directory of the unix socket.
    pub socket_directory: PathBuf,
    /// Addresses to listen on, in the format of `listen_addresses`.
    pub listen_addresses: String,
    /// The port.
    pub port: u16,
    /// The supervisor's socket.
    pub supervisor_socket: PathBuf,
    /// The users.
    pub superuser: User,
    /// Streams WAL.
    pub replication: User,
    /// Reads files for `pg_rewind`; the superuser when the file names none.
    pub rewind: User,
    /// Parameters of this member; they override the cluster's.
    pub parameters: BTreeMap<String, String>,
    /// Lines for `pg_hba.conf` from this member's file; they override the cluster's.
    pub pg_hba: Vec<String>,
    /// Options for `initdb`, such as `--data-checksums` or `--encoding=UTF8`.
    pub initdb: Vec<String>,
    /// The `archive_command`, when WAL is archived.
    pub archive_command: Option<String>,
    /// The `restore_command`, when there is an archive to fetch from.
    pub restore_command: Option<String>,
}

/// A database user with its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: Password,
    /// How its connections to other members are protected.
    pub tls: Tls,
}

/// A password; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// From its text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Password(text)
    }

    /// Its text, for code that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;

    /// For a member whose directories are in this one.
    pub(crate) fn settings(directory: &Path) -> Settings {
        let user = |name: &str| User {
            name: name.to_owned(),
            password: Password::new("p".to_owned()),
            tls: Tls::default(),
        };
        Settings {
            name: "member1".to_owned(),
            scope: "homepage".to_owned(),
            data_directory: directory.join("data"),
            bin_directory: "/nowhere".into(),
            state_directory: directory.join("state"),
            socket_directory: directory.to_owned(),
            listen_addresses: "127.0.0.1".to_owned(),
            port: 5432,
            supervisor_socket: directory.join("supervisor"),
            superuser: user("postgres"),
            replication: user("replicator"),
            rewind: user("rewinder"),
            parameters: [].into(),
            pg_hba: Vec::new(),
            initdb: Vec::new(),
            archive_command: None,
            restore_command: None,
        }
    }
}
