//! The configuration in effect, with defaults filled in and secrets hidden, for people.

use outrider_archive::Compression;
use outrider_postgres::User;
use serde_json::{Map, Value, json};

use super::{Archive, Config};

const HIDDEN: &str = "[secret]";

/// As a document with the keys of the file.
pub(crate) fn effective(config: &Config) -> Value {
    let rest = &config.rest;
    let supervisor = &config.supervisor;
    let mut document = json!({
        "scope": config.scope,
        "namespace": config.namespace,
        "name": config.name,
        "state_dir": config.postgres.state_directory,
        "log": {"level": config.log.level.to_string(), "format": format!("{:?}", config.log.format).to_lowercase()},
        "etcd3": {
            "hosts": config.etcd.endpoints,
            "username": config.etcd.credentials.as_ref().map(|credentials| credentials.username.as_str()),
            "cacert": config.etcd.tls.as_ref().map(|tls| tls.ca.as_path()),
        },
        "restapi": {
            "listen": rest.listen.to_string(),
            "connect_address": rest.connect_address,
            "authentication": rest.username.as_ref().map(|name| json!({"username": name, "password": HIDDEN})),
            "allow_unauthenticated": rest.allow_unauthenticated,
        },
        "postgresql": postgresql(config),
        "bootstrap": bootstrap(config),
        "tags": config.tags,
        "supervisor": {
            "socket": supervisor.socket,
            "start": supervisor.start,
            "handover_timeout": supervisor.handover_timeout.as_secs_f64(),
            "grace_period": supervisor.grace_period.as_secs_f64(),
        },
    });
    if let (Some(archive), Value::Object(document)) = (&config.archive, &mut document) {
        document.insert("archive".to_owned(), shipping(archive));
    }
    without_nulls(document)
}

fn bootstrap(config: &Config) -> Value {
    let mut document = super::origin::shown(&config.origin);
    document["dcs"] = config.bootstrap_dcs.clone();
    document["initdb"] = json!(config.postgres.initdb);
    document
}

fn postgresql(config: &Config) -> Value {
    let settings = &config.postgres;
    json!({
        "listen": format!("{}:{}", settings.listen_addresses, settings.port),
        "connect_address": config.connect_address,
        "data_dir": settings.data_directory,
        "bin_dir": settings.bin_directory,
        "authentication": {
            "superuser": user(&settings.superuser),
            "replication": user(&settings.replication),
            "rewind": user(&settings.rewind),
        },
        "create_replica_methods": config.replica_methods.iter().map(|method| method.name()).collect::<Vec<_>>(),
        "parameters": settings.parameters,
        "pg_hba": settings.pg_hba,
    })
}

fn user(user: &User) -> Value {
    let mut document = json!({"username": user.name, "password": HIDDEN});
    for (key, value) in user.tls.given() {
        document[key] = json!(value);
    }
    document
}

fn shipping(archive: &Archive) -> Value {
    let (compression, level) = match archive.compression {
        Compression::None => ("none", None),
        Compression::Gzip { level } => ("gzip", Some(level)),
        Compression::Zstd { level } => ("zstd", Some(level)),
    };
    let mut document = json!({
        "store": archive.location.to_string(),
        "compression": compression,
        "compression_level": level,
        "parallelism": archive.parallelism,
        "stream_interval": archive.stream_interval.unwrap_or_default().as_secs_f64(),
        "schedule": archive.schedule.as_ref().map_or_else(|| "never".to_owned(), ToString::to_string),
        "drill": archive.drill.as_ref().map_or_else(|| "never".to_owned(), ToString::to_string),
        "drill_directory": archive.drill_directory,
        "backup_rate": archive.backup_rate,
        "fetch_ahead": archive.fetch_ahead,
        "retention": super::retention::shown(&archive.retention),
    });
    if let (Some(s3), Value::Object(document)) = (&archive.s3, &mut document) {
        document.insert("endpoint".to_owned(), json!(s3.endpoint));
        document.insert("region".to_owned(), json!(s3.region));
        document.insert("path_style".to_owned(), json!(s3.path_style));
        document.insert("create_bucket".to_owned(), json!(s3.create_bucket));
        document.insert("access_key_id".to_owned(), json!(HIDDEN));
        document.insert("secret_access_key".to_owned(), json!(HIDDEN));
        if s3.session_token.is_some() {
            document.insert("session_token".to_owned(), json!(HIDDEN));
        }
        if let Some((path, profile)) = &s3.credential_files.shared {
            document.insert("credentials_file".to_owned(), json!(path));
            document.insert("profile".to_owned(), json!(profile));
        }
        document.insert("ca_file".to_owned(), json!(s3.ca_file));
    }
    document
}

/// Unset keys are left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept: Map<String, Value> = map
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect();
            Value::Object(kept)
        }
        other => other,
    }
}
