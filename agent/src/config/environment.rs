//! Environment variables for keys of the file: `OUTRIDER_...`, and Patroni's `PATRONI_...`. They override the file.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The variables without their prefix, with the key each one sets.
const VARIABLES: &[(&str, &str)] = &[
    ("SCOPE", "scope"),
    ("NAMESPACE", "namespace"),
    ("NAME", "name"),
    ("STATE_DIR", "state_dir"),
    ("LOG_LEVEL", "log.level"),
    ("LOG_FORMAT", "log.format"),
    ("RESTAPI_LISTEN", "restapi.listen"),
    ("RESTAPI_CONNECT_ADDRESS", "restapi.connect_address"),
    ("RESTAPI_USERNAME", "restapi.authentication.username"),
    ("RESTAPI_PASSWORD", "restapi.authentication.password"),
    ("POSTGRESQL_LISTEN", "postgresql.listen"),
    ("POSTGRESQL_CONNECT_ADDRESS", "postgresql.connect_address"),
    ("POSTGRESQL_DATA_DIR", "postgresql.data_dir"),
    ("POSTGRESQL_BIN_DIR", "postgresql.bin_dir"),
    ("SUPERUSER_USERNAME", "postgresql.authentication.superuser.username"),
    ("SUPERUSER_PASSWORD", "postgresql.authentication.superuser.password"),
    ("REPLICATION_USERNAME", "postgresql.authentication.replication.username"),
    ("REPLICATION_PASSWORD", "postgresql.authentication.replication.password"),
    ("REWIND_USERNAME", "postgresql.authentication.rewind.username"),
    ("REWIND_PASSWORD", "postgresql.authentication.rewind.password"),
    ("ETCD3_HOST", "etcd3.host"),
    ("ETCD3_HOSTS", "etcd3.hosts"),
    ("ETCD3_PROTOCOL", "etcd3.protocol"),
    ("ETCD3_USERNAME", "etcd3.username"),
    ("ETCD3_PASSWORD", "etcd3.password"),
    ("ETCD3_CACERT", "etcd3.cacert"),
    ("ETCD3_CERT", "etcd3.cert"),
    ("ETCD3_KEY", "etcd3.key"),
    ("ARCHIVE_STORE", "archive.store"),
    ("ARCHIVE_SERVER", "archive.server"),
    ("ARCHIVE_ENDPOINT", "archive.endpoint"),
    ("ARCHIVE_REGION", "archive.region"),
    ("ARCHIVE_PATH_STYLE", "archive.path_style"),
    ("ARCHIVE_CREATE_BUCKET", "archive.create_bucket"),
    ("ARCHIVE_ACCESS_KEY_ID", "archive.access_key_id"),
    ("ARCHIVE_SECRET_ACCESS_KEY", "archive.secret_access_key"),
    ("ARCHIVE_SESSION_TOKEN", "archive.session_token"),
    ("ARCHIVE_CREDENTIALS_FILE", "archive.credentials_file"),
    ("ARCHIVE_PROFILE", "archive.profile"),
    ("ARCHIVE_CA_FILE", "archive.ca_file"),
    ("SUPERVISOR_SOCKET", "supervisor.socket"),
];
/// The users of Postgres; for each, the keys that protect its connections have variables of the same name in capitals.
const USERS: [&str; 3] = ["superuser", "replication", "rewind"];
const PROTECTION: [&str; 9] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
];
/// The later one wins where both are set.
const PREFIXES: [&str; 2] = ["PATRONI_", "OUTRIDER_"];

/// The environment of the process, or a made-up one in a test.
pub(crate) type Environment = BTreeMap<String, String>;

fn variables() -> impl Iterator<Item = (String, String)> {
    let protection = USERS.iter().flat_map(|user| PROTECTION.iter().map(move |key| (user, key)));
    let protection = protection.map(|(user, key)| {
        let variable = format!("{user}_{key}").to_ascii_uppercase();
        (variable, format!("postgresql.authentication.{user}.{key}"))
    });
    let single = VARIABLES.iter().map(|(variable, key)| ((*variable).to_owned(), (*key).to_owned()));
    single.chain(protection)
}

/// Applies the environment to the document. A secret `X` may also be given as `X_FILE`.
pub(super) fn apply(environment: &Environment, document: &mut Map<String, Value>) {
    for prefix in PREFIXES {
        for (variable, key) in variables() {
            let name = format!("{prefix}{variable}");
            if let Some(text) = given(environment, &name) {
                put(document, &key, text);
                remove(document, &format!("{key}_file"));
            } else if let Some(path) = given(environment, &format!("{name}_FILE"))
                && is_secret(&key)
            {
                put(document, &format!("{key}_file"), path);
                remove(document, &key);
            }
        }
    }
    apply_amazon(environment, document);
}

/// Sets the keys of an S3 archive from Amazon's variables, where nothing else sets them.
fn apply_amazon(environment: &Environment, document: &mut Map<String, Value>) {
    let Some(Value::Object(archive)) = document.get("archive") else { return };
    let is_s3 = archive.get("store").and_then(Value::as_str).is_some_and(|store| store.starts_with("s3://"));
    let said = ["access_key_id", "access_key_id_file", "credentials_file"]
        .iter()
        .any(|key| archive.contains_key(*key));
    if !is_s3 || said {
        return;
    }
    let names = |of: &[(&str, &str)], document: &mut Map<String, Value>| {
        for (name, key) in of {
            if let Some(text) = given(environment, name) {
                put(document, key, text);
            }
        }
    };
    if given(environment, "AWS_ACCESS_KEY_ID").is_some() {
        let keys = [
            ("AWS_ACCESS_KEY_ID", "archive.access_key_id"),
            ("AWS_SECRET_ACCESS_KEY", "archive.secret_access_key"),
            ("AWS_SESSION_TOKEN", "archive.session_token"),
        ];
        names(&keys, document);
    } else if given(environment, "AWS_SHARED_CREDENTIALS_FILE").is_some() {
        let keys =
            [("AWS_SHARED_CREDENTIALS_FILE", "archive.credentials_file"), ("AWS_PROFILE", "archive.profile")];
        names(&keys, document);
    }
}

/// Whether the value of this key must not be shown.
pub(super) fn is_secret(key: &str) -> bool {
    ["password", "access_key_id", "secret_access_key", "session_token"].iter().any(|end| key.ends_with(end))
}

fn given<'environment>(environment: &'environment Environment, name: &str) -> Option<&'environment str> {
    environment.get(name).map(String::as_str).filter(|text| !text.is_empty())
}

fn put(document: &mut Map<String, Value>, key: &str, text: &str) {
    match key.split_once('.') {
        None => {
            document.insert(key.to_owned(), Value::from(text));
        }
        Some((section, rest)) => {
            let section = document.entry(section).or_insert_with(|| Value::Object(Map::new()));
            // An empty section is `null` in YAML; any other value that is not a section is reported later.
            if section.is_null() {
                *section = Value::Object(Map::new());
            }
            if let Value::Object(section) = section {
                put(section, rest, text);
            }
        }
    }
}

fn remove(document: &mut Map<String, Value>, key: &str) {
    match key.split_once('.') {
        None => {
            document.shift_remove(key);
        }
        Some((section, rest)) => {
            if let Some(Value::Object(section)) = document.get_mut(section) {
                remove(section, rest);
            }
        }
    }
}
