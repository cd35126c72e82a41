//! Which keys a file may have: known ones, Patroni's that do nothing here, and Patroni's that must not be ignored.

use serde_json::{Map, Value};

use super::error::Findings;

/// The keys of one section.
struct Keys {
    /// Its path, such as `postgresql.authentication.superuser`; empty for the top.
    section: &'static str,
    /// Keys that are read.
    used: &'static [&'static str],
    /// Keys without effect here; each gets a warning.
    idle: &'static [&'static str],
    /// Keys that would be wrong to ignore; each is an error.
    refused: &'static [&'static str],
}

/// The rules of the cluster, in the file as in the DCS.
pub(super) const RULES: &str = "bootstrap.dcs";
/// The part of them that is for Postgres.
pub(super) const RULES_POSTGRESQL: &str = "bootstrap.dcs.postgresql";

const USER: (&[&str], &[&str]) = (
    &[
        "username",
        "password",
        "password_file",
        "sslmode",
        "sslkey",
        "sslcert",
        "sslrootcert",
        "sslcrl",
        "sslcrldir",
        "gssencmode",
        "channel_binding",
    ],
    // For an encrypted key, which the agent's own sessions cannot read.
    &["sslpassword"],
);

const SECTIONS: &[Keys] = &[
    Keys {
        section: "",
        used: &[
            "scope",
            "namespace",
            "name",
            "state_dir",
            "restapi",
            "etcd3",
            "bootstrap",
            "postgresql",
            "tags",
            "log",
            "archive",
            "supervisor",
        ],
        idle: &["ctl", "watchdog", "citus", "pooler", "failover_priority"],
        refused: &["etcd", "consul", "zookeeper", "exhibitor", "raft", "kubernetes"],
    },
    Keys {
        section: "restapi",
        used: &["listen", "connect_address", "authentication", "allow_unauthenticated"],
        idle: &[
            "ciphers",
            "http_extra_headers",
            "https_extra_headers",
            "request_queue_size",
            "thread_pool_size",
            "server_tokens",
            "keyfile_password",
        ],
        refused: &[
            "certfile",
            "keyfile",
            "cafile",
            "verify_client",
            "allowlist",
            "allowlist_include_members",
        ],
    },
    Keys {
        section: "restapi.authentication",
        used: &["username", "password", "password_file"],
        idle: &[],
        refused: &[],
    },
    Keys {
        section: "etcd3",
        used: &[
            "host",
            "hosts",
            "protocol",
            "username",
            "password",
            "password_file",
            "cacert",
            "cert",
            "key",
        ],
        idle: &["use_proxies", "version"],
        refused: &["url", "proxy", "srv", "srv_suffix"],
    },
    Keys {
        section: "postgresql",
        used: &[
            "listen",
            "connect_address",
            "data_dir",
            "bin_dir",
            "authentication",
            "parameters",
            "pg_hba",
            "create_replica_methods",
        ],
        idle: &[
            "pgpass",
            "use_unix_socket",
            "use_unix_socket_repl",
            "use_pg_rewind",
            "use_slots",
            "basebackup",
            "callbacks",
            "pg_ctl_timeout",
            "proxy_address",
            "recovery_conf",
            "bin_name",
            "remove_data_directory_on_rewind_failure",
            "remove_data_directory_on_diverged_timelines",
            "pg_ident",
        ],
        refused: &["config_dir", "custom_conf", "before_stop", "pre_promote"],
    },
    Keys {
        section: "postgresql.authentication",
        used: &["superuser", "replication", "rewind"],
        idle: &[],
        refused: &[],
    },
    Keys { section: "postgresql.authentication.superuser", used: USER.0, idle: &[], refused: USER.1 },
    Keys { section: "postgresql.authentication.replication", used: USER.0, idle: &[], refused: USER.1 },
    Keys { section: "postgresql.authentication.rewind", used: USER.0, idle: &[], refused: USER.1 },
    Keys {
        section: "bootstrap",
        used: &["dcs", "initdb", "method", "archive"],
        idle: &["users", "pg_hba"],
        refused: &["post_bootstrap", "post_init"],
    },
    Keys {
        section: "bootstrap.archive",
        used: &[
            "store",
            "server",
            "endpoint",
            "region",
            "path_style",
            "access_key_id",
            "access_key_id_file",
            "secret_access_key",
            "secret_access_key_file",
            "session_token",
            "session_token_file",
            "credentials_file",
            "profile",
            "ca_file",
            "request_timeout",
            "backup",
            "target",
            "target_time",
            "target_lsn",
            "target_xid",
            "target_name",
            "target_inclusive",
            "target_timeline",
        ],
        idle: &[],
        refused: &[],
    },
    Keys {
        section: RULES,
        used: &[
            "ttl",
            "loop_wait",
            "retry_timeout",
            "maximum_lag_on_failover",
            "member_slots_ttl",
            "maximum_lag_on_replica",
            "slots",
            "primary_start_timeout",
            "switchover_timeout",
            "synchronous_mode",
            "synchronous_node_count",
            "postgresql",
        ],
        // Patroni's other keys are in `rules`.
        idle: &[],
        refused: &[],
    },
    Keys { section: RULES_POSTGRESQL, used: &["parameters", "pg_hba"], idle: &[], refused: &[] },
    Keys {
        section: "log",
        used: &["level", "format"],
        idle: &[
            "type",
            "dir",
            "file_size",
            "file_num",
            "mode",
            "loggers",
            "traceback_level",
            "dateformat",
            "max_queue_size",
            "static_fields",
            "deduplicate_heartbeat_logs",
        ],
        refused: &[],
    },
    Keys {
        section: "archive",
        used: &[
            "store",
            "endpoint",
            "region",
            "path_style",
            "create_bucket",
            "access_key_id",
            "access_key_id_file",
            "secret_access_key",
            "secret_access_key_file",
            "session_token",
            "session_token_file",
            "credentials_file",
            "profile",
            "ca_file",
            "server",
            "compression",
            "compression_level",
            "fetch_ahead",
            "parallelism",
            "schedule",
            "drill",
            "drill_directory",
            "backup_rate",
            "request_timeout",
            "stream_interval",
            "retention",
        ],
        idle: &[],
        refused: &[],
    },
    Keys { section: "archive.retention", used: &["window", "minimum", "count"], idle: &[], refused: &[] },
    Keys {
        section: "supervisor",
        used: &["socket", "start", "handover_timeout", "grace_period"],
        idle: &[],
        refused: &[],
    },
];

/// Reports every key that is not read.
pub(super) fn check(document: &Map<String, Value>, findings: &mut Findings) {
    // The rules are checked as a whole, like those in the DCS.
    for keys in SECTIONS.iter().filter(|keys| !keys.section.starts_with(RULES)) {
        if let Some(section) = section(document, keys.section) {
            section.keys().for_each(|key| check_key(keys, key, findings));
        }
    }
}

fn check_key(keys: &Keys, key: &str, findings: &mut Findings) {
    let name = if keys.section.is_empty() { key.to_owned() } else { format!("{}.{key}", keys.section) };
    if keys.used.contains(&key) {
        return;
    }
    if keys.idle.contains(&key) {
        findings.warnings.push(format!("{name} has no effect here"));
    } else if name == "etcd" {
        findings.missing(
            name,
            "means etcd's API v2, which current versions of etcd do not have: rename it to etcd3",
        );
    } else if keys.refused.contains(&key) {
        findings.missing(name, "is not supported here, and must not be ignored; remove it");
    } else {
        findings.missing(name, unknown(keys, key));
    }
}

/// What is wrong with a key of a section; `None` when it is read.
pub(super) fn unknown_in(section: &str, key: &str) -> Option<String> {
    let keys = SECTIONS.iter().find(|keys| keys.section == section)?;
    (!keys.used.contains(&key)).then(|| unknown(keys, key))
}

/// The name that was probably meant.
pub(super) fn nearest<'name>(name: &str, known: impl Iterator<Item = &'name str>) -> Option<&'name str> {
    let near = known.map(|known| (distance(name, known), known)).min()?;
    (near.0 <= 2.max(name.len() / 4)).then_some(near.1)
}

/// The known name closest to this one: misspelt, or written another way (`no-failover`).
pub(super) fn misspelt<'name>(name: &str, known: impl Iterator<Item = &'name str>) -> Option<&'name str> {
    let letters = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let own = letters(name);
    let mut known = known.filter(|known| *known != name);
    let near = |known: &&str| distance(&own, &letters(known)) <= own.len() / 5;
    known.find(near)
}

/// Says where the key belongs, or what was probably meant.
fn unknown(keys: &Keys, key: &str) -> String {
    let elsewhere = SECTIONS.iter().find(|other| other.section != keys.section && other.used.contains(&key));
    let near = keys
        .used
        .iter()
        .chain(keys.idle)
        .map(|known| (distance(key, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().max(key.len()) / 2);
    match (near, elsewhere) {
        (Some((distance, known)), _) if distance <= 2 => format!("is not a known key; did you mean {known}?"),
        (_, Some(other)) if other.section.is_empty() => {
            "is not a known key here; it belongs at the top".to_owned()
        }
        (_, Some(other)) => format!("is not a known key here; it belongs under {}", other.section),
        (Some((_, known)), None) => format!("is not a known key; did you mean {known}?"),
        (None, None) => format!("is not a known key; known here are {}", keys.used.join(", ")),
    }
}

fn section<'document>(
    document: &'document Map<String, Value>,
    path: &str,
) -> Option<&'document Map<String, Value>> {
    path.split('.').filter(|part| !part.is_empty()).try_fold(document, |map, part| map.get(part)?.as_object())
}

/// Levenshtein distance: how many characters must be inserted, removed or replaced.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
