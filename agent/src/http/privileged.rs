//! Rules of the cluster that could make a member run somebody else's code: they load code, run commands, name files and
//! directories, or say who may log in. Changing them requires a password.

use serde_json::Value;

/// How such names end, Patroni's keys and PostgreSQL's parameters alike.
const ENDS: [&str; 16] = [
    "command",
    "_library",
    "_libraries",
    "_directory",
    "_directories",
    "_file",
    "_files",
    "keyfile",
    "_dir",
    "_path",
    "_filename",
    "_provider",
    "_init",
    "_proc",
    "pg_hba",
    "pg_ident",
];
/// Such names that no ending tells.
const NAMES: [&str; 15] = [
    "before_stop",
    "callbacks",
    "create_replica_methods",
    "custom_conf",
    "include",
    "include_if_exists",
    "pgpass",
    "plugin",
    "pre_promote",
    "primary_conninfo",
    "recovery_conf",
    "standby_cluster",
    "store",
    "unix_socket_group",
    "unix_socket_permissions",
];
/// Extensions whose parameters are only numbers, switches and word lists.
const HARMLESS: [&str; 5] = ["auto_explain", "pg_prewarm", "pg_stat_statements", "pgaudit", "plpgsql"];

/// Where `wanted` differs from `seen` in such rules, as `postgresql.parameters.archive_command`.
pub(super) fn changes(seen: &Value, wanted: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", seen, wanted, &mut found);
    found
}

fn compare(above: &str, seen: &Value, wanted: &Value, found: &mut Vec<String>) {
    if seen == wanted {
        return;
    }
    let keys = |value: &Value| {
        value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    let mut all = keys(seen);
    all.extend(keys(wanted));
    all.sort();
    all.dedup();
    for key in all {
        let of = |value: &Value| value.get(&key).cloned().unwrap_or(Value::Null);
        let (seen, wanted) = (of(seen), of(wanted));
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        if seen != wanted && is_privileged(&key) {
            found.push(path);
        } else {
            compare(&path, &seen, &wanted, found);
        }
    }
}

fn is_privileged(key: &str) -> bool {
    // PostgreSQL ignores case.
    let key = key.trim().to_lowercase();
    let named = NAMES.contains(&key.as_str()) || ENDS.iter().any(|end| key.ends_with(end));
    // Only an extension knows what it does with its parameters.
    let of_extension = key.split_once('.').is_some_and(|(extension, _)| !HARMLESS.contains(&extension));
    named || of_extension
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_loads_code_runs_commands_or_names_files_is_known_by_its_name() {
        for key in [
            "session_preload_libraries",
            "local_preload_libraries",
            "shared_preload_libraries",
            "Session_Preload_Libraries",
            "archive_library",
            "oauth_validator_libraries",
            "jit_provider",
            "dynamic_library_path",
            "extension_control_path",
            "archive_command",
            "restore_command",
            "archive_cleanup_command",
            "recovery_end_command",
            "ssl_passphrase_command",
            "basebackup_to_shell.command",
            "log_directory",
            "log_filename",
            "unix_socket_directories",
            "hba_file",
            "ident_file",
            "config_file",
            "external_pid_file",
            "ssl_key_file",
            "ssl_crl_dir",
            "ssl_dh_params_file",
            "krb_server_keyfile",
            "plperl.on_init",
            "plperl.on_plperlu_init",
            "pltcl.start_proc",
            "pljava.libjvm_location",
            "plv8.start_proc",
            "pg_hba",
            "pg_ident",
            "callbacks",
            "standby_cluster",
        ] {
            assert!(is_privileged(key), "{key}");
        }
        for key in
            ["ttl", "work_mem", "max_connections", "synchronous_mode", "pg_stat_statements.max", "slots"]
        {
            assert!(!is_privileged(key), "{key}");
        }
    }

    #[test]
    fn only_what_changes_counts_wherever_it_stands() {
        let seen = json!({"ttl": 5, "postgresql": {"parameters": {"archive_command": "x", "jit": true}, "pg_hba": ["a"]}});
        let mut wanted = seen.clone();
        wanted["ttl"] = json!(9);
        wanted["postgresql"]["parameters"]["jit"] = json!(false);
        assert_eq!(changes(&seen, &wanted), Vec::<String>::new());
        wanted["postgresql"]["parameters"]["archive_command"] = json!("y");
        wanted["postgresql"].as_object_mut().unwrap().remove("pg_hba");
        wanted["deep"] = json!({"er": {"log_directory": "/"}});
        let found = ["deep.er.log_directory", "postgresql.parameters.archive_command", "postgresql.pg_hba"];
        assert_eq!(changes(&seen, &wanted), found);
        assert_eq!(changes(&Value::Null, &json!({"postgresql": {"pg_hba": []}})), ["postgresql.pg_hba"]);
    }
}
