//! Which parameters Postgres gets: our defaults, then the cluster's, then the member's, and a few that only the agent sets
//! because high availability rests on them.

use std::collections::BTreeMap;

use super::Configuration;
use crate::number::integer;
use crate::settings::Settings;

/// Good defaults for such a cluster; anybody may change them.
const DEFAULTS: &[(&str, &str)] = &[
    ("max_connections", "100"),
    ("max_worker_processes", "8"),
    ("max_prepared_transactions", "0"),
    ("max_locks_per_transaction", "64"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("track_commit_timestamp", "off"),
    ("wal_level", "replica"),
    ("wal_keep_size", "128MB"),
    // A member that is gone for good must not fill the others' volumes.
    ("max_slot_wal_keep_size", "4GB"),
    // With PostgreSQL's 5 s, a standby that lost its primary would wait that long before trying the new one.
    ("wal_retrieve_retry_interval", "250ms"),
    // With PostgreSQL's 60 s, a commit would be held up that long when a synchronous standby's host is gone.
    ("wal_sender_timeout", "5s"),
    ("wal_receiver_timeout", "5s"),
];

/// Passed as arguments: they change only with a restart, and standbys must not have less of them than their primary.
const FIXED: &[&str] = &[
    "max_connections",
    "max_worker_processes",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "max_wal_senders",
    "max_replication_slots",
    "track_commit_timestamp",
    "wal_level",
];

/// Set by the agent, whatever the files say.
const OURS: &[&str] = &[
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "cluster_name",
    "hot_standby",
    "wal_log_hints",
    "restart_after_crash",
    "archive_mode",
    "archive_command",
    "archive_library",
    "restore_command",
    "synchronous_standby_names",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_target_timeline",
    // A standby made from an archive must not stop at somebody's recovery target.
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "data_directory",
    "hba_file",
    "config_file",
];

/// First, so that any other setting of archiving wins. Only a restart turns archiving on, so it is on from the first start, and an
/// archive can be added at any time.
pub(super) const ARCHIVING: &[(&str, &str)] =
    &[("archive_mode", "on"), ("archive_command", "true # no archive is configured: nothing to do")];

/// Whether the agent sets this parameter, so that nobody else may. Without an archive of ours, archiving is up to the
/// operator, except for turning it off.
pub(super) fn is_ours(settings: &Settings, name: &str) -> bool {
    OURS.contains(&name) && (settings.archive_command.is_some() || !name.starts_with("archive_"))
}

/// Whether it needs a restart and is passed as an argument.
pub(super) fn is_fixed(name: &str) -> bool {
    FIXED.contains(&name)
}

/// Whether the value turns archiving off, which an archive added later would need.
fn turns_archiving_off(name: &str, value: &str) -> bool {
    name == "archive_mode" && reads_as("off", value)
}

impl Settings {
    /// Whether the agent sets this parameter and would give Postgres another value.
    #[must_use]
    pub fn overrules(&self, name: &str, value: &str) -> bool {
        let name = name.to_ascii_lowercase();
        if turns_archiving_off(&name, value) {
            return true;
        }
        if !is_ours(self, &name) {
            return false;
        }
        let configuration = Configuration::default();
        let mut ours = fixed(self, &configuration);
        ours.extend(changeable(self, &configuration));
        ours.insert("recovery_target_timeline".to_owned(), "latest".to_owned());
        ours.get(&name).is_none_or(|ours| !reads_as(ours, value))
    }
}

/// Whether two values are the same, in whatever spelling of a boolean.
fn reads_as(ours: &str, value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    match ours {
        "on" => matches!(value.as_str(), "on" | "true" | "yes" | "1"),
        "off" => matches!(value.as_str(), "off" | "false" | "no" | "0"),
        ours => ours.eq_ignore_ascii_case(&value),
    }
}

/// The parameters in the file.
pub(super) fn changeable(settings: &Settings, configuration: &Configuration) -> BTreeMap<String, String> {
    let mut wanted = wanted(settings, configuration);
    wanted.retain(|name, _| !is_fixed(name));
    // A crashed primary must not come back by itself after another has its lease.
    wanted.insert("restart_after_crash".to_owned(), "off".to_owned());
    if let Some(command) = &settings.archive_command {
        wanted.insert("archive_command".to_owned(), command.clone());
    }
    wanted
}

/// The parameters passed as arguments.
pub(super) fn fixed(settings: &Settings, configuration: &Configuration) -> BTreeMap<String, String> {
    let mut wanted = wanted(settings, configuration);
    wanted.retain(|name, _| is_fixed(name));
    let mut add = |name: &str, value: String| wanted.insert(name.to_owned(), value);
    add("listen_addresses", settings.listen_addresses.clone());
    add("port", settings.port.to_string());
    add("unix_socket_directories", settings.socket_directory.display().to_string());
    add("cluster_name", settings.scope.clone());
    add("hot_standby", "on".to_owned());
    // pg_rewind needs it where there are no checksums.
    add("wal_log_hints", "on".to_owned());
    if settings.archive_command.is_some() {
        add("archive_mode", "on".to_owned());
    }
    wanted
}

fn wanted(settings: &Settings, configuration: &Configuration) -> BTreeMap<String, String> {
    let mut wanted: BTreeMap<String, String> =
        DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for (name, value) in configuration.parameters.iter().chain(&settings.parameters) {
        wanted.insert(name.to_ascii_lowercase(), value.clone());
    }
    wanted.retain(|name, value| !is_ours(settings, name) && !turns_archiving_off(name, value));
    wanted
}

/// Raises these to the given minimum. A value that is not plainly a number counts as less.
pub(super) fn raise(fixed: &mut BTreeMap<String, String>, least: &BTreeMap<String, u32>) {
    for (name, least) in least {
        if let Some(value) = fixed.get_mut(name)
            && integer(value, None).is_ok_and(|value| value >= f64::from(*least))
        {
            continue;
        }
        fixed.insert(name.clone(), least.to_string());
    }
}

/// The name of a member's slot, as Patroni makes it: lower case, `_` for `-` and `.`, other characters by number.
#[must_use]
pub fn slot_name(member: &str) -> String {
    let mut name = String::new();
    for character in member.to_lowercase().chars() {
        match character {
            'a'..='z' | '0'..='9' | '_' => name.push(character),
            '-' | '.' => name.push('_'),
            other => name.push_str(&format!("u{:04x}", u32::from(other))),
        }
    }
    // PostgreSQL's limit for names.
    name.truncate(63);
    name
}

/// Quoted for `postgresql.conf`.
pub(super) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n"))
}

/// Reverses [`quote`].
pub(super) fn unquote(quoted: &str) -> String {
    let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(quoted);
    let mut value = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match (character, characters.as_str().chars().next()) {
            ('\\', Some('n')) => value.push('\n'),
            ('\\', Some('\\')) => value.push('\\'),
            ('\'', Some('\'')) => value.push('\''),
            _ => {
                value.push(character);
                continue;
            }
        }
        characters.next();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_named_as_patroni_names_them() {
        assert_eq!(slot_name("Homepage-0.db"), "homepage_0_db");
        assert_eq!(slot_name("a b"), "au0020b");
    }

    #[test]
    fn a_standby_gets_as_much_as_its_primary_had_and_more_where_its_own_file_has_more() {
        let mut fixed: BTreeMap<String, String> =
            [("max_connections", "40"), ("max_wal_senders", "0x14"), ("max_worker_processes", "many")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let least = ["max_connections", "max_wal_senders", "max_worker_processes"];
        raise(&mut fixed, &least.map(|name| (name.to_owned(), 20)).into());
        assert_eq!(fixed["max_connections"], "40");
        assert_eq!(fixed["max_wal_senders"], "0x14");
        assert_eq!(fixed["max_worker_processes"], "20");
        raise(&mut fixed, &[("max_connections".to_owned(), 60)].into());
        assert_eq!(fixed["max_connections"], "60");
    }

    #[test]
    fn switches_are_compared_by_what_they_mean() {
        assert!(reads_as("on", "TRUE") && reads_as("off", "0") && reads_as("5433", "5433"));
        assert!(!reads_as("on", "off") && !reads_as("5433", "5432"));
    }

    #[test]
    fn values_survive_the_file() {
        assert_eq!(quote(r"it's a \n"), r"'it''s a \\n'");
    }
}
